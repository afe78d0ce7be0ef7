"""A platform in memory, and a model that says what it is told: the seams of the core."""

import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from bot.brain import Event, Message, Request
from bot.clock import Clock
from bot.rendering.moments import in_utc
from bot.rendering.splitting import utf16_units
from bot.sending.pacer import Pacer
from bot.sending.pacing import ChannelPace
from bot.words import (
    Attached,
    Author,
    Call,
    File,
    Inbound,
    Limits,
    Post,
    Refused,
    SendError,
    TooLarge,
    Unreachable,
    Where,
)
from storage.inbox import Event as Kept
from storage.live_sessions import LiveSession
from tests.bot.surveys import FakeSurveys

END = 1
DIRECT = Where("fake", "dm", "direct")
CHANNEL = Where("fake", "channel", "group")
ADA, BOB = Author("ada", "Ada"), Author("bob", "Bob")
MODERATOR = Author("mo", "Mo", is_moderator=True)


@dataclass
class Shown:
    """A message of the bot's, with all that was ever to be seen in its place."""

    message_id: str
    reply_to: str
    post: Post
    history: list[str] = field(default_factory=list)
    is_gone: bool = False
    key: str = ""

    def __post_init__(self) -> None:
        self.key = self.post.key


class FakePort:
    """Keeps messages in a list; fails as told."""

    def __init__(self, clock: Clock, letters: int = 400) -> None:
        self.limits = Limits(letters)
        self.messages: list[Shown] = []
        self.told: list[tuple[str, str]] = []
        self.written: list[tuple[str, str]] = []
        """To people who had not said anything just now."""
        self.told_files: list[tuple[str, File]] = []
        self.contents: dict[str, bytes | SendError] = {}
        """What is in files that come with messages, by their addresses."""
        self.num_read = 0
        self.read_s = 0.0
        """How long it takes to read one."""
        self.marks: list[tuple[str, str]] = []
        self.num_typing = 0
        self.failures: dict[str, list[SendError]] = {}
        """What the next calls of a method raise."""
        self.lost_answers = 0
        """So many of the next posts are shown, but their sender is not told."""
        self.post_s = 0.0
        """How long a post takes after it is to be seen."""
        self.measured_on: Counter[int] = Counter()
        """How often texts were measured, by the thread."""
        self._clock = clock
        self._pacer = Pacer(ChannelPace(slots=1000), clock)

    def size(self, text: str) -> int:
        self.measured_on[threading.get_ident()] += 1
        return utf16_units(text)

    def moment(self, at_ms: int, now_ms: int) -> str:
        return in_utc(at_ms, now_ms)

    def pacer(self, where: Where) -> Pacer:
        return self._pacer

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        self._fail("post")
        assert utf16_units(post.text) <= self.limits.letters + 100
        known = [shown for shown in self.messages if shown.history and shown.key == post.key]
        if known:
            return known[0].message_id
        shown = Shown(f"m{len(self.messages)}", reply_to, post, [post.text])
        self.messages.append(shown)
        if self.post_s:
            await self._clock.sleep(self.post_s)
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unreachable("the answer was lost")
        return shown.message_id

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        self._fail("edit")
        shown = self._message(message_id)
        shown.post = post
        shown.history.append(post.text)

    async def remove(self, where: Where, message_id: str) -> None:
        self._fail("remove")
        self._message(message_id).is_gone = True

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        return {shown.key: shown.message_id for shown in self.messages if shown.key in keys}

    async def typing(self, where: Where) -> None:
        self.num_typing += 1

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        self.marks.append((event_id, mark))

    async def tell(self, inbound: Inbound, text: str, file: File | None = None) -> None:
        self._fail("tell")
        self.told.append((inbound.author.external_id, text))
        if file is not None:
            self.told_files.append((inbound.author.external_id, file))

    async def write_to(self, person_id: str, text: str) -> None:
        self._fail("write_to")
        self.written.append((person_id, text))

    async def read(self, attached: Attached, most_bytes: int) -> bytes:
        self.num_read += 1
        await self._clock.sleep(self.read_s)
        content = self.contents.get(attached.address, Refused("there is no such file"))
        if isinstance(content, SendError):
            raise content
        if len(content) > most_bytes:
            raise TooLarge("there is more")
        return content

    @property
    def texts(self) -> list[str]:
        """What is to be seen now."""
        return [shown.post.text for shown in self.messages if not shown.is_gone]

    def _message(self, message_id: str) -> Shown:
        return next(shown for shown in self.messages if shown.message_id == message_id)

    def _fail(self, method: str) -> None:
        if self.failures.get(method):
            raise self.failures[method].pop(0)


class FakeWriting:
    """Says a script letter by letter, each when the test lets it."""

    def __init__(self, script: str, pause: Callable[[], Awaitable[None]], most: int) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.finish = ""
        self._script = script
        self._pause = pause
        self._most = most

    @property
    def num_shown(self) -> int:
        return len(self.ids)

    async def __aiter__(self) -> AsyncIterator[str]:
        for letter in self._script:
            await self._pause()
            if len(self.ids) >= self._most:
                self.finish = "length"
                return
            self.ids.append(ord(letter))
            self.text += letter
            yield letter
        self.finish = "end"


@asynccontextmanager
async def _room_for_all(on_event: Callable[[Event], None]) -> AsyncIterator[None]:
    yield


class FakeBrain(FakeSurveys):
    """A model whose tokens are letters; `answer` decides what it says, `errors` what goes wrong before."""

    name = "fake"

    def __init__(self, clock: Clock, token_s: float = 0.1) -> None:
        self.max_tokens: int | None = 10_000
        self.answer: Callable[[str], str] = lambda prompt: f"You said: {prompt}"
        self.errors: list[Exception] = []
        self.events: list[Event] = []
        self.requests: list[Request] = []
        self.forgotten: list[int] = []
        self.forgotten_sessions: list[LiveSession] = []
        self.forgotten_personas: list[str] = []
        self.token_s = token_s
        self.room: Callable[[Callable[[Event], None]], AbstractAsyncContextManager[None]] = _room_for_all
        """What an answer needs of the servers as long as it is written."""
        self._clock = clock

    def encode(self, messages: Sequence[Message], held: Sequence[int] = ()) -> list[int]:
        """Every message is its letters and an END, what others than the model say behind their role.

        What is held is the beginning of that as long as it was told the same: if not, all is told anew.
        """
        roles = {"system": "s:", "user": "u:", "assistant": ""}
        texts = [f"{roles[message['role']]}{message['content']}{chr(END)}" for message in messages]
        return [*map(ord, "".join(texts))]

    @asynccontextmanager
    async def write(self, request: Request, on_event: Callable[[Event], None]) -> AsyncIterator[FakeWriting]:
        self.requests.append(request)
        if self.errors:
            raise self.errors.pop(0)
        for event in self.events:
            on_event(event)
        prompt = "".join(map(chr, request.ids)).rpartition("u:")[2].rstrip(chr(END))
        async with self.room(on_event):
            yield FakeWriting(self.answer(prompt), self._pause, request.params.max_new_tokens)

    def is_open(self, conversation_id: int) -> bool:
        return False

    async def forget(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        self.forgotten.append(conversation_id)
        if kept is not None:
            self.forgotten_sessions.append(kept)

    async def forget_persona(self, instructions: str) -> None:
        self.forgotten_personas.append(instructions)

    async def _pause(self) -> None:
        await self._clock.sleep(self.token_s)


def said(
    text: str,
    event_id: str,
    *,
    where: Where = DIRECT,
    author: Author = ADA,
    reply_to: str = "",
    sent_ms: int,
) -> Kept:
    """Somebody's message, as an adapter keeps it."""
    inbound = Inbound(event_id, where, author, text, sent_ms, reply_to)
    return Kept(event_id, author.external_id, msgspec.json.encode(inbound))


def withdrawn(message_id: str, *, where: Where = DIRECT, sent_ms: int) -> Kept:
    """Somebody deletes a message."""
    event_id = f"deleted-{where.place}-{message_id}"
    inbound = Inbound(event_id, where, Author("", ""), "", sent_ms, deleted=message_id)
    return Kept(event_id, "", msgspec.json.encode(inbound))


def called(
    command: str,
    event_id: str,
    /,
    *,
    where: Where = DIRECT,
    author: Author = ADA,
    sent_ms: int,
    **arguments: str,
) -> Kept:
    """Somebody's command."""
    inbound = Inbound(event_id, where, author, "", sent_ms, call=Call(command, arguments))
    return Kept(event_id, author.external_id, msgspec.json.encode(inbound))
