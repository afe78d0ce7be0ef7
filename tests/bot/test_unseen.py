"""An answer that the platform refuses for good: what nobody saw is not paid for, what was seen is."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from bot.words import Limits, Refused, Unreachable
from storage.schema import ledger
from storage.transcript import OPEN
from tests.bot.platform import DIRECT
from tests.bot.test_commands import told
from tests.bot.world import RULES, World, open_world

NO = Refused("no permission")
DOWN = Unreachable("down")
LONG = "A sentence of some length. " * 40


def refuse_all(world: World, *methods: str) -> None:
    """The platform takes nothing more."""
    for method in methods:
        world.port.failures[method] = [NO] * 1000


async def entries(world: World) -> Sequence[tuple[str, int]]:
    """Whatever turns have changed in the ledger."""
    which = select(ledger.c.kind, ledger.c.amount).where(ledger.c.turn_id.is_not(None)).order_by(ledger.c.id)
    return [tuple(row) for row in await world.store.read(lambda c: c.execute(which).all())]


def die_with_the_next_end(world: World) -> asyncio.Event:
    """Let nothing be written after a turn's end, as if we had died then; set when something should be."""
    write, is_dead = world.store.write, asyncio.Event()

    async def write_before(*arguments: Any) -> Any:
        if any(turn.state not in OPEN for turn in await world.turns()):
            is_dead.set()
            await asyncio.Event().wait()
        return await write(*arguments)

    world.store.write = write_before  # type: ignore[method-assign, assignment]
    return is_dead


async def test_behaviour_21_what_may_not_be_shown_at_all_is_not_paid_for(world: World) -> None:
    refuse_all(world, "post")
    assert await world.ask("hello") == ""
    (charge, refund) = await entries(world)
    assert (charge[0], refund) == ("charge", ("refund", -charge[1]))
    standing = await world.standing()
    assert (standing.balance, standing.held, standing.used_today) == (10_000, 0, 0)
    world.port.failures.clear()
    assert await world.ask("again") == "You said: again", "the conversation goes on"


async def test_behaviour_21_of_an_answer_that_is_cut_off_by_a_refusal_what_was_seen_is_paid_for(
    world: World,
) -> None:
    world.brain.answer = lambda prompt: LONG
    await world.say("hello")
    await world.until(lambda: world.port.texts and len(world.port.texts[0]) > 100)
    refuse_all(world, "edit", "post")
    await world.quiet()
    (turn,) = await world.turns()
    assert (turn.state, turn.progress.answer) == ("length", LONG[:200])
    seen = world.port.texts[0].removesuffix("...").rstrip()
    assert LONG.startswith(seen)
    assert 90 < len(seen) < 200
    assert (await world.standing()).used_today == len(seen) + turn.progress.prefill_tokens // 4


async def test_of_several_messages_those_before_the_one_that_is_refused_are_paid_for(world: World) -> None:
    await told(world, "settings set", name="streaming", value="off", scope="me")
    world.brain.answer = lambda prompt: "word " * 40
    world.port.limits, world.port.post_s = Limits(100), 1.0
    await world.say("hello")
    await world.until(lambda: world.port.texts)
    refuse_all(world, "post")
    await world.quiet()
    (shown,) = world.port.texts
    (turn,) = await world.turns()
    assert 50 < len(shown) <= 100
    assert (await world.standing()).used_today == len(shown) + turn.progress.prefill_tokens // 4


async def test_behaviour_21_what_is_there_though_the_platform_has_not_said_so_is_paid_for(
    world: World,
) -> None:
    await told(world, "settings set", name="streaming", value="off", scope="me")
    world.port.lost_answers = 1
    await world.say("hello")
    await world.until(lambda: world.port.texts)
    refuse_all(world, "post")
    await world.quiet()
    assert world.port.texts == ["You said: hello"]
    assert [kind for kind, _ in await entries(world)] == ["charge"]


async def test_a_wait_that_was_shown_is_no_answer_that_was_seen(world: World) -> None:
    world.brain.token_s = 0.05
    world.brain.answer = lambda prompt: "word " * 30
    await world.say("first")
    await world.until(lambda: world.port.texts)
    world.brain.answer = lambda prompt: "short"
    await world.pass_(1.5)
    await world.say("second")
    await world.until(lambda: any("queued" in text for text in world.port.texts))
    await world.until(lambda: world.port.texts[0] == "word " * 30)
    refuse_all(world, "edit", "post")
    await world.quiet()
    assert [kind for kind, _ in await entries(world)] == ["charge", "charge", "refund"]
    (_, (_, second), (_, refund)) = await entries(world)
    assert refund == -second


async def test_behaviour_21_what_is_refused_after_a_restart_is_given_back_once(store_path: Path) -> None:
    async with open_world(store_path) as before:
        before.port.failures["post"] = [DOWN] * 1000
        await before.say("hello")
        await before.pass_(140)
        assert [kind for kind, _ in await entries(before)] == ["charge"]
    refuse_all(before, "post")
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert [kind for kind, _ in await entries(world)] == ["charge", "refund"]
        assert (await world.standing()).used_today == 0
    before.port.failures.clear()
    async with open_world(store_path, boot="last", like=before) as world:
        await world.pass_(130)
        assert world.port.texts == []
        assert [kind for kind, _ in await entries(world)] == ["charge", "refund"]


async def test_what_may_be_there_after_a_restart_stays_paid_for(store_path: Path) -> None:
    async with open_world(store_path) as before:
        before.brain.answer = lambda prompt: LONG
        await before.say("hello")
        await before.until(lambda: before.port.texts)
        before.port.failures["edit"] = [DOWN] * 1000
        await before.pass_(140)
    refuse_all(before, "edit", "post")
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert [kind for kind, _ in await entries(world)] == ["charge"]


async def test_who_deletes_their_question_pays_for_what_they_had_seen_of_the_answer(world: World) -> None:
    world.brain.answer = lambda prompt: LONG
    question = await world.say("hello")
    await world.until(lambda: world.port.texts)
    refuse_all(world, "edit")
    await world.pass_(5)
    await world.delete(question)
    await world.quiet()
    (shown,) = world.port.messages[0].history
    seen = shown.removesuffix("...").rstrip()
    assert LONG.startswith(seen)
    assert (await world.standing()).used_today == len(seen) + len("u:hello.") // 4


async def test_who_deletes_their_question_before_there_was_an_answer_pays_nothing(world: World) -> None:
    world.brain.token_s = 0.05
    question = await world.say("hello")
    await world.pass_(0.3)
    assert world.port.texts == []
    await world.delete(question)
    await world.quiet()
    assert (await world.standing()).used_today == 0


async def test_behaviour_13_who_deletes_their_question_pays_nothing_though_we_die_when_its_turn_has_ended(
    store_path: Path,
) -> None:
    async with open_world(store_path) as before:
        is_dead = die_with_the_next_end(before)
        before.brain.token_s = 0.05
        question = await before.say("hello")
        await before.until(lambda: before.brain.requests, "it was never asked")
        await before.pass_(0.15)
        await before.delete(question)
        await before.until(is_dead.is_set)
        (turn,) = await before.turns()
        assert turn.progress.answer, "there was something to pay for"
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.messages == [], "the answer to a deleted question is never shown"
        assert await world.turns() == []
        assert (await world.standing()).used_today == 0


async def test_a_notice_that_a_deleted_question_did_not_show_comes_with_the_next_answer(
    store_path: Path,
) -> None:
    rules = replace(RULES, person_notice="They can read you.")
    async with open_world(store_path, rules=rules) as world:
        question = await world.say("hello")
        await world.pass_(0.3)
        await world.delete(question)
        await world.quiet()
        assert "They can read you." in await world.ask("again")


@pytest.mark.parametrize("error", [Unreachable("down"), NO])
async def test_a_preview_that_fails_costs_nothing_and_changes_nothing(world: World, error: Exception) -> None:
    world.brain.answer = lambda prompt: LONG
    world.port.failures["edit"] = [error] * 2  # type: ignore[list-item]
    await world.ask("hello", where=DIRECT)
    assert [kind for kind, _ in await entries(world)] == ["charge"]
