"""What people say on Matrix is answered, where they said it; what is not for us is not."""

import asyncio

from bot.on_matrix.wire import Wire
from tests.bot.on_matrix.world import Bot, Place, meet
from tests.matrix_peer.human import Human, NewHuman

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def test_behaviour_01_in_a_chat_of_two_every_message_is_answered_exactly(chat: Place) -> None:
    asked = await chat.say("hello")
    answer = await chat.reads("You said: hello")
    assert (answer.reply_to, answer.thread, answer.kind) == (asked, "", "m.text")


async def test_behaviour_01_in_a_group_a_mention_is_answered_in_a_thread_with_its_very_text(
    group: Place,
) -> None:
    text = "A first sentence. " + "words and words " * 20 + "\n\n```python\nx = 1 < 2\n```\nthe end"
    group.bot.brain.answer = lambda prompt: text if prompt == "tell me" else "wrong"
    group.bot.brain.token_s = 0.003
    await group.say("not for anybody")
    asked = await group.call(f"{group.bot.user_id}: tell me")
    answer = await group.reads(text)
    assert answer.thread == asked
    assert await group.texts() == [text]
    assert "You said" not in "".join(await group.texts())


async def test_a_thread_that_is_ours_goes_on_without_a_mention_and_others_do_not(group: Place) -> None:
    asked = await group.call("one")
    await group.reads("You said: one")
    other = await group.say("somebody's own thread")
    await group.human.reply_in_thread(group.room_id, other, "not for you")
    await group.human.reply_in_thread(group.room_id, asked, "two")
    answer = await group.reads("You said: two")
    assert answer.thread == asked
    first, second = await group.bot.turns()
    assert second.parent_id == first.question.turn_id
    assert len(await group.texts()) == 2


async def test_a_reply_to_an_answer_goes_on_with_it_and_its_quote_is_left_out(group: Place) -> None:
    await group.call("one")
    answer = await group.reads("You said: one")
    quote = f"> <{group.bot.user_id}> You said: one\n> more\n\ntwo"
    replied = await group.human.reply(group.room_id, answer.event_id, quote)
    assert (await group.reads("You said: two")).thread == replied
    first, second = await group.bot.turns()
    assert second.parent_id == first.question.turn_id


async def test_behaviour_24_a_reply_to_an_older_answer_forks(chat: Place) -> None:
    await chat.say("one")
    first = await chat.reads("You said: one")
    await chat.say("two")
    await chat.reads("You said: two")
    await chat.human.reply(chat.room_id, first.event_id, "another two")
    await chat.reads('You said: another two\n\n(forked from the answer to "one")')
    one, two, other = await chat.bot.turns()
    assert other.parent_id == one.question.turn_id
    assert other.question.conversation_id != two.question.conversation_id


async def test_who_comes_third_makes_a_group_of_a_chat_and_back(chat: Place, new_human: NewHuman) -> None:
    ben = await new_human("ben")
    await chat.say("one")
    await chat.reads("You said: one")
    await chat.human.invite(chat.room_id, ben.user_id)
    await chat.say("not for you")
    await ben.join(chat.room_id)
    await ben.leave(chat.room_id)
    await chat.human._until(
        lambda: ben.user_id not in chat.human.client.rooms[chat.room_id].users, "Ben gone"
    )
    await chat.say("two")
    await chat.reads("You said: two")
    assert await chat.texts() == ["You said: one", "You said: two"]


async def test_behaviour_08_an_edit_has_its_text_clean_mentions_nobody_and_stays_in_its_thread(
    group: Place,
) -> None:
    text = f"**bold** <script>alert(1)</script> @room {group.human.user_id} " + "word " * 20
    group.bot.brain.answer = lambda prompt: text
    group.bot.brain.token_s = 0.02
    asked = await group.call("tell me")
    answer = await group.reads(text, within_s=20)
    assert answer.thread == asked
    assert answer.edits
    for edit in answer.edits:
        new = edit["m.new_content"]
        assert edit["body"] == "* " + new["body"]
        assert edit["formatted_body"] == "* " + new["formatted_body"]
        assert (new["format"], new["msgtype"]) == ("org.matrix.custom.html", "m.text")
        assert "<script" not in edit["formatted_body"]
        assert (edit["m.mentions"], new["m.mentions"]) == ({}, {})
        assert edit["m.relates_to"] == {"rel_type": "m.replace", "event_id": answer.event_id}
    assert "<strong>bold</strong>" in answer.html


async def test_behaviour_19_what_is_no_question_is_not_answered(group: Place, anna: Human) -> None:
    bot, room = group.bot.user_id, group.room_id
    await group.say("a notice", kind="m.notice", mentions=[bot])
    earlier = await group.say("nothing")
    await group.human.edit(room, earlier, f"{bot} edited")
    await group.say("an emote", kind="m.emote", mentions=[bot])
    everybody = {"msgtype": "m.text", "body": "@room all", "m.mentions": {"room": True}}
    await group.human.send(room, everybody)
    await group.human.send(room, {"msgtype": "m.file", "body": f"{bot} a file"})
    own = Wire(group.bot.client)
    await own.put_event(room, "m.room.message", {"msgtype": "m.text", "body": f"{bot} me"}, "own")
    await group.call("a question")
    await group.reads("You said: a question")
    assert sorted(await group.texts()) == sorted([f"{bot} me", "You said: a question"])
    assert len(await group.bot.turns()) == 1


async def test_behaviour_19_a_prompt_that_was_taken_back_is_not_answered(chat: Place) -> None:
    send, held, gate = chat.bot.client.send, asyncio.Event(), asyncio.Event()

    async def late(method: str, path: str, *rest: object) -> object:
        if "/sync" in path:
            held.set()
            await gate.wait()
        return await send(method, path, *rest)

    chat.bot.client.send = late
    await chat.say("first")
    await held.wait()
    await chat.human.redact(chat.room_id, await chat.say("taken back"))
    await chat.say("kept")
    gate.set()
    await chat.until(lambda them: [it for it in them if "kept" in it.text])
    await chat.bot.quiet()
    assert "taken back" not in "".join(await chat.texts())


async def test_behaviour_19_two_bots_in_a_room_do_not_loop(
    anna: Human, bot: Bot, new_human: NewHuman
) -> None:
    other = await new_human("otherbot")
    place = await meet(anna, bot)
    await anna.invite(place.room_id, other.user_id)
    await other.join(place.room_id)
    bot.brain.answer = lambda prompt: f"{other.user_id}: what do you mean by {prompt}?"
    await place.call("hello")
    said = await place.until(lambda them: next((it for it in them if "mean by" in it.text), None))
    assert said.content["m.mentions"] == {}
    await other.send(
        place.room_id,
        {"msgtype": "m.notice", "body": f"{bot.user_id}: you?", "m.mentions": {"user_ids": [bot.user_id]}},
    )
    await place.call("again")
    await place.until(lambda them: [it for it in them if "mean by again" in it.text])
    assert len(await place.texts()) == 2
