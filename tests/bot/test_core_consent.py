"""Where the operator asks for consent nothing of a person is processed before they have agreed."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot.receiving.haste import Patience
from storage.inbox import waiting
from storage.rate import Rate
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT
from tests.bot.world import RULES, World, open_world

NOTICE = "Volunteers can read what you write."
ASKED = f"{NOTICE} If that is all right, give the command `agree`; I keep your question for ten minutes."
ASKING = replace(RULES, consent_notice=NOTICE)


@pytest_asyncio.fixture
async def asking(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path, rules=ASKING) as world:
        yield world


async def test_a_question_is_answered_when_its_author_has_agreed(asking: World) -> None:
    question = await asking.say("hello")
    await asking.quiet()
    assert (asking.port.told, asking.port.texts, asking.brain.requests) == ([("ada", ASKED)], [], [])
    await asking.call("agree")
    await asking.quiet()
    assert asking.port.texts == ["You said: hello"]
    assert asking.port.messages[0].reply_to == question
    thanks = "Thank you; I answer what you have asked. `forget everything` takes it back."
    assert asking.port.told[1:] == [("ada", thanks)]
    assert await asking.ask("again") == "You said: again"
    assert len(asking.port.told) == 2


async def test_everybody_is_asked_for_themselves_and_only_once(asking: World) -> None:
    for author in (ADA, BOB, ADA):
        await asking.say(f"hello from {author.name}", where=CHANNEL, author=author)
    await asking.quiet()
    assert sorted(asking.port.told) == [("ada", ASKED), ("bob", ASKED)]
    await asking.call("agree", where=CHANNEL, author=BOB)
    await asking.quiet()
    assert asking.port.texts == ["You said: hello from Bob"]


@pytest.mark.slow
async def test_what_was_asked_too_long_ago_is_forgotten(asking: World) -> None:
    await asking.say("hello")
    for _ in range(7):
        await asking.pass_(100)
    assert await asking.store.read(waiting, "fake") == []
    await asking.call("agree")
    await asking.quiet()
    assert asking.port.told[1:] == [
        ("ada", "Thank you; ask me something. `forget everything` takes it back.")
    ]
    assert asking.port.texts == []


async def test_a_question_waits_for_its_author_through_a_restart(store_path: Path) -> None:
    async with open_world(store_path, rules=ASKING) as before:
        await before.say("hello")
        await before.quiet()
    async with open_world(store_path, rules=ASKING, like=before, boot="second") as world:
        await world.call("agree")
        await world.quiet()
        assert world.port.texts == ["You said: hello"]


async def test_forget_takes_the_agreement_back(asking: World) -> None:
    await asking.say("hello")
    await asking.quiet()
    await asking.call("agree")
    await asking.quiet()
    for _ in range(2):
        await asking.call("forget", what="everything")
        await asking.quiet()
    before = len(asking.port.texts)
    await asking.say("again")
    await asking.quiet()
    assert (asking.port.told[-1], len(asking.port.texts)) == (("ada", ASKED), before)


async def test_forget_takes_back_what_was_asked_before_agreeing(asking: World) -> None:
    await asking.say("hello")
    await asking.quiet()
    for _ in range(2):
        await asking.call("forget", what="everything")
        await asking.quiet()
    await asking.call("agree")
    await asking.quiet()
    assert asking.port.texts == []


async def test_commands_that_compute_nothing_need_no_agreement(asking: World) -> None:
    await asking.call("quota")
    await asking.call("privacy")
    await asking.quiet()
    assert len(asking.port.told) == 2
    assert ASKED not in [text for _, text in asking.port.told]


async def test_older_answers_are_not_tried_again_without_agreement(store_path: Path) -> None:
    async with open_world(store_path) as before:
        await before.ask("hello")
    async with open_world(store_path, rules=ASKING, like=before, boot="second") as world:
        await world.call("retry")
        await world.quiet()
        assert (world.port.told, world.brain.requests) == ([("ada", ASKED)], [])


async def test_where_nobody_asks_agreeing_is_not_needed(world: World) -> None:
    await world.call("agree")
    await world.quiet()
    assert world.port.told == [("ada", "There is nothing here that you have to agree to; just ask.")]
    assert await world.ask("hello") == "You said: hello"


async def test_of_somebody_who_does_not_agree_few_questions_are_kept(asking: World) -> None:
    for number in range(20):
        await asking.say(f"hello {number}", where=CHANNEL)
        await asking.pass_(1.3)  # what is said within a moment is a part of what was said before
    assert len(await asking.store.read(waiting, "fake")) == 3
    await asking.call("agree", where=CHANNEL)
    await asking.quiet()
    assert sorted(asking.port.texts) == [f"You said: hello {number}" for number in range(3)]


# --- floods of somebody who has not agreed ----------------------------------------------------------------

SLOW = replace(ASKING, rate=Rate(burst=4, interval_ms=60_000), patience=Patience(6, 600_000))


async def test_who_floods_without_having_agreed_is_asked_once_and_ignored_like_anybody(
    store_path: Path,
) -> None:
    async with open_world(store_path, rules=SLOW) as world:
        for number in range(40):
            await world.say(f"spam {number}", where=CHANNEL)
            await world.quiet()
        told = [text.partition(";")[0] for who, text in world.port.told]
        assert told == [ASKED.partition(";")[0], *["That was fast"] * 5, "That was too much too fast"]
        assert len(await world.store.read(waiting, "fake")) == 3
        await world.say("hello", author=BOB, where=CHANNEL)
        await world.quiet()
        assert world.port.told[-1] == ("bob", ASKED), "others are heard"


async def test_a_question_that_waited_for_consent_is_not_counted_again_when_it_is_answered(
    store_path: Path,
) -> None:
    async with open_world(store_path, rules=SLOW) as world:
        for number in range(3):
            await world.say(f"hello {number}", where=CHANNEL)
            await world.pass_(1.3)
        await world.call("agree", where=CHANNEL)
        await world.quiet()
        assert sorted(world.port.texts) == [f"You said: hello {number}" for number in range(3)]
        await world.say("one too many", where=CHANNEL)
        await world.quiet()
        assert world.port.told[-1][1].startswith("That was fast; please wait")


@pytest.mark.slow
async def test_the_question_is_asked_once_at_each_place_and_again_after_some_minutes(asking: World) -> None:
    for where in (CHANNEL, DIRECT, CHANNEL, DIRECT):
        await asking.say("hello", where=where)
        await asking.quiet()
    assert asking.port.told == [("ada", ASKED)] * 2
    await asking.pass_(50)
    for _ in range(6):
        await asking.pass_(100)
    await asking.say("hello", where=CHANNEL)
    await asking.quiet()
    assert asking.port.told == [("ada", ASKED)] * 3


async def test_who_takes_the_agreement_back_is_asked_again_wherever_that_was(asking: World) -> None:
    for where in (CHANNEL, DIRECT):
        await asking.say("hello", where=where)
        await asking.quiet()
    await asking.call("agree")
    await asking.quiet()
    for _ in range(2):
        await asking.call("forget", what="everything")
        await asking.quiet()
    for where in (CHANNEL, DIRECT):
        await asking.say("again", where=where)
        await asking.quiet()
        assert asking.port.told[-1] == ("ada", ASKED)
        asking.port.told.clear()
