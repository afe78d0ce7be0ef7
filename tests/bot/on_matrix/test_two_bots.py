"""Bots of our kind do not answer each other: what they say is marked, and what is no answer is a notice."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.config.platforms import MatrixSettings
from bot.on_matrix.calls import read_reaction
from bot.on_matrix.messages import OURS, marked
from bot.on_matrix.port import MatrixPort
from bot.on_matrix.rooms import Rooms
from bot.on_matrix.sending import Sending
from bot.on_matrix.wire import Wire
from bot.rendering.matrix_content import edit_content, measure, payload_bytes
from bot.words import Post, Where
from storage.amounts import Rates
from tests.bot.clock import FakeClock
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.test_deliveries import ANSWER, writes_slowly
from tests.bot.on_matrix.test_invitations import Homeserver
from tests.bot.on_matrix.test_translating import ANNA, BEN, BOT, FakeStore, hear, message, room, thread
from tests.bot.on_matrix.world import RULES, Place, meet, open_bot, open_client
from tests.matrix_peer.human import Human
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)


def by_a_bot(event: dict[str, Any]) -> dict[str, Any]:
    return event | {"content": marked(event["content"])}


async def test_behaviour_19_what_a_bot_of_our_kind_says_is_no_question_wherever_it_says_it() -> None:
    asked = message("$1", f"{BOT}: one")
    others = (
        message("$2", "an answer", **thread("$1")),
        message("$3", f"{BOT}: and you?"),
        message("$4", "!new"),
        message("$5", "!hlep", **thread("$1")),
    )
    events = (asked, *map(by_a_bot, others))
    assert [it.text for it in await hear(room(ANNA, BEN), *events)] == ["one"]
    assert await hear(room(ANNA), by_a_bot(message("$1", "one"))) == []


def test_a_sign_of_a_bot_of_our_kind_is_no_command() -> None:
    relation = {"rel_type": "m.annotation", "event_id": "$1", "key": "🔁"}
    sign: dict[str, Any] = {"type": "m.reaction", "content": {"m.relates_to": relation}}
    assert read_reaction(sign) == ("$1", "retry")
    assert read_reaction(by_a_bot(sign)) is None


def test_behaviour_07_the_mark_counts_into_what_fits_into_a_message() -> None:
    clock, store = FakeClock(), FakeStore()
    sending = Sending(Wire(Homeserver()), Rooms(BOT), None, store, clock)  # type: ignore[arg-type]
    port = MatrixPort(sending, MatrixSettings(), store, clock)  # type: ignore[arg-type]
    plain = edit_content("text", "$1")
    more = payload_bytes(marked(plain), False) - payload_bytes(plain, False)
    assert more > 0
    assert port.size("text") == measure("text") + more


async def test_behaviour_19_two_of_us_that_are_asked_in_one_message_answer_it_and_not_each_other(
    synapse: Synapse, anna: Human, tmp_path: Path
) -> None:
    first, second = [await asyncio.to_thread(synapse.register, name) for name in ("one", "two")]
    async with (
        open_client(synapse.url, first) as client,
        open_client(synapse.url, second) as other,
        open_bot(client, tmp_path / "one.db") as one,
        open_bot(other, tmp_path / "two.db") as two,
    ):
        both = (one, two)
        room_id = await anna.create_room(one.user_id, two.user_id)
        places = [Place(anna, bot, room_id) for bot in both]
        for bot in both:
            await anna.wait_for_member(room_id, bot.user_id)
        root = await anna.say(room_id, "hello both", mentions=[bot.user_id for bot in both])
        for place in places:
            assert (await place.reads("You said: hello both")).thread == root
        for place in places:  # who has answered this has heard the other's answer
            await place.call("a witness")
            await place.reads("You said: a witness")
            await place.bot.quiet()
        for place in places:
            assert await place.texts() == ["You said: hello both", "You said: a witness"]
            assert len(await place.bot.turns()) == 2


def events_of(place: Place) -> list[dict[str, Any]]:
    """All that the bot has sent, but its own membership."""
    events = place.human.events(place.room_id)
    return [it for it in events if it["sender"] == place.bot.user_id and "state_key" not in it]


async def test_all_that_a_bot_sends_is_marked_also_what_an_edit_puts_in_its_place(
    new_bot: NewBot, anna: Human
) -> None:
    chat = await meet(anna, await new_bot(seed_controls=True), direct=True)
    writes_slowly(chat.bot)
    await chat.say("tell me")
    answer = await chat.reads(ANSWER)
    await chat.bot.quiet()
    await chat.say("!undo")
    await chat.until(lambda them: len(them) == 2)
    assert {it["type"] for it in events_of(chat)} == {"m.room.message", "m.reaction"}
    assert answer.edits
    assert all(OURS in it["content"] for it in events_of(chat))
    assert all(OURS in edit["m.new_content"] for edit in answer.edits)


async def test_what_is_said_to_a_place_or_instead_of_an_answer_is_a_notice_and_the_answer_is_none(
    new_bot: NewBot, anna: Human
) -> None:
    rules = replace(RULES, place_notice="Others can read this.")
    chat = await meet(anna, await new_bot(rules=rules), direct=True)
    chat.bot.brain.errors.append(RuntimeError("a mistake of ours"))
    await chat.say("hello")
    await chat.until(lambda them: len(them) == 2)
    await chat.say("again")
    await chat.reads("You said: again")
    told, failed, answer = [it for it in chat.human.messages(chat.room_id) if it.sender == chat.bot.user_id]
    assert told.text.startswith("Others can read this.")
    assert failed.text.startswith("Something went wrong here")
    assert [it.kind for it in (told, failed, answer)] == ["m.notice", "m.notice", "m.text"]


async def test_that_a_quota_is_used_up_is_a_notice_also_where_something_else_was_to_be_seen(
    new_bot: NewBot, anna: Human
) -> None:
    none = Rates(daily_grant=0, balance_cap=0, prefill_percent=25, least_new_tokens=8)
    chat = await meet(anna, await new_bot(rules=replace(RULES, rates=none)), direct=True)
    await chat.say("hello")
    told = await chat.until(lambda them: next((it for it in them if "quota" in it.text), None))
    assert told.kind == "m.notice"
    port, where = chat.bot.adapter.port, Where("matrix", chat.room_id, "direct")
    draft = await port.post(where, told.reply_to, Post("(queued)", "a-key", "a-turn", ("stop",)))
    await port.edit(where, draft, Post("No.", "a-key", "a-turn", ("retry",)))
    edited = await chat.reads("No.")
    assert [edit["m.new_content"]["msgtype"] for edit in edited.edits] == ["m.notice"]
