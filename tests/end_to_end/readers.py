"""People who ask the bot in a room, and read what it shows them there, the same on every platform."""

from dataclasses import dataclass
from typing import Protocol

from tests.discord_peer import Channel, FakeDiscord, Message, Person
from tests.matrix_peer import timeline
from tests.matrix_peer.human import Human


@dataclass(frozen=True)
class Shown:
    """A message of the bot's: as its reader sees it now, as they saw it before, and below what it stands."""

    text: str
    before: tuple[str, ...]
    below: str


class Reader(Protocol):
    """Somebody in a room of their own with the bot."""

    async def ask(self, text: str) -> str:
        """Mention the bot; returns the question's id."""

    async def shown(self) -> list[Shown]:
        """All that the bot has said to them, here and elsewhere."""


class DiscordReader:
    """A member of a guild, in one of its channels."""

    def __init__(self, fake: FakeDiscord, person: Person, channel: Channel) -> None:
        self._fake = fake
        self._person = person
        self._channel = channel

    async def ask(self, text: str) -> str:
        return str(self._person.says(self._channel, text, mentions=[self._fake.bot]).id)

    async def shown(self) -> list[Shown]:
        elsewhere = [*self._person.private, *self._person.direct.by(self._fake.bot)]
        return [self._seen(message) for message in (*self._channel.by(self._fake.bot), *elsewhere)]

    def _seen(self, message: Message) -> Shown:
        below = message.reply_to
        return Shown(message.content, tuple(message.contents[:-1]), str(below.id) if below else "")


class MatrixReader:
    """A member of a room with several others."""

    def __init__(self, human: Human, room_id: str, bot_id: str) -> None:
        self._human = human
        self._room_id = room_id
        self._bot_id = bot_id

    async def ask(self, text: str) -> str:
        return await self._human.say(self._room_id, text, mentions=[self._bot_id])

    async def shown(self) -> list[Shown]:
        await self._human.sync()
        messages = self._human.messages(self._room_id)
        return [self._seen(it) for it in messages if it.sender == self._bot_id and not it.is_redacted]

    def _seen(self, message: timeline.Message) -> Shown:
        before = (edit["m.new_content"]["body"] for edit in message.edits[:-1])
        return Shown(message.text, tuple(before), message.thread)
