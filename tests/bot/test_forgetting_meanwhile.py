"""Whoever has somebody forgotten: nothing is deleted under an answer, and what no bot goes on with is."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot.commands.desk import CommandDesk
from bot.commands.forgetting import forget_conversation, forget_everything
from bot.commands.naming import Mistaken
from bot.commands.office import Office, office_of
from bot.operator.actions import ALL_ACTIONS
from bot.receiving.access import Access
from bot.words import Where
from storage.access import account_named, last_deeds
from storage.database import open_database
from storage.ledger import Person, check
from storage.live_sessions import LiveSession, keep_session, list_sessions
from storage.transcript import open_turns
from tests.bot.clock import FakeClock
from tests.bot.test_access import ADA, BOB, DIRECT, asks
from tests.bot.world import KEY, RULES, World, open_world

PERSON = Person("matrix", BOB.external_id)
ADAS = Where("matrix", "!ada:example.org", "direct")


@pytest_asyncio.fixture
async def world(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path) as world:
        yield world


async def account_of(world: World) -> int:
    account_id = await world.store.read(account_named, PERSON)
    assert account_id is not None
    return account_id


def asking_meanwhile(world: World) -> CommandDesk:
    """The bot, if Bob asks something at the moment when all that he had asked has ended."""

    async def end_and_ask(account_id: int) -> None:
        await world.core.commands.end_turns_of(account_id)
        before = len(world.port.messages)
        await world.say("asked meanwhile", author=BOB, where=DIRECT)
        await world.until(lambda: len(world.port.messages) > before)

    return replace(world.core.commands, end_turns_of=end_and_ask)


async def test_behaviour_28_the_operator_deletes_no_answer_that_was_asked_for_meanwhile(world: World) -> None:
    assert await asks(world)
    world.brain.answer = lambda prompt: f"{prompt} " + "word " * 20
    office = office_of(asking_meanwhile(world), "operator")
    with pytest.raises(Mistaken, match="try again in a moment"):
        await ALL_ACTIONS["admin forget"](office, {"user": BOB.external_id})
    await world.quiet()
    assert [said.question.prompt for said in await world.turns()] == ["hello", "asked meanwhile"]
    assert [said.state for said in await world.turns()] == ["done", "done"]
    assert await world.store.read(last_deeds, 9) == [], "what was not done is not written down as done"
    await ALL_ACTIONS["admin forget"](office_of(world.core.commands, "operator"), {"user": BOB.external_id})
    assert await world.turns() == []


@pytest.mark.parametrize("is_everything", [True, False])
async def test_behaviour_28_nor_do_people_themselves(world: World, is_everything: bool) -> None:
    assert await asks(world)
    world.brain.answer = lambda prompt: "word " * 100
    office, account_id = (
        office_of(asking_meanwhile(world), "matrix:@bob:example.org"),
        await account_of(world),
    )
    (said,) = await world.turns()
    conversation_id = said.question.conversation_id
    if is_everything:
        assert not await forget_everything(office, account_id)
    else:
        assert not await forget_conversation(office, account_id, conversation_id)
    await world.quiet()
    assert len(await world.turns()) == 2


async def test_behaviour_28_without_a_bot_what_was_left_open_is_forgotten_too(store_path: Path) -> None:
    async with open_world(store_path) as world:
        world.brain.answer = lambda prompt: "word " * 1000
        await world.say("my secret", author=BOB, where=DIRECT)
        await world.until(lambda: world.port.texts)
        await world.say("hers", author=ADA, where=ADAS)
        await world.until(lambda: len(world.port.texts) == 2)
        number = (await world.turns())[0].question.conversation_id
    async with open_database(store_path) as store:
        await store.write(keep_session, LiveSession(number, "model", b"ticket", [1, 2], 2**40))
        assert len(await store.read(open_turns)) == 2
        access = Access(FakeClock(), (), KEY)
        office = Office(store, FakeClock(), RULES.rates, KEY, access, "operator")
        done = await ALL_ACTIONS["admin forget"](office, {"user": BOB.external_id})
        assert "is deleted" in done.text
        assert [said.question.prompt for said in await store.read(open_turns)] == ["hers"]
        assert await store.read(account_named, PERSON) is None
        assert await store.read(list_sessions, 9) == []
        assert await store.read(check) == []
        ((_, deed),) = await store.read(last_deeds, 9)
        assert (deed.action, deed.target[0], len(deed.target) > 30) == ("forget", "#", True)
