"""Conversations hold live sessions in a real swarm: a turn sends what is new, whatever came in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.brain import Event, Request
from bot.clock import RealClock
from bot.sessions.brain import SwarmBrain, open_brain
from bot.sessions.pool import Limits
from bot.survey import SessionState
from storage.database import Database, open_database
from storage.live_sessions import LiveSession, keep_session, kept_session
from swarm.client import SwarmModel
from swarm.errors import SwarmError
from swarm.sampling_params import SamplingParams
from swarm.text import load_tokenizer
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model, prompt
from tests.end_to_end.swarm import Client, Offer, Swarm, open_swarm

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=6)
FIRST, SECOND = 1, 2


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """A small random model with a tokenizer."""
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


@dataclass
class Talk:
    """A brain over a real swarm, and what the servers computed for it."""

    brain: SwarmBrain
    swarm: Swarm
    store: Database
    small: SmallModel
    events: list[Event]

    async def answer(self, conversation_id: int, ids: Sequence[int]) -> list[int]:
        """The answer to `ids`, which is what the unsplit model says; returns the ids with it."""
        request = Request(conversation_id, ids, GREEDY)
        async with self.brain.write(request, self.events.append) as writing:
            async for _ in writing:
                pass
        assert writing.ids == self.small.greedy(ids, 6)[: len(writing.ids)]
        return [*ids, *writing.ids]

    def executed(self) -> int:
        """Tokens that the first server has computed, for all sessions that there are."""
        return self.swarm.servers[0].executed_tokens


@asynccontextmanager
async def talking(
    small: SmallModel, swarm: Swarm, path: Path, identity: Path, limits: Limits | None = None
) -> AsyncIterator[Talk]:
    """A bot's brain, from its start to its end."""
    client: Client = await swarm.client(identity=identity)
    model = SwarmModel(small.checkpoint, small.ends, load_tokenizer(small.checkpoint), client.network)
    async with (
        open_database(path) as store,
        open_brain(model, store, RealClock(), limits) as brain,
    ):
        await store.write(_two_conversations)
        yield Talk(brain, swarm, store, small, [])
    await client.leave()


def _two_conversations(connection: object) -> None:
    from tests.storage.people import talk

    talk(connection)  # type: ignore[arg-type]
    talk(connection)  # type: ignore[arg-type]


OFFERS = (Offer(0, 3), Offer(3, 6))


async def test_each_turn_sends_only_what_is_new(small: SmallModel, store_path: Path, tmp_path: Path) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        ids = await talk.answer(FIRST, prompt(1, 40))
        before = talk.executed()
        again = await talk.answer(FIRST, [*ids, *prompt(2, 5)])
        assert talk.executed() - before == len(again) - len(ids)
        assert talk.brain.pool.num_live == 1


async def test_a_retry_sends_one_token_and_a_fork_what_parts_it(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        ids = await talk.answer(FIRST, prompt(1, 60))
        longer = [*ids, *prompt(2, 30)]
        await talk.answer(FIRST, longer)
        before = talk.executed()
        await talk.answer(FIRST, longer)
        assert talk.executed() - before == 1 + 5, "the last token of the question, and the answer"
        before = talk.executed()
        await talk.answer(SECOND, [*longer[:75], *prompt(3, 4)])
        assert talk.executed() - before == 75 - 65 + 4 + 5, "from where the first answer was told"
        assert talk.events == []


async def test_after_a_restart_conversations_go_on_where_they_were(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking(small, swarm, store_path, tmp_path / "key") as talk:
            ids = await talk.answer(FIRST, prompt(1, 300))
        async with talking(small, swarm, store_path, tmp_path / "key") as talk:
            before = talk.executed()
            again = await talk.answer(FIRST, [*ids, *prompt(2, 5)])
            assert talk.executed() - before == len(again) - len(ids)
            assert talk.events == []


async def test_an_idle_session_is_put_away_and_attached_to_again(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key", Limits(live=1)) as talk,
    ):
        ids = await talk.answer(FIRST, prompt(1, 40))
        await talk.answer(SECOND, prompt(4, 40))
        assert (talk.brain.pool.num_live, talk.brain.pool.is_open(FIRST)) == (1, False)
        before = talk.executed()
        again = await talk.answer(FIRST, [*ids, *prompt(2, 5)])
        assert talk.executed() - before == len(again) - len(ids)


async def test_a_ticket_that_fits_nothing_leads_to_a_session_that_is_told_everything(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        fingerprint = small.checkpoint.fingerprint
        for ticket in (b"nonsense", b""):
            bad = LiveSession(FIRST, fingerprint, ticket, prompt(1, 9), 2**50)
            await talk.store.write(keep_session, bad)
            await talk.answer(FIRST, prompt(1, 300))
            assert talk.events.pop(0) == Event("restoring", num_tokens=300)
            talk.events.clear()  # on a busy machine a server is taken for lost now and then
            await talk.brain.forget(FIRST)


async def test_a_session_whose_lease_has_ended_is_told_everything_and_that_is_said(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking(small, swarm, store_path, tmp_path / "key", Limits(lease_ms=0)) as talk:
            ids = await talk.answer(FIRST, prompt(1, 300))
        async with talking(small, swarm, store_path, tmp_path / "key") as talk:
            await talk.answer(FIRST, [*ids, 7])
            assert talk.events == [Event("restoring", num_tokens=len(ids) + 1)]


async def test_behaviour_28_what_is_forgotten_is_closed_on_the_servers_too(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking(small, swarm, store_path, tmp_path / "key") as talk:
            await talk.answer(FIRST, prompt(1, 40))
            await talk.brain.forget(FIRST)
            assert await talk.store.read(kept_session, FIRST) is None
        await swarm.check_clean()


async def test_a_persona_is_prefilled_once_and_forked_for_each_conversation(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        instructions = prompt(1, 100)
        await talk.brain.pool.personas.prefill(instructions)
        for conversation_id, question in ((FIRST, prompt(2, 7)), (SECOND, prompt(3, 7))):
            before = talk.executed()
            await talk.answer(conversation_id, [*instructions, *question])
            assert talk.executed() - before == 7 + 5


async def test_behaviour_25_a_server_that_is_lost_changes_no_word(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    offers = (Offer(0, 3), Offer(3, 6, blocks_per_s=1e5), Offer(3, 6, blocks_per_s=100.0))
    async with (
        open_swarm(small, *offers) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        ids = prompt(1, 40)
        longer = SamplingParams(temperature=0.0, max_new_tokens=24)
        async with talk.brain.write(Request(FIRST, ids, longer), talk.events.append) as writing:
            async for _ in writing:
                if len(writing.ids) >= 3 and swarm.servers[1] in swarm.living:
                    swarm.servers[1].kill()
        assert writing.ids == small.greedy(ids, 24)[: len(writing.ids)]
        assert [event.kind for event in talk.events] == ["lost", "recovered"]


async def test_the_state_of_a_session_is_known_from_its_first_word_to_its_end(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with open_swarm(small, *OFFERS) as swarm:
        async with talking(small, swarm, store_path, tmp_path / "key") as talk:
            assert await talk.brain.session_state(FIRST) == SessionState("none")
            ids = await talk.answer(FIRST, prompt(1, 40))
            held = len(ids) - 1  # the last token is told with what follows it
            assert await talk.brain.session_state(FIRST) == SessionState("live", held, held)
        async with talking(small, swarm, store_path, tmp_path / "key") as talk:
            assert await talk.brain.session_state(FIRST) == SessionState("detached", held, held)
            assert await talk.brain.session_state(SECOND) == SessionState("none")
            await talk.store.write(_something_said)
            await talk.brain.forget(FIRST)
            assert await talk.brain.session_state(FIRST) == SessionState("parked")


def _something_said(connection: object) -> None:
    from storage.conversations import get_conversation
    from tests.storage.people import say

    conversation = get_conversation(connection, FIRST)  # type: ignore[arg-type]
    assert conversation is not None
    say(connection, conversation, "t1")  # type: ignore[arg-type]


async def test_a_session_that_is_told_much_is_being_rebuilt(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        answering = asyncio.create_task(talk.answer(FIRST, prompt(1, 600)))
        seen: set[SessionState] = set()
        while not answering.done():
            seen.add(await talk.brain.session_state(FIRST))
            await asyncio.sleep(0)
        await answering
        rebuilding = {state.num_done for state in seen if state.kind == "rebuilding"}
        assert 0 in rebuilding
        assert max(rebuilding) < 600
        assert {state.num_tokens for state in seen if state.kind == "rebuilding"} == {600}


async def test_a_session_that_broke_is_said_to_have_failed_until_there_is_another(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        ids = await talk.answer(FIRST, prompt(1, 40))
        with pytest.raises(SwarmError):
            async with talk.brain.pool.session(FIRST, ids, talk.events.append):
                raise SwarmError("a chain broke")
        assert await talk.brain.session_state(FIRST) == SessionState("failed")
        await talk.answer(FIRST, [*ids, 7])
        assert (await talk.brain.session_state(FIRST)).kind == "live"


async def test_who_asks_while_a_session_is_put_away_waits_and_goes_on_with_it(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        ids = await talk.answer(FIRST, prompt(1, 40))
        for number in range(5):
            before = talk.executed()
            async with asyncio.TaskGroup() as group:
                group.create_task(talk.brain.pool._put_away(FIRST))
                longer = [*ids, *prompt(number, 5)]
                asking = group.create_task(talk.answer(FIRST, longer))
            assert talk.executed() - before == len(asking.result()) - len(ids)
            ids = asking.result()
            assert talk.brain.pool.num_live == 1
