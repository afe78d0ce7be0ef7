"""Whoever deletes a message takes what was made of it away, wherever that is by then."""

import logging
from pathlib import Path

import pytest
from sqlalchemy import select

from bot.sweeping import SWEEP_S
from bot.words import Author, Refused, Unreachable, Where
from storage.inbox import receive
from storage.schema import delivery, inbox, joined_message
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT, called, said, withdrawn
from tests.bot.world import World, open_world

SECRET = "a very private question"
THREAD = Where("fake", "thread", "thread")


async def prompts(world: World) -> list[str]:
    await world.quiet()
    return [turn.question.prompt for turn in await world.turns()]


def files_of(world: World) -> bytes:
    """All that is on disk."""
    return b"".join(file.read_bytes() for file in world.store.path.parent.glob("murmur.db*"))


async def test_a_deleted_question_goes_with_its_answer_and_its_session(world: World) -> None:
    world.brain.answer = lambda prompt: f"About {prompt}"
    await world.ask("one")
    asked = await world.say(SECRET)
    await world.quiet()
    await world.delete(asked)
    assert await prompts(world) == ["one"]
    assert world.port.texts == ["About one"]
    assert world.brain.forgotten == [1]
    assert SECRET.encode() not in files_of(world)
    await world.ask("two")
    assert "private" not in "".join(map(chr, world.brain.requests[-1].ids))


async def test_other_tries_and_what_went_on_from_them_go_too(world: World) -> None:
    asked = await world.say("one")
    await world.quiet()
    await world.call("retry")
    await world.quiet()
    assert len(await world.turns()) == 2
    await world.delete(asked)
    assert await prompts(world) == []
    assert world.port.texts == []


async def test_an_answer_that_is_being_written_is_stopped_and_shown_no_more(world: World) -> None:
    world.brain.answer = lambda prompt: "A long story. " * 14
    asked = await world.say(SECRET)
    await world.until(lambda: world.port.messages and len(world.port.messages[0].history) > 1)
    await world.delete(asked)
    assert await prompts(world) == []
    assert world.port.texts == []
    (shown,) = world.port.messages
    assert not any("(stopped)" in text for text in shown.history)
    assert len(shown.history[-1]) < len("A long story. " * 14)
    assert (await world.standing()).held == 0


async def test_an_answer_that_is_just_being_shown_goes_when_it_is_there(world: World) -> None:
    world.port.post_s = 5.0
    asked = await world.say(SECRET)
    await world.until(lambda: world.port.messages)
    await world.pass_(1)
    await world.delete(asked)
    assert await prompts(world) == []
    assert world.port.texts == []


async def test_a_question_that_waits_for_its_time_is_not_answered(world: World) -> None:
    world.brain.answer = lambda prompt: "A long story. " * 14
    await world.say("one")
    await world.until(lambda: world.port.messages)
    await world.pass_(2)
    waits = await world.say("two")
    await world.pass_(1)
    await world.delete(waits)
    assert await prompts(world) == ["one"]
    assert len(world.brain.requests) == 1
    assert world.port.texts == ["A long story. " * 14]


async def test_a_message_that_was_added_to_a_question_takes_the_whole_of_it_away(world: World) -> None:
    await world.say("one")
    added = await world.say(SECRET)
    await world.quiet()
    assert await prompts(world) == [f"one\n{SECRET}"]
    await world.call("retry")
    await world.quiet()
    await world.delete(added)
    assert await prompts(world) == []
    assert await world.store.read(lambda c: c.execute(select(joined_message)).all()) == []
    assert SECRET.encode() not in files_of(world)


async def test_what_still_waits_in_the_inbox_is_never_answered(world: World) -> None:
    world.port.read_s = 3.0
    asked = await world.send(SECRET, ("notes.txt", b"one"))
    await world.until(lambda: world.port.num_read)
    await world.delete(asked)
    await world.pass_(1)
    assert await world.store.read(lambda c: set(c.scalars(select(inbox.c.payload)).all())) == {None}
    assert await prompts(world) == []
    assert world.port.messages == []
    assert SECRET.encode() not in files_of(world)


async def test_a_question_and_its_deletion_at_the_same_moment_leave_nothing(world: World) -> None:
    now_ms = world.clock.now_ms()
    await world.core.receive("fake", [said(SECRET, "e1", sent_ms=now_ms), withdrawn("e1", sent_ms=now_ms)])
    assert await prompts(world) == []
    assert world.port.texts == []


async def test_a_deletion_that_was_kept_before_a_crash_is_done_after_it(tmp_path: Path) -> None:
    path = tmp_path / "murmur.db"
    async with open_world(path) as world:
        asked = await world.say(SECRET)
        await world.quiet()
        gone = withdrawn(asked, sent_ms=world.clock.now_ms())
        await world.store.write(receive, "fake", [gone], world.clock.now_ms(), {})
    await world.clock.advance(3600)
    async with open_world(path, boot="again", like=world) as again:
        assert await prompts(again) == []
        assert again.port.texts == []


async def test_a_deletion_is_obeyed_however_late_it_comes(world: World) -> None:
    asked = await world.say(SECRET)
    await world.quiet()
    await world.core.receive("fake", [withdrawn(asked, sent_ms=world.clock.now_ms() - 86_400_000)])
    assert await prompts(world) == []


async def test_what_others_said_and_what_is_said_elsewhere_stays(world: World) -> None:
    asked = await world.say("one", where=CHANNEL)
    await world.quiet()
    (answer,) = [shown.message_id for shown in world.port.messages]
    await world.say("two", where=CHANNEL, author=BOB, reply_to=answer)
    await world.quiet()
    await world.delete(asked, where=DIRECT)
    await world.delete("never heard of")
    assert await prompts(world) == ["one", "two"]
    await world.delete(asked, where=CHANNEL)
    assert await prompts(world) == ["two"]
    assert world.port.texts == ["You said: [Bob]:\ntwo"]


async def test_what_is_asked_is_deleted_even_if_its_answer_cannot_be_taken_away(world: World) -> None:
    for error in (Unreachable("gone"), Refused("no")):
        asked = await world.say(SECRET)
        await world.quiet()
        world.port.failures["remove"] = [error] * 4
        await world.delete(asked)
        assert await prompts(world) == []


async def test_an_answer_is_taken_away_when_the_platform_can_be_reached_again(world: World) -> None:
    asked = await world.say(SECRET)
    await world.quiet()
    world.port.failures["remove"] = [Unreachable("gone")] * 2
    await world.delete(asked)
    assert await prompts(world) == []
    assert world.port.texts == []


async def test_every_part_of_a_long_answer_goes(world: World) -> None:
    world.brain.answer = lambda prompt: "Words and words. " * 60
    world.brain.token_s = 0.001
    asked = await world.say("one")
    await world.quiet()
    parts = await world.store.read(lambda c: len(c.execute(select(delivery)).all()))
    assert parts > 1 or len(world.port.texts) == 1
    await world.delete(asked)
    await world.quiet()
    assert world.port.texts == []


async def test_behaviour_28_nothing_of_what_was_sent_or_deleted_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = await world.send("xyzzy", ("xyzzy.txt", b"xyzzy"), ("xyzzy.png", b"xyzzy\0"))
    await world.quiet()
    await world.call("history")
    await world.call("export")
    world.port.failures["remove"] = [Refused("no")]
    await world.delete(asked)
    assert await prompts(world) == []
    assert "xyzzy" not in caplog.text


async def test_a_deleted_command_changes_nothing(world: World) -> None:
    await world.ask("one")
    await world.core.receive("fake", [called("undo", "c1", author=ADA, sent_ms=world.clock.now_ms())])
    await world.quiet()
    await world.delete("c1")
    assert await prompts(world) == ["one"]


async def test_what_is_deleted_is_not_told_again_by_an_answer_that_knew_it(world: World) -> None:
    first = await world.say("one", where=THREAD)
    await world.quiet()
    secret = await world.say(SECRET, where=THREAD)
    await world.quiet()
    await world.delete(first, where=THREAD)  # so that the next turn is told everything anew
    await world.quiet()
    world.brain.answer = lambda prompt: "A long story. " * 14
    num_shown = len(world.port.messages)
    await world.say("two", where=THREAD, author=BOB)
    await world.until(lambda: len(world.port.messages) > num_shown)
    await world.delete(secret, where=THREAD)
    await world.ask("three", where=THREAD, author=BOB)
    assert "private" not in "".join(map(chr, world.brain.requests[-1].ids))


async def test_what_is_being_taken_away_is_not_shown_by_a_sweep_meanwhile(world: World) -> None:
    world.brain.answer = lambda prompt: "A long story. " * 14
    await world.pass_(SWEEP_S - 4)
    asked = await world.say(SECRET)
    await world.until(lambda: world.port.messages)
    world.port.failures["remove"] = [Unreachable("gone for a while") for _ in range(3)]
    await world.delete(asked)
    await world.pass_(30)
    await world.quiet()
    (shown,) = world.port.messages
    assert shown.is_gone
    assert not any("(stopped)" in text for text in shown.history)


async def test_forty_deletions_on_a_platform_that_is_away_keep_nobody_waiting(world: World) -> None:
    world.brain.token_s = 0.001
    places = [Where("fake", f"place{number}", "direct") for number in range(40)]
    people = [Author(f"person{number}", "P") for number in range(40)]
    asked = [
        await world.say("hi", where=where, author=who) for where, who in zip(places, people, strict=True)
    ]
    await world.quiet()
    world.port.failures["remove"] = [Unreachable("gone for long") for _ in range(400)]
    for message, where in zip(asked, places, strict=True):
        await world.delete(message, where=where)
    began_s = world.clock.now_s()
    await world.call("help", author=BOB)
    await world.until(lambda: [who for who, _ in world.port.told if who == BOB.external_id])
    assert world.clock.now_s() - began_s < 1
    world.port.failures.clear()
    assert await prompts(world) == []
