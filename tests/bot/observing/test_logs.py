"""Log lines: their form, what is masked, and that nothing of what people write is in any of them."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr
from structlog.contextvars import bound_contextvars

from bot.config.models import OpsSettings, Settings
from bot.config.platforms import DiscordSettings, MatrixSettings
from bot.observing.logs import LEAST_LEVELS, secrets_of, set_up_logs

Log = Callable[..., io.StringIO]
logger = logging.getLogger("bot.somewhere")


@pytest.fixture
def log() -> Iterator[Log]:
    """Sets the logs up as a bot does, and takes that back in the end."""
    levels = {name: logging.getLogger(name).level for name in (*LEAST_LEVELS, "")}
    handlers = []

    def set_up(*secrets: str, **ops: str) -> io.StringIO:
        stream = io.StringIO()
        handlers.append(set_up_logs(OpsSettings.model_validate(ops), stream, secrets))
        return stream

    yield set_up
    for handler in handlers:
        logging.getLogger().removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def records(stream: io.StringIO) -> list[dict[str, object]]:
    """Lines of JSON."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_of_text_has_time_level_logger_and_sentence(log: Log) -> None:
    stream = log()
    logger.warning("turn %s: %s", "t1", "gone")
    (line,) = stream.getvalue().splitlines()
    assert line[:2] == "20"
    for part in ("warning", "turn t1: gone", "bot.somewhere"):
        assert part in line
    assert "\x1b" not in line


def test_a_line_of_json_is_one_object_with_what_is_bound(log: Log) -> None:
    stream = log(log_format="json")
    with bound_contextvars(turn="t1", platform="matrix", conversation=7):
        logger.info("it runs")
    logger.info("over")
    first, second = records(stream)
    assert first["event"] == "it runs"
    assert (first["level"], first["logger"]) == ("info", "bot.somewhere")
    assert (first["turn"], first["platform"], first["conversation"]) == ("t1", "matrix", 7)
    assert str(first["timestamp"]).endswith("Z")
    assert "turn" not in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_local_variables_are_in_no_traceback(log: Log, log_format: str) -> None:
    stream = log(log_format=log_format)
    words = "what somebody " + "said"
    try:
        fail(words)
    except ValueError:
        logger.exception("turn t1 failed")
    text = stream.getvalue()
    assert "ValueError: no number" in text
    assert "in fail" in text
    assert words not in text
    assert len(text.splitlines()) == 1 or log_format == "text"


def fail(words: str) -> None:
    if words:
        raise ValueError("no number")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_behaviour_30_secrets_are_masked_wherever_they_are(log: Log, log_format: str) -> None:
    secret = 'a "quoted" secret \\ of the operator'
    stream = log(secret, "MTA1.token", log_format=log_format)
    logger.warning("the password is %s", secret)
    try:
        raise ValueError("MTA1.token is wrong")
    except ValueError:
        logger.exception("no login")
    logging.getLogger("aiohttp.client").warning("GET /sync?access_token=syt_abcdefgh_ijk Bearer syt_abcdefgh")
    text = stream.getvalue()
    assert "quoted" not in text
    assert "MTA1" not in text
    assert "syt_" not in text
    assert text.count("********") == 5  # the line of source in the traceback has one too


def test_the_secrets_of_the_settings_are_known() -> None:
    settings = Settings(
        discord=DiscordSettings(token=SecretStr("one")),
        matrix=MatrixSettings(password=SecretStr("two"), store_secret=SecretStr("three")),
    )
    assert secrets_of(settings) == ["one", "two", "three"]
    assert secrets_of(Settings()) == []


def test_a_secret_of_a_few_letters_garbles_no_line(log: Log) -> None:
    stream = log("t")
    logger.warning("that is it")
    assert "that is it" in stream.getvalue()


def test_the_level_holds_for_libraries_too(log: Log) -> None:
    stream = log(log_level="WARNING")
    logging.getLogger("discord").setLevel(logging.INFO)  # as those who open the platform do
    for name in ("bot.somewhere", "discord.gateway", "nio.client", "sqlalchemy.pool"):
        logging.getLogger(name).info("%s informs", name)
        logging.getLogger(name).error("%s fails", name)
    text = stream.getvalue()
    assert "informs" not in text
    assert text.count("fails") == 4


def test_libraries_that_log_what_people_write_are_kept_above_that(log: Log) -> None:
    stream = log(log_level="DEBUG")
    logger.debug("ours")
    for name, level in LEAST_LEVELS.items():
        logging.getLogger(name).log(level - 1, "words of a person")
        assert not logging.getLogger(name).isEnabledFor(level - 1)
    assert "ours" in stream.getvalue()
    assert "words" not in stream.getvalue()
