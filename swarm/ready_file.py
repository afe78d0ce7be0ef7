"""`--ready-file`: written once a node can be used, so that scripts need not guess."""

import json
import os
import tempfile
from pathlib import Path

from swarm.errors import ConfigError


def write_ready_file(path: Path, **content: object) -> None:
    """Write one JSON object, at once or not at all: whoever waits for the file may read it at once."""
    try:
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(f"the ready file {path} cannot be written: {error.strerror}") from error
