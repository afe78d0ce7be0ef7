"""Real server processes that are killed, frozen, stopped and started while an answer is being written."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.client import SwarmModel
from swarm.connections import HEARTBEAT_S, MISSED_BEATS
from swarm.inference import InferenceSession
from swarm.notices import Notice
from swarm.wire.blocks import PeerId
from tests.end_to_end.conversations import answer, expected_ids, open_client
from tests.end_to_end.processes import Forge, ProcessSwarm, Service, open_process_swarm
from tests.swarm.peers import is_relay

NUM_TOKENS = 60
FAIL_AT = 20
SLACK_S = 2.0  # the machine may be busy with other things
USED_WITHIN_S = 5.0

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def swarm(forge: Forge, talking_model: Path) -> Iterator[ProcessSwarm]:
    """Blocks 0-1 and 4-5 once; those in between belong to the tests."""
    with open_process_swarm(forge, talking_model) as swarm:
        swarm.start("0:2", "4:6")
        yield swarm


@pytest.fixture
def middle(swarm: ProcessSwarm) -> Iterator[list[Service]]:
    """Two servers for the blocks in between; what else a test starts ends with it."""
    before = [service for service in swarm.services if service.exit_code is None]
    spare = before[3:]
    spare += swarm.start(*["2:4"] * (2 - len(spare)))
    yield spare
    for service in [service for service in swarm.services if service not in (*before, *spare)]:
        swarm.end(service)


class Story:
    """What happened to an answer, and when."""

    def __init__(self, session: InferenceSession) -> None:
        self.notices: list[tuple[float, Notice]] = []
        self.failed_at_s = 0.0
        self.is_interrupted = asyncio.Event()
        session.on_notice = self._note

    def _note(self, notice: Notice) -> None:
        self.notices.append((time.monotonic(), notice))
        self.is_interrupted.set()

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for _, notice in self.notices]

    @property
    def detection_s(self) -> float:
        return self.notices[0][0] - self.failed_at_s


async def answer_with_a_signal(
    model: SwarmModel, swarm: ProcessSwarm, session: InferenceSession, number: signal.Signals
) -> tuple[list[int], Story, Service]:
    """An answer in whose middle the second server gets a signal: its tokens, its story, the server."""
    story, victims = Story(session), []

    def fail(count: int) -> None:
        if count == FAIL_AT:
            story.failed_at_s = time.monotonic()
            victims.append(swarm.named(session.route[1].peer_id))
            victims[0].send(number)

    ids = await answer(model, session, NUM_TOKENS, fail)
    return ids, story, victims[0]


async def test_a_killed_server_changes_no_token(
    swarm: ProcessSwarm, middle: list[Service], talking_model: Path
) -> None:
    async with open_client(swarm.initial_peers, talking_model) as model, model.session() as session:
        ids, story, victim = await answer_with_a_signal(model, swarm, session, signal.SIGKILL)
        route = {hop.peer_id for hop in session.route}
    assert ids == expected_ids(talking_model, NUM_TOKENS)
    assert story.kinds == ["lost", "recovered"]
    assert story.notices[1][1].pause_s > 0
    assert story.detection_s < MISSED_BEATS * HEARTBEAT_S
    assert victim.peer_id not in route
    assert session.counters.relayed_frames == 0
    assert victim.exit_code == -signal.SIGKILL


async def test_a_frozen_server_is_noticed_replaced_and_does_no_harm_when_it_wakes(
    swarm: ProcessSwarm, middle: list[Service], talking_model: Path
) -> None:
    async with open_client(swarm.initial_peers, talking_model) as model:
        async with model.session() as session:
            ids, story, victim = await answer_with_a_signal(model, swarm, session, signal.SIGSTOP)
            assert ids == expected_ids(talking_model, NUM_TOKENS)
            assert story.kinds == ["lost", "recovered"]
            assert story.detection_s < MISSED_BEATS * HEARTBEAT_S + SLACK_S
            victim.send(signal.SIGCONT)
            longer = expected_ids(talking_model, 2 * NUM_TOKENS)
            assert await answer(model, session, 2 * NUM_TOKENS) == longer
        async with model.session() as another:
            assert await answer(model, another, NUM_TOKENS) == ids
    assert victim.exit_code is None


async def test_a_server_told_to_end_drains_says_goodbye_and_changes_no_token(
    swarm: ProcessSwarm, middle: list[Service], talking_model: Path
) -> None:
    async with open_client(swarm.initial_peers, talking_model) as model, model.session() as session:
        ids, story, victim = await answer_with_a_signal(model, swarm, session, signal.SIGTERM)
        assert ids == expected_ids(talking_model, NUM_TOKENS)
        assert story.kinds == ["lost", "recovered"]
        assert await asyncio.to_thread(victim.wait_exit, 15.0) == 0
        await model.network.directory.refresh()
        assert victim.peer_id not in {record.peer for record in model.network.directory.servers}
    assert "draining: " in victim.log
    assert victim.log.endswith("gone\n")


async def test_a_server_that_joins_is_used_by_new_routes_within_five_seconds(
    swarm: ProcessSwarm, middle: list[Service], talking_model: Path
) -> None:
    async with open_client(swarm.initial_peers, talking_model) as model:
        (newcomer,) = await asyncio.to_thread(swarm.start, "0:6")
        async with asyncio.timeout(USED_WITHIN_S):
            while True:
                async with model.session() as session:
                    await answer(model, session, 2)
                    if [hop.peer_id for hop in session.route] == [newcomer.peer_id]:
                        break


async def test_a_server_that_wants_no_relays_is_none(swarm: ProcessSwarm, middle: list[Service]) -> None:
    other = swarm.begin("2:4", "--no-relay")
    await asyncio.to_thread(other.wait_ready)
    assert await is_relay(PeerId(middle[0].peer_id), middle[0].addresses)
    assert not await is_relay(PeerId(other.peer_id), other.addresses)


async def test_an_answer_waits_for_blocks_that_nobody_serves_until_somebody_does(
    swarm: ProcessSwarm, middle: list[Service], talking_model: Path
) -> None:
    async with open_client(swarm.initial_peers, talking_model) as model, model.session() as session:
        story = Story(session)

        def kill_both(count: int) -> None:
            if count == FAIL_AT:
                for server in middle:
                    server.send(signal.SIGKILL)

        task = asyncio.create_task(answer(model, session, NUM_TOKENS, kill_both))
        await story.is_interrupted.wait()
        newcomer = await asyncio.to_thread(swarm.start, "2:4")
        ready_s = time.monotonic()
        assert await task == expected_ids(talking_model, NUM_TOKENS)
        recovered_s = next(at for at, notice in story.notices if notice.kind == "recovered")
        assert session.route[1].peer_id == newcomer[0].peer_id
    assert recovered_s - ready_s < USED_WITHIN_S
