"""What is forgotten is gone from the servers too, though the conversation's session was put away long ago."""

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from storage.database import Transaction
from storage.live_sessions import keep_session, kept_session
from swarm.errors import SwarmError
from tests.bot.talking import Talking
from tests.bot.test_behaviours_sessions import OFFERS, QUESTION, small, talking_in
from tests.bot.test_sessions import FIRST, talking
from tests.end_to_end.exact import SmallModel, prompt
from tests.end_to_end.swarm import Swarm, open_swarm, until

pytestmark = pytest.mark.timeout(120)

__all__ = ["small"]

FREED_S = 10.0


def num_kept(swarm: Swarm) -> int:
    """Sessions on the first server, whether somebody holds them or not."""
    return sum(1 for _ in swarm.servers[0].host.table.sessions())


async def forget(talking: Talking, what: str) -> None:
    for _ in ("asked", "confirmed"):
        await talking.call("forget", what=what)


@pytest.mark.parametrize("what", ["everything", "here"])
async def test_behaviour_28_after_a_restart_servers_free_what_is_forgotten(
    small: SmallModel, store_path: Path, tmp_path: Path, what: str
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking_in(small, swarm, store_path, tmp_path / "key") as talking:
            await talking.say(QUESTION)
        assert num_kept(swarm) == 1
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await forget(talking, what)
            assert await talking.turns() == []
            await until(lambda: num_kept(swarm) == 0, FREED_S, "the server frees the session")


async def test_a_session_that_is_left_behind_is_freed_though_it_was_put_away(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking_in(small, swarm, store_path, tmp_path / "key") as talking:
            await talking.say(QUESTION)
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await talking.call("new")
            await until(lambda: num_kept(swarm) == 0, FREED_S, "the server frees the session")


async def test_a_server_that_is_gone_keeps_nobody_from_forgetting(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking_in(small, swarm, store_path, tmp_path / "key") as talking:
            await talking.say(QUESTION)
        swarm.servers[1].kill()
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await forget(talking, "everything")
            assert await talking.turns() == []
            await until(lambda: num_kept(swarm) == 0, FREED_S, "the server frees the session")


async def test_a_lease_that_only_the_store_takes_for_ended_is_ended_on_the_servers(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking_in(small, swarm, store_path, tmp_path / "key", lease_ms=0) as talking:
            await talking.say(QUESTION)
        assert num_kept(swarm) == 1, "its lease begins when its client is gone"
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await forget(talking, "everything")
            await until(lambda: num_kept(swarm) == 0, FREED_S, "the server frees the session")


async def test_a_session_that_cannot_be_attached_to_is_freed(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking_in(small, swarm, store_path, tmp_path / "key") as talking:
            await talking.say(QUESTION)
            (said,) = await talking.turns()
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await talking.store.write(_spoil, said.question.conversation_id)
            await talking.say(QUESTION)
            await until(lambda: num_kept(swarm) == 1, FREED_S, "the session of before is freed")


def _spoil(connection: Transaction, conversation_id: int) -> None:
    kept = kept_session(connection, conversation_id)
    assert kept is not None
    keep_session(connection, replace(kept, ids=[token + 1 for token in kept.ids]))


async def test_forgetting_while_a_turn_begins_leaves_neither_a_session_nor_a_ticket(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm, AsyncExitStack() as stack:
        talk = await stack.enter_async_context(talking(small, swarm, store_path, tmp_path / "key"))
        for number in range(12):
            answering = asyncio.create_task(talk.answer(FIRST, prompt(number + 1, 20)))
            await asyncio.sleep(0.01 * number)
            await talk.brain.forget(FIRST)
            with suppress(SwarmError):  # its session was closed under it
                await answering
        await talk.brain.forget(FIRST)
        await until(lambda: num_kept(swarm) == 0, FREED_S, "nothing is left on the server")
        assert await talk.store.read(kept_session, FIRST) is None
        assert len(await talk.answer(FIRST, prompt(1, 20))) == 26, "and the next turn is answered"
