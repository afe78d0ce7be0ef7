"""Rooms that the bot enters and leaves, and what it knows of them."""

from typing import Any

import pytest

from bot.on_matrix.rooms import Room
from bot.on_matrix.wire import Wire, room_path
from bot.sending.pacing import Priority
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.world import Bot, Place, meet
from tests.matrix_peer.human import Human, NewHuman

pytest_plugins = ("tests.matrix_peer.fixtures",)

ANNA, BEN, BOT = "@anna:localhost", "@ben:localhost", "@murmur:localhost"
KINDS = ("m.room.member", "m.room.create", "m.room.power_levels")


async def membership(human: Human, room_id: str, user_id: str, wanted: str) -> None:
    """Wait until somebody is in a room in that way: join, leave."""

    def look() -> bool:
        members = [it for it in human.events(room_id) if it.get("state_key") == user_id]
        return bool(members) and members[-1]["content"].get("membership") == wanted

    await human._until(look, f"{user_id} with {wanted}")


async def test_behaviour_18_an_invitation_from_our_own_server_is_followed(anna: Human, bot: Bot) -> None:
    place = await meet(anna, bot)
    await place.call("hello")
    await place.reads("You said: hello")


async def test_behaviour_18_others_invitations_are_declined(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    bot = await new_bot(allowed_inviters=(anna.user_id,))
    ben = await new_human("ben")
    room_id = await ben.create_room(bot.user_id)
    await membership(ben, room_id, bot.user_id, "leave")
    place = await meet(anna, bot)
    await place.call("hello")
    await place.reads("You said: hello")
    assert ben.visible_text(room_id, bot.user_id) == []


async def test_behaviour_18_other_members_invitations_are_ignored(
    anna: Human, bot: Bot, new_human: NewHuman
) -> None:
    ben = await new_human("ben")
    place = await meet(anna, bot)
    await anna.invite(place.room_id, ben.user_id)
    await place.call("hello")
    await place.reads("You said: hello")
    invited = [it for it in anna.events(place.room_id) if it.get("state_key") == ben.user_id]
    assert [it["content"]["membership"] for it in invited] == ["invite"]


async def test_behaviour_18_a_room_is_left_when_nobody_else_is_there(chat: Place) -> None:
    rooms = chat.bot.adapter.rooms
    await chat.say("hello")
    await chat.reads("You said: hello")
    await chat.human.leave(chat.room_id)
    await chat.bot.until(lambda: rooms.get(chat.room_id) is None)
    await chat.human._ask(chat.human.client.room_forget(chat.room_id))
    joined = await chat.human._ask(chat.bot.client.joined_rooms())
    assert chat.room_id not in joined.rooms


async def test_behaviour_18_there_is_a_cap_on_rooms(new_bot: NewBot, anna: Human) -> None:
    bot = await new_bot(max_rooms=1)
    place = await meet(anna, bot)
    other = await anna.create_room(bot.user_id)
    await membership(anna, other, bot.user_id, "leave")
    await place.call("hello")
    await place.reads("You said: hello")


async def test_behaviour_03_coming_into_a_room_counts_as_a_message(new_bot: NewBot, anna: Human) -> None:
    bot = await new_bot(send_burst=5, sends_per_second=0.2)
    pace = bot.adapter.port.whole_pacer._pace
    assert pace.wait_s(Priority.PREVIEW, None, bot.adapter._clock.now_s()) == 0
    await meet(anna, bot)
    assert pace.wait_s(Priority.PREVIEW, None, bot.adapter._clock.now_s()) > 0


async def test_what_was_said_before_the_bot_came_is_not_answered(anna: Human, bot: Bot) -> None:
    room_id = await anna.create_room()
    await anna.say(room_id, f"{bot.user_id}: before", mentions=[bot.user_id])
    await anna.invite(room_id, bot.user_id)
    await anna.wait_for_member(room_id, bot.user_id)
    await anna.invite(room_id, f"@nobody-else:{bot.user_id.partition(':')[2]}")
    await anna.say(room_id, f"{bot.user_id}: after", mentions=[bot.user_id])
    place = Place(anna, bot, room_id)
    await place.reads("You said: after")
    assert await place.texts() == ["You said: after"]


async def test_a_room_that_goes_on_elsewhere_is_followed(anna: Human, bot: Bot) -> None:
    place = await meet(anna, bot)
    wire = Wire(anna.client)
    await wire.ask("PUT", room_path(place.room_id, "state", "m.room.join_rules"), {"join_rule": "public"})
    answer = await wire.ask("POST", room_path(place.room_id, "upgrade"), {"new_version": "12"})
    new_id = str(answer["replacement_room"])
    await bot.until(lambda: bot.adapter.rooms.get(new_id) is not None)
    await anna._until(lambda: new_id in anna.client.rooms, "the new room")
    await anna.wait_for_member(new_id, bot.user_id)
    await Place(anna, bot, new_id).call("hello")
    await Place(anna, bot, new_id).reads("You said: hello")


async def test_denied_people_and_rooms_are_not_heard(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    ben = await new_human("ben")
    bot = await new_bot(denied_users=(ben.user_id,))
    place = await meet(anna, bot)
    await anna.invite(place.room_id, ben.user_id)
    await ben.join(place.room_id)
    await ben.say(place.room_id, f"{bot.user_id}: hi", mentions=[bot.user_id])
    await place.call("hello")
    await place.reads("You said: hello")
    assert await place.texts() == ["You said: hello"]
    assert len(await bot.turns()) == 1


def state(kind: str, content: object, *, key: object = "", sender: object = ANNA) -> dict[str, Any]:
    return {"type": kind, "state_key": key, "sender": sender, "content": content}


def room_of(*events: dict[str, Any]) -> Room:
    room = Room("!room:localhost")
    for event in events:
        room.fold(event)
    return room


def member(user_id: str, membership: str, **more: object) -> dict[str, Any]:
    return state("m.room.member", {"membership": membership, **more}, key=user_id)


def test_two_who_are_joined_or_invited_are_a_chat_of_two() -> None:
    room = room_of(member(ANNA, "join"), member(BOT, "join"))
    assert room.is_direct()
    room.fold(member(BEN, "invite"))
    assert not room.is_direct()
    room.fold(member(BEN, "leave"))
    assert room.is_direct()
    assert not room_of(member(ANNA, "join"), member(BOT, "ban")).is_direct()


@pytest.mark.parametrize(
    ("version", "more", "moderators"),
    [
        ("11", {}, {BEN}),
        ("12", {}, {ANNA, BEN}),
        ("org.matrix.hydra.11", {}, {ANNA, BEN}),
        ("12", {"additional_creators": [BOT, 5]}, {ANNA, BEN, BOT}),
        ("11", {"additional_creators": [BOT]}, {BEN}),
    ],
)
def test_moderators_are_those_with_power_and_creators_where_rooms_have_them(
    version: str, more: dict[str, object], moderators: set[str]
) -> None:
    room = room_of(
        state("m.room.create", {"room_version": version, **more}),
        state("m.room.power_levels", {"users": {BEN: 50, BOT: 49}, "users_default": 0}),
    )
    assert {it for it in (ANNA, BEN, BOT) if room.is_moderator(it)} == moderators


def test_without_power_levels_the_creator_has_all_power() -> None:
    room = room_of(state("m.room.create", {"room_version": "10"}))
    assert room.is_moderator(ANNA)
    assert not room.is_moderator(BEN)


def test_a_room_that_was_encrypted_stays_so() -> None:
    room = room_of(state("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}))
    room.fold(state("m.room.encryption", {}))
    assert room.is_encrypted


@pytest.mark.parametrize("content", [None, 5, [], {"users": 5}, {"users": {BEN: [50]}}, {"membership": {}}])
@pytest.mark.parametrize(
    "kind", ["m.room.member", "m.room.create", "m.room.power_levels", "m.room.tombstone", 5]
)
def test_state_that_is_no_state_is_left_out(kind: Any, content: object) -> None:
    room = room_of(
        member(ANNA, "join"), state(kind, content, key=BEN), state(kind, content, key=5, sender=[])
    )
    assert room.joined == {ANNA}
    assert not room.is_moderator(BEN)
