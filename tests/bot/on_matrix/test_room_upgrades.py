"""Rooms that go on elsewhere: they are followed, and so is what was said there.

What was set and decided there is in test_room_upgrades_settings.py.
"""

from pathlib import Path
from typing import Any

import pytest

from bot.on_matrix.memory import is_ours, move_talk, remember_encrypted, was_encrypted
from bot.on_matrix.rooms import Room, Rooms
from bot.on_matrix.wire import Wire, room_path
from storage.conversations import current_conversation, find_place, note_told, open_place
from storage.database import open_database
from storage.settings import set_setting, settings_of
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.test_commands import assert_stopped, long_answer
from tests.bot.on_matrix.test_rooms import ANNA, BOT, member, membership, state
from tests.bot.on_matrix.world import Bot, Place, meet
from tests.matrix_peer.human import Human, NewHuman
from tests.storage.people import talk

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def upgrade(place: Place, version: str = "12", *, by: Human | None = None) -> Place:
    """Have a room go on in a new one; nobody is invited to it yet."""
    human = by or place.human
    path = room_path(place.room_id, "upgrade")
    new_id = str((await Wire(human.client).ask("POST", path, {"new_version": version}))["replacement_room"])
    await human._until(lambda: new_id in human.client.rooms, "the new room")
    return Place(human, place.bot, new_id)


async def open_to_all(place: Place) -> None:
    path = room_path(place.room_id, "state", "m.room.join_rules")
    await Wire(place.human.client).ask("PUT", path, {"join_rule": "public"})


async def numbers(bot: Bot) -> list[int]:
    """The conversations of all turns."""
    return [said.question.conversation_id for said in await bot.turns()]


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_chat_of_two_goes_on_in_the_room_that_replaces_it(
    anna: Human, bot: Bot, encrypted: bool
) -> None:
    place = await meet(anna, bot, direct=True, version="11")
    if encrypted:
        await bot.store.write(remember_encrypted, place.room_id, 0)
    else:
        await place.say("one")
        await place.reads("You said: one")
    later = await upgrade(place)
    await anna.invite(later.room_id, bot.user_id)
    await anna.wait_for_member(later.room_id, bot.user_id)
    await later.say("two")
    await later.reads("You said: two")
    assert len(set(await numbers(bot))) == 1
    was_told = await bot.store.read(find_place, "matrix", place.room_id)
    assert (was_told is not None) == encrypted, "what was said in an encrypted room stays there"


async def test_a_public_room_is_entered_through_the_server_of_who_moved_it(anna: Human, bot: Bot) -> None:
    place = await meet(anna, bot, version="11")
    await open_to_all(place)
    asked: list[str] = []
    send = bot.client.send

    async def watched(method: str, path: str, *rest: Any) -> Any:
        asked.append(path)
        return await send(method, path, *rest)

    bot.client.send = watched
    later = await upgrade(place)
    await anna.wait_for_member(later.room_id, bot.user_id)
    await later.call("hello")
    await later.reads("You said: hello")
    (join,) = [path for path in asked if "/join/" in path]
    assert join.endswith("?via=localhost&server_name=localhost")


async def test_who_moved_a_room_may_invite_to_the_new_one_though_they_may_to_no_other(
    new_bot: NewBot, anna: Human, new_human: NewHuman
) -> None:
    bot, ben = await new_bot(allowed_inviters=(anna.user_id,), max_rooms=1), await new_human("ben")
    room_id = await ben.create_room(anna.user_id)
    await anna.join(room_id)
    await ben._ask(ben.client.room_put_state(room_id, "m.room.join_rules", {"join_rule": "invite"}))
    levels = {"users": {anna.user_id: 50}, "users_default": 0}
    await ben._ask(ben.client.room_put_state(room_id, "m.room.power_levels", levels))
    await anna.invite(room_id, bot.user_id)
    await ben.wait_for_member(room_id, bot.user_id)
    later = await upgrade(Place(ben, bot, room_id))
    await ben.invite(later.room_id, bot.user_id)
    await ben.wait_for_member(later.room_id, bot.user_id)
    other = await ben.create_room(bot.user_id)
    await membership(ben, other, bot.user_id, "leave")


async def test_a_room_that_goes_on_where_the_bot_may_not_be_is_not_followed(
    new_bot: NewBot, anna: Human
) -> None:
    room_id, other_id = await anna.create_room(), await anna.create_room()
    bot = await new_bot(allowed_rooms=(room_id, other_id))
    place, other = Place(anna, bot, room_id), Place(anna, bot, other_id)
    for each in (place, other):
        await anna.invite(each.room_id, bot.user_id)
        await anna.wait_for_member(each.room_id, bot.user_id)
    await open_to_all(place)
    later = await upgrade(place)
    await other.call("hello")
    await other.reads("You said: hello")
    assert [it.successor for it in bot.adapter.rooms if it.room_id == place.room_id] == [later.room_id]
    assert bot.adapter.rooms.get(later.room_id) is None


async def test_a_room_that_was_replaced_is_left_after_a_while(anna: Human, bot: Bot) -> None:
    place = await meet(anna, bot)
    await open_to_all(place)
    bot.adapter.invitations.replaced_s = 0.0
    later = await upgrade(place)
    await anna.wait_for_member(later.room_id, bot.user_id)
    await later.call("hello")
    await later.reads("You said: hello")
    await later.call("and")
    await membership(anna, place.room_id, bot.user_id, "leave")


@pytest.mark.parametrize("version", ["11", "12"])
async def test_creators_are_moderators_in_rooms_of_every_version(
    anna: Human, bot: Bot, new_human: NewHuman, version: str
) -> None:
    creator = await new_human("creator")
    room = await meet(creator, bot, version=version)
    await creator.invite(room.room_id, anna.user_id)
    await anna.join(room.room_id)
    place = Place(anna, bot, room.room_id)
    _, answer = await long_answer(place)
    await creator.react(room.room_id, answer.event_id, "⏹️")
    await assert_stopped(place)


async def test_whom_a_creator_makes_one_too_is_a_moderator(
    anna: Human, bot: Bot, new_human: NewHuman
) -> None:
    creator, second = await new_human("creator"), await new_human("second")
    people = [bot.user_id, anna.user_id, second.user_id]
    created = await Wire(creator.client).ask(
        "POST",
        "/createRoom",
        {
            "room_version": "12",
            "preset": "private_chat",
            "invite": people,
            "creation_content": {"additional_creators": [second.user_id]},
        },
    )
    room_id = str(created["room_id"])
    for human in (anna, second):
        await human.join(room_id)
    await anna.wait_for_member(room_id, bot.user_id)
    place = Place(anna, bot, room_id)
    _, answer = await long_answer(place)
    await second.react(room_id, answer.event_id, "⏹️")
    await assert_stopped(place)


OLD, NEW = "!old:localhost", "!new"


def tombstone(successor: object, key: object = "") -> dict[str, Any]:
    return state("m.room.tombstone", {"replacement_room": successor}, key=key)


def rooms_of(successor: object, predecessor: object) -> tuple[Rooms, Room, Room]:
    rooms = Rooms(BOT)
    old, new = rooms.open(OLD), rooms.open(NEW)
    for room in (old, new):
        for user_id in (ANNA, BOT):
            room.fold(member(user_id, "join"))
    old.fold(state("m.room.create", {"room_version": "11"}))
    old.fold(tombstone(successor))
    new.fold(state("m.room.create", {"room_version": "12", "predecessor": predecessor}))
    return rooms, old, new


def test_a_room_goes_on_where_both_say_so_and_nowhere_else() -> None:
    rooms, old, new = rooms_of(NEW, {"room_id": OLD})
    assert rooms.going_on_in(new) is old
    assert rooms.is_replaced(old)
    assert not rooms.is_replaced(new)
    assert rooms.direct_with(ANNA) is new
    for successor, predecessor in (
        (NEW, {}),
        (NEW, [OLD]),
        ("!third", {"room_id": OLD}),
        (5, {"room_id": OLD}),
    ):
        rooms, _, new = rooms_of(successor, predecessor)
        assert rooms.going_on_in(new) is None


def test_a_room_does_not_replace_itself() -> None:
    rooms, old, _ = rooms_of(OLD, {})
    old.fold(state("m.room.create", {"predecessor": {"room_id": OLD}}))
    assert not rooms.is_replaced(old)
    assert rooms.going_on_in(old) is None


def test_what_is_no_state_of_the_room_itself_says_nothing_of_it() -> None:
    room = Room(OLD)
    room.fold(tombstone(NEW, key=ANNA))
    room.fold(state("m.room.power_levels", {"users": {ANNA: 100}}, key="other"))
    assert room.successor == ""
    assert not room.is_moderator(ANNA)


async def test_talk_moves_to_a_room_where_there_was_none_and_is_as_private_as_it_was(tmp_path: Path) -> None:
    async with open_database(tmp_path / "store.sqlite") as store:
        await store.write(remember_encrypted, OLD, 1)
        number = await store.read(find_place, "matrix", OLD)
        await store.write(move_talk, OLD, NEW, 2)
        assert await store.read(find_place, "matrix", NEW) == number
        for room_id in (OLD, NEW):
            assert await store.write(was_encrypted, room_id, 3)
        before = await store.read(find_place, "matrix", OLD)
        await store.write(move_talk, OLD, NEW, 4)
        assert await store.read(find_place, "matrix", OLD) == before
        await store.write(move_talk, "!never", "!nowhere", 5)
        assert await store.read(find_place, "matrix", "!nowhere") is None
        await store.write(open_place, "matrix", "!plain", 6)
        await store.write(move_talk, "!plain", "!plainer", 7)
        assert await store.read(find_place, "matrix", "!plain") is None


@pytest.mark.parametrize("seen", ["encrypted", "a thread"])
async def test_talk_moves_to_a_room_of_which_no_more_is_known_than_that_it_is_there(
    tmp_path: Path, seen: str
) -> None:
    async with open_database(tmp_path / "store.sqlite") as store:
        said = await store.write(talk, room=OLD)
        if seen == "encrypted":
            await store.write(remember_encrypted, NEW, 1)
        else:
            await store.write(is_ours, NEW, "$root", "", 1)
        there = await store.write(open_place, "matrix", NEW, 1)
        await store.write(note_told, there.place_id, 1)
        await store.write(set_setting, "place", there.place_id, "streaming", False)
        for key in ("streaming", "always"):
            await store.write(set_setting, "place", said.place_id, key, True)
        for _ in range(2):
            await store.write(move_talk, OLD, NEW, 2)
            assert await store.read(find_place, "matrix", NEW) == said.place_id
        assert await store.read(current_conversation, said.place_id) == said
        assert await store.read(settings_of, "place", said.place_id) == {"always": True, "streaming": False}
        assert not await store.write(note_told, said.place_id, 3), "people there were told already"
        is_private = [await store.write(was_encrypted, room_id, 3) for room_id in (OLD, NEW)]
        assert is_private == [False, seen == "encrypted"]
        old = await store.write(open_place, "matrix", OLD, 3)
        assert await store.read(settings_of, "place", old.place_id) == {}
        assert await store.write(note_told, old.place_id, 3)


async def test_talk_stays_where_it_is_if_people_have_talked_in_the_new_room(tmp_path: Path) -> None:
    async with open_database(tmp_path / "store.sqlite") as store:
        said = {room_id: await store.write(talk, room=room_id) for room_id in (OLD, NEW)}
        await store.write(move_talk, OLD, NEW, 1)
        for room_id, conversation in said.items():
            assert await store.read(find_place, "matrix", room_id) == conversation.place_id
