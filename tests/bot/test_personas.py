"""What a persona is told is told once: later conversations under it send only what is theirs."""

import asyncio
import time
from pathlib import Path

import pytest

from bot.brain import Request
from bot.sessions.forking import num_shared
from bot.sessions.personas import Prefixes
from bot.sessions.pool import Limits
from swarm.client import SwarmModel
from swarm.sampling_params import SamplingParams
from swarm.text import load_tokenizer
from tests.bot.talking import Talking, open_talking
from tests.bot.test_sessions import FIRST, OFFERS, SECOND, Talk, talking
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model
from tests.end_to_end.swarm import open_swarm

READY_S = 20.0
TEACHER = "You are a patient teacher. " * 4
PIRATE = "You are a pirate and speak like one. " * 4
POET = "You are a poet, and every line of yours rhymes. " * 4


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """A small random model with a tokenizer."""
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


def question(talk: Talk, persona: str, text: str) -> list[int]:
    """The ids of a conversation that begins, as the core has them rendered."""
    return talk.brain.encode([{"role": "system", "content": persona}, {"role": "user", "content": text}])


async def ready(talk: Talk | Talking, number: int) -> None:
    """Wait until so many personas can be forked from."""
    deadline_s = time.monotonic() + READY_S
    while talk.brain.pool.personas.num_ready != number:
        assert time.monotonic() < deadline_s, "a persona is never ready"
        await asyncio.sleep(0.01)


async def test_the_second_conversation_under_a_persona_sends_only_its_own_ids(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        first = question(talk, TEACHER, "What is a block?")
        await talk.answer(FIRST, first)
        await ready(talk, 1)
        second = question(talk, TEACHER, "How fast is it?")
        before = talk.executed()
        whole = await talk.answer(SECOND, second)
        own = len(second) - num_shared(first, second)
        assert talk.executed() - before <= own + len(whole) - len(second)
        assert own < len(second) / 4


async def test_a_persona_is_not_prefilled_before_the_first_answer_and_only_once(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        first = question(talk, TEACHER, "What is a block?")
        request = Request(FIRST, first, SamplingParams(temperature=0.0, max_new_tokens=6))
        async with talk.brain.write(request, talk.events.append) as writing:
            async for _ in writing:
                assert talk.brain.pool.num_live == 1
        await ready(talk, 1)
        before = talk.executed()
        await talk.answer(SECOND, question(talk, TEACHER, "And now?"))
        assert talk.brain.pool.personas.num_ready == 1
        assert talk.executed() - before < len(first)


async def test_the_persona_that_nobody_has_used_for_longest_is_let_go(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key", Limits(personas=2)) as talk,
    ):
        prefixes = {
            name: talk.brain._prefixes.of(question(talk, name, "?")) for name in (TEACHER, PIRATE, POET)
        }
        personas = talk.brain.pool.personas
        await personas.prefill(prefixes[TEACHER])
        await personas.prefill(prefixes[PIRATE])
        await talk.answer(FIRST, question(talk, TEACHER, "What is a block?"))  # forked: used last
        await talk.brain.forget(FIRST)
        await personas.prefill(prefixes[POET])
        assert personas.num_ready == 2
        costs = []
        for number, name in enumerate((TEACHER, PIRATE)):
            before = talk.executed()
            await talk.answer(FIRST + number, question(talk, name, "What is a block?"))
            costs.append(talk.executed() - before)
        assert costs[0] < 60
        assert costs[1] > len(prefixes[PIRATE])


async def test_behaviour_28_a_persona_that_nobody_follows_is_closed_on_the_servers_and_others_stay(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        for number, name in enumerate((TEACHER, PIRATE)):
            await talk.answer(FIRST + number, question(talk, name, "What is a block?"))
            await ready(talk, number + 1)
            await talk.brain.forget(FIRST + number)
        await talk.brain.forget_persona(POET)
        assert talk.brain.pool.num_live == 2
        await talk.brain.forget_persona(TEACHER)
        assert talk.brain.pool.num_live == talk.brain.pool.personas.num_ready == 1
        await talk.brain.forget_persona(PIRATE)
        await swarm.check_clean()


async def test_a_persona_that_is_only_just_being_told_is_closed_and_can_be_told_again(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        prefix = talk.brain._prefixes.of(question(talk, TEACHER, "?"))
        personas, pool = talk.brain.pool.personas, talk.brain.pool
        personas.begin(prefix)
        await personas.forget(prefix)
        for _ in range(10):
            await asyncio.sleep(0)
        assert pool.num_live == 0, "it was forgotten before it had begun"
        personas.begin(prefix)
        while not pool.num_live:  # noqa: ASYNC110 - until it has just begun
            await asyncio.sleep(0)
        await talk.brain.forget_persona(TEACHER)
        assert pool.num_live == 0
        await swarm.check_clean()
        personas.begin(prefix)
        await ready(talk, 1)


async def test_instructions_that_are_not_noted_any_more_are_closed_all_the_same(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        prefix = talk.brain._prefixes.of(question(talk, TEACHER, "?"))
        await talk.brain.pool.personas.prefill(prefix)
        assert talk.brain._prefixes.forget(TEACHER) == prefix
        assert talk.brain._prefixes.of(prefix) == []
        await talk.brain.forget_persona(TEACHER)
        await swarm.check_clean()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("forget", {"what": "everything"}),
        ("persona set", {"text": POET}),
        ("persona clear", {}),
    ],
)
async def test_behaviour_28_forgetting_and_other_instructions_leave_nothing_of_those_before_on_the_servers(
    small: SmallModel, store_path: Path, tmp_path: Path, command: str, arguments: dict[str, str]
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        client = await swarm.client(identity=tmp_path / "key")
        model = SwarmModel(small.checkpoint, small.ends, load_tokenizer(small.checkpoint), client.network)
        async with open_talking(model, store_path) as talk:
            await talk.call("persona set", text=TEACHER)
            await talk.say("What is a block?")
            await ready(talk, 1)
            assert talk.brain.pool.num_live == 2
            for _ in range(2 if command == "forget" else 1):  # which is to be said twice
                await talk.call(command, **arguments)
            assert talk.brain.pool.num_live == 0
            await swarm.check_clean()
        await client.leave()


async def test_without_personas_none_is_prefilled(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key", Limits(personas=0)) as talk,
    ):
        await talk.answer(FIRST, question(talk, TEACHER, "What is a block?"))
        await talk.brain.forget(FIRST)
        await asyncio.sleep(0)
        assert talk.brain.pool.num_live == 0


async def test_a_persona_that_cannot_be_prefilled_does_no_harm(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        small_limit = talk.brain.max_tokens
        assert small_limit is not None
        talk.brain.pool.personas.begin([5] * (small_limit + 1))
        await talk.answer(FIRST, question(talk, TEACHER, "What is a block?"))
        await ready(talk, 1)


def test_a_prefix_is_what_all_conversations_under_the_same_instructions_begin_with() -> None:
    prefixes = Prefixes(lambda messages: [ord(letter) for m in messages for letter in m["content"]])
    prefixes.learn([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}])
    prefixes.learn([{"role": "user", "content": "no instructions"}])
    assert prefixes.of([ord(letter) for letter in "be kindly"]) == [ord(letter) for letter in "be kind"]
    assert prefixes.of([ord(letter) for letter in "be unkind"]) == []


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 600])
def test_what_two_conversations_share_is_counted_exactly(length: int) -> None:
    same = list(range(length))
    assert num_shared([*same, 7001], [*same, 7002]) == length
    assert num_shared(same, [*same, 7002]) == length
    assert num_shared(same, same) == length
