"""The demo's room: the core with a terminal for its platform, and a model that says what it is told."""

import io
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from bot.clock import RealClock
from bot.core import open_core, open_desk
from bot.on_terminal import PLATFORM
from bot.words import MAX_TEXT_LETTERS
from demo.room import RULES, News, Room
from storage.database import open_database
from swarm.errors import ContextTooLong
from tests.bot.platform import FakeBrain

Talk = Callable[..., Coroutine[Any, Any, FakeBrain]]


class NoNews:
    """Nothing happens in the swarm."""

    def sum_up(self) -> None:
        """There is nothing to say."""

    def tell_servers(self) -> None:
        sys.stderr.write("[three servers]\n")


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Talk:
    """Says lines to a room, and returns its model."""

    async def say(*lines: str, errors: list[Exception] | None = None) -> FakeBrain:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        brain, room = FakeBrain(RealClock(), token_s=0.0), Room()
        brain.errors = errors or []
        async with open_database(tmp_path / "murmur.db") as store:
            desk = open_desk(store, RealClock(), b"k" * 32, RULES)
            ports = {PLATFORM: room.terminal}
            async with open_core(desk, brain, ports, boot="test", rules=RULES) as core:
                await room.run(core, cast("News", NoNews()))
        return brain

    return say


async def test_answers_are_on_standard_output_one_a_line_and_go_on_from_each_other(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (await talk("one", "two")).requests
    assert capsys.readouterr().out == "You said: one\nYou said: two\n"
    held = [*first.ids, *map(ord, "You said: one")]
    assert list(second.ids[: len(held)]) == held


async def test_a_retry_asks_the_same_again_with_some_chance_in_it(talk: Talk) -> None:
    requests = (await talk("one", "two", "/retry", "/retry 1.2", "three")).requests
    assert list(requests[1].ids) == list(requests[2].ids) == list(requests[3].ids)
    assert [request.params.temperature for request in requests] == [0.0, 0.0, 0.7, 1.2, 0.0]


async def test_a_new_conversation_knows_nothing_and_has_nothing_to_retry(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = (await talk("one", "/new", "/retry", "two")).requests
    assert len(requests) == 2
    assert len(requests[0].ids) == len(requests[1].ids)
    assert "[There is no conversation of yours here yet.]" in capsys.readouterr().err


async def test_a_failed_answer_leaves_no_line_on_standard_output(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    await talk("one", "two", errors=[ContextTooLong("x")])
    output, errors = capsys.readouterr()
    assert output == "You said: two\n"
    assert errors.count("That is longer than this model can take") == 1


async def test_what_makes_no_sense_is_said_in_a_sentence(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    brain = await talk("/nonsense", "/retry hot", "x" * (MAX_TEXT_LETTERS + 1), "", "/persona")
    errors = capsys.readouterr().err
    assert brain.requests == []
    assert "[There is no command `nonsense`; `/help` names all commands.]" in errors
    assert "[temperature is a number from 0 to 2, as in `retry 0.9`.]" in errors
    assert "[that is too long: 32001 characters, at most 32000]" in errors
    assert "`/persona` is one of `/persona show`" in errors


@pytest.mark.parametrize("word", ["/quit", "/exit"])
async def test_what_comes_after_leaving_is_not_said(talk: Talk, word: str) -> None:
    brain = await talk(word, "never said")
    assert brain.requests == []


async def test_help_names_the_commands_that_are_there(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    await talk("/help", "/servers", "/quit", "never said")
    output, errors = capsys.readouterr()
    assert output == ""
    for name in ("/new", "/stop", "/retry [temperature]", "/continue", "/undo", "/servers", "/quit"):
        assert f"  {name} " in errors
    assert "[three servers]" in errors
