"""How answers are shown on Matrix: the core's port.

Answers in groups stand in a thread below what asked for them. One pacer lets everything through that counts:
homeservers limit an account, whatever the room.
"""

import hashlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

import msgspec

from bot.clock import Clock
from bot.config.platforms import MatrixSettings
from bot.on_matrix.calls import HOW, SIGNS
from bot.on_matrix.clocks import Clocks
from bot.on_matrix.fields import Object
from bot.on_matrix.files import file_content, largest_upload, read_file
from bot.on_matrix.messages import MARK_BYTES
from bot.on_matrix.sending import KEY_LETTERS, Sending
from bot.on_matrix.telling import is_between, where_to_tell
from bot.on_matrix.wire import room_path
from bot.rendering.matrix_content import BUDGET_BYTES, Kind, edit_content, measure, post_content
from bot.rendering.moments import in_utc
from bot.rendering.preview import MARK
from bot.sending.pacer import Pacer, Skipped
from bot.sending.pacing import AccountPace, Priority
from bot.turns.endings import controls_after
from bot.words import (
    Attached,
    File,
    Inbound,
    Limited,
    Limits,
    Post,
    Refused,
    SendError,
    Unreachable,
    Where,
)
from storage.database import Database
from swarm.background import finish

logger = logging.getLogger(__name__)

TYPING_MS = 6000
EDIT_WITHIN_S = 60.0
MAX_KEPT = 500
NOTHING_SAID = controls_after("failed", has_text=False)
"""What readers may do about a turn that has come to no answer."""


class MatrixPort:
    """See bot.sending.outbound.Outbound."""

    def __init__(self, sending: Sending, settings: MatrixSettings, store: Database, clock: Clock) -> None:
        self.limits = Limits(BUDGET_BYTES, controls=HOW)
        self._sending = sending
        self._wire = sending.wire
        self._settings = settings
        pace = AccountPace(burst=settings.send_burst, per_s=settings.sends_per_second)
        self._pacer = Pacer(pace, clock)
        self._unsure: OrderedDict[str, str] = OrderedDict()
        """Texts of posts, by key, of which we do not know whether the homeserver has them."""
        self.clocks = Clocks(sending, self._pacer, store, clock)
        self._answers: OrderedDict[str, str] = OrderedDict()
        """What our messages are below of, by their ids."""

    async def learn_limits(self) -> None:
        """Ask the homeserver how large a file may be, as soon as it can be reached."""
        await self._sending.is_ready.wait()
        file_bytes = await largest_upload(self._wire)
        self.limits = msgspec.structs.replace(self.limits, file_bytes=file_bytes)

    @property
    def whole_pacer(self) -> Pacer:
        """The one of the account."""
        return self._pacer

    def size(self, text: str) -> int:
        return measure(text) + MARK_BYTES

    def moment(self, at_ms: int, now_ms: int) -> str:
        return in_utc(at_ms, now_ms)

    def pacer(self, where: Where) -> Pacer:
        return self._pacer

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        first = self._unsure.get(post.key)
        content = self._content(where, reply_to, post.text, kind=_kind_of(post))
        message_id = await self._say(where, content, post.key, post.text)
        if first is not None and first != post.text:
            await self._edit(where, message_id, post)  # the homeserver kept what it got first
        self._unsure.pop(post.key, None)
        self._answers[message_id] = reply_to
        _bound(self._answers)
        await self._finish(where, reply_to, message_id, post)
        return message_id

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        await self._edit(where, message_id, post)
        await self._finish(where, self._answers.get(message_id, message_id), message_id, post)

    async def remove(self, where: Where, message_id: str) -> None:
        await self._wire.redact(where.place, message_id)

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        """The same transaction gives the same event; where there was none, one is there now, to be edited."""
        content, found = self._content(where, reply_to, MARK), {}
        for key in keys:
            self._unsure[key] = ""  # should we not learn it now, a post under this name is edited at once
            found[key] = await self._say(where, content, key, "")
            self._unsure.pop(key, None)
        return found

    async def typing(self, where: Where) -> None:
        path = room_path(where.place, "typing", self._wire.user_id)
        await self._wire.ask("PUT", path, {"typing": True, "timeout": TYPING_MS})

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        if mark == "queued":
            await self.clocks.put(where.place, event_id)
        else:
            self.clocks.take_away(where.place, event_id)
        if mark and self._settings.read_receipts:
            await self._wire.ask("POST", room_path(where.place, "receipt", "m.read", event_id))

    async def tell(self, inbound: Inbound, text: str, file: File | None = None) -> None:
        place, sentence = where_to_tell(self._sending.rooms, inbound, text)
        if place == inbound.where.place:
            content = self._content(inbound.where, inbound.event_id, sentence, kind="m.notice")
        else:
            content = post_content(sentence, kind="m.notice")
        digest = hashlib.sha256(f"{inbound.event_id}/{sentence}".encode(errors="replace")).hexdigest()
        key = f"tell-{digest[:KEY_LETTERS]}"
        try:
            if file is not None and sentence == text:
                hand_over = partial(self._hand_over, inbound, place, f"{key}-file", file)
                await self._pacer.send(Priority.NOTICE, None, hand_over)
            await self._pacer.send(Priority.NOTICE, None, lambda: self._sending.message(place, content, key))
        except Skipped:
            return

    async def write_to(self, person_id: str, text: str) -> None:
        """See bot.sending.outbound.Writes; we never open a room for it ourselves."""
        room = self._sending.rooms.direct_with(person_id, must_encrypt=False)
        if room is None:
            raise Refused("there is no chat of two with that person")
        content, key = post_content(text, kind="m.notice"), f"write-{secrets.token_hex(12)}"
        with suppress(Skipped):
            await self._pacer.send(
                Priority.NOTICE, None, lambda: self._sending.message(room.room_id, content, key)
            )

    async def read(self, attached: Attached, most_bytes: int) -> bytes:
        return await read_file(self._wire, attached.address, most_bytes)

    # --- what it is made of ----------------------------------------------------------------------------

    def _content(self, where: Where, reply_to: str, text: str, kind: Kind = "m.text") -> Object:
        if where.kind == "direct" or not self._settings.threads:
            return post_content(text, kind=kind, reply_to=reply_to)
        return post_content(text, kind=kind, thread_root=where.root or reply_to, reply_to=reply_to)

    async def _say(self, where: Where, content: Object, key: str, text: str) -> str:
        """Send under a name that stays; whoever is cut off does not know whether it is there."""
        was_sure = key not in self._unsure
        self._unsure.setdefault(key, text)
        _bound(self._unsure)
        try:
            return await self._sending.message(where.place, content, key)
        except (Limited, Refused):
            if was_sure:
                self._unsure.pop(key, None)
            raise

    async def _edit(self, where: Where, message_id: str, post: Post) -> None:
        """Change a message. Whoever is cut off waits for its end: an edit that is late hides a newer one.

        Edits need no name that stays: one that is there twice shows the same.
        """
        key = f"edit-{secrets.token_hex(12)}"
        content = edit_content(post.text, message_id, kind=_kind_of(post))
        try:
            await finish(self._sending.message(where.place, content, key), within_s=EDIT_WITHIN_S)
        except TimeoutError as error:
            raise Unreachable("an edit took too long") from error

    async def _finish(self, where: Where, reply_to: str, message_id: str, post: Post) -> None:
        """What comes with the last part of an answer: a file, and signs to choose from.

        The answer is there without them, so that it is not sent again if they are refused.
        """
        try:
            if post.file is not None:
                await self._attach(where, reply_to, post.key, post.file)
        except Refused as error:
            logger.warning("the file of message %s is not shown: %s", message_id, error)
        try:
            for control in post.controls if self._settings.seed_controls else ():
                if control in SIGNS:
                    await self._sending.react(where.place, message_id, SIGNS[control])
        except SendError as error:
            logger.info("the signs below message %s are not shown: %s", message_id, error)

    async def _attach(self, where: Where, reply_to: str, key: str, file: tuple[str, bytes]) -> None:
        room = await self._sending.room(where.place)
        is_encrypted = await self._sending.is_encrypted(room)
        content = await file_content(self._wire, *file, is_encrypted=is_encrypted)
        relation = self._content(where, reply_to, "").get("m.relates_to", {})
        await self._sending.message(where.place, content | {"m.relates_to": relation}, f"{key}-file")

    async def _hand_over(self, inbound: Inbound, room_id: str, key: str, file: File) -> None:
        """Send a person a file, if nobody but they and we are in the room at this moment."""
        room = await self._sending.room(room_id)
        if not is_between(room, inbound.author.external_id, self._wire.user_id):
            raise Refused("a file is for one person, and there are others")
        content = await file_content(self._wire, *file, is_encrypted=await self._sending.is_encrypted(room))
        await self._sending.message(room_id, content, key)


def _kind_of(post: Post) -> Kind:
    """A notice, which no bot answers, if no answer is in it: it is about a place, or a failure."""
    return "m.text" if post.turn_id and post.controls != NOTHING_SAID else "m.notice"


def _bound(kept: OrderedDict[str, str]) -> None:
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)
