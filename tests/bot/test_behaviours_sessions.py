"""Live sessions are real: a turn sends the first hop the ids that are new, and no others."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from bot.sessions.pool import Limits
from bot.words import Where
from demo.zygote import die_with
from server.session_effects import SessionKey
from storage.transcript import Said
from swarm.client import SwarmModel
from swarm.text import load_tokenizer
from tests.bot.platform import ADA, BOB, CHANNEL
from tests.bot.talking import ANSWER_TOKENS, WITHIN_S, Talking, open_talking
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model
from tests.end_to_end.swarm import Offer, Swarm, open_swarm, until

pytestmark = pytest.mark.timeout(120)

OFFERS = (Offer(0, 3), Offer(3, 6))
QUESTION = "What is a block server, and whose is it?"
THREAD = Where("fake", "thread", "thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """A small random model with a tokenizer."""
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


class FirstHop:
    """Counts what is sent there, session by session: those that end must not be missed."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._before: dict[SessionKey, int] = {}
        self.new()

    def new(self) -> int:
        """Token ids that were sent since this was last asked."""
        table = self._swarm.servers[0].host.table
        now = {session.key: session.counters.executed_tokens for session in table.sessions()}
        num = sum(count - self._before.get(key, 0) for key, count in now.items())
        self._before = now
        return num


def new_ids(said: Said) -> int:
    """What a turn has to send: its question and its answer. The last id of an answer goes with the next turn,

    as the last one of the answer before goes with this one.
    """
    assert said.progress.prompt_ids is not None
    num_before = 0 if said.progress.is_anew else 1
    return num_before + len(said.progress.prompt_ids) + len(said.progress.answer_ids) - 1


@asynccontextmanager
async def talking_in(
    small: SmallModel,
    swarm: Swarm,
    path: Path,
    identity: Path,
    boot: str = "boot",
    tokens: int = ANSWER_TOKENS,
    **limits: int,
) -> AsyncIterator[Talking]:
    """A bot in this process, from its start to its end."""
    client = await swarm.client(identity=identity)
    model = SwarmModel(small.checkpoint, small.ends, load_tokenizer(small.checkpoint), client.network)
    async with open_talking(model, path, boot=boot, limits=Limits(**limits), tokens=tokens) as talking:
        yield talking
    await client.leave()


async def assert_costs_what_is_new(talking: Talking, first_hop: FirstHop, text: str = QUESTION) -> None:
    await talking.say(text)
    last = (await talking.turns())[-1]
    assert last.progress.is_anew is False
    assert first_hop.new() == new_ids(last)


async def test_each_turn_costs_its_new_ids_also_after_a_retry_and_a_fork(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking_in(small, swarm, store_path, tmp_path / "key") as talking,
    ):
        first_hop = FirstHop(swarm)
        await talking.say(QUESTION)
        (first,) = await talking.turns()
        assert first_hop.new() == new_ids(first)
        await assert_costs_what_is_new(talking, first_hop)
        await talking.call("retry", temperature="0")
        (_, _, again) = await talking.turns()
        assert first_hop.new() == len(again.progress.answer_ids), "the question's last id, and the answer"
        await assert_costs_what_is_new(talking, first_hop)
        await talking.say("Say it again.", reply_to=talking.port.messages[0].message_id)
        fork = (await talking.turns())[-1]
        assert fork.parent_id == first.question.turn_id
        assert fork.question.conversation_id != first.question.conversation_id
        assert first_hop.new() == new_ids(fork)
        await assert_costs_what_is_new(talking, first_hop)
        assert not any("restoring" in text for shown in talking.port.messages for text in shown.history)


async def test_where_several_people_talk_each_turn_sends_its_new_ids_the_name_among_them(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking_in(small, swarm, store_path, tmp_path / "key") as talking,
    ):
        first_hop = FirstHop(swarm)
        tokenizer = load_tokenizer(small.checkpoint)
        await talking.say(QUESTION, where=THREAD)
        assert first_hop.new() == new_ids((await talking.turns())[0])
        for author in (BOB, ADA, BOB):
            await talking.say(QUESTION, where=THREAD, author=author)
            last = (await talking.turns())[-1]
            assert last.progress.is_anew is False
            assert last.progress.prompt_ids is not None
            assert f"[{author.name}]:\n{QUESTION}" in tokenizer.decode(last.progress.prompt_ids)
            assert first_hop.new() == new_ids(last)
        assert not any("restoring" in text for shown in talking.port.messages for text in shown.history)


@pytest.mark.slow
async def test_a_session_that_was_put_away_is_attached_to_and_costs_nothing_again(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking_in(small, swarm, store_path, tmp_path / "key", live=1) as talking,
    ):
        first_hop = FirstHop(swarm)
        await talking.say(QUESTION)
        await talking.say(QUESTION, where=CHANNEL)
        first, _ = await talking.turns()
        number = first.question.conversation_id
        assert (await talking.brain.session_state(number)).kind == "detached"
        first_hop.new()
        await assert_costs_what_is_new(talking, first_hop)


@pytest.mark.slow
async def test_after_a_restart_turns_and_forks_cost_what_is_new(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        first_hop = FirstHop(swarm)
        async with talking_in(small, swarm, store_path, tmp_path / "key") as talking:
            await talking.say(QUESTION)
            await talking.say(QUESTION)
            oldest = talking.port.messages[0].message_id
        first_hop.new()
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await talking.say("Say it again.", reply_to=oldest)
            fork = (await talking.turns())[-1]
            assert fork.parent_id == (await talking.turns())[0].question.turn_id
            assert first_hop.new() == new_ids(fork), "its parent's session was detached, and not live"


@pytest.mark.slow
async def test_behaviour_21_a_parked_session_is_told_all_again_and_its_reader_is_told_so_and_does_not_pay(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        first_hop = FirstHop(swarm)
        async with talking_in(small, swarm, store_path, tmp_path / "key", lease_ms=0) as talking:
            await talking.say("word " * 60)
        first_hop.new()
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            assert (await talking.brain.session_state(1)).kind == "parked"
            await talking.say(QUESTION)
            first, second = await talking.turns()
            assert first.progress.prompt_ids is not None
            num_before = len(first.progress.prompt_ids) + len(first.progress.answer_ids)
            assert first_hop.new() == num_before - 1 + new_ids(second)
            assert second.progress.prompt_ids is not None
            num_told = num_before + len(second.progress.prompt_ids)
            notice = f"(restoring the conversation: {num_told} tokens)"
            assert talking.port.messages[0].history[0] == notice
            assert second.progress.prefill_tokens == len(second.progress.prompt_ids)
            await assert_costs_what_is_new(talking, first_hop)


@pytest.mark.slow
async def test_behaviour_23_stop_cancels_the_step_on_the_servers_and_nothing_comes_after(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking_in(small, swarm, store_path, tmp_path / "key", tokens=400) as talking,
    ):
        first_hop = FirstHop(swarm)
        await talking.begin(QUESTION)
        await until(lambda: talking.port.messages, WITHIN_S, "something is shown")
        await talking.call("stop")
        (stopped,) = await talking.turns()
        assert stopped.state == "stopped"
        assert 0 < len(stopped.progress.answer_ids) < 400
        assert first_hop.new() - new_ids(stopped) in (0, 1), "the step that was under way"
        shown = talking.port.texts
        await asyncio.sleep(0.5)
        assert first_hop.new() == 0
        assert talking.port.texts == shown
        state = await talking.brain.session_state(stopped.question.conversation_id)
        assert (state.kind, state.num_tokens) == ("live", state.num_done)


@asynccontextmanager
async def in_a_process(
    small: SmallModel, swarm: Swarm, path: Path, identity: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A bot in a process of its own, that is there to be killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bot.talking",
        str(path),
        str(identity),
        str(small.path),
        *swarm._initial_peers,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=partial(die_with, os.getpid()),
    )
    try:
        await line_from(process, b"ready\n")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_from(process: asyncio.subprocess.Process, line: bytes) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        assert await process.stdout.readline() == line


def tell(process: asyncio.subprocess.Process, text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n".encode())


@pytest.mark.slow
async def test_after_kill_9_of_the_bot_the_next_turn_costs_what_is_new(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        first_hop = FirstHop(swarm)
        async with in_a_process(small, swarm, store_path, tmp_path / "key") as process:
            tell(process, QUESTION)
            await line_from(process, b"answered\n")
            process.kill()
            await process.wait()
        first_hop.new()
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            await assert_costs_what_is_new(talking, first_hop)


@pytest.mark.slow
async def test_after_kill_9_in_mid_answer_the_turn_is_answered_for_what_is_new(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        first_hop = FirstHop(swarm)
        async with in_a_process(small, swarm, store_path, tmp_path / "key") as process:
            tell(process, QUESTION)
            await line_from(process, b"answered\n")
            first_hop.new()
            tell(process, QUESTION)
            num_sent = 0
            while num_sent < 70:
                num_sent += first_hop.new()
                await asyncio.sleep(0.001)
            process.kill()
            await process.wait()
        first_hop.new()
        async with talking_in(small, swarm, store_path, tmp_path / "key", "again") as talking:
            _, cut_off = await talking.turns()
            assert cut_off.state == "length"
            assert first_hop.new() == new_ids(cut_off)
            await assert_costs_what_is_new(talking, first_hop)
