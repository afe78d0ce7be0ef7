"""Log lines as text or as JSON: with the turn that they are about, without secrets.

What people write is in none of them. Ours never log it; libraries that do below some level are kept above it.
"""

import json
import logging
import re
from collections.abc import Iterable
from typing import Any, TextIO

import structlog

from bot.config.models import OpsSettings, Settings

MASK = "********"
LEAST_SECRET_LETTERS = 4
"""What is shorter is in every other word."""
LEAST_LEVELS = {
    "discord": logging.INFO,  # all that the gateway tells, bodies of requests
    "nio": logging.WARNING,
    "nio.events.misc": logging.CRITICAL,  # events that are not what it expects
    "nio.responses": logging.CRITICAL,
    "peewee": logging.INFO,  # statements of nio's store, with their values
    "sqlalchemy": logging.WARNING,  # rows
    "alembic": logging.WARNING,  # nothing of people, but two lines at every start
    "aiohttp": logging.INFO,
    "markdown_it": logging.INFO,
    "asyncio": logging.INFO,  # in debug mode, calls with their arguments
}
"""Below these levels libraries log what people write."""
_TOKENS = re.compile(r"(Bearer |Bot |access_token[\"']?[=:] ?[\"']?)[\w.~+/=-]{8,}")


class LogFormatter(structlog.stdlib.ProcessorFormatter):
    """structlog's, and the secrets are masked in what comes out."""

    def __init__(self, secrets: Iterable[str], **given: Any) -> None:
        super().__init__(**given)
        known = {secret for secret in secrets if len(secret) >= LEAST_SECRET_LETTERS}
        escaped = {json.dumps(secret)[1:-1] for secret in known}
        self._secrets = sorted(known | escaped, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """The line, or the lines."""
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _TOKENS.sub(rf"\1{MASK}", text)


def set_up_logs(ops: OpsSettings, stream: TextIO, secrets: Iterable[str] = ()) -> logging.Handler:
    """Have all loggers write to `stream`, as `ops` says."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(ops.log_level)
    handler.setFormatter(
        LogFormatter(
            secrets,
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(ops)],
        )
    )
    logging.getLogger().setLevel(ops.log_level)
    logging.getLogger().addHandler(handler)
    wanted = logging.getLogger().level
    for name, least in LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(max(least, wanted))
    return handler


def secrets_of(settings: Settings) -> list[str]:
    """What must be in no line."""
    found = (settings.discord.token, settings.matrix.password, settings.matrix.store_secret)
    return [secret.get_secret_value() for secret in found if secret.get_secret_value()]


def _renderers(ops: OpsSettings) -> list[Any]:
    if ops.log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    # Other formatters of tracebacks show local variables, and with them what people write.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, exception_formatter=plain)]
