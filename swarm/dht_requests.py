"""What requests to our node of the DHT may cost us: a peer pays for them as it does for frames on streams.

hivemind answers whatever comes, at once. A request that carries records has signatures to be checked, in our
loop; a peer that has asked for more than its share is let wait until that is paid for, as on streams: whoever
asks again as soon as they are refused would keep our p2pd busy. Who does not wait for answers is refused.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from swarm.streams import LOOP_AT_ONCE_S, LoopBudget
from swarm.wire.blocks import PeerId

REQUEST_S = 300e-6
RECORD_S = 300e-6
"""What our thread spends on a request, and on each key or record in it."""

WAIT_S = 0.5
MOST_WAITING_OF_PEER = 8
MOST_WAITING = 1024

Answer = Callable[[Any, Any], Awaitable[Any]]


class TooManyRequests(Exception):
    """Said to the peer in the place of an answer."""


class MeteredP2P:
    """hivemind's P2P, but for the handlers that are added: each request is charged to who sent it."""

    def __init__(self, p2p: Any, budget_of: Callable[[PeerId], LoopBudget], wait_s: float = WAIT_S) -> None:
        self._p2p = p2p
        self._budget_of = budget_of
        self._wait_s = wait_s
        self._waiting: Counter[PeerId] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._p2p, name)

    async def add_protobuf_handler(self, name: str, handler: Answer, *rest: Any, **options: Any) -> None:
        """As P2P does, with a handler that charges, lets wait and may refuse."""
        await self._p2p.add_protobuf_handler(
            name, functools.partial(self._answered, handler), *rest, **options
        )

    async def _answered(self, handler: Answer, request: Any, context: Any) -> Any:
        peer_id = PeerId(context.remote_id.to_base58())
        budget = self._budget_of(peer_id)
        if budget.owed_s() > LOOP_AT_ONCE_S:
            await self._let_wait(peer_id)
        if budget.owed_s() > LOOP_AT_ONCE_S:
            raise TooManyRequests("too many requests: ask again later")
        budget.charge(REQUEST_S + RECORD_S * len(getattr(request, "keys", ())))
        return await handler(request, context)

    async def _let_wait(self, peer_id: PeerId) -> None:
        """A while, unless enough of the peer's requests wait."""
        is_full = self._waiting.total() >= MOST_WAITING
        if is_full or self._waiting[peer_id] >= MOST_WAITING_OF_PEER:
            return
        self._waiting[peer_id] += 1
        try:
            await asyncio.sleep(self._wait_s)
        finally:
            self._waiting[peer_id] -= 1
            if not self._waiting[peer_id]:
                del self._waiting[peer_id]
