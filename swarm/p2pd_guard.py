"""Becomes p2pd, after arranging what only a child can arrange. Run by its path; imports nothing of ours.

usage: p2pd_guard.py PARENT_PID MAX_FILES P2PD ARGUMENTS...

- p2pd ends with its parent, however the parent ends (Linux). Left alone it notices only after a moment, and
  before its first client connects only after 30 s.
- Ctrl-C in a terminal reaches the whole process group: p2pd leaves it, or it would be gone before its parent
  has said goodbye.
- Open files are limited: every stream of every peer takes one.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, max_files, *command = sys.argv[1:]
    os.setpgid(0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = int(max_files) if hard == resource.RLIM_INFINITY else min(int(max_files), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(parent):  # else it ended before we could ask for the signal
        os.execv(command[0], command)


main()
