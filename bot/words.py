"""What platforms and the core say to each other: what came in, what is to be shown, and what went wrong."""

from typing import Literal

import msgspec

PlaceKind = Literal["direct", "thread", "group"]
"""A chat of two, a place that holds one conversation at a time, or one in which many talk."""

MAX_TEXT_LETTERS = 32_000


class Author(msgspec.Struct, frozen=True):
    """Who wrote, and what they may do where they wrote it."""

    external_id: str
    name: str
    is_moderator: bool = False


class Where(msgspec.Struct, frozen=True):
    """A place on a platform. `root` names a thread where threads are no places of their own."""

    platform: str
    place: str
    kind: PlaceKind
    root: str = ""


class Origin(msgspec.Struct, frozen=True):
    """Where a turn was asked for, and by which message and person: where its answer belongs."""

    where: Where
    event_id: str
    author: Author
    temperature: float | None = None
    """Of this turn alone."""
    sent_ms: int = 0
    """When it was, as the platform says; 0 for what was no message."""


class Call(msgspec.Struct, frozen=True):
    """A command with its arguments, as the registry knows them."""

    command: str
    arguments: dict[str, str] = {}


File = tuple[str, bytes]
"""A name and what is in it."""


class Attached(msgspec.Struct, frozen=True):
    """A file that came with a message, not read yet. Name, kind and size are what its sender says."""

    name: str
    kind: str
    """Its content type, such as text/plain; "" if nobody says."""
    size_bytes: int
    address: str
    """Where it is; only the platform's port knows what that means."""


class Inbound(msgspec.Struct, frozen=True):
    """Something that a person said to us. Adapters leave out what is not for us, and our own name in it."""

    event_id: str
    where: Where
    author: Author
    text: str
    sent_ms: int
    reply_to: str = ""
    call: Call | None = None
    """A command that the platform has parsed already; the text is empty then."""
    files: tuple[Attached, ...] = ()
    deleted: str = ""
    """Nothing is said: the message of that id was deleted on the platform."""
    mistake: str = ""
    """What is wrong with the command: it is not obeyed, and whoever gave it reads this."""


class Post(msgspec.Struct, frozen=True):
    """A message to be shown. `key` makes sending it twice harmless."""

    text: str
    key: str
    turn_id: str = ""
    controls: tuple[str, ...] = ()
    """Names of commands that readers may choose below it, for this turn."""
    file: File | None = None
    """To be attached."""
    note: str = ""
    """What is to be said below it, where that has a place of its own; elsewhere it is a part of the text."""


class Limits(msgspec.Struct, frozen=True):
    """What fits into a message of a platform, and what it can do."""

    letters: int
    """Of one message, as `Outbound.size` counts them."""
    can_edit: bool = True
    most_parts: int = 6
    file_bytes: int = 8_000_000
    """Of a file that is attached."""
    hears_all: bool = True
    """Not only what is said to the bot."""
    controls: str = ""
    """How readers choose what is to become of an answer, in a sentence, if they do not see it."""


class SendError(Exception):
    """A platform did not take what we sent."""


class Refused(SendError):
    """And never will: no permission, message gone, too long."""


class TooLarge(Refused):
    """There is more of it than was asked for."""


class Limited(SendError):
    """Not before `retry_after_s` seconds are over."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"rate limited for {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class Unreachable(SendError):
    """It cannot be reached now, or had trouble of its own."""
