"""A room in the terminal: answers on standard output as they are written, all else on standard error."""

import asyncio
import errno
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bot.clock import Clock
from bot.commands.catalogue import COMMANDS
from bot.commands.registry import Mistake
from bot.rendering.moments import in_utc
from bot.sending.pacer import Pacer
from bot.sending.pacing import ChannelPace
from bot.words import (
    MAX_TEXT_LETTERS,
    Attached,
    Author,
    File,
    Inbound,
    Limits,
    Post,
    Refused,
    Where,
)
from storage.inbox import Event
from swarm.say import say

PLATFORM = "terminal"
PREFIX = "/"
FENCE = "```"
HERE = Where(PLATFORM, "room", "direct")
PERSON = Author("you", "you", is_moderator=True)
UNLIMITED = 1_000_000
MAX_FILE_BYTES = 1 << 30
MOST_COPIES = 1000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What would move the cursor, colour the screen or change its title: a model may say anything."""


class Terminal:
    """The port to a terminal, where text can only grow."""

    def __init__(self, clock: Clock, folder: Path = Path()) -> None:
        """Files are written into `folder`."""
        self.limits = Limits(UNLIMITED, can_edit=False, most_parts=1, file_bytes=MAX_FILE_BYTES)
        self._folder = folder
        self._clock = clock
        self._pacer = Pacer(ChannelPace(slots=UNLIMITED), clock)
        self._turn_id = ""
        self._written = ""
        self._num_events = 0

    def event(self, line: str) -> Event | str:
        """What a line says, for the core; a sentence if it makes no sense. A slash begins a command."""
        if len(line) > MAX_TEXT_LETTERS:
            return f"that is too long: {len(line)} characters, at most {MAX_TEXT_LETTERS}"
        call = COMMANDS.read(line[len(PREFIX) :], PREFIX) if line.startswith(PREFIX) else None
        if isinstance(call, Mistake):
            return call.sentence
        self._num_events += 1
        event_id = f"{time.time_ns()}-{self._num_events}"
        inbound = Inbound(event_id, HERE, PERSON, "" if call else line, self._clock.now_ms(), call=call)
        return Event(event_id, PERSON.external_id, msgspec.json.encode(inbound))

    def size(self, text: str) -> int:
        """See bot.sending.outbound.Outbound, as for all that follow."""
        return len(text)

    def moment(self, at_ms: int, now_ms: int) -> str:
        return in_utc(at_ms, now_ms)

    def pacer(self, where: Where) -> Pacer:
        return self._pacer

    def stream(self, turn_id: str, text: str) -> None:
        if turn_id != self._turn_id:
            self._turn_id, self._written = turn_id, ""
        text = _CONTROL.sub("", text)
        if text.startswith(self._written):
            sys.stdout.write(text[len(self._written) :])
            sys.stdout.flush()
            self._written = text

    def notice(self, sentence: str) -> None:
        say(f"[{sentence.strip('()')}]")

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        self.stream(post.turn_id, post.text)
        if post.text:
            sys.stdout.write("\n")
            sys.stdout.flush()
        for line in post.note.splitlines():
            self.notice(line)
        self._turn_id = ""
        return post.key

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        await self.post(where, "", post)

    async def remove(self, where: Where, message_id: str) -> None:
        """Nothing can be taken back here."""

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        return {}

    async def typing(self, where: Where) -> None:
        """Text shows by itself that it is written."""

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        """The line is there to be seen."""

    async def tell(self, inbound: Inbound, text: str, file: File | None = None) -> None:
        for number, part in enumerate(text.split(FENCE)):
            for line in part.strip("\n").splitlines():  # a picture, or a command to be copied, stays as it is
                say(line) if number % 2 else self.notice(line)
        if file is None:
            return
        try:
            path = await asyncio.to_thread(write_new, self._folder, *file)
        except OSError as error:
            self.notice(f"the file cannot be written into {self._folder}: {error.strerror}")
        else:
            self.notice(f"written to {path}")

    async def read(self, attached: Attached, most_bytes: int) -> bytes:
        raise Refused("nothing is attached in a terminal")


def write_new(folder: Path, name: str, content: bytes) -> Path:
    """Write a file for its owner alone, under a name that is not taken. Raises OSError."""
    first = folder / name
    for number in range(1, MOST_COPIES + 1):
        path = first if number == 1 else first.with_stem(f"{first.stem}-{number}")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return path
    raise FileExistsError(errno.EEXIST, "there are too many of that name")
