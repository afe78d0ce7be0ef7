"""The notice of a place is said once, before the first question from there is computed, and is never lost."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from bot.words import Limited, Refused, Unreachable, Where
from tests.bot.platform import ADA, BOB, CHANNEL
from tests.bot.world import RULES, World, open_world

NOTICE = "Servers can read this."
TELLING = replace(RULES, place_notice=NOTICE)


@pytest_asyncio.fixture
async def telling(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path, rules=TELLING) as world:
        yield world


async def test_a_notice_that_could_not_be_sent_is_said_before_the_next_question(telling: World) -> None:
    telling.port.failures["post"] = [Refused("not now")]
    for text in ("one", "two", "three"):
        await telling.ask(text, where=CHANNEL)
    assert telling.port.texts == ["You said: one", NOTICE, "You said: two", "You said: three"]


async def test_a_notice_of_which_nobody_knows_whether_it_is_shown_is_shown_once(telling: World) -> None:
    telling.port.lost_answers = 1
    for text in ("one", "two"):
        await telling.ask(text, where=CHANNEL)
    assert telling.port.texts == [NOTICE, "You said: one", "You said: two"]


async def test_a_crash_before_the_notice_was_sent_has_it_said_before_the_question_is_computed(
    store_path: Path,
) -> None:
    async with open_world(store_path, rules=TELLING) as before:
        before.port.failures["post"] = [Limited(60.0)]
        await before.say("one", where=CHANNEL)
        await before.pass_(5)
        assert (before.port.texts, before.brain.requests) == ([], [])
    async with open_world(store_path, rules=TELLING, boot="next", like=before) as world:
        await world.quiet()
        await world.ask("two", where=CHANNEL)
        assert world.port.texts == [NOTICE, "You said: one", "You said: two"]


async def test_who_writes_while_the_notice_is_on_its_way_waits_for_it_and_it_is_said_once(
    telling: World,
) -> None:
    telling.port.post_s = 3.0
    for author in (ADA, BOB):
        await telling.say("hello", where=CHANNEL, author=author)
    await telling.until(lambda: telling.port.texts)
    await telling.pass_(1)
    assert (telling.port.texts, telling.brain.requests) == ([NOTICE], [])
    telling.port.post_s = 0.0
    await telling.quiet()
    assert telling.port.texts == [NOTICE, "You said: hello", "You said: hello"]


async def test_a_place_whose_notice_cannot_be_sent_keeps_no_other_waiting(telling: World) -> None:
    telling.port.failures["post"] = [Unreachable("down")]
    other = Where("fake", "elsewhere", "group")
    await telling.say("one", where=CHANNEL)
    await telling.say("two", where=other, author=BOB)
    await telling.quiet()
    assert sorted(telling.port.texts) == [NOTICE, "You said: one", "You said: two"]
