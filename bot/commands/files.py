"""Commands that answer with a file: the conversation here, and all that is kept of a person."""

import asyncio
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from bot.commands.desk import CommandDesk, Order, Told
from bot.commands.talk import NOTHING
from bot.receiving.conversations import find_for_command
from bot.rendering.thinking import without_thoughts
from bot.words import File, Origin
from storage.database import Transaction
from storage.privacy import export_person
from storage.transcript import Said, all_turns, path_to

HISTORY, EXPORT = "history.md", "export.json"
TOO_LARGE = "That is more than fits into a file here; ask who runs me for it."
ASK_ENCRYPTED = "You have written to me in encrypted rooms: ask for this in an encrypted one too."
STATES = {
    "queued": "waits",
    "running": "is being written",
    "stopped": "stopped",
    "length": "cut off by the length limit",
    "failed": "failed",
    "interrupted": "cut off by a restart",
}


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation with all its versions, oldest first, and the ids of those that count now."""

    turns: Sequence[Said]
    current: frozenset[str]


async def history(desk: CommandDesk, order: Order) -> str | Told:
    """The conversation here as Markdown, with versions that were stopped or tried again."""
    talk = await desk.desk.store.read(_talk, order)
    if talk is None:
        return NOTHING
    write = partial(_markdown, talk)
    return await _told(desk, order, "This conversation", (HISTORY, write, len(talk.turns)))


async def export(desk: CommandDesk, order: Order) -> str | Told:
    """All that is kept of the person who asks, as JSON."""
    kept = await desk.desk.store.read(export_person, order.asker.account_id)
    if not order.asker.place.is_encrypted and any(each["is_encrypted"] for each in kept["places"]):
        return ASK_ENCRYPTED
    write = partial(_json, kept)
    return await _told(desk, order, "All that I keep of you", (EXPORT, write, len(kept["turns"])))


def fitted(
    name: str, write: Callable[[int], bytes], num_turns: int, most_bytes: int
) -> tuple[File | None, int]:
    """What `write` makes of as many turns as fit, the newest ones, zipped if need be; and how many they are.

    None if not even none of them fits.
    """
    while True:
        file = _packed(name, write(num_turns), most_bytes)
        if file is not None or not num_turns:
            return file, num_turns
        num_turns //= 2


def _packed(name: str, content: bytes, most_bytes: int) -> File | None:
    if len(content) <= most_bytes:
        return name, content
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return (f"{name}.zip", packed.getvalue()) if packed.tell() <= most_bytes else None


async def _told(
    desk: CommandDesk, order: Order, what: str, wanted: tuple[str, Callable[[int], bytes], int]
) -> str | Told:
    most_bytes = desk.ports[order.inbound.where.platform].limits.file_bytes
    file, num_turns = await asyncio.to_thread(fitted, *wanted, most_bytes)
    if file is None:
        return TOO_LARGE
    num_left = wanted[2] - num_turns
    left = f"; the oldest {num_left} of its {wanted[2]} questions did not fit" if num_left else ""
    return Told(f"{what} is in the file{left}.", file)


# --- what is in them ------------------------------------------------------------------------------------


def _talk(connection: Transaction, order: Order) -> _Talk | None:
    """The conversation here, if the person has said something in it."""
    here = find_for_command(connection, order.asker)
    if here is None:
        return None
    path = path_to(connection, here.head_id)
    known = {said.question.turn_id: said for said in (*path, *all_turns(connection, here.conversation_id))}
    turns = sorted(known.values(), key=lambda said: (said.asked_ms, said.question.turn_id))
    if all(said.question.account_id != order.asker.account_id for said in turns):
        return None
    return _Talk(turns, frozenset(said.question.turn_id for said in path))


def _markdown(talk: _Talk, num_turns: int) -> bytes:
    """The newest turns. What was said stands in quotes, so that nothing in it looks like ours."""
    num_left = len(talk.turns) - num_turns
    numbered = list(enumerate(talk.turns, 1))[num_left:]
    left = [f"The oldest {num_left} questions are left out."] if num_left else []
    parts = ["# Conversation", *left, *(_shown(number, said, talk) for number, said in numbered)]
    return ("\n\n".join(parts) + "\n").encode("utf-8", "replace")


def _shown(number: int, said: Said, talk: _Talk) -> str:
    moment = datetime.fromtimestamp(said.asked_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    answer = without_thoughts(said.progress.answer)
    state = STATES.get(said.state, "")
    is_past = bool(answer) and said.question.turn_id not in talk.current
    notes = ", ".join(filter(None, (state, "no longer part of the conversation" if is_past else "")))
    heading = ("Answer" if answer else "No answer") + (f" ({notes})" if notes else "")
    lines = [
        f"## {number}. {_name_of(said)}, {moment}{_kind_of(said)}",
        _quoted(said.question.prompt),
        f"{heading}:" if answer else f"{heading}.",
        _quoted(answer),
    ]
    return "\n\n".join(filter(None, lines))


def _kind_of(said: Said) -> str:
    if not said.question.prompt:
        return ": continue"
    return ": asked again" if said.is_retry else ""


def _name_of(said: Said) -> str:
    """Who asked, on one line and without what Markdown would make something of."""
    try:
        author = msgspec.json.decode(said.question.origin, type=Origin).author
    except msgspec.DecodeError:
        return "Somebody"
    name = "".join(letter for letter in author.name if letter.isalnum() or letter in " .,-'")
    return " ".join(name.split()) or author.external_id


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _json(kept: dict[str, Any], num_turns: int) -> bytes:
    turns = kept["turns"][len(kept["turns"]) - num_turns :]
    ids = {each["id"] for each in turns}
    of_turns = {
        name: [each for each in kept[name] if each["turn_id"] in ids]
        for name in ("joined_messages", "messages")
    }
    num_left = len(kept["turns"]) - num_turns
    note = {"left_out": f"the oldest {num_left} turns did not fit"} if num_left else {}
    whole = {**note, **kept, **of_turns, "turns": turns}
    return json.dumps(whole, ensure_ascii=False, indent=1).encode("utf-8", "replace")
