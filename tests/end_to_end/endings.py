"""All the ways in which sessions come to their end on a server that lives on, some of them rude."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from swarm.inference import InferenceSession
from tests.end_to_end.attacker import Attacker, hidden, step

LEASE_MS = 100
PROMPT_TOKENS = 40
LONG_TOKENS = 700  # so many that the client goes away while they are computed


class Opener(Protocol):
    """A client: a `SwarmModel`, or one of swarm.py's."""

    def session(
        self, *, ticket: bytes | None = None, ids: Sequence[int] = ()
    ) -> AbstractAsyncContextManager[InferenceSession]:
        """Open a session, or attach to the one of `ticket`."""


@dataclass(frozen=True)
class People:
    """Who opens sessions: a client, and somebody who speaks to one server of two by hand."""

    model: Opener
    stranger: Attacker
    blocks: tuple[int, int]
    """What the stranger's server hosts."""


Ending = Callable[[People, int], Coroutine[None, None, None]]


def some_ids(number: int, count: int) -> list[int]:
    """Token ids, others for every `number`."""
    return [(7 * number + 3 * at) % 200 + 3 for at in range(count)]


@asynccontextmanager
async def opened(
    model: Opener, number: int, ids: Sequence[int] = (), lease_ms: int = LEASE_MS
) -> AsyncIterator[InferenceSession]:
    """A session with a prompt in it, which the servers keep for `lease_ms` if nobody speaks for it."""
    async with model.session() as session:
        session.driver.machine.lease_ms = lease_ms  # before the first bind, which another task sends
        await session.feed(ids or some_ids(number, PROMPT_TOKENS))
        yield session


async def closed(people: People, number: int) -> None:
    async with opened(people.model, number) as session:
        await session.feed([5])
        await session.feed([6])


async def closed_after_a_rollback(people: People, number: int) -> None:
    async with opened(people.model, number) as session:
        session.rollback(PROMPT_TOKENS - 9)
        await session.feed([5])
        session.rollback(3)


async def detached_for_good(people: People, number: int) -> None:
    async with opened(people.model, number) as session:
        await session.feed([5])
        session.detach()


async def attached_again(people: People, number: int) -> None:
    async with opened(people.model, number, lease_ms=60_000) as session:
        ids, ticket = session.ids, session.detach()
    async with people.model.session(ticket=ticket, ids=ids) as session:
        await session.feed([5])


async def abandoned_in_prefill(people: People, number: int) -> None:
    async with opened(people.model, number) as session:
        feeding = asyncio.create_task(session.feed(some_ids(number, LONG_TOKENS)))
        await asyncio.sleep(0.01 * (number % 4))
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding


async def parent_closed_first(people: People, number: int) -> None:
    await _closed_in_order(people.model, number, (0, 1, 2))


async def parent_closed_last(people: People, number: int) -> None:
    await _closed_in_order(people.model, number, (2, 1, 0))


async def _closed_in_order(model: Opener, number: int, order: Sequence[int]) -> None:
    """A session, its fork and the fork's fork; what is left goes on after each close."""
    stacks = [AsyncExitStack() for _ in order]
    try:
        parent = await stacks[0].enter_async_context(opened(model, number))
        child = await stacks[1].enter_async_context(parent.fork())
        await child.feed([5, 6])
        grandchild = await stacks[2].enter_async_context(child.fork(PROMPT_TOKENS + 1))
        family = [parent, child, grandchild]
        await grandchild.feed([7])
        for place in order:
            await family[place].feed([8])
            await stacks[place].aclose()
    finally:
        for stack in stacks:
            await stack.aclose()


async def chain_dropped(people: People, number: int) -> None:
    """Somebody's connection breaks, with a step under way."""
    stranger, (start, end) = people.stranger, people.blocks
    control = await stranger.control()
    _, stream = await stranger.opened(control, start=start, end=end, lease_ms=LEASE_MS)
    await stream.write(step(100), [hidden(100)])
    if number % 2:
        await control.vitals()
    stream.close()
    control.stream.close()


async def bound_and_never_used(people: People, number: int) -> None:
    """A bind, and neither a stream nor a farewell."""
    stranger, (start, end) = people.stranger, people.blocks
    control = await stranger.control()
    await control.ask(stranger.bind(number.to_bytes(16), start=start, end=end, lease_ms=LEASE_MS))
    control.stream.close()


ENDINGS: dict[Ending, int] = {
    closed: 1,
    closed_after_a_rollback: 1,
    detached_for_good: 1,
    attached_again: 1,
    abandoned_in_prefill: 1,
    parent_closed_first: 3,
    parent_closed_last: 3,
    chain_dropped: 1,
    bound_and_never_used: 1,
}
"""How many sessions each of them opens."""


async def end_in_every_way(people: People, num_sessions: int) -> None:
    """Open at least `num_sessions`, those of one round side by side, and end them in every way."""
    num_rounds = -(-num_sessions // sum(ENDINGS.values()))
    for first in range(0, num_rounds * len(ENDINGS), len(ENDINGS)):
        async with asyncio.TaskGroup() as group:
            for number, ending in enumerate(ENDINGS, first):
                group.create_task(ending(people, number))
