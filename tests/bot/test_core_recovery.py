"""After a crash: every message is answered once or said to be cut off, and paid for as far as it was kept."""

import asyncio
import logging
from pathlib import Path

import pytest

from bot.core import open_core, open_desk
from bot.receiving.access import Access
from bot.sweeping import SWEEP_S
from bot.words import Unreachable
from storage.database import open_database
from storage.inbox import receive
from tests.bot.platform import ADA, DIRECT, said
from tests.bot.world import KEY, RULES, World, open_world

LONG = "word " * 30


async def crashed_while(path: Path, seconds: float, *, answer: str = LONG) -> World:
    """A bot that was asked something and died so many seconds later."""
    async with open_world(path) as world:
        world.brain.answer = lambda prompt: answer
        await world.say("tell me")
        await world.pass_(seconds)
    return world


async def test_what_was_only_received_is_answered_after_a_restart(store_path: Path) -> None:
    async with open_world(store_path) as before:
        event = said("hello", "e1", author=ADA, sent_ms=before.clock.now_ms())
        await before.store.write(receive, "fake", [event], before.clock.now_ms())
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == ["You said: hello"]
        await world.core.receive("fake", [event])
        await world.quiet()
        assert world.port.texts == ["You said: hello"], "the platform tells it once more"


async def test_what_had_shown_nothing_is_answered_from_the_start(store_path: Path) -> None:
    before = await crashed_while(store_path, 0.5)
    assert before.port.texts == []
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == ["You said: tell me"]
        assert len(await world.turns()) == 1


async def test_behaviour_13_half_an_answer_is_finished_with_a_note_and_settled_at_its_heartbeat(
    store_path: Path,
) -> None:
    before = await crashed_while(store_path, 6.0)
    (shown,) = before.port.messages
    assert shown.post.text.endswith(" ...")
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        await world.until(lambda: shown.post.text.endswith("(I was restarted: `continue` goes on)"))
        assert len(world.port.texts) == 1
        (turn,) = await world.turns()
        assert turn.state == "interrupted"
        assert shown.post.text.startswith(turn.progress.answer.rstrip())
        standing = await world.standing()
        cost = turn.progress.new_tokens + turn.progress.prefill_tokens // 4
        assert (standing.held, standing.used_today) == (0, cost)
        assert 0 < turn.progress.new_tokens < len(LONG)


async def test_a_turn_that_was_kept_can_be_gone_on_with_after_a_restart(store_path: Path) -> None:
    before = await crashed_while(store_path, 6.0)
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        world.brain.answer = lambda prompt: "the rest"
        await world.call("continue")
        await world.quiet()
        half, rest = await world.turns()
        assert rest.parent_id == half.question.turn_id
        assert list(world.brain.requests[0].ids) == [
            *(half.progress.prompt_ids or []),
            *half.progress.answer_ids,
        ]


async def test_a_preview_whose_id_was_not_kept_is_found_again_and_not_posted_twice(store_path: Path) -> None:
    before = await crashed_while(store_path, 6.0)
    await forget_message_ids(store_path)
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        (shown,) = world.port.messages
        await world.until(lambda: "restarted" in shown.post.text)


async def forget_message_ids(path: Path) -> None:
    """As if we had died between sending a message and noting its id."""
    import sqlite3

    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE delivery SET message_id = NULL, state = 'sending'")
    connection.close()


async def test_a_final_text_that_could_not_be_sent_is_sent_after_a_restart(store_path: Path) -> None:
    async with open_world(store_path) as before:
        before.port.failures["post"] = [Unreachable("down")] * 100
        await before.say("hello")
        await before.pass_(140)
    before.port.failures.clear()
    async with open_world(store_path, boot="next", like=before) as world:
        await world.until(lambda: world.port.texts)
        await world.quiet()
        assert world.port.texts == ["You said: hello"]
        assert (await world.standing()).used_today > 0


async def test_what_waits_for_too_long_is_not_answered_out_of_the_blue(store_path: Path) -> None:
    before = await crashed_while(store_path, 0.5)
    before.clock._start_ms += 3_600_000
    async with open_world(store_path, boot="next", like=before) as world:
        await world.until(lambda: world.port.texts)
        assert world.port.texts == ["(I was restarted before I had said anything: please ask again)"]
        assert world.port.messages[0].post.controls == ("retry",)


async def test_answers_for_a_platform_that_is_switched_off_wait_without_a_word(
    store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = await crashed_while(store_path, 6.0)
    clock = before.clock
    async with open_database(store_path) as store:
        desk = open_desk(store, clock, KEY, RULES, Access(clock, (), KEY))
        async with open_core(desk, before.brain, {}, boot="next", rules=RULES):
            for _ in range(3):
                await clock.advance(SWEEP_S + 1)
                await asyncio.sleep(0.1)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    async with open_world(store_path, boot="last", like=before) as world:
        await world.quiet()
        assert world.port.texts[-1].endswith("(I was restarted: `continue` goes on)")


async def test_what_was_said_minutes_apart_while_we_were_away_stays_two_questions(world: World) -> None:
    now_ms = world.clock.now_ms()
    events = [
        said(text, text, where=DIRECT, author=ADA, sent_ms=now_ms - before_ms)
        for text, before_ms in (("one", 300_000), ("two", 299_500), ("three", 120_000))
    ]
    for event in events:
        await world.core.receive("fake", [event])
        await world.store_is_quiet()
    await world.quiet()
    assert sorted(turn.question.prompt for turn in await world.turns()) == ["one\ntwo", "three"]
