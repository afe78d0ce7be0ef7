"""One answer on a platform: previews while it is written, the whole of it in the end, each message once.

Every message is noted before it is sent and again when the platform has it. Only the newest text is ever
waiting to be shown; a preview that fails is forgotten, the final text is sent until it is there.
"""

import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TypeVar

from bot.clock import Clock
from bot.measures import Measures
from bot.rendering.preview import preview
from bot.rendering.splitting import Part, split
from bot.sending.outbound import Outbound, Streams
from bot.sending.pacer import Pacer, Skipped
from bot.sending.pacing import Priority, Stream
from bot.turns.cutting import cut
from bot.turns.draft import Draft
from bot.turns.endings import WHILE_WRITTEN
from bot.turns.seen import Seen
from bot.words import Limited, Origin, Post, Refused, SendError, Unreachable
from storage.database import Database
from storage.deliveries import Delivery, deliveries_of, intend, note_gone, note_shown

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_AGAIN_S = 0.1
MOST_FAILURES = 3
KEY_LETTERS = 25
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
FULL_TEXT_NAME = "answer.md"


def key_of(turn_id: str, part: int, attempt: int = 0) -> str:
    """A name for a message that is the same after a restart; as long as Discord takes for a nonce."""
    digest = hashlib.sha256(f"{turn_id}/{part}/{attempt}".encode()).digest()
    return base64.b32encode(digest).decode().lower()[:KEY_LETTERS]


@dataclass(slots=True)
class _Shown:
    """A message as it is to be seen now. Without an id nobody knows whether it is."""

    part: int
    message_id: str
    post: Post | None = None


class Display:
    """The messages that show one turn."""

    def __init__(
        self, turn_id: str, place_id: int, origin: Origin, port: Outbound, *, store: Database, clock: Clock
    ) -> None:
        self._turn_id = turn_id
        self._place_id = place_id
        self._origin = origin
        self._port = port
        self._store = store
        self._clock = clock
        self.seen = Seen()
        self._draft = Draft()
        self._shown: dict[int, _Shown] = {}
        self._tried: set[int] = set()
        """Parts that were sent: the platform may have them, as they were then, though it has not said so."""
        self._num_failures = 0
        self.measures = Measures()
        self._platform = origin.where.platform

    @property
    def is_visible(self) -> bool:
        """Something of it may be seen."""
        return bool(self._shown)

    @property
    def notice(self) -> str:
        """What is shown as long as there is no text; "" if nothing."""
        return self._draft.notice

    async def recall(self) -> None:
        """After a restart: find the messages that were sent before."""
        sent = await self._store.read(deliveries_of, self._turn_id)
        self._tried |= {each.part for each in sent}
        for each in sent:
            if each.message_id is not None:
                self._shown[each.part] = _Shown(each.part, each.message_id)
        unsure = {each.key: each.part for each in sent if each.message_id is None}
        if unsure:
            with self.seen.looking_for({*unsure.values()}):
                found = await self._port.find(self._origin.where, self._origin.event_id, list(unsure))
            for key, message_id in found.items():
                self._shown[unsure[key]] = _Shown(unsure[key], message_id)
                await self._note(unsure[key], message_id)

    def update(self, text: str) -> None:
        """There is more text now."""
        if not text:
            return
        if self._draft.began_s is None:
            self._draft.began_s = self._clock.now_s()
        self._draft.text = text
        if self._draft.changed.is_set():
            self.measures.edit(self._platform, "coalesced")
        self._draft.changed.set()

    def update_notice(self, sentence: str) -> None:
        """There is no text yet, for this reason; "" if for none that is worth saying."""
        if isinstance(self._port, Streams):
            if sentence and sentence != self._draft.notice:
                self._port.notice(sentence)
            self._draft.notice = sentence
            return
        self._draft.notice = sentence
        if sentence:
            self._draft.changed.set()

    async def preview_forever(self, pacer: Pacer, stream: Stream) -> None:
        """Show the newest text whenever the platform lets us, until cancelled or of no use."""
        if isinstance(self._port, Streams):
            await self._stream_forever(self._port)
        if not self._port.limits.can_edit:
            return
        try:
            await self._until_worth_showing()
            while self._num_failures < MOST_FAILURES:
                await self._draft.changed.wait()
                self._draft.changed.clear()
                priority = Priority.PREVIEW if self._shown else Priority.FIRST_POST
                if priority is Priority.PREVIEW:
                    await self._try(partial(pacer.preview_turn, stream))  # the newest text is taken then
                await self._try(partial(self._show_draft, pacer, stream, priority))
        except Skipped:
            logger.debug("no previews of turn %s", self._turn_id)

    async def finish(
        self, pacer: Pacer, stream: Stream | None, text: str, footer: str = "", controls: tuple[str, ...] = ()
    ) -> None:
        """Show the whole answer, once, however often that has to be tried.

        Raises Refused if it may not be shown, Unreachable or Limited if it could not for a long time.
        """
        posts = await self._final_posts(text, footer, controls)
        for part, (post, num_letters) in enumerate(posts):
            await self._insist(partial(self._put, pacer, stream, Priority.FINAL, part, post))
            self.seen.note(num_letters)
        for part in [part for part in self._shown if part >= len(posts)]:
            await self._insist(partial(self._take_away, pacer, stream, self._shown[part]))
            del self._shown[part]

    async def _stream_forever(self, port: Streams) -> None:
        while True:
            await self._draft.changed.wait()
            self._draft.changed.clear()
            port.stream(self._turn_id, self._draft.text)

    # --- what it is made of ----------------------------------------------------------------------------

    async def _final_posts(self, text: str, footer: str, controls: tuple[str, ...]) -> list[tuple[Post, int]]:
        """Each message, and how many letters are to be seen with it."""
        limits = self._port.limits
        if isinstance(self._port, Streams):
            return [(Post(text, key_of(self._turn_id, 0), self._turn_id, controls, note=footer), len(text))]
        whole = f"{text}\n\n{footer}" if text and footer else text or footer
        parts = await cut(split, whole, self._port) or [Part("", whole, "")]
        file, num_letters = None, list(accumulate(len(part.body) for part in parts))
        if len(parts) > limits.most_parts:
            parts, file, num_letters = parts[:1], (FULL_TEXT_NAME, whole.encode()), [len(whole)]
        posts = [self._post(number, part.text) for number, part in enumerate(parts)]
        last = posts[-1]
        posts[-1] = Post(last.text, last.key, self._turn_id, controls, file)
        return list(zip(posts, num_letters, strict=True))

    def _post(self, part: int, text: str, controls: tuple[str, ...] = ()) -> Post:
        return Post(text, key_of(self._turn_id, part), self._turn_id, controls)

    async def _show_draft(self, pacer: Pacer, stream: Stream, priority: Priority) -> None:
        draft = self._draft
        if not draft.text and not draft.notice:
            return
        if not draft.text:
            await self._put(pacer, stream, priority, 0, self._post(0, draft.notice, WHILE_WRITTEN))
            return
        parts = await cut(preview, draft.text, self._port)
        shown = parts[: self._port.limits.most_parts]
        for number, part in enumerate(shown):
            controls = WHILE_WRITTEN if number == len(shown) - 1 else ()
            await self._put(pacer, stream, priority, number, self._post(number, part.text, controls))
        self.seen.note(sum(len(part.body) for part in shown))

    async def _until_worth_showing(self) -> None:
        await self._draft.changed.wait()
        while not self._draft.is_worth_showing(self._clock.now_s()):
            await self._clock.sleep(LOOK_AGAIN_S)

    # --- sending ---------------------------------------------------------------------------------------

    async def _put(
        self, pacer: Pacer, stream: Stream | None, priority: Priority, part: int, post: Post
    ) -> None:
        """Let message number `part` be `post`."""
        shown = self._shown.get(part)
        if shown is None:
            was_tried = part in self._tried
            message_id = await self._send(pacer, stream, priority, part, post)
            shown = self._shown[part] = _Shown(part, message_id, None if was_tried else post)
        if shown.post == post:
            return
        try:
            await pacer.send(priority, stream, lambda: self._edit(shown.message_id, post))
        except Refused:
            if priority is not Priority.FINAL:
                raise
            await self._replace(pacer, stream, shown, post)
        shown.post = post

    async def _edit(self, message_id: str, post: Post) -> None:
        try:
            await self._port.edit(self._origin.where, message_id, post)
        except Limited:
            self.measures.edit(self._platform, "rate_limited")
            raise
        self.measures.edit(self._platform, "sent")

    async def _send(
        self, pacer: Pacer, stream: Stream | None, priority: Priority, part: int, post: Post
    ) -> str:
        wanted = Delivery(self._turn_id, part, self._place_id, post.key)
        noted = await self._store.write(intend, wanted, self._clock.now_ms())
        message_id = noted.message_id
        if message_id is None:
            message_id = await pacer.send(priority, stream, lambda: self._show_new(part, post))
        await self._note(part, message_id)
        return message_id

    async def _show_new(self, part: int, post: Post) -> str:
        self._tried.add(part)
        with self.seen.sending(part):
            return await self._port.post(self._origin.where, self._origin.event_id, post)

    async def _replace(self, pacer: Pacer, stream: Stream | None, shown: _Shown, post: Post) -> None:
        """What cannot be edited is shown anew, and only then taken away."""
        old_id = shown.message_id
        anew = Post(post.text, key_of(self._turn_id, shown.part, 1), post.turn_id, post.controls, post.file)
        shown.message_id = await pacer.send(
            Priority.FINAL, stream, lambda: self._port.post(self._origin.where, self._origin.event_id, anew)
        )
        await self._note(shown.part, shown.message_id)
        await self._try(
            lambda: pacer.send(
                Priority.CONTROL, stream, lambda: self._port.remove(self._origin.where, old_id)
            )
        )

    async def _take_away(self, pacer: Pacer, stream: Stream | None, shown: _Shown) -> None:
        await pacer.send(
            Priority.FINAL, stream, lambda: self._port.remove(self._origin.where, shown.message_id)
        )
        await self._store.write(note_gone, self._turn_id, shown.part, self._clock.now_ms())

    async def _note(self, part: int, message_id: str) -> None:
        await self._store.write(note_shown, self._turn_id, part, message_id, self._clock.now_ms())

    async def _try(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do what need not succeed."""
        try:
            await work()
        except SendError as error:
            self._num_failures += 1
            logger.info("turn %s: %s", self._turn_id, error)

    async def _insist(self, work: Callable[[], Awaitable[object]], waits: Sequence[float] = RETRY_S) -> None:
        """Do it again while the platform cannot be reached. Raises Refused, or Unreachable in the end."""
        for wait_s in waits:
            try:
                await work()
            except (Unreachable, Limited) as error:
                logger.warning("turn %s: %s; once more in %s s", self._turn_id, error, wait_s)
                self.measures.delivery_retried(self._platform)
                await self._clock.sleep(wait_s)
            else:
                return
        await work()
