"""A server without room: the session goes where there is some, and the server is not blamed."""

import asyncio

from swarm.notices import Notice
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import Offer, open_swarm


async def test_a_session_goes_on_where_there_is_room() -> None:
    small, large = Offer(0, 6, room_tokens=64, blocks_per_s=1e5), Offer(0, 6, blocks_per_s=1000.0)
    async with open_swarm(small_model("llama"), small, large) as swarm:
        client = await swarm.client()
        full, roomy = swarm.servers
        notices: list[Notice] = []
        async with client.session() as session:
            session.on_notice = notices.append
            ids = prompt(1, 100)
            await session.feed(ids[:50])
            assert swarm.path(session) == [full]
            async with asyncio.timeout(20):
                await session.feed(ids[50:99])
            assert swarm.path(session) == [roomy]
            assert [notice.kind for notice in notices] == ["full", "recovered"]
            assert not client.network.health.avoiding(), "busy is nobody's fault"
            await check_answer(swarm.model, session, ids, 4)
        await swarm.check_clean()


async def test_a_new_session_avoids_a_server_with_too_little_room_for_its_prompt() -> None:
    small, large = Offer(0, 6, room_tokens=64, blocks_per_s=1e5), Offer(0, 6, blocks_per_s=1000.0)
    async with open_swarm(small_model("llama"), small, large) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            ids = prompt(2, 100)
            await session.feed(ids[:99])
            assert swarm.path(session) == [swarm.servers[1]]
            await check_answer(swarm.model, session, ids, 2)
        await swarm.check_clean()
