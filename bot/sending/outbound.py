"""The port through which answers go out to a platform."""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from bot.sending.pacer import Pacer
from bot.words import Attached, File, Inbound, Limits, Post, Where


class Outbound(Protocol):
    """A platform as the core sees it. Everything may raise Refused, Limited or Unreachable."""

    limits: Limits

    def size(self, text: str) -> int:
        """How much of `limits.letters` a text takes."""

    def moment(self, at_ms: int, now_ms: int) -> str:
        """When something is, for readers there: in their own time, or in UTC."""

    def pacer(self, where: Where) -> Pacer:
        """What is sent there goes through it."""

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        """Show a new message below the one that it answers; returns its id."""

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        """Show something else in its place."""

    async def remove(self, where: Where, message_id: str) -> None:
        """Take a message away. One that is gone already is no error."""

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        """Messages of ours below `reply_to` by key, after a crash that forgot their ids."""

    async def typing(self, where: Where) -> None:
        """Show for some seconds that somebody writes."""

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        """Mark a message as read, or as one that waits; "" takes the mark away."""

    async def tell(self, inbound: Inbound, text: str, file: File | None = None) -> None:
        """Answer one person alone, as far as the platform can; a file is never shown to others."""

    async def read(self, attached: Attached, most_bytes: int) -> bytes:
        """What is in a file that came with a message. Raises TooLarge too."""


@runtime_checkable
class Writes(Protocol):
    """A port that can write to a person of whom nothing was heard just now."""

    async def write_to(self, person_id: str, text: str) -> None:
        """In the chat of two with them. Raises Refused if there is none, Limited or Unreachable."""


@runtime_checkable
class OpensThreads(Protocol):
    """A port to a platform on which conversations that begin in a channel may get a thread of their own."""

    async def open_thread(self, inbound: Inbound) -> Inbound:
        """What was said, in the thread that was made of it; as it was if it gets none. Twice is once."""


@runtime_checkable
class Streams(Protocol):
    """A port to a place where text can only grow, and grows at once: a terminal."""

    def stream(self, turn_id: str, text: str) -> None:
        """All there is of an answer so far; what was there before is its beginning."""

    def notice(self, sentence: str) -> None:
        """Why there is no text yet, or something else that is no part of it."""
