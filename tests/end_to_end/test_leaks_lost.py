"""Servers are killed and told to stop while sessions run over them: those that remain hold nothing for it."""

import asyncio
import signal
from pathlib import Path

import pytest

from swarm.checkpoint import open_checkpoint
from swarm.checkpoint.fitting import DEFAULT_KV_TOKENS
from swarm.client import SwarmModel
from tests.end_to_end.attacker import open_attacker
from tests.end_to_end.conversations import open_client
from tests.end_to_end.endings import PROMPT_TOKENS, opened
from tests.end_to_end.processes import Forge, ProcessSwarm, Service, open_process_swarm
from tests.end_to_end.resources import ServiceFigures, temporary_folders

SETTLED_S = 15.0
GROWTH = 1.05

NUM_SESSIONS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def talk_through(model: SwarmModel, lose: asyncio.Event, number: int, half: asyncio.Barrier) -> str:
    """A session that goes on after a server of its route was lost; returns who it then runs over."""
    async with opened(model, number) as session:
        await half.wait()
        await lose.wait()
        for _ in range(3):
            await session.feed([5])
        assert session.position == PROMPT_TOKENS + 3
        return session.route[-1].peer_id


async def lose_a_server(swarm: ProcessSwarm, model: Path, victim: Service, number: signal.Signals) -> None:
    """Send a signal to `victim` while sessions run over it; all of them go on over its successor."""
    async with open_client(swarm.initial_peers, model) as client:
        lost, half = asyncio.Event(), asyncio.Barrier(NUM_SESSIONS + 1)
        async with asyncio.TaskGroup() as group:
            talks = [
                group.create_task(talk_through(client, lost, place, half)) for place in range(NUM_SESSIONS)
            ]
            await half.wait()
            (successor,) = await asyncio.to_thread(swarm.start, "3:6")
            await client.network.directory.refresh()
            victim.send(number)
            if number == signal.SIGTERM:
                await asyncio.sleep(0.5)  # so that they are told, and go while the old server still lives
            lost.set()
        assert {talk.result() for talk in talks} == {successor.peer_id}
    await asyncio.to_thread(victim.wait_exit, 20)


async def settle(server: Service, model: Path) -> ServiceFigures:
    """Wait until a server has all its room again; returns what it takes then."""
    fingerprint = open_checkpoint(str(model)).fingerprint
    async with open_attacker(server.peer_id, server.addresses, fingerprint) as witness:
        control = await witness.control()
        async with asyncio.timeout(SETTLED_S):
            while (await control.vitals()).free_tokens != DEFAULT_KV_TOKENS:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)  # the witness' own streams
    return ServiceFigures.of(server)


async def test_servers_that_are_killed_or_drained_leave_nothing_on_the_others_or_in_temporary_folders(
    forge: Forge, talking_model: Path
) -> None:
    with open_process_swarm(forge, talking_model) as swarm:
        steady, killed = await asyncio.to_thread(swarm.start, "0:3", "3:6")
        folders = {server.name: temporary_folders(*server.child_pids()) for server in (steady, killed)}
        await lose_a_server(swarm, talking_model, killed, signal.SIGKILL)
        before = await settle(steady, talking_model)
        drained = swarm.services[-1]
        folders[drained.name] = temporary_folders(*drained.child_pids())
        await lose_a_server(swarm, talking_model, drained, signal.SIGTERM)
        assert drained.exit_code == 0
        after = await settle(steady, talking_model)
        assert after.more_than(before) == {}
        assert after.own.resident_bytes < GROWTH * before.own.resident_bytes
        await settle(swarm.services[-1], talking_model)
        left = {path for gone in (killed, drained) for path in folders[gone.name] if path.exists()}
        assert left == set(), "the next server to start removes what a killed one left"
        assert all(path.exists() for path in folders[steady.name])
        assert "Traceback" not in steady.log + drained.log
