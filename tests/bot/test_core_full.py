"""When all servers are full: who waits sees their place, it goes on by itself, and nobody waits for ever."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bot.brain import Event
from bot.clock import Clock
from bot.turns.limits import TurnLimits
from bot.turns.room_line import FIRST_S, WAIT_S, RoomLine
from bot.words import Author
from swarm.errors import PeerBusy
from swarm.wire.blocks import PeerId
from tests.bot.platform import CHANNEL
from tests.bot.world import RULES, World, open_world

PEOPLE = [Author(f"p{number}", f"P{number}") for number in range(4)]
BUSY_AFTER_S, GIVE_UP_S = 2.0, 60.0
FULL_FOR_EVER = -(10**9)


class Servers:
    """Room for so many answers at once; who finds none is told, and tries for a minute, as sessions do."""

    def __init__(self, world: World, room: int) -> None:
        self.room = room
        self.num_tries = 0
        self._clock: Clock = world.clock
        world.brain.room = self.enter

    @asynccontextmanager
    async def enter(self, on_event: Callable[[Event], None]) -> AsyncIterator[None]:
        self.num_tries += 1
        began_s, is_told = self._clock.now_s(), False
        while self.room <= 0:
            await self._clock.sleep(0.25)
            waited_s = self._clock.now_s() - began_s
            if waited_s > BUSY_AFTER_S and not is_told:
                is_told = True
                on_event(Event("busy"))
            if waited_s > GIVE_UP_S:
                raise PeerBusy("no room", PeerId("somebody"), 5.0)
        self.room -= 1
        try:
            yield
        finally:
            self.room += 1


def places(world: World, number: int) -> list[str]:
    """What was said of somebody's place in the line, one after the other."""
    return [text for text in world.port.messages[number].history if "servers are full" in text]


async def test_behaviour_27_whoever_waits_for_room_sees_their_place_and_it_decreases(world: World) -> None:
    Servers(world, room=1)
    world.brain.answer = lambda prompt: f"{prompt} " * 15
    for number, author in enumerate(PEOPLE):
        await world.say(f"question{number}", where=CHANNEL, author=author)
        await world.pass_(3)
    await world.quiet()
    shown = {message.post.text.split()[0]: message for message in world.port.messages}
    histories = [
        [text for text in shown[f"question{number}"].history if "servers are full" in text]
        for number in range(4)
    ]
    assert histories == [
        [],
        ["(all servers are full: you are next)"],
        ["(all servers are full: 1 ahead of you)", "(all servers are full: you are next)"],
        [
            "(all servers are full: 2 ahead of you)",
            "(all servers are full: 1 ahead of you)",
            "(all servers are full: you are next)",
        ],
    ]
    assert [turn.state for turn in await world.turns()] == ["done"] * 4
    assert sorted(world.port.texts) == [f"question{number} " * 15 for number in range(4)]


async def test_behaviour_27_those_who_wait_behind_others_do_not_compete_with_them(world: World) -> None:
    servers = Servers(world, room=FULL_FOR_EVER)
    for number, author in enumerate(PEOPLE):
        await world.say(f"question {number}", where=CHANNEL, author=author)
        await world.pass_(3)
    before = servers.num_tries
    await world.pass_(20)
    assert servers.num_tries == before, "the first one tries already, and nobody else"
    servers.room = 1
    await world.quiet()
    assert sorted(world.port.texts) == [f"You said: question {number}" for number in range(4)]


@pytest.mark.slow
async def test_behaviour_27_the_wait_is_bounded_and_costs_nothing(world: World) -> None:
    Servers(world, room=FULL_FOR_EVER)
    await world.say("hello")
    await world.until(lambda: world.port.texts == ["(all servers are full: you are next)"])
    for _ in range(3):
        await world.pass_(WAIT_S / 3)
    await world.until(lambda: not world.core.num_busy)
    assert world.clock.now_s() < WAIT_S + GIVE_UP_S + 10
    assert world.port.texts == ["All servers were full for too long; please try again in a few minutes."]
    standing = await world.standing()
    assert (standing.used_today, standing.held) == (0, 0)


async def test_what_never_fits_does_not_keep_those_behind_it_for_long(world: World) -> None:
    Servers(world, room=FULL_FOR_EVER)
    await world.say("huge", where=CHANNEL, author=PEOPLE[0])
    await world.pass_(3)
    await world.say("small", where=CHANNEL, author=PEOPLE[1])
    await world.pass_(GIVE_UP_S + 5)
    assert world.port.texts[0].startswith("All servers were full for too long")
    assert places(world, 1)[-1] == "(all servers are full: you are next)"


async def test_who_waits_for_room_can_be_stopped_and_the_next_one_moves_up(world: World) -> None:
    servers = Servers(world, room=FULL_FOR_EVER)
    for number in range(2):
        await world.say(f"question {number}", where=CHANNEL, author=PEOPLE[number])
        await world.pass_(3)
    assert places(world, 1) == ["(all servers are full: 1 ahead of you)"]
    await world.call("stop", where=CHANNEL, author=PEOPLE[0])
    await world.until(lambda: places(world, 1)[-1] == "(all servers are full: you are next)")
    servers.room = 1
    await world.quiet()
    assert world.port.texts == ["(stopped)", "You said: question 1"]


async def test_a_turn_ends_when_its_time_is_over_though_it_waits_for_room(store_path: Path) -> None:
    rules = replace(RULES, turn=TurnLimits(seconds=30))
    async with open_world(store_path, rules=rules) as world:
        Servers(world, room=FULL_FOR_EVER)
        await world.ask("hello")
        assert world.port.texts == ["I could not answer that in time; please try again later."]
        assert 30 <= world.clock.now_s() < 33


def test_a_place_in_the_line_never_grows_and_leaving_twice_is_harmless() -> None:
    line = RoomLine()
    for name in ("a", "b", "c"):
        line.join(name, 0)
    line.join("a", 1)
    assert [line.num_ahead(name) for name in ("a", "b", "c", "new")] == [0, 1, 2, 3]
    for _ in range(2):
        line.leave("b", 2)
    assert [line.num_ahead(name) for name in ("a", "c")] == [0, 1]


def test_hope_ends_after_a_while_and_sooner_for_the_first_of_many() -> None:
    line = RoomLine()
    line.join("a", 0)
    assert not line.is_hopeless("a", FIRST_S)
    line.join("b", 1)
    assert line.is_hopeless("a", FIRST_S)
    assert not line.is_hopeless("b", FIRST_S)
    line.leave("a", FIRST_S)
    assert not line.is_hopeless("b", 2 * FIRST_S)
    assert line.is_hopeless("b", 1 + WAIT_S)
