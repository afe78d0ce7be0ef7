"""Answers that are reported: by whom, which one, and what becomes of it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest_asyncio

from bot.commands.reports import AGAIN, MAX_REASON_LETTERS, NOTHING, THANKS
from bot.words import Author, Refused, Where
from storage.inbox import Event
from storage.rate import Rate
from storage.reports import Report, last_reports
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT, called
from tests.bot.world import RULES, World, open_world

ROOT_ID = "@root:example.org"
ROOT = Author(ROOT_ID, "Root")
THREAD = Where("fake", "channel", "group", "e1")


@pytest_asyncio.fixture
async def watched(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path, admins=(ROOT_ID, "@gone:example.org")) as world:
        yield world


async def told(world: World, command: str, author: Author = BOB, **given: object) -> str:
    before = len(world.port.told)
    await world.call(command, author=author, **given)  # type: ignore[arg-type]
    await world.until(lambda: len(world.port.told) > before)
    return world.port.told[-1][1]


async def reports(world: World) -> list[Report]:
    return await world.store.read(last_reports, 100)


async def test_anybody_reports_the_latest_answer_of_a_channel_and_admins_are_told_of_it_once(
    watched: World,
) -> None:
    await watched.ask("one", where=CHANNEL)
    await watched.ask("two", where=CHANNEL)
    assert await told(watched, "report", where=CHANNEL, reason="it is rude") == THANKS
    one, two = await watched.turns()
    (found,) = await reports(watched)
    assert (found.turn_id, found.reason) == (two.question.turn_id, "it is rude")
    assert found.reporter.external_id == "bob"
    assert {person for person, _ in watched.port.written} == {ROOT_ID, "@gone:example.org"}
    assert all("two" not in text and "rude" not in text for _, text in watched.port.written)
    assert await told(watched, "report", where=CHANNEL, turn=one.question.turn_id) == THANKS
    assert len(watched.port.written) == 2


async def test_the_one_that_was_replied_to_is_reported_and_nothing_else(watched: World) -> None:
    await watched.ask("one", where=CHANNEL)
    await watched.ask("two", where=CHANNEL)
    one, _ = await watched.turns()
    for target, expected in (("m0", THANKS), ("m0", AGAIN), ("somebody else's", NOTHING)):
        before = len(watched.port.told)
        event = called("report", f"e-{before}", where=CHANNEL, author=BOB, sent_ms=watched.clock.now_ms())
        payload = event.payload.replace(b'"reply_to":""', b'"reply_to":"%s"' % target.encode())
        await watched.core.receive("fake", [Event(event.event_id, event.sender, payload)])
        await watched.until(lambda before=before: len(watched.port.told) > before)  # type: ignore[misc]
        assert watched.port.told[-1][1] == expected
    assert [each.turn_id for each in await reports(watched)] == [one.question.turn_id]


async def test_in_a_thread_the_latest_answer_is_that_of_the_thread(watched: World) -> None:
    await watched.ask("one", where=CHANNEL)
    await watched.ask("two", where=CHANNEL)
    assert await told(watched, "report", where=THREAD) == THANKS
    one, _ = await watched.turns()
    assert [each.turn_id for each in await reports(watched)] == [one.question.turn_id]


async def test_an_answer_of_another_place_cannot_be_reported_or_found_out(watched: World) -> None:
    await watched.ask("private", where=DIRECT)
    (said,) = await watched.turns()
    assert await told(watched, "report", where=CHANNEL, turn=said.question.turn_id) == NOTHING
    assert await told(watched, "report", where=CHANNEL, turn="f" * 32) == NOTHING
    assert await told(watched, "report", where=CHANNEL) == NOTHING
    assert await reports(watched) == []


async def test_what_is_still_being_written_is_not_reported(watched: World) -> None:
    watched.brain.answer = lambda prompt: "word " * 100
    await watched.say("one", where=CHANNEL)
    await watched.until(lambda: watched.port.texts)
    assert await told(watched, "report", where=CHANNEL) == NOTHING


async def test_a_reason_that_is_too_long_is_refused_in_one_sentence(watched: World) -> None:
    await watched.ask("one", where=CHANNEL)
    reason = "x" * (MAX_REASON_LETTERS + 1)
    assert await told(watched, "report", where=CHANNEL, reason=reason) == (
        "That reason is 501 letters long; 500 are the most."
    )
    assert await reports(watched) == []


async def test_admins_who_cannot_be_reached_are_no_trouble(watched: World) -> None:
    watched.port.failures["write_to"] = [Refused("no chat of two")]
    await watched.ask("one", where=CHANNEL)
    assert await told(watched, "report", where=CHANNEL) == THANKS
    assert [person for person, _ in watched.port.written] == [ROOT_ID]


async def test_admins_see_reports_and_nobody_else_does(watched: World) -> None:
    assert await told(watched, "admin reports", ROOT, where=DIRECT) == "Nobody has reported an answer."
    await watched.ask("my question", where=CHANNEL)
    await told(watched, "report", where=CHANNEL, reason="it is\nrude `and` wrong")
    shown = await told(watched, "admin reports", ROOT, where=DIRECT)
    assert shown.endswith("`fake:bob` reported `fake:channel` message `m0`: it is rude `and` wrong")
    assert "my question" not in shown
    assert await told(watched, "admin reports", where=DIRECT) == "Only admins of this bot may do that."


async def test_reports_are_rate_limited_as_all_commands_are(store_path: Path) -> None:
    rules = replace(RULES, rate=Rate(burst=2, interval_ms=60_000))
    async with open_world(store_path, rules=rules, admins=(ROOT_ID,)) as world:
        await world.ask("one", where=CHANNEL, author=ADA)
        answers = [await told(world, "report", where=CHANNEL) for _ in range(3)]
        assert answers[:2] == [THANKS, AGAIN]
        assert answers[2].startswith("That was fast")
