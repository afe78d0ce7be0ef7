"""Sessions that know a persona's instructions and nothing more: conversations are forked from them.

Each is told its instructions once, behind the first conversation that has them and never before an answer.
Without it a conversation is told them itself, so nothing that goes wrong here does harm.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from bot.brain import Message
from bot.sessions.forking import LEAST_SHARED_TOKENS
from bot.sessions.holder import Holder
from swarm.background import RunningGroup
from swarm.errors import SwarmError
from swarm.inference import InferenceSession

logger = logging.getLogger(__name__)

Opening = AbstractAsyncContextManager[InferenceSession]

PREFILL_S = 20.0
MOST_PREFIXES = 256
_BEGINNINGS = ("a", "1", "\n", "<")
"""What people may begin with: the tokens before are not to depend on it."""


class Personas:
    """At most `most` sessions among the `holders` of a pool; the least recently used one is let go first."""

    def __init__(
        self,
        holders: dict[Hashable, Holder],
        hold: Callable[[Hashable, Opening], Holder],
        open_session: Callable[[], Opening],
        group: RunningGroup,
        most: int,
    ) -> None:
        self._holders = holders
        self._hold = hold
        self._open_session = open_session
        self._group = group
        self._most = most
        self._begun: dict[tuple[int, ...], asyncio.Task[None]] = {}

    @property
    def num_ready(self) -> int:
        """Those that conversations can be forked from."""
        return sum(holder.session is not None and holder.is_idle for _, holder in self._oldest_first())

    def begin(self, ids: Sequence[int]) -> None:
        """Have a session that knows `ids`, some time, if that can be had without trouble."""
        key = tuple(ids)
        if self._most and len(key) >= LEAST_SHARED_TOKENS and key not in self._begun:
            self._begun[key] = self._group.create_task(self._try(key))

    async def prefill(self, ids: Sequence[int]) -> None:
        """Have a session that knows `ids`. Raises SwarmError, or TimeoutError after PREFILL_S."""
        key = ("persona", tuple(ids))
        known = self._holders.get(key)
        if known is not None and known.session is not None:
            return
        await self._make_room()
        holder = self._hold(key, self._open_session())
        try:
            async with asyncio.timeout(PREFILL_S), holder.lock:
                await (await holder.opened()).feed(ids)
        except BaseException:  # whatever ends it, half a prefix must not be taken for a whole one
            if self._holders.get(key) is holder:
                del self._holders[key]
            await holder.let_go(keep=False)
            raise

    async def forget(self, ids: Sequence[int]) -> None:
        """Close the session that knows `ids` and nothing more, though it is only just being told them."""
        key = tuple(ids)
        task = self._begun.pop(key, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        holder = self._holders.pop(("persona", key), None)
        if holder is not None:
            await holder.let_go(keep=False)

    async def _try(self, ids: tuple[int, ...]) -> None:
        try:
            await self.prefill(ids)
        except (SwarmError, TimeoutError) as error:
            logger.info("a persona of %d tokens is not prefilled: %s", len(ids), error)
        finally:
            if self._begun.get(ids) is asyncio.current_task():
                del self._begun[ids]

    async def _make_room(self) -> None:
        oldest = self._oldest_first()
        for key, holder in oldest[: max(0, len(oldest) - self._most + 1)]:
            del self._holders[key]
            await holder.let_go(keep=False)

    def _oldest_first(self) -> list[tuple[Hashable, Holder]]:
        personas = [(key, holder) for key, holder in self._holders.items() if isinstance(key, tuple)]
        return sorted(personas, key=lambda each: each[1].last_used_s)


class Prefixes:
    """The ids with which all conversations under the same instructions begin."""

    def __init__(self, encode: Callable[[Sequence[Message]], list[int]]) -> None:
        self._encode = encode
        self._of: dict[str, list[int]] = {}

    def learn(self, messages: Sequence[Message]) -> None:
        """Note the prefix of a conversation that begins with instructions. Slow: it tokenizes."""
        system = messages[0]
        if system["role"] != "system" or system["content"] in self._of:
            return
        if len(self._of) >= MOST_PREFIXES:
            self._of.pop(next(iter(self._of)), None)
        self._of[system["content"]] = self._shared_by_all(system)

    def forget(self, instructions: str) -> list[int]:
        """Return the prefix of conversations under them, and note it no more. Slow if it was not noted."""
        known = self._of.pop(instructions, None)
        return self._shared_by_all({"role": "system", "content": instructions}) if known is None else known

    def of(self, ids: Sequence[int]) -> list[int]:
        """The prefix of a conversation; empty if it has none."""
        known = (each for each in tuple(self._of.values()) if list(ids[: len(each)]) == each)
        return max(known, key=len, default=[])

    def _shared_by_all(self, system: Mapping[str, str]) -> list[int]:
        told = [self._encode([system, {"role": "user", "content": beginning}]) for beginning in _BEGINNINGS]
        return [column[0] for column in _while_equal(told)]


def _while_equal(rows: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    columns = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        columns.append(column)
    return columns
