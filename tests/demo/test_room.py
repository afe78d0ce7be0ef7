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
    """An answer in one piece, or an error instead, or an error after it."""

    answer: str
    prompt_ids: Sequence[int] = ()
    error: MurmurError | None = None
    text: str = ""
    ids: tuple[int, ...] = (1,)
    tokens_per_second: float = 1.0
    first_token_s: float = 0.1

    async def __aiter__(self) -> AsyncIterator[str]:
        if self.answer:
            self.text = self.answer
            yield self.text
        if self.error is not None:
            raise self.error


@dataclass
class FakeModel:
    """Answers a1, a2, ...; the answers whose numbers are in `failing` never come. A letter is a token."""

    failing: frozenset[int] = frozenset()
    max_tokens: int = 10**6
    asked: list[tuple[list[str], str | None]] = field(default_factory=list)
    """The contents of a conversation, and the answer that the model was to go on from."""
    max_new_tokens: list[int] = field(default_factory=list)
    """How long each answer could have become."""

    @property
    def checkpoint(self) -> Any:
        return SimpleNamespace(max_positions=self.max_tokens)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(route=())

    def answer(
        self, session: Any, messages: Sequence[Message], previous: FakeGeneration | None, params: Any
    ) -> FakeGeneration:
        contents = [message["content"] for message in messages]
        ids = range(sum(map(len, contents)))
        if len(ids) + params.max_new_tokens <= self.max_tokens:  # else the room asks once more, for less
            self.asked.append((contents, previous.text if previous else None))
            self.max_new_tokens.append(params.max_new_tokens)
        number = len(self.asked)
        is_failing = number in self.failing
        return FakeGeneration(
            "" if is_failing else f"a{number}", ids, SwarmTimeout("nobody answers") if is_failing else None
        )


Talk = Callable[..., Any]


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Says lines to a room, and returns its model."""

    async def say(*lines: str, failing: frozenset[int] = frozenset(), max_tokens: int = 10**6) -> FakeModel:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        model = FakeModel(failing, max_tokens)
        await Room(cast("Any", None), cast("Any", model), fail_server=False).run()
        return model

    return say


async def test_a_conversation_goes_on_from_its_last_answer(talk: Talk) -> None:
    assert (await talk("u1", "u2")).asked == [(["u1"], None), (["u1", "a1", "u2"], "a1")]


async def test_a_retry_goes_on_from_the_answer_before_the_one_that_it_replaces(talk: Talk) -> None:
    asked = (await talk("u1", "u2", "/retry", "/retry", "u3")).asked
    assert asked[2] == asked[3] == (["u1", "a1", "u2"], "a1")
    assert asked[4] == (["u1", "a1", "u2", "a4", "u3"], "a4")


async def test_a_retry_of_the_first_answer_begins_anew(talk: Talk) -> None:
    assert (await talk("u1", "/retry")).asked[1] == (["u1"], None)


async def test_what_could_not_be_answered_is_no_part_of_the_conversation(talk: Talk) -> None:
    asked = (await talk("u1", "u2", "/retry", "u3", failing=frozenset({2, 3}))).asked
    assert [conversation for conversation, _ in asked[1:3]] == [["u1", "a1", "u2"], ["u1"]]
    assert asked[3] == (["u1", "a1", "u3"], "a1")


async def test_a_new_conversation_has_nothing_to_retry(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await talk("u1", "/new", "/retry")).asked == [(["u1"], None)]
    assert "there is no answer yet" in capsys.readouterr().err


async def test_a_failed_answer_leaves_no_line_on_standard_output(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    await talk("u1", "u2", "u3", failing=frozenset({1, 2}))
    output, errors = capsys.readouterr()
    assert output == "a3\n"
    assert errors.count("nobody answers") == 2


async def test_in_a_full_conversation_the_oldest_turns_are_forgotten(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    model = await talk("u" * 150, "v" * 100, "w" * 150, "x", max_tokens=500)
    assert model.asked[1:] == [
        (["u" * 150, "a1", "v" * 100], "a1"),
        (["v" * 100, "a2", "w" * 150], None),  # a2 was given when u was still known
        (["v" * 100, "a2", "w" * 150, "a3", "x"], "a3"),
    ]
    assert capsys.readouterr().err.count("the conversation is full: its oldest turn is forgotten") == 1


async def test_several_turns_are_forgotten_at_once_if_one_is_not_enough(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    model = await talk("u", "v", "w" * 299, max_tokens=500)
    assert model.asked[2] == (["w" * 299], None)
    assert "its oldest 2 turns are forgotten" in capsys.readouterr().err


async def test_a_retry_in_a_shortened_conversation_forgets_no_more(talk: Talk) -> None:
    model = await talk("u" * 150, "v" * 100, "w" * 150, "/retry", max_tokens=500)
    assert model.asked[3] == model.asked[2]


async def test_an_answer_to_a_long_question_is_as_long_as_the_model_allows(talk: Talk) -> None:
    model = await talk("u" * 450, max_tokens=500)
    assert model.max_new_tokens == [50]


async def test_a_question_that_is_too_long_for_the_model_changes_nothing(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    model = await talk("u", "v" * 500, "w", max_tokens=500)
    assert model.asked == [(["u"], None), (["u", "a1", "w"], "a1")]
    output, errors = capsys.readouterr()
    assert output == "a1\na2\n"
    assert "that is too long: 500 tokens; the model takes 500" in errors
