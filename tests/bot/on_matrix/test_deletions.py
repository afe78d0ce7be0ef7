"""Messages that are taken back on Matrix take with them what was made of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from bot.on_matrix.messages import read_deletion
from storage.schema import inbox
from tests.bot.on_matrix.test_encrypted_rooms import LostKeys, account, sealed_bot, sealed_chat
from tests.bot.on_matrix.world import Bot, Place, open_bot, open_client
from tests.matrix_peer.human import Human, NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)
__all__ = ["account", "sealed_bot", "sealed_chat"]

SECRET = "a very private question"


def on_disk(bot: Bot) -> bytes:
    return b"".join(file.read_bytes() for file in bot.store.path.parent.glob(f"{bot.store.path.name}*"))


async def no_answers(place: Place) -> None:
    """Wait until the bot shows nothing, and has nothing to do."""

    def is_empty() -> bool:
        return not place.human.visible_text(place.room_id, place.bot.user_id)

    await place.human._until(is_empty, "silence of the bot")
    await place.bot.quiet()


@contextlib.asynccontextmanager
async def hearing_at_once(place: Place) -> AsyncIterator[None]:
    """What is said in the block is heard of in one sync, after it."""
    client = place.bot.client
    send, held, gate = client.send, asyncio.Event(), asyncio.Event()

    async def late(method: str, path: str, *rest: Any) -> Any:
        if "/sync" in path:
            held.set()
            await gate.wait()
        return await send(method, path, *rest)

    client.send = late
    await place.say("the sync before ends with this", kind="m.notice")
    await held.wait()
    yield
    client.send = send
    gate.set()


async def test_who_takes_a_question_back_takes_its_answer_away(chat: Place) -> None:
    asked = await chat.say(SECRET)
    await chat.reads(f"You said: {SECRET}")
    await chat.human.redact(chat.room_id, asked)
    await no_answers(chat)
    assert await chat.bot.turns() == []
    assert SECRET.encode() not in on_disk(chat.bot)
    assert chat.bot.brain.forgotten == [1]


async def test_an_answer_that_is_being_written_is_stopped_and_goes(group: Place) -> None:
    group.bot.brain.answer = lambda prompt: "word " * 700
    group.bot.brain.token_s = 0.01
    asked = await group.call("tell me")
    await group.until(lambda them: [it for it in them if "word" in it.text])
    await group.human.redact(group.room_id, asked)
    await no_answers(group)
    assert await group.bot.turns() == []


async def test_a_message_that_was_joined_takes_the_question_away(chat: Place) -> None:
    async with hearing_at_once(chat):
        await chat.say("one")
        joined = await chat.say(SECRET)
    await chat.reads(f"You said: one\n{SECRET}")
    await chat.bot.quiet()
    assert [said.question.prompt for said in await chat.bot.turns()] == [f"one\n{SECRET}"]
    await chat.human.redact(chat.room_id, joined)
    await no_answers(chat)
    assert await chat.bot.turns() == []


async def test_a_moderator_may_take_a_question_back_too(chat: Place, new_human: NewHuman) -> None:
    ben = await new_human("ben")
    await chat.human.invite(chat.room_id, ben.user_id)
    await ben.join(chat.room_id)
    asked = await ben.say(chat.room_id, "one", mentions=[chat.bot.user_id])
    await chat.reads("You said: one")
    await chat.human.redact(chat.room_id, asked)
    await no_answers(chat)
    assert await chat.bot.turns() == []


@pytest.mark.parametrize("num_later", [0, 120])
async def test_what_was_taken_back_while_the_bot_was_away_is_deleted_when_it_is_back_over_a_gap_too(
    synapse: Synapse, anna: Human, store_path: Path, num_later: int
) -> None:
    known = await asyncio.to_thread(synapse.register, "murmur")
    async with open_client(synapse.url, known) as client:
        async with open_bot(client, store_path, boot="one") as bot:
            room_id = await anna.create_direct(bot.user_id)
            await anna.wait_for_member(room_id, bot.user_id)
            place = Place(anna, bot, room_id)
            asked = await place.say(SECRET)
            await place.reads(f"You said: {SECRET}")
            await bot.quiet()
        await anna.redact(room_id, asked)
        for number in range(num_later):
            await place.say(f"a notice {number}", kind="m.notice")
        async with open_bot(client, store_path, boot="two") as place.bot:
            await no_answers(place)
            assert await place.bot.turns() == []


async def test_what_is_taken_back_and_was_not_for_the_bot_is_not_even_noted(group: Place) -> None:
    await group.call("one")
    await group.reads("You said: one")
    await group.human.redact(group.room_id, await group.say("not for you"))
    await group.human.redact(group.room_id, "$nothing-that-there-is")
    await group.call("two")
    await group.reads("You said: two")
    await group.bot.quiet()
    assert await group.bot.store.read(lambda c: c.scalar(select(func.count()).select_from(inbox))) == 2


async def test_what_waits_for_its_key_and_is_taken_back_waits_no_more(sealed_chat: Place) -> None:
    keys, unread = LostKeys(sealed_chat.human), sealed_chat.bot.adapter.unread
    lost = await sealed_chat.say(SECRET)
    await sealed_chat.bot.until(lambda: unread.num_waiting == 1)
    await sealed_chat.human.redact(sealed_chat.room_id, lost)
    await sealed_chat.bot.until(lambda: not unread.num_waiting)
    await keys.send_again()
    await sealed_chat.say("now")
    await sealed_chat.until(lambda them: [it for it in them if "now" in it.text])
    assert [said.question.prompt for said in await sealed_chat.bot.turns()] == ["now"]


@pytest.mark.parametrize(
    ("event", "deleted"),
    [
        ({"type": "m.room.redaction", "redacts": "$a"}, "$a"),
        ({"type": "m.room.redaction", "content": {"redacts": "$a"}}, "$a"),
        ({"type": "m.room.redaction", "redacts": ["$a"], "content": 7}, ""),
        ({"type": "m.room.redaction", "redacts": "$" + "a" * 300}, ""),
        ({"type": "m.room.redaction", "redacts": "$a", "state_key": ""}, ""),
        ({"type": "m.room.message", "redacts": "$a"}, ""),
    ],
)
def test_a_redaction_names_what_it_takes_back(event: dict[str, object], deleted: str) -> None:
    assert read_deletion(event) == deleted
