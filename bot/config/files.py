"""Small files, read once and with bounds: the configuration and secrets."""

import os
import stat
from pathlib import Path

_CHUNK_BYTES = 65_536


class NoFile(Exception):
    """There is something of that name, and it is no file: a folder, a pipe, a device."""


def read_small(path: Path, most_bytes: int) -> tuple[bytes, os.stat_result]:
    """What a file holds, or its first `most_bytes` + 1 bytes, and whose it is. Raises OSError, NoFile."""
    # Without O_NONBLOCK a pipe would keep us waiting for somebody who writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NoFile(str(path))
        raw = b""
        while len(raw) <= most_bytes and (chunk := os.read(descriptor, _CHUNK_BYTES)):
            raw += chunk
    finally:
        os.close(descriptor)
    return raw[: most_bytes + 1], status


def is_open_to_others(status: os.stat_result) -> bool:
    """Whether people beside the owner can read or change a file; the group may read one of another owner's.

    So it is with a file of root's that is handed to the bot's group.
    """
    group = stat.S_IRWXG if status.st_uid == os.geteuid() else stat.S_IWGRP
    return bool(status.st_mode & (group | stat.S_IRWXO))
