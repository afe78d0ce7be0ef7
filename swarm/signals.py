"""Ctrl-C and `kill` while no loop runs: before it nothing is open yet, after it all is closed.

Imports nothing that takes time, so that a command can ask for it first of all.
"""

import os
import signal
from types import FrameType


def leave_on_signals(code: int) -> None:
    """From now on SIGINT and SIGTERM end the process at once with `code`: no traceback, no clean-up."""

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(code)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
