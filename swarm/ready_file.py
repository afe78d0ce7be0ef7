"""`--ready-file`: written once a node can be used, so that scripts need not guess."""

import json
from pathlib import Path

from swarm.errors import ConfigError
from swarm.whole_file import replace_file


def check_ready_file(path: Path | None) -> None:
    """Raise ConfigError if it cannot be written: better now than when all is loaded."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the ready file {path} cannot be written: there is no such folder")
    if path.exists() and not path.is_file():  # a folder; or a device, which root could replace
        raise ConfigError(f"the ready file {path} cannot be written: there is something else of that name")


def write_ready_file(path: Path, **content: object) -> None:
    """Write one JSON object, at once or not at all: whoever waits for the file may read it at once."""
    try:
        replace_file(path, f"{json.dumps(content)}\n".encode())
    except OSError as error:
        raise ConfigError(f"the ready file {path} cannot be written: {error.strerror}") from error
