"""What people are told of their credits when they are forgotten: it is what the store does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio
from sqlalchemy import func, select

from bot.sweeping import SWEEP_S
from storage.amounts import DAY_MS, next_period_ms
from storage.database import Transaction
from storage.ledger import Person, adjust, open_account
from storage.schema import forgotten
from tests.bot.platform import ADA
from tests.bot.test_commands import told
from tests.bot.world import KEY, RULES, World, open_world


@pytest_asyncio.fixture
async def poor(store_path: Path) -> AsyncIterator[World]:
    """Where a day grants little."""
    rates = replace(RULES.rates, daily_grant=60, balance_cap=60)
    async with open_world(store_path, rules=replace(RULES, rates=rates)) as world:
        yield world


async def test_behaviour_28_before_and_after_people_read_what_stays_of_them(world: World) -> None:
    await world.ask("hello")
    used = (await world.standing()).used_today
    before = await told(world, "forget", what="everything")
    now_ms = world.clock.now_ms()
    moment = world.port.moment(next_period_ms(now_ms), now_ms)
    until = f"Until new credits come, at {moment}, a keyed hash without your name remembers"
    assert until in before
    assert f"what counts as used today ({used} credits): you keep what is left of today's credits" in before
    assert before.endswith("give the command `forget everything` again within a minute.")
    after = await told(world, "forget", what="everything")
    assert after.startswith(f"All that I kept of you is deleted. {until}")
    assert f"remembers what counts as used today ({used} credits)" in after


async def test_who_was_given_credits_reads_what_is_kept_and_that_the_rest_of_them_goes(world: World) -> None:
    def give(connection: Transaction) -> None:
        now_ms = world.clock.now_ms()
        ada = open_account(connection, Person("fake", ADA.external_id), RULES.rates, KEY, now_ms)
        adjust(connection, ada, 5000, "grant", now_ms)

    await world.ask("hello")
    await world.store.write(give)
    before = await told(world, "forget", what="everything")
    assert "remembers what counts as used today (0 credits)" in before
    assert "and lose those that you have saved or that an admin has given you." in before
    assert "(0 credits)" in await told(world, "forget", what="everything")
    assert (await told(world, "quota")).startswith("You have 10000 credits left; today you have used 0.")


async def test_forgetting_one_conversation_says_nothing_of_credits(world: World) -> None:
    await world.ask("hello")
    assert "credits" not in await told(world, "forget", what="here")


async def test_behaviour_22_who_is_forgotten_is_answered_from_what_is_left_of_the_day(world: World) -> None:
    await world.ask("hello")
    used = (await world.standing()).used_today
    for _ in range(2):
        await told(world, "forget", what="everything")
    answer = await told(world, "quota")
    assert answer.startswith(f"You have {10_000 - used} credits left; today you have used {used}.")
    assert f"Of that you had used {used} credits before I forgot you; a keyed hash" in answer
    assert await world.ask("again") == "You said: again"


async def test_who_was_never_forgotten_reads_nothing_of_it(world: World) -> None:
    await world.ask("hello")
    assert "forgot" not in await told(world, "quota")


async def test_who_has_too_little_left_after_being_forgotten_reads_why(poor: World) -> None:
    poor.brain.answer = lambda prompt: "word " * 11
    await poor.ask("hello")
    used = (await poor.standing()).used_today
    assert 50 < used <= 60
    for _ in range(2):
        await told(poor, "forget", what="everything")
    refusal = await poor.ask("again")
    assert refusal.startswith(f"Your quota is too low for an answer ({60 - used} credits left); there is")
    assert f"I also count the {used} credits that you had used today before I forgot you; a keyed" in refusal
    await poor.pass_(1)
    poor.clock._start_ms = next_period_ms(poor.clock.now_ms())
    assert (await poor.ask("tomorrow")).startswith("word word")


async def test_behaviour_28_when_the_day_is_over_nothing_of_a_forgotten_person_is_left(world: World) -> None:
    async def num_left() -> int:
        return await world.store.read(
            lambda c: c.execute(select(func.count()).select_from(forgotten)).scalar_one()
        )

    await world.ask("hello")
    for _ in range(2):
        await told(world, "forget", what="everything")
    await world.pass_(SWEEP_S + 1)
    assert await num_left() == 1
    world.clock._start_ms += DAY_MS
    await world.pass_(SWEEP_S + 1)
    assert await num_left() == 0
