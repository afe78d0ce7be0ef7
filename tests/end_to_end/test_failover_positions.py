"""A server is killed at every position of an answer, and nobody can tell from the words.

Sessions stand at different positions of their answers when one server goes: so one death is a failover at
every position at once, each from a fresh chain. Each family loses one hop this way or that way; `--all` has
the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from swarm.inference import InferenceSession
from tests.end_to_end.exact import (
    FAMILIES,
    LOST_HOPS,
    Answer,
    SmallModel,
    each_family,
    every_family,
    prompt,
    small_model,
)
from tests.end_to_end.swarm import BlockServer, Offer, Swarm, open_swarm, spans

# A quarter of a minute each on two cores, and sensitive to false alarms when others use them.
pytestmark = pytest.mark.timeout(300)

SPANS = [(0, 2), (2, 5), (5, 6)]
PRIMARY, SPARE = 1e5, 100.0
ANSWER_TOKENS = 32
PROMPT_TOKENS = 7
ROOM_TOKENS = 1 << 15  # 32 sessions, each granted 256 at once, and twice while one moves


@pytest_asyncio.fixture(autouse=True)
async def without_debug_mode() -> None:
    """Thirty sessions at once take twice as long in it; `--all` has it for all other tests."""
    asyncio.get_running_loop().set_debug(False)


@dataclass
class Talk:
    """One session and its answer."""

    session: InferenceSession
    answer: Answer


class Talks:
    """Sessions on the same three hops, each somewhere else in its answer."""

    def __init__(self, swarm: Swarm, talks: Sequence[Talk]) -> None:
        self.swarm = swarm
        self.talks = talks

    @property
    def path(self) -> list[BlockServer]:
        """The servers that all use now."""
        [path] = {tuple(self.swarm.path(talk.session)) for talk in self.talks}
        return list(path)

    async def advance(self, num_tokens: int | None = None) -> None:
        """All go on at the same time."""
        async with asyncio.TaskGroup() as group:
            for talk in self.talks:
                group.create_task(talk.answer.advance(num_tokens))

    def check_survivors(self) -> None:
        """Nobody computed anything again below what was final."""
        assert {server.recomputed_tokens for server in self.swarm.living} == {0}


@asynccontextmanager
async def talks_at(model: SmallModel, positions: Sequence[int], num_spares: int = 1) -> AsyncIterator[Talks]:
    """Three hops and spares, and a session at every one of `positions` of its answer."""
    primaries = [Offer(start, end, ROOM_TOKENS, PRIMARY) for start, end in SPANS]
    spares = [Offer(start, end, ROOM_TOKENS, SPARE) for start, end in SPANS] * num_spares
    async with open_swarm(model, *primaries, *spares) as swarm:
        client = await swarm.client()
        async with AsyncExitStack() as stack:
            talks = []
            for position in positions:
                session = await stack.enter_async_context(client.session())
                ids = prompt(position, PROMPT_TOKENS)
                talks.append(Talk(session, Answer(model, session, ids, ANSWER_TOKENS)))
            async with asyncio.TaskGroup() as group:
                for talk, position in zip(talks, positions, strict=True):
                    group.create_task(talk.answer.advance(position))
            yield Talks(swarm, talks)
        await swarm.check_clean()


async def lose_between_steps(model: SmallModel, hop: int, positions: Sequence[int]) -> None:
    """Kill while nobody waits for anything."""
    async with talks_at(model, positions) as talks:
        await talks.advance(0)
        victim = talks.swarm.servers[hop]
        victim.kill()
        await talks.advance()
        talks.check_survivors()
        assert {tuple(spans(talk.session.route)) for talk in talks.talks} == {tuple(SPANS)}
        assert victim not in talks.path
        every_token_once = len(positions) * (PROMPT_TOKENS + ANSWER_TOKENS - 1)
        assert {server.executed_tokens for server in talks.path[hop + 1 :]} <= {every_token_once}
        # Those before it may have passed on the first step, which nobody took: twice if it went out again
        # after the link was lost, before the server was.
        first_steps = PROMPT_TOKENS + len(positions) - 1
        for server in talks.path[:hop]:
            assert server.executed_tokens - every_token_once in range(2 * first_steps + 1)


async def lose_under_way(model: SmallModel, hop: int, positions: Sequence[int]) -> None:
    """Kill while every session has a step on its way."""
    async with talks_at(model, positions) as talks:
        async with asyncio.TaskGroup() as group:
            group.create_task(talks.advance())
            front = talks.swarm.servers[: hop + 1]
            while not any(server.host.executor.queue_depth for server in front):  # noqa: ASYNC110
                await asyncio.sleep(0)
            talks.swarm.servers[hop].kill()
        talks.check_survivors()


@every_family("hop", LOST_HOPS, quick=("llama", "qwen3"))
async def test_a_server_may_go_between_any_two_tokens(family: str, hop: int) -> None:
    await lose_between_steps(small_model(family), hop, range(ANSWER_TOKENS))


@every_family("hop", LOST_HOPS, turn=1, quick=("llama", "bloom"))
async def test_a_server_may_go_while_a_token_is_under_way(family: str, hop: int) -> None:
    await lose_under_way(small_model(family), hop, range(hop % 2, ANSWER_TOKENS, 2))


@each_family(quick=("llama",), families=FAMILIES)
async def test_one_server_may_go_after_the_other(family: str) -> None:
    async with talks_at(small_model(family), [0, 1, 13, 26]) as talks:
        for victim in talks.swarm.servers[:3]:
            victim.kill()
            await talks.advance(2)
        await talks.advance()
        talks.check_survivors()
        assert talks.path == talks.swarm.servers[3:]
