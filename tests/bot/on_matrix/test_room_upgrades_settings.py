"""What was set for a room, and what admins have said of it, holds in the room in which it goes on."""

from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.on_matrix.memory import move_rules, move_talk, remember_encrypted
from bot.on_matrix.wire import Wire, room_path
from storage.access import set_rule, what_admins_said
from storage.conversations import find_place, open_place
from storage.database import Database, Transaction, open_database
from storage.ledger import Person
from storage.settings import reset_settings, set_setting, settings_of
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.test_room_upgrades import NEW, OLD, open_to_all, tombstone, upgrade
from tests.bot.on_matrix.test_rooms import ANNA, BEN, membership, room_of, state
from tests.bot.on_matrix.world import KEY, Bot, Place, meet
from tests.matrix_peer.human import Human

pytest_plugins = ("tests.matrix_peer.fixtures",)

NOBODY = "@nobody:localhost"


async def follow(place: Place, later: Place) -> None:
    """Have the bot come along, by an invitation; somebody else is invited too, so that it stays a group."""
    for user_id in (NOBODY, place.bot.user_id):
        await place.human.invite(later.room_id, user_id)
    await place.human.wait_for_member(later.room_id, place.bot.user_id)


async def always(group: Place) -> None:
    """Have every message answered in a group."""
    await group.say("!settings set always on channel")
    await group.until(lambda them: them)


async def decide(bot: Bot, room_id: str, *, is_allowed: bool) -> None:
    """What an admin says of a room."""
    room = Person("matrix", room_id)
    await bot.store.write(set_rule, room, is_allowed=is_allowed, key=KEY, now_ms=0)
    await bot.core.commands.desk.access.load(bot.store)


async def rules(bot: Bot) -> dict[str, bool]:
    return dict((await bot.store.read(what_admins_said, 0)).rules)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_group_whose_every_message_is_answered_stays_one(group: Place, encrypted: bool) -> None:
    if encrypted:  # so that what was said stays where it is, and only what was set can follow
        await group.bot.store.write(remember_encrypted, group.room_id, 0)
        await group.bot.store.write(set_for, group.room_id, always=True)
    else:
        await always(group)
    later = await upgrade(group)
    await follow(group, later)
    await later.say("nobody is called here")
    await later.reads("You said: nobody is called here")


async def test_a_room_that_an_admin_let_past_the_list_is_followed_and_stays_so(
    new_bot: NewBot, anna: Human
) -> None:
    first_id, room_id = await anna.create_room(), await anna.create_room()
    bot = await new_bot(allowed_rooms=(first_id,))
    await decide(bot, room_id, is_allowed=True)
    await anna.invite(room_id, bot.user_id)
    await anna.wait_for_member(room_id, bot.user_id)
    place = Place(anna, bot, room_id)
    await open_to_all(place)
    later = await upgrade(place)
    await anna.wait_for_member(later.room_id, bot.user_id)
    await later.call("hello")
    await later.reads("You said: hello")
    assert (await rules(bot))[f"matrix:{later.room_id}"]


async def test_a_room_that_an_admin_has_denied_does_not_come_back_by_moving(anna: Human, bot: Bot) -> None:
    place, witness = await meet(anna, bot), await meet(anna, bot)
    await decide(bot, place.room_id, is_allowed=False)
    later = await upgrade(place)
    await witness.call("hello")
    await witness.reads("You said: hello")
    await anna.invite(later.room_id, bot.user_id)
    await membership(anna, later.room_id, bot.user_id, "leave")


async def test_a_room_that_is_no_continuation_of_the_one_that_names_it_is_left_and_gets_nothing(
    group: Place,
) -> None:
    await always(group)
    anna, bot = group.human, group.bot
    other = Place(anna, bot, await anna.create_room())
    await open_to_all(other)
    path = room_path(group.room_id, "state", "m.room.tombstone")
    await Wire(anna.client).ask("PUT", path, {"body": "over there", "replacement_room": other.room_id})
    await membership(anna, other.room_id, bot.user_id, "leave")
    assert bot.core.commands.desk.access.habits.is_on("always", "matrix", group.room_id)
    assert bot.core.commands.desk.access.habits.is_on("always", "matrix", other.room_id) is None


@pytest.mark.parametrize(
    ("levels", "version", "sender", "may"),
    [
        (None, "11", ANNA, True),
        (None, "11", BEN, False),
        ({"users": {BEN: 50}}, "11", BEN, True),
        ({"users": {BEN: 49}}, "11", BEN, False),
        ({"users": {BEN: 50}, "events": {"m.room.tombstone": 100}}, "11", BEN, False),
        ({"users": {BEN: 100}, "events": {"m.room.tombstone": 100}}, "11", BEN, True),
        ({"users": {BEN: 60}, "state_default": 70}, "11", BEN, False),
        ({"users_default": 10, "state_default": 0}, "11", BEN, False),
        ({"events": {"m.room.tombstone": 150}}, "12", ANNA, True),
        ({"events": {"m.room.tombstone": 150}}, "11", ANNA, False),
        ({"users": {BEN: [100]}, "events": 5, "state_default": {}}, "11", BEN, False),
    ],
)
def test_only_who_may_end_a_room_says_where_it_goes_on(
    levels: dict[str, Any] | None, version: str, sender: str, may: bool
) -> None:
    said = [state("m.room.create", {"room_version": version}), tombstone(NEW) | {"sender": sender}]
    said += [state("m.room.power_levels", levels)] if levels is not None else []
    for events in permutations(said):  # homeservers tell of a room's state in any order
        assert room_of(*events).successor == (NEW if may else "")


@pytest_asyncio.fixture
async def store(store_path: Path) -> AsyncIterator[Database]:
    async with open_database(store_path) as store:
        yield store


def set_for(connection: Transaction, /, room_id: str, **values: bool) -> None:
    place = open_place(connection, "matrix", room_id, 0)
    for key, value in values.items():
        set_setting(connection, "place", place.place_id, key, value)


def set_in(connection: Transaction, room_id: str) -> dict[str, Any]:
    place_id = find_place(connection, "matrix", room_id)
    return {} if place_id is None else dict(settings_of(connection, "place", place_id))


def reset(connection: Transaction, room_id: str) -> None:
    place_id = find_place(connection, "matrix", room_id)
    assert place_id is not None
    reset_settings(connection, "place", place_id)


@pytest.mark.parametrize("there", [{}, {"streaming": False}])
@pytest.mark.parametrize("with_talk", [False, True])
async def test_what_was_set_moves_once_and_what_was_set_there_goes_before(
    store: Database, with_talk: bool, there: dict[str, bool]
) -> None:
    def move(connection: Transaction) -> None:
        if with_talk:
            move_talk(connection, OLD, NEW, 1)
        move_rules(connection, OLD, NEW, 1)

    here = {"always": True, "streaming": True}
    await store.write(set_for, OLD, **here)
    if there:
        await store.write(set_for, NEW, **there)
    await store.write(move)
    assert await store.read(set_in, NEW) == here | there
    assert await store.read(set_in, OLD) == {}
    await store.write(reset, NEW)
    await store.write(move)
    assert await store.read(set_in, NEW) == {}, "what was taken back there stays so"


async def test_what_admins_said_of_the_new_room_goes_before_what_they_said_of_the_old_one(
    store: Database,
) -> None:
    old, new = Person("matrix", OLD), Person("matrix", NEW)
    await store.write(set_rule, old, is_allowed=False, key=KEY, now_ms=0)
    for _ in range(2):
        await store.write(move_rules, OLD, NEW, 1)
    assert (await store.read(what_admins_said, 0)).rules == {f"matrix:{OLD}": False, f"matrix:{NEW}": False}
    await store.write(set_rule, new, is_allowed=True, key=KEY, now_ms=2)
    await store.write(move_rules, OLD, NEW, 3)
    assert (await store.read(what_admins_said, 0)).rules == {f"matrix:{OLD}": False, f"matrix:{NEW}": True}
