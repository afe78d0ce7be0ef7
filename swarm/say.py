"""What a command tells a person, on standard error; its results go to standard output."""

import os
import shutil
import sys

REST_OF_LINE = "\x1b[K"


class _Line:
    """The terminal's last line."""

    is_shown = False
    """Whether `show` wrote it: then it may be taken away."""


def say(sentence: str) -> None:
    """Write a line to standard error. That nobody can have it, a full disk for example, ends nothing."""
    clear()
    _write(f"{sentence}\n")


def show(state: str) -> None:
    """On a terminal, write what the next sentence or state takes the place of."""
    clear()
    _Line.is_shown = True
    _write(state[: shutil.get_terminal_size().columns - 1])


def clear() -> None:
    """Take away what `show` wrote last, if it is still there."""
    if _Line.is_shown:
        _Line.is_shown = False
        _write(f"\r{REST_OF_LINE}")


def is_terminal() -> bool:
    """Whether a person sees standard error at once, and lines can be written over."""
    try:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:  # what stays in the buffer must not fail again later, in the middle of something else
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
