"""A platform in memory: it takes everything at once, within the limits of Discord."""

import time
from collections.abc import Sequence
from typing import Literal

from bot.clock import Clock
from bot.rendering.moments import in_utc
from bot.rendering.splitting import utf16_units
from bot.sending.pacer import Pacer
from bot.sending.pacing import ChannelPace
from bot.words import Attached, Inbound, Limits, Post, Refused, Where

LETTERS = 1900


class MemoryPort:
    """See bot.sending.outbound.Outbound."""

    def __init__(self, clock: Clock) -> None:
        self.limits = Limits(LETTERS)
        self.first_shown_s: dict[str, float] = {}
        """When the first text below a message was to be seen, by its id (`time.perf_counter`)."""
        self._clock = clock
        self._pacers: dict[str, Pacer] = {}
        self._shown: dict[str, dict[str, str]] = {}

    def texts(self, place: str) -> list[str]:
        """What is to be seen at a place, by prompt, parts put together."""
        whole: dict[str, str] = {}
        for key, text in self._shown.get(place, {}).items():
            prompt = key.partition("/")[0]
            whole[prompt] = f"{whole[prompt]} {text}" if prompt in whole else text
        return [text.strip() for text in whole.values()]

    def size(self, text: str) -> int:
        """See bot.sending.outbound.Outbound, as for all that follow."""
        return utf16_units(text)

    def moment(self, at_ms: int, now_ms: int) -> str:
        return in_utc(at_ms, now_ms)

    def pacer(self, where: Where) -> Pacer:
        return self._pacers.setdefault(where.place, Pacer(ChannelPace(), self._clock))

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        self.first_shown_s.setdefault(reply_to, time.perf_counter())
        message_id = f"{reply_to}/{post.key}"
        self._shown.setdefault(where.place, {})[message_id] = post.text
        return message_id

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        self._shown[where.place][message_id] = post.text

    async def remove(self, where: Where, message_id: str) -> None:
        self._shown[where.place].pop(message_id, None)

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        return {}

    async def typing(self, where: Where) -> None:
        """Nobody looks."""

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        """Nobody looks."""

    async def tell(self, inbound: Inbound, text: str, file: tuple[str, bytes] | None = None) -> None:
        """Nobody looks."""

    async def read(self, attached: Attached, most_bytes: int) -> bytes:
        raise Refused("nothing is attached here")
