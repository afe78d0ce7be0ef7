"""Commands on Matrix: typed, or as a sign under an answer; and who may give them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bot.on_matrix.calls import HOW, SIGNS
from bot.receiving.haste import Patience
from bot.words import Where
from storage.rate import Rate
from swarm.background import running
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.world import RULES, Bot, Place, meet
from tests.matrix_peer.human import Human, NewHuman
from tests.matrix_peer.timeline import Message

pytest_plugins = ("tests.matrix_peer.fixtures",)


def ends_with(text: str) -> Callable[[list[Message]], Message | None]:
    return lambda them: next((it for it in them if it.text.endswith(text)), None)


def in_thread(root: str) -> Callable[[list[Message]], Message | None]:
    return lambda them: next((it for it in them if it.thread == root), None)


async def long_answer(place: Place) -> tuple[str, Message]:
    """Have the bot write something that does not end; returns the question's id and what is seen of it."""
    place.bot.brain.answer = lambda prompt: "word " * 700
    place.bot.brain.token_s = 0.01
    asked = await place.call("tell me")
    return asked, await place.until(lambda them: next((it for it in them if "word" in it.text), None))


async def assert_stopped(place: Place) -> None:
    """The answer ends, nothing comes after it, and the model is no longer asked."""
    stopped = await place.until(ends_with("(stopped)"))
    await place.bot.quiet()
    num_edits, text = len(stopped.edits), stopped.text
    await place.say("nothing to anybody", kind="m.notice")
    await place.texts()
    (same,) = [it for it in place.human.messages(place.room_id) if it.event_id == stopped.event_id]
    assert (len(same.edits), same.text) == (num_edits, text)
    (said,) = await place.bot.turns()
    assert (said.state, text) == ("stopped", f"{said.progress.answer}\n\n(stopped)")
    assert len(said.progress.answer) < len("word " * 700)


async def test_behaviour_23_stop_by_a_command_in_the_thread(group: Place) -> None:
    asked, _ = await long_answer(group)
    await group.human.reply_in_thread(group.room_id, asked, "!stop")
    await assert_stopped(group)


async def test_behaviour_23_stop_by_a_reaction_of_who_asked(group: Place) -> None:
    _, answer = await long_answer(group)
    await group.human.react(group.room_id, answer.event_id, "⏹️")
    await assert_stopped(group)


async def test_behaviour_23_a_stranger_cannot_stop_and_a_moderator_can(
    anna: Human, bot: Bot, new_human: NewHuman
) -> None:
    room = await meet(await new_human("moderator"), bot)
    stranger = await new_human("stranger")
    for human in (anna, stranger):
        await room.human.invite(room.room_id, human.user_id)
        await human.join(room.room_id)
    place = Place(anna, bot, room.room_id)
    _, answer = await long_answer(place)
    await stranger.react(room.room_id, answer.event_id, "⏹")
    refusal = await place.until(ends_with("Only who asked for this answer, or a moderator, can stop it."))
    assert refusal.kind == "m.notice"
    await room.human.react(room.room_id, answer.event_id, "⏹")
    await assert_stopped(place)


async def test_behaviour_24_retry_and_continue_by_signs(chat: Place) -> None:
    await chat.say("one")
    first = await chat.reads("You said: one")
    chat.bot.brain.answer = lambda prompt: "Something else."
    await chat.human.react(chat.room_id, first.event_id, "🔁")
    await chat.reads("Something else.")
    one, again = await chat.bot.turns()
    assert (again.parent_id, again.question.prompt) == (one.parent_id, "one")
    assert list(chat.bot.brain.requests[1].ids) == list(chat.bot.brain.requests[0].ids)
    chat.bot.brain.answer = lambda prompt: "x" * 8000
    await chat.say("two")
    cut = await chat.until(ends_with("`continue` goes on)"), within_s=20)
    chat.bot.brain.answer = lambda prompt: "the rest"
    await chat.human.react(chat.room_id, cut.event_id, "▶")
    await chat.reads("the rest")
    two, rest = (await chat.bot.turns())[2:]
    held = [*chat.bot.brain.requests[2].ids, *two.progress.answer_ids]
    assert list(chat.bot.brain.requests[3].ids) == held
    assert rest.question.prompt == ""


async def test_a_sign_is_about_the_answer_that_it_is_under_whatever_was_begun_since(chat: Place) -> None:
    await chat.say("one")
    first = await chat.reads("You said: one")
    await chat.bot.quiet()
    await chat.say("!new")
    await chat.reads("A new conversation begins.")
    await chat.say("two")
    await chat.reads("You said: two")
    await chat.bot.quiet()
    chat.bot.brain.answer = lambda prompt: "Something else."
    await chat.human.react(chat.room_id, first.event_id, "🔁")
    await chat.reads("Something else.")
    one, two, again = [said.question for said in await chat.bot.turns()]
    assert (again.prompt, again.conversation_id) == ("one", one.conversation_id)
    assert two.conversation_id != one.conversation_id


async def test_a_question_that_has_failed_is_asked_again_by_a_sign(chat: Place) -> None:
    await chat.say("one")
    await chat.reads("You said: one")
    await chat.bot.quiet()
    chat.bot.brain.errors.append(RuntimeError("a mistake of ours"))
    await chat.say("two")
    failed = await chat.until(lambda them: next((it for it in them if "went wrong" in it.text), None))
    await chat.bot.quiet()
    await chat.human.react(chat.room_id, failed.event_id, "🔁")
    await chat.reads("You said: two")


async def test_a_moderator_cannot_have_what_others_asked_answered_again(
    anna: Human, bot: Bot, new_human: NewHuman
) -> None:
    room = await meet(await new_human("moderator"), bot)
    await room.human.invite(room.room_id, anna.user_id)
    await anna.join(room.room_id)
    await Place(anna, bot, room.room_id).call("hello")
    answer = await room.reads("You said: hello")
    await bot.quiet()
    for sign in ("🔁", "▶"):
        await room.human.react(room.room_id, answer.event_id, sign)
    await room.reads("Only who asked for this answer can do that.")
    await room.reads("That answer is complete; ask something else.")
    await bot.quiet()
    assert len(await bot.turns()) == 1


async def test_commands_are_read_with_and_without_a_mention(group: Place) -> None:
    for number, line in enumerate(("!undo", f"{group.bot.user_id} !undo", "/undo", "//undo", "!UNDO"), 1):
        asked = await group.say(line)
        told = await group.until(in_thread(asked))
        assert told.kind == "m.notice"
        assert len(await group.texts()) == number
    await group.call("undo")
    await group.until(lambda them: len(them) == 6)
    assert await group.bot.turns() == []


async def test_what_is_wrong_with_a_command_is_told_and_foreign_commands_are_left_alone(
    group: Place, new_human: NewHuman
) -> None:
    await group.say("!weather tomorrow")
    await group.say("/usr/bin is a folder")
    asked = await group.call(f"{group.bot.user_id} !hlep")
    told = await group.until(lambda them: them[0] if them else None)
    assert told.text == "There is no command `hlep`; did you mean `!help`?"
    assert (told.thread, told.kind) == (asked, "m.notice")
    await group.say("!persona set")
    await group.until(ends_with("what I am and how I speak."))
    await group.call(f"{group.bot.user_id} /usr/bin is what?")
    await group.reads("You said: /usr/bin is what?")


async def test_who_mistypes_too_much_too_fast_is_asked_to_wait_and_then_ignored(
    new_bot: NewBot, anna: Human
) -> None:
    rules = replace(RULES, rate=Rate(burst=2, interval_ms=60_000), patience=Patience(ignore_after=2))
    chat = await meet(anna, await new_bot(rules=rules), direct=True)
    for number in range(5):
        await chat.say(f"!hlep {number}")
    await chat.until(ends_with("I listen to you again in 10 minutes."))
    await chat.bot.quiet()
    assert sorted(text.partition(";")[0] for text in await chat.texts()) == [
        "That was fast",
        "That was too much too fast",
        "There is no command `hlep 0`",
        "There is no command `hlep 1`",
    ]


async def test_help_names_the_signs_that_stop_and_repeat(chat: Place) -> None:
    await chat.say("!help")
    said = await chat.until(ends_with(HOW))
    assert all(sign in said.text for sign in SIGNS.values())


async def test_ask_is_a_question(group: Place) -> None:
    asked = await group.say("!ask what is this?")
    assert (await group.reads("You said: what is this?")).thread == asked


async def test_what_is_personal_is_told_in_the_chat_of_two(group: Place) -> None:
    await group.say("!undo")
    await group.until(ends_with(f"ask me in a direct message, https://matrix.to/#/{group.bot.user_id}"))
    chat = await meet(group.human, group.bot, direct=True)
    await group.say("!undo")
    await chat.reads("There is no conversation of yours here yet.")
    assert len(await group.texts()) == 1


async def test_what_waits_has_a_clock_until_it_is_answered(chat: Place) -> None:
    chat.bot.brain.answer = lambda prompt: f"About {prompt}: " + "word " * 40
    chat.bot.brain.token_s = 0.01
    await chat.say("one")
    await chat.until(lambda them: them)
    waits = await chat.say("two")

    def clocks(messages: list[Message]) -> list[tuple[str, str]]:
        return [it for message in messages if message.event_id == waits for it in message.reactions]

    seen = await chat.human.until(chat.room_id, clocks)
    assert seen == [(chat.bot.user_id, "🕐")]
    await chat.until(lambda them: [it for it in them if it.text.startswith("About two: word")])
    await chat.human.until(chat.room_id, lambda messages: not clocks(messages))
    await chat.bot.quiet()


async def test_a_clock_that_was_cut_off_while_it_was_sent_is_taken_away_too(chat: Place) -> None:
    port, where = chat.bot.adapter.port, Where("matrix", chat.room_id, "direct")
    waits = await chat.say("a notice", kind="m.notice")
    send, sent = chat.bot.client.send, asyncio.Event()

    async def without_answer(method: str, path: str, *rest: Any) -> Any:
        answer = await send(method, path, *rest)
        if "/m.reaction/" in path:
            sent.set()
            await asyncio.sleep(60)
        return answer

    chat.bot.client.send = without_answer
    async with running(port.acknowledge(where, waits, "queued")):
        await sent.wait()
        chat.bot.client.send = send

    def is_gone(messages: list[Message]) -> bool:
        were_there = [it for it in chat.human.events(chat.room_id) if it["type"] == "m.reaction"]
        return bool(were_there) and not any(message.reactions for message in messages)

    await chat.human.until(chat.room_id, is_gone)
    await port.acknowledge(where, waits, "")


async def test_signs_to_choose_from_are_there_if_they_are_wanted(new_bot: NewBot, anna: Human) -> None:
    bot = await new_bot(seed_controls=True)
    chat = await meet(anna, bot, direct=True)
    await chat.say("one")
    answer = await chat.until(lambda them: next((it for it in them if it.reactions), None))
    assert (answer.text, answer.reactions) == ("You said: one", [(bot.user_id, "🔁")])
    await chat.bot.quiet()
    assert len(await bot.turns()) == 1
