"""The demo's room, with a model that only remembers what it was asked."""

import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo.room import Room
from swarm.errors import MurmurError, SwarmTimeout
from swarm.text import Message


@dataclass
class FakeGeneration:
    """An answer in one piece, or an error instead."""

    text: str
    error: MurmurError | None = None
    ids: tuple[int, ...] = (1,)
    tokens_per_second: float = 1.0
    first_token_s: float = 0.1

    async def __aiter__(self) -> AsyncIterator[str]:
        if self.error is not None:
            raise self.error
        yield self.text


@dataclass
class FakeModel:
    """Answers a1, a2, ...; the answers whose numbers are in `failing` never come."""

    failing: frozenset[int] = frozenset()
    asked: list[tuple[list[str], str | None]] = field(default_factory=list)
    """The contents of a conversation, and the answer that the model was to go on from."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(route=())

    def answer(
        self, session: Any, messages: Sequence[Message], previous: FakeGeneration | None, params: Any
    ) -> FakeGeneration:
        self.asked.append(([m["content"] for m in messages], previous.text if previous else None))
        number = len(self.asked)
        error = SwarmTimeout("nobody answers") if number in self.failing else None
        return FakeGeneration(f"a{number}", error)


Talk = Callable[..., Any]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Says lines to a room, and returns what the model was asked."""

    async def say(*lines: str, failing: frozenset[int] = frozenset()) -> list[tuple[list[str], str | None]]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        model = FakeModel(failing)
        await Room(cast("Any", None), cast("Any", model), fail_server=False).run()
        return model.asked

    return say


async def test_a_conversation_goes_on_from_its_last_answer(talk: Talk) -> None:
    assert await talk("u1", "u2") == [(["u1"], None), (["u1", "a1", "u2"], "a1")]


async def test_a_retry_goes_on_from_the_answer_before_the_one_that_it_replaces(talk: Talk) -> None:
    asked = await talk("u1", "u2", "/retry", "/retry", "u3")
    assert asked[2] == asked[3] == (["u1", "a1", "u2"], "a1")
    assert asked[4] == (["u1", "a1", "u2", "a4", "u3"], "a4")


async def test_a_retry_of_the_first_answer_begins_anew(talk: Talk) -> None:
    assert (await talk("u1", "/retry"))[1] == (["u1"], None)


async def test_what_could_not_be_answered_is_no_part_of_the_conversation(talk: Talk) -> None:
    asked = await talk("u1", "u2", "/retry", "u3", failing=frozenset({2, 3}))
    assert [conversation for conversation, _ in asked[1:3]] == [["u1", "a1", "u2"], ["u1"]]
    assert asked[3] == (["u1", "a1", "u3"], "a1")


async def test_a_new_conversation_has_nothing_to_retry(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await talk("u1", "/new", "/retry") == [(["u1"], None)]
    assert "there is no answer yet" in capsys.readouterr().err
