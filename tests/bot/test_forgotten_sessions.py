"""What is forgotten is gone from the servers too, though the conversation's session was put away long ago."""

from pathlib import Path

import pytest

from tests.bot.talking import Talking
from tests.bot.test_behaviours_sessions import OFFERS, QUESTION, small, talking_in
from tests.end_to_end.exact import SmallModel
from tests.end_to_end.swarm import Swarm, open_swarm, until

pytestmark = pytest.mark.timeout(120)

__all__ = ["small"]

FREED_S = 10.0


def num_kept(swarm: Swarm) -> int:
    """Sessions on the first server that nobody holds: it keeps them for their lease."""
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
