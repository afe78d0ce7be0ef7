"""Clocks at messages that wait: none stays when its message waits no more, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bot.on_matrix.clocks import Clocks
from bot.sending.pacer import Pacer
from bot.sending.pacing import AccountPace, Priority
from bot.words import Limited, Refused, SendError, Unreachable, Where
from swarm.background import running
from tests.bot.clock import FakeClock, settle
from tests.bot.on_matrix.test_deliveries import LIMITED, Trouble, once
from tests.bot.on_matrix.world import Place, meet, open_bot, open_client
from tests.matrix_peer.human import Human
from tests.matrix_peer.synapse import Synapse
from tests.matrix_peer.timeline import Message

pytest_plugins = ("tests.matrix_peer.fixtures",)

ROOM, ONE, TWO = "!room:localhost", "$one", "$two"


class Homeserver:
    """Has signs, and fails as told. It is reached once the first sync is there."""

    def __init__(self) -> None:
        self.wire = self
        self.is_ready = asyncio.Event()
        self.signs: dict[str, str] = {}
        """By their ids, what they are at."""
        self.num_put = 0
        self.failures: list[SendError] = []
        self.holds = asyncio.Event()
        self.holds.set()

    async def react(self, room_id: str, event_id: str, sign: str) -> str:
        self.num_put += 1
        self.signs[f"{sign} at {event_id}"] = event_id
        await self.holds.wait()
        return f"{sign} at {event_id}"

    async def redact(self, room_id: str, event_id: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.signs.pop(event_id, None)


class Store:
    """Keeps one marker."""

    kept: str | None = None

    async def write(self, work: object, platform: str, name: str, value: str) -> None:
        self.kept = value

    async def read(self, work: object, platform: str, name: str) -> str | None:
        return self.kept


class Bot:
    """What there is of a bot."""

    def __init__(self, like: "Bot | None" = None) -> None:
        self.homeserver: Homeserver = like.homeserver if like is not None else Homeserver()
        self.store: Store = like.store if like is not None else Store()
        self.clock = FakeClock()
        self.pacer = Pacer(AccountPace(burst=10, per_s=0.2), self.clock)
        self.clocks = Clocks(self.homeserver, self.pacer, self.store, self.clock)  # type: ignore[arg-type]

    @property
    def signs(self) -> list[str]:
        """The messages that have a clock."""
        return sorted(self.homeserver.signs.values())

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """The first sync is there, and more comes."""
        async with running(self.clocks.take_away_forever()):
            self.homeserver.is_ready.set()
            await settle()
            yield


async def test_a_clock_that_cannot_be_taken_away_now_is_taken_away_later() -> None:
    bot = Bot()
    async with bot.reading():
        await bot.clocks.put(ROOM, ONE)
        assert bot.signs == [ONE]
        bot.homeserver.failures = [Limited(30.0), Unreachable("it went dead")]
        bot.clocks.take_away(ROOM, ONE)
        await settle()
        await bot.clock.advance(29.0)
        assert bot.signs == [ONE]
        await bot.clock.advance(120.0)
        assert (bot.signs, bot.homeserver.failures) == ([], [])


async def test_what_takes_clocks_away_is_counted_as_what_the_account_sends() -> None:
    bot = Bot()
    async with bot.reading():
        await bot.clocks.put(ROOM, ONE)
        for _ in range(8):
            bot.pacer.note_sent()
        bot.clocks.take_away(ROOM, ONE)
        await settle()
        assert bot.signs == [ONE]
        assert bot.pacer._pace.wait_s(Priority.CONTROL, None, bot.clock.now_s()) > 0
        await bot.clock.advance(60.0)
        assert bot.signs == []


async def test_a_clock_that_is_refused_to_go_is_given_up() -> None:
    bot = Bot()
    async with bot.reading():
        for name in (ONE, TWO):
            await bot.clocks.put(ROOM, name)
        bot.homeserver.failures = [Refused("we are not there any more")]
        for name in (ONE, TWO):
            bot.clocks.take_away(ROOM, name)
        await settle()
        assert (bot.signs, bot.store.kept) == ([ONE], "[]")


async def test_after_a_restart_what_waits_no_more_loses_its_clock_and_what_still_waits_keeps_it() -> None:
    before = Bot()
    async with before.reading():
        for name in (ONE, TWO):
            await before.clocks.put(ROOM, name)
    before.homeserver.is_ready.clear()
    after = Bot(like=before)
    await after.clocks.put(ROOM, TWO)
    async with after.reading():
        assert (after.signs, after.homeserver.num_put) == ([TWO], 2)
        after.clocks.take_away(ROOM, TWO)
        await settle()
        assert after.signs == []


async def test_a_clock_whose_putting_is_cut_off_goes_also_after_a_restart() -> None:
    for is_restarted in (False, True):
        bot = Bot()
        bot.homeserver.holds.clear()
        async with running(bot.clocks.put(ROOM, ONE)):
            await settle()
        assert bot.signs == [ONE]
        bot.homeserver.holds.set()
        async with (Bot(like=bot) if is_restarted else bot).reading():
            assert bot.signs == []


async def test_what_a_store_has_kept_that_makes_no_sense_is_left_out() -> None:
    for kept in ("{", "[5]", '[["a", "b"]]', ""):
        bot = Bot()
        bot.store.kept = kept
        async with bot.reading():
            await bot.clocks.put(ROOM, ONE)
            assert bot.signs == [ONE]


# --- on a real homeserver --------------------------------------------------------------------------------


async def clocks_at(place: Place, event_id: str, *, are_wanted: bool) -> None:
    """Wait until there is a clock, or none."""

    def look(messages: list[Message]) -> bool:
        signs: list[Any] = [it for each in messages if each.event_id == event_id for it in each.reactions]
        return bool(signs) == are_wanted

    await place.human.until(place.room_id, look)


def is_redaction(path: str, body: bytes) -> bool:
    return "/redact/" in path


async def test_a_clock_goes_also_if_the_homeserver_is_asked_too_much_at_that_moment(chat: Place) -> None:
    port, where = chat.bot.adapter.port, Where("matrix", chat.room_id, "direct")
    waits = await chat.say("a notice", kind="m.notice")
    await port.acknowledge(where, waits, "queued")
    await clocks_at(chat, waits, are_wanted=True)
    trouble, first = Trouble(chat.bot), once(is_redaction)
    trouble.instead = lambda path, body: LIMITED if first(path, body) else None
    await port.acknowledge(where, waits, "")
    await clocks_at(chat, waits, are_wanted=False)
    assert sum(is_redaction(*asked) for asked in trouble.asked) == 2


async def test_a_clock_of_before_a_restart_goes(synapse: Synapse, anna: Human, store_path: Path) -> None:
    account = await asyncio.to_thread(synapse.register, "murmur")
    async with open_client(synapse.url, account) as client:
        async with open_bot(client, store_path, boot="one") as bot:
            place = await meet(anna, bot, direct=True)
            waits = await place.say("a notice", kind="m.notice")
            await bot.adapter.port.acknowledge(Where("matrix", place.room_id, "direct"), waits, "queued")
            await clocks_at(place, waits, are_wanted=True)
        async with open_bot(client, store_path, boot="two"):
            await clocks_at(place, waits, are_wanted=False)
