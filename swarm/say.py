"""What a command tells a person, on standard error; its results go to standard output."""

import os
import sys


def say(sentence: str) -> None:
    """Write a line to standard error. That nobody can have it, a full disk for example, ends nothing."""
    try:
        sys.stderr.write(f"{sentence}\n")
        sys.stderr.flush()
    except OSError:  # what stays in the buffer must not fail again later, in the middle of something else
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
