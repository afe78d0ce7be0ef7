"""Disks that are really full, without root: small ones that only the processes under a command see."""

import subprocess
from pathlib import Path


def with_small_disks(folder: Path) -> tuple[str, ...]:
    """A command under which every folder in `folder` is a disk of 64 KiB, and one named `full` has no room.

    Nobody else sees these disks, and they are gone with the last process. () where that is not allowed:
    it takes Linux and user namespaces.
    """
    script = """
        for disk in "$0"/*; do mount -t tmpfs -o size=64k none "$disk" || exit; done
        head -c 64K /dev/zero >"$0/full/filler" && exec "$@"
    """
    command = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, str(folder))
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return command
