"""What hivemind says goes through our log: errors as one line without a traceback, the rest for debugging."""

import logging

logger = logging.getLogger(__name__)


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = logging.WARNING if record.levelno >= logging.ERROR else logging.DEBUG
        logger.log(level, "hivemind: %s", record.getMessage())


def quiet_hivemind() -> None:
    """Take hivemind's own handler, which writes to the terminal, out of its logger. Idempotent."""
    theirs = logging.getLogger("hivemind")
    if not any(isinstance(handler, _OneLine) for handler in theirs.handlers):
        theirs.handlers[:] = [_OneLine()]
        theirs.propagate = False
