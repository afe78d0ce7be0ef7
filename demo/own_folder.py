"""A folder for all that the demo's processes put into temporary folders: it goes with them, however they end.

Its lock is held until the last process that was forked since has ended; see swarm/passing_folder.py.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from swarm.errors import ConfigError
from swarm.passing_folder import make_locked, sweep

PREFIX = "murmur-demo-"
MAX_LETTERS = 60  # in a folder with a longer path swarm/transport.py makes no sockets
REMOVE_S = 2.0  # processes that are ending may put something in while it is emptied
REMOVE_AGAIN_S = 0.02


class OwnFolder:
    """The folder of this demo, once it is made."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def make(self) -> Path:
        """Make it for this process and those that it will start. Raises ConfigError if that fails."""
        parent = find_parent(Path(tempfile.gettempdir()))
        sweep(parent, PREFIX)
        try:
            self.path, _ = make_locked(parent, PREFIX)
        except OSError as error:
            raise ConfigError(f"no folder can be made in {parent}: {error.strerror}") from error
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.path)
        return self.path

    def remove(self) -> None:
        """Remove it if it is made. What cannot be removed stays, without a word."""
        if self.path is not None:
            _remove(self.path)


def find_parent(preferred: Path) -> Path:
    """`preferred`, or /tmp if its path is not fit for sockets: too long, or not in ASCII letters."""
    longest = str(preferred / f"{PREFIX}12345678")
    return preferred if longest.isascii() and len(longest) <= MAX_LETTERS else Path("/tmp")


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + REMOVE_S
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(REMOVE_AGAIN_S)
        shutil.rmtree(folder, ignore_errors=True)
