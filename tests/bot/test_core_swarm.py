"""The core over a real swarm that loses servers, lacks some, or has no room: what people see then."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bot.clock import RealClock
from bot.core import Core, open_core, open_desk
from bot.sessions.brain import SwarmBrain, open_brain
from bot.words import Author, Where
from storage.database import Database, open_database
from storage.schema import turn
from storage.transcript import Said, _said
from swarm.background import running
from swarm.client import SwarmModel
from swarm.inference import InferenceSession
from swarm.sampling_params import SamplingParams
from swarm.text import load_tokenizer
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT, FakePort, Shown, called, said
from tests.bot.world import KEY, RULES
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model, prompt
from tests.end_to_end.swarm import Client, Offer, Swarm, open_swarm

pytestmark = pytest.mark.timeout(120)

CY = Author("cy", "Cy")
WITHIN_S = 50.0
ANSWER_TOKENS = 24


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """A small random model with a tokenizer."""
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


@dataclass
class Room:
    """A bot, and what people see of it."""

    core: Core
    port: FakePort
    store: Database
    brain: SwarmBrain
    client: Client
    small: SmallModel
    num_said: int = 0

    async def say(self, text: str, author: Author = ADA, where: Where = DIRECT) -> None:
        self.num_said += 1
        event = said(text, f"e{self.num_said}", where=where, author=author, sent_ms=int(time.time() * 1000))
        await self.core.receive("fake", [event])

    async def stop(self, author: Author, where: Where) -> None:
        self.num_said += 1
        event = called(
            "stop", f"e{self.num_said}", where=where, author=author, sent_ms=int(time.time() * 1000)
        )
        await self.core.receive("fake", [event])

    async def until(self, is_true: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while not is_true():
            assert time.monotonic() < deadline_s, self.port.texts
            await asyncio.sleep(0.01)

    async def quiet(self) -> None:
        await self.until(lambda: not self.core.num_busy)

    def shown_to(self, number: int) -> Shown | None:
        """The answer to the message of that number."""
        return next((it for it in self.port.messages if it.reply_to == f"e{number}"), None)

    def history_of(self, number: int) -> list[str]:
        shown = self.shown_to(number)
        return [] if shown is None else shown.history

    async def check_words(self) -> None:
        """Every answer is what the unsplit model says to what its session was told."""
        turns = {each.question.turn_id: each for each in await self.store.read(_all_turns)}
        for each in turns.values():
            if each.state == "stopped":
                continue
            assert each.progress.prompt_ids is not None
            ids = [*_told_before(turns, each), *each.progress.prompt_ids]
            wanted = self.small.greedy(ids, ANSWER_TOKENS)
            assert list(each.progress.answer_ids) == wanted[: len(each.progress.answer_ids)]
            assert len(each.progress.answer_ids) > 1


def _all_turns(connection: object) -> list[Said]:
    return _said(connection, turn.c.id.is_not(None))  # type: ignore[arg-type]


def _told_before(turns: dict[str, Said], said: Said) -> Sequence[int]:
    parent = turns.get(said.parent_id or "")
    if parent is None or said.progress.is_anew:
        return []
    assert parent.progress.prompt_ids is not None
    return [*_told_before(turns, parent), *parent.progress.prompt_ids, *parent.progress.answer_ids]


@asynccontextmanager
async def open_room(small: SmallModel, swarm: Swarm, path: Path, identity: Path) -> AsyncIterator[Room]:
    client = await swarm.client(identity=identity)
    model = SwarmModel(small.checkpoint, small.ends, load_tokenizer(small.checkpoint), client.network)
    clock = RealClock()
    params = SamplingParams(temperature=0.0, max_new_tokens=ANSWER_TOKENS)
    rules = replace(RULES, wishes=replace(RULES.wishes, params=params))
    port = FakePort(clock, letters=2000)
    async with (
        open_database(path) as store,
        open_brain(model, store, clock) as brain,
        open_core(
            open_desk(store, clock, KEY, rules), brain, {"fake": port}, boot="boot", rules=rules
        ) as core,
    ):
        yield Room(core, port, store, brain, client, small)
    await client.leave()


async def keep_busy(session: InferenceSession) -> None:
    """Use a session all the time, so that no server takes it for idle."""
    for number in itertools.count():
        session.rollback(session.position - 1)
        await session.feed([3 + number % 200])
        await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_behaviour_25_a_server_that_dies_in_mid_answer_changes_no_word_that_people_see(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    offers = (Offer(0, 3), Offer(3, 6, blocks_per_s=1e5), Offer(3, 6, blocks_per_s=100.0))
    async with (
        open_swarm(small, *offers) as swarm,
        open_room(small, swarm, store_path, tmp_path / "key") as room,
    ):
        await room.say("What is a block server?")
        await room.quiet()
        whole = room.port.texts[0]
        await room.say("What is a block server?", where=CHANNEL)
        await room.until(lambda: swarm.servers[1].executed_tokens > 60)
        swarm.servers[1].kill()
        await room.quiet()
        assert room.port.texts[1].split("\n\n(a server was lost")[0] == whole
        await room.check_words()


@pytest.mark.slow
async def test_behaviour_26_missing_blocks_are_named_and_the_answer_comes_when_a_server_joins(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, Offer(0, 3)) as swarm,
        open_room(small, swarm, store_path, tmp_path / "key") as room,
    ):
        await room.say("hello")
        await room.until(lambda: len(room.history_of(1)) == 2)
        looking, sentence = room.history_of(1)
        assert looking == "(looking for servers)"
        assert sentence.startswith("Nobody serves blocks 3-5 of the model right now.")
        assert "`contribute` tells how to help" in sentence
        await swarm.add(Offer(3, 6))
        await room.quiet()
        assert "Nobody serves" not in room.port.texts[0]
        await room.check_words()


@pytest.mark.slow
async def test_behaviour_27_who_waits_for_room_sees_their_place_and_what_was_parked_goes_on_as_it_was(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, Offer(0, 6, room_tokens=320)) as swarm,
        open_room(small, swarm, store_path, tmp_path / "key") as room,
    ):
        await room.say("a" * 120)
        await room.quiet()
        async with room.client.session() as hog:
            await hog.feed(prompt(1, 280))
            async with running(keep_busy(hog)):
                await room.say("b" * 120, BOB, CHANNEL)
                await room.until(lambda: "(all servers are full: you are next)" in room.history_of(2))
                await room.say("c" * 120, CY, CHANNEL)
                await room.until(lambda: "(all servers are full: 1 ahead of you)" in room.history_of(3))
                assert not room.brain.pool.is_open(1), "nobody uses Ada's session now: it is put away"
                await room.stop(BOB, CHANNEL)
                await room.until(lambda: "(all servers are full: you are next)" in room.history_of(3))
        await room.quiet()
        await room.say("and then?")
        await room.quiet()
        turns = await room.store.read(_all_turns)
        assert [each.state for each in turns] == ["length", "stopped", "length", "length"]
        await room.check_words()
        assert turns[3].progress.is_anew is False, "Ada's conversation goes on"
