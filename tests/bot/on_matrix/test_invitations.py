"""Rooms that the bot is sent to by others: those that go on with one of its rooms, and no others, for long.

What a real homeserver does when a room is upgraded is in test_room_upgrades.py.
"""

from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pytest

from bot.config.platforms import MatrixSettings
from bot.on_matrix.invitations import MAX_WISHES, Invitations
from bot.on_matrix.rooms import Room, Rooms
from bot.on_matrix.wire import Wire
from bot.receiving.access import Access
from bot.sending.pacer import Pacer
from bot.sending.pacing import AccountPace
from swarm.background import running
from tests.bot.clock import FakeClock, settle
from tests.bot.on_matrix.test_deliveries import Answer
from tests.bot.on_matrix.test_room_upgrades import tombstone
from tests.bot.on_matrix.test_rooms import ANNA, BOT, member, state

OLD, OTHER = "!old:localhost", "!other:localhost"
FIRST, SECOND, THIRD = "!first:evil", "!second:evil", "!third:evil"
EVE, BOSS = "@eve:evil", "@boss:evil"
"""One of another server, and an admin there."""
Asked = list[tuple[str, str]]


class Homeserver:
    """Does what it is asked for, and remembers it."""

    user_id, access_token = BOT, "a token"

    def __init__(self) -> None:
        self.asked: Asked = []

    async def send(self, method: str, path: str, *_: Any) -> Answer:
        parts = [unquote(part) for part in urlsplit(path).path.split("/")]
        self.asked.append(("join", parts[-1]) if parts[-2] == "join" else (parts[-1], parts[-2]))
        return Answer(200, b"{}")


class Bot:
    """A bot in `OLD`, with nothing around it but a homeserver."""

    def __init__(self, like: "Bot | None" = None, **settings: Any) -> None:
        self.homeserver, self.clock = Homeserver(), FakeClock()
        self.rooms: Rooms = like.rooms if like is not None else Rooms(BOT)
        pacer = Pacer(AccountPace(burst=10_000, per_s=1000.0), self.clock)
        own = MatrixSettings(**({"max_rooms": 1} | settings))
        wire = Wire(self.homeserver)  # type: ignore[arg-type]
        self.access = Access(self.clock, (BOSS,))
        self.invitations = Invitations(wire, self.rooms, own, self.clock, self.access, pacer)
        if like is None:
            self.enters(OLD)

    def enters(self, room_id: str, predecessor: str = "") -> Room:
        """The next sync says that it is in a room."""
        room = self.rooms.open(room_id)
        content = {"room_version": "11"} | ({"predecessor": {"room_id": predecessor}} if predecessor else {})
        for event in (state("m.room.create", content), member(ANNA, "join"), member(BOT, "join")):
            room.fold(event)
        self.invitations.note_rooms()
        return room

    def is_sent_on(self, successor: str, room_id: str = OLD) -> None:
        """The next sync says that a room of its goes on elsewhere."""
        room = self.rooms.open(room_id)
        room.fold(tombstone(successor))
        self.invitations.note_successor(room, "evil")
        self.invitations.note_rooms()

    def is_invited(self, room_id: str, inviter: str, *shown: dict[str, Any]) -> None:
        """The next sync says that it is invited."""
        events = [member(BOT, "invite") | {"sender": inviter}, *shown]
        self.invitations.note_invited({room_id: {"invite_state": {"events": events}}})
        self.invitations.note_rooms()

    async def asks(self) -> Asked:
        """What it asks the homeserver for now, in no order."""
        async with running(self.invitations.carry_out_forever()):
            await settle()
        asked, self.homeserver.asked = self.homeserver.asked, []
        return sorted(asked)


@pytest.mark.parametrize("is_on_its_way", [False, True])
@pytest.mark.parametrize("predecessor", ["", OLD])
async def test_of_the_rooms_that_one_goes_on_in_the_bot_stays_in_the_last_alone(
    is_on_its_way: bool, predecessor: str
) -> None:
    bot = Bot()
    bot.is_sent_on(FIRST)
    if is_on_its_way:
        assert await bot.asks() == [("join", FIRST)]
    bot.is_sent_on(SECOND)
    assert await bot.asks() == [("join", SECOND), ("leave", FIRST)]
    bot.enters(FIRST, predecessor)  # the homeserver had begun with it before
    assert await bot.asks() == [("leave", FIRST)]
    bot.enters(SECOND, OLD)
    assert await bot.asks() == []


async def test_a_room_that_sends_the_bot_on_again_does_not_have_it_in_two_rooms() -> None:
    bot = Bot()
    bot.is_sent_on(FIRST)
    await bot.asks()
    bot.enters(FIRST, OLD)
    assert await bot.asks() == []
    bot.is_sent_on(SECOND)
    assert await bot.asks() == [("join", SECOND), ("leave", FIRST)]


@pytest.mark.parametrize("is_thrown_out", [False, True])
async def test_nor_does_it_have_the_bot_in_two_rooms_to_which_others_have_sent_it_on(
    is_thrown_out: bool,
) -> None:
    bot = Bot()
    bot.is_sent_on(FIRST)
    bot.enters(FIRST, OLD)
    bot.is_sent_on(THIRD, FIRST)
    bot.enters(THIRD, FIRST)
    assert await bot.asks() == [("join", FIRST), ("join", THIRD)]
    if is_thrown_out:
        bot.rooms.leave(FIRST)
        bot.invitations.note_rooms()
    bot.is_sent_on(SECOND)
    assert await bot.asks() == [("join", SECOND), ("leave", FIRST), ("leave", THIRD)]
    bot.rooms.leave(THIRD)
    bot.enters(THIRD, FIRST)
    assert await bot.asks() == [("leave", THIRD)]


async def test_a_room_that_goes_on_again_and_again_is_followed_all_the_way() -> None:
    bot, way = Bot(), (OLD, FIRST, SECOND, THIRD)
    for old_id, new_id in pairwise(way):
        bot.is_sent_on(new_id, old_id)
        bot.enters(new_id, old_id)
        assert await bot.asks() == [("join", new_id)]
    for room_id in way[:-1]:
        bot.rooms.leave(room_id)
        bot.invitations.note_rooms()
    assert await bot.asks() == []
    assert kept(bot) == [{}, {}]


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("is_over", ["before", "after", "never"])
async def test_a_room_that_goes_on_with_another_is_stayed_in_when_that_is_left(
    is_over: str, goes_on: bool
) -> None:
    bot = Bot()
    bot.is_sent_on(FIRST)
    await bot.asks()
    if is_over == "before":
        bot.rooms.leave(OLD)
    bot.enters(FIRST, OLD if goes_on else "")
    if is_over == "after":
        bot.rooms.leave(OLD)
        bot.invitations.note_rooms()
    assert await bot.asks() == ([] if goes_on else [("leave", FIRST)])


async def test_who_may_end_a_room_no_more_does_not_have_the_bot_leave_where_it_goes_on() -> None:
    bot = Bot()
    bot.is_sent_on(FIRST)
    await bot.asks()
    bot.enters(FIRST, OLD)
    bot.rooms.open(OLD).fold(state("m.room.power_levels", {"users": {ANNA: 0}}))
    bot.invitations.note_rooms()
    assert await bot.asks() == []


@pytest.mark.parametrize("shown", [[], [{"predecessor": {"room_id": OLD}}]])
async def test_an_invitation_that_hides_or_forges_what_a_room_is_is_looked_at_again_there(
    shown: list[dict[str, Any]],
) -> None:
    bot = Bot()
    bot.is_sent_on(FIRST)
    bot.is_invited(FIRST, EVE, *(state("m.room.create", content) for content in shown))
    assert await bot.asks() == [("join", FIRST)]
    bot.enters(FIRST)
    assert await bot.asks() == [("leave", FIRST)]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_an_invitation_to_what_goes_on_with_a_room_is_followed_whoever_sends_it(goes_on: bool) -> None:
    bot = Bot()
    bot.rooms.open(OLD).fold(tombstone(FIRST))  # while it was away; only the room's state tells it now
    bot.is_invited(FIRST, EVE, state("m.room.create", {"predecessor": {"room_id": OLD}}))
    assert await bot.asks() == [("join", FIRST)]
    bot.enters(FIRST, OLD if goes_on else "")
    assert await bot.asks() == ([] if goes_on else [("leave", FIRST)])


async def test_an_invitation_by_whom_the_bot_may_follow_holds_whatever_a_room_says_of_that_one() -> None:
    bot = Bot(max_rooms=5)
    bot.is_sent_on(FIRST)
    bot.is_invited(FIRST, ANNA)
    bot.is_invited(SECOND, ANNA)
    bot.is_sent_on(SECOND)
    assert await bot.asks() == [("join", FIRST), ("join", SECOND)]
    for room_id in (FIRST, SECOND):
        bot.enters(room_id)
    assert await bot.asks() == []


async def test_what_a_room_says_of_a_room_that_goes_on_with_another_does_not_have_the_bot_leave_it() -> None:
    bot = Bot()
    bot.enters(OTHER)
    bot.is_sent_on(FIRST, OTHER)
    bot.is_sent_on(FIRST, OLD)
    bot.is_sent_on(SECOND, OLD)
    assert ("leave", FIRST) not in await bot.asks()
    bot.enters(FIRST, OTHER)
    assert await bot.asks() == []


@pytest.mark.parametrize("goes_on", [False, True])
async def test_where_a_room_has_sent_the_bot_is_known_after_a_restart(goes_on: bool) -> None:
    before = Bot()
    before.is_sent_on(FIRST)
    after = Bot(like=before)
    after.invitations.load(before.invitations.dump())
    assert await after.asks() == [("join", FIRST)]
    again = Bot(like=before)
    again.invitations.load(after.invitations.dump())
    again.enters(FIRST, OLD if goes_on else "")
    assert await again.asks() == ([] if goes_on else [("leave", FIRST)])


async def test_what_an_older_version_has_kept_is_still_done_and_what_makes_no_sense_is_left_out() -> None:
    for dumped in ("[]", "[5, 6]", '{"!x": 5}', "{", "", '[{}, {"!x": 5}]'):
        bot = Bot()
        bot.invitations.load(dumped)
        assert await bot.asks() == []
    bot.invitations.load('{"!x:evil": {"via": "evil"}, "!y:evil": null}')
    assert await bot.asks() == [("join", "!x:evil"), ("leave", "!y:evil")]


async def test_what_is_kept_of_rooms_that_come_to_nothing_is_bounded_and_the_newest_is_followed() -> None:
    bot = Bot()
    room = bot.rooms.open(OLD)

    def is_sent_on(number: int) -> None:
        room.fold(tombstone(f"!{number}:evil"))
        bot.invitations.note_successor(room, "evil")

    for number in range(MAX_WISHES + 5):
        is_sent_on(number)
    assert [len(each) for each in kept(bot)] == [MAX_WISHES, MAX_WISHES]
    await bot.asks()
    is_sent_on(-1)
    wishes, followed = kept(bot)
    assert (list(wishes), len(followed)) == (["!-1:evil"], MAX_WISHES)
    assert followed["!-1:evil"] == OLD


def kept(bot: Bot) -> list[dict[str, Any]]:
    return msgspec.json.decode(bot.invitations.dump(), type=list[dict[str, Any]])
