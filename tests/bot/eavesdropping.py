"""Everything that is logged at the lowest level, by whatever logger, as a bot's own logs would have it."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from bot.config.models import OpsSettings
from bot.observing.logs import LEAST_LEVELS, set_up_logs

WORDS = "xylograph of quartz"
"""What people say in these tests, and nobody else."""
PARTS = ("xylograph", "quartz")


class Overheard:
    """What was logged while it was listened to."""

    def __init__(self) -> None:
        self.written = io.StringIO()
        self.raw = io.StringIO()

    @property
    def num_lines(self) -> int:
        return len(self.written.getvalue().splitlines())

    def lines_with_words(self) -> list[str]:
        """Lines that have something of what people said."""
        lines = (self.written.getvalue() + self.raw.getvalue()).splitlines()
        return [line for line in lines if any(part in line.lower() for part in PARTS)]


@contextmanager
def eavesdropping() -> Iterator[Overheard]:
    """Set the logs up as a bot does, at DEBUG, and keep all that is logged, of silent loggers too."""
    overheard = Overheard()
    before = {name: logging.getLogger(name).level for name in (*LEAST_LEVELS, "")}
    raw = logging.StreamHandler(overheard.raw)
    raw.setFormatter(logging.Formatter("%(name)s %(message)s %(args)r"))
    ours = set_up_logs(OpsSettings(log_level="DEBUG", log_format="json"), overheard.written)
    loggers = [logging.getLogger(), *_silent_loggers()]
    for logger in loggers:
        logger.addHandler(raw)
    try:
        yield overheard
    finally:
        for logger in loggers:
            logger.removeHandler(raw)
        logging.getLogger().removeHandler(ours)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _silent_loggers() -> list[logging.Logger]:
    """Those whose lines the root does not get."""
    known = logging.getLogger().manager.loggerDict.values()
    return [each for each in known if isinstance(each, logging.Logger) and not each.propagate]
