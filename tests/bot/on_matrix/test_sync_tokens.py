"""Tokens that the homeserver does not know: those that say how far we have read, and the one that we are.

Without the first the bot reads afresh, and nothing is lost or answered twice; without the second it ends.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nio import AsyncClient

from bot.on_matrix.account import log_in, read_session
from bot.on_matrix.fields import number_of
from bot.on_matrix.memory import PLATFORM
from bot.on_matrix.platform import LOGGED_OUT
from bot.on_matrix.read_up_to import OVERLAP_MS, ReadUpTo
from bot.receiving.reception import JOIN_MS
from bot.sweeping import KEEP_EVENTS_MS
from storage.database import open_database
from storage.inbox import set_marker
from tests.bot.bot_process import ROOT, matrix_section, open_bot_process, write_config
from tests.bot.clock import FakeClock
from tests.bot.on_matrix.test_deliveries import Answer
from tests.bot.on_matrix.test_encrypted_rooms import account, sealed_bot, sealed_chat
from tests.bot.on_matrix.world import Place, meet, open_bot, open_client
from tests.end_to_end.swarm import Bootstrap
from tests.matrix_peer.human import Human, open_human
from tests.matrix_peer.synapse import Account, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)

__all__ = ("account", "sealed_bot", "sealed_chat")

UNKNOWN_POS = b'{"errcode": "M_UNKNOWN_POS", "error": "the position is not known any more"}'


class Forgetful:
    """Stands between a bot and its homeserver, which forgets how far the bot has read when it is told to.

    What it would have told the bot then, nobody tells it again. `num_begun` counts how often the bot reads
    without a token. Synapse gives the same answer to the same question for two minutes, so each is another.
    """

    def __init__(self, client: AsyncClient) -> None:
        self.must_forget = False
        self.num_forgotten = 0
        self.num_begun = 0
        self._send = client.send
        client.send = self._forgetting

    async def _forgetting(self, method: str, path: str, *rest: Any) -> Any:
        is_read = "/sync?" in path
        if is_read and "since=" not in path:
            self.num_begun += 1
            path = f"{path}&timeout={self.num_begun}"
        answer = await self._send(method, path, *rest)
        if not (self.must_forget and is_read and "since=" in path):
            return answer
        self.must_forget = False
        self.num_forgotten += 1
        answer.release()
        return Answer(400, UNKNOWN_POS)


async def lose_token(store_path: Path) -> None:
    """What the store of a bot that does not run knows is nothing to the homeserver."""
    async with open_database(store_path) as store:
        await store.write(set_marker, PLATFORM, "sync", "s_no_such_token")


async def assert_undisturbed(place: Place, *asked: str) -> None:
    """These questions were answered, each once and in this order, and so is the next one."""
    await place.reads(f"You said: {asked[-1]}")
    await place.bot.quiet()
    await place.say("after")
    await place.reads("You said: after")
    await place.bot.quiet()
    assert await place.texts() == [f"You said: {text}" for text in (*asked, "after")]
    assert [said.question.prompt for said in await place.bot.turns()] == [*asked, "after"]


async def test_a_token_that_is_lost_while_the_bot_reads_loses_and_repeats_nothing(
    chat: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    homeserver = Forgetful(chat.bot.client)
    await chat.say("one")
    await chat.reads("You said: one")
    await chat.bot.quiet()
    await chat.say("!hlep")
    await chat.reads("There is no command `hlep`; did you mean `!help`?")
    homeserver.must_forget = True
    await chat.say("two")
    await chat.reads("You said: two")
    assert (homeserver.num_forgotten, homeserver.num_begun) == (1, 1)
    await chat.bot.quiet()
    assert [text for text in await chat.texts() if not text.startswith("There is no command")] == [
        "You said: one",
        "You said: two",
    ]
    assert len(await chat.texts()) == 3, "nor is a correction repeated"
    said = [it.getMessage() for it in caplog.records if it.name == "bot.on_matrix.trying"]
    assert len(said) == 2
    assert "M_UNKNOWN_POS" in said[0]
    assert said[1].endswith("no longer so")


@pytest.mark.parametrize("num_between", [0, 130])
async def test_a_token_that_was_lost_while_the_bot_was_away_loses_and_repeats_nothing(
    synapse: Synapse, account: Account, anna: Human, store_path: Path, num_between: int
) -> None:
    async with open_client(synapse.url, account) as client:
        homeserver = Forgetful(client)
        async with open_bot(client, store_path, boot="one") as bot:
            place = await meet(anna, bot, direct=True)
            await place.say("before")
            await place.reads("You said: before")
            await bot.quiet()
        await lose_token(store_path)
        await place.say("the first")
        for number in range(num_between):
            await place.say(f"a notice {number}", kind="m.notice")
        await asyncio.sleep(JOIN_MS / 1000)  # what is said within a moment is a part of what was said before
        await place.say("the last")
        async with open_bot(client, store_path, boot="two") as place.bot:
            await assert_undisturbed(place, "before", "the first", "the last")
        assert homeserver.num_begun == 2


async def test_what_was_first_said_in_a_room_after_the_token_was_lost_is_answered(
    synapse: Synapse, account: Account, anna: Human, store_path: Path
) -> None:
    async with open_client(synapse.url, account) as client:
        homeserver = Forgetful(client)
        old = await anna.create_direct(account.user_id)
        await anna.say(old, "before you came")
        async with open_bot(client, store_path, boot="one"):
            await anna.wait_for_member(old, account.user_id)
        await lose_token(store_path)
        new = await anna.create_direct(account.user_id)
        await anna.say(new, "before you came")
        await client.join(new)
        for room_id in (old, new):
            await anna.say(room_id, "hello")
        async with open_bot(client, store_path, boot="two") as bot:
            places = [Place(anna, bot, room_id) for room_id in (old, new)]
            for place in places:
                await place.reads("You said: hello")
            await bot.quiet()
            assert [await place.texts() for place in places] == [["You said: hello"]] * 2
        assert homeserver.num_begun == 2


async def test_a_device_that_came_while_the_token_was_lost_reads_what_is_said_then(
    synapse: Synapse, sealed_chat: Place, tmp_path: Path
) -> None:
    homeserver, anna = Forgetful(sealed_chat.bot.client), sealed_chat.human
    await sealed_chat.say("one")
    await sealed_chat.reads("You said: one")
    await sealed_chat.bot.quiet()
    homeserver.must_forget = True
    async with open_human(synapse.url, anna.account, tmp_path / "a second device") as second:
        await sealed_chat.bot.until(lambda: homeserver.num_forgotten)
        await sealed_chat.say("two")
        await sealed_chat.reads("You said: two")
        assert homeserver.num_begun == 1
        await second.wait_for_text(sealed_chat.room_id, "You said: two", sealed_chat.bot.user_id, 20.0)


# --- up to when was read ------------------------------------------------------------------------------------


def at(*times: object) -> list[dict[str, object]]:
    return [{"origin_server_ts": time} for time in times]


def read_up_to(*times: object) -> ReadUpTo:
    """A restart after so much was read."""
    before, after = ReadUpTo(FakeClock()), ReadUpTo(FakeClock())
    before.begin()
    before.note(at(*times))
    after.load(before.dump())
    return after


def test_all_is_old_to_whom_has_never_read_and_new_to_whom_has_read_in_vain() -> None:
    never = ReadUpTo(FakeClock())
    assert never.dump() == ""
    assert never.newer(at(5)) == []
    now = FakeClock().now_ms()
    assert read_up_to().newer(at(now)) == at(now)


def test_what_is_newer_than_a_minute_before_the_newest_may_not_have_been_read() -> None:
    newest = FakeClock().now_ms()
    old, late = newest - OVERLAP_MS, newest - OVERLAP_MS + 1
    assert read_up_to(newest, 7).newer(at(old, late, newest, newest + 1)) == at(late, newest, newest + 1)


def test_what_is_not_kept_does_not_count() -> None:
    newest = FakeClock().now_ms()
    mark, old = read_up_to(newest - 2 * OVERLAP_MS), newest - 2 * OVERLAP_MS
    mark.note(at(newest))
    assert mark.newer(at(old)) == at(old)
    mark.commit()
    assert mark.newer(at(old)) == []


@pytest.mark.parametrize("away_ms", [0, KEEP_EVENTS_MS])
def test_what_the_inbox_may_have_forgotten_is_not_read_once_more(away_ms: int) -> None:
    clock = FakeClock()
    last = clock.now_ms() - away_ms
    before, mark = ReadUpTo(clock), ReadUpTo(clock)
    before.begin()
    before.note(at(last))
    mark.load(before.dump())
    assert mark.newer(at(last)) == ([] if away_ms else at(last))
    assert mark.newer(at(clock.now_ms())) == at(clock.now_ms())
    silent = read_up_to(5)
    kept = clock.now_ms() - KEEP_EVENTS_MS + OVERLAP_MS
    assert silent.newer(at(kept, kept + 1)) == at(kept + 1)


@pytest.mark.parametrize("time", [10**300, "9" * 18, -5, "²", "--5", True, None, 1.5, {"a": 1}])
def test_no_time_that_somebody_invents_makes_others_messages_old(time: object) -> None:
    assert read_up_to(time).newer(at(FakeClock().now_ms())) == at(FakeClock().now_ms())


@pytest.mark.parametrize("dumped", ["no number", "-7", "²", "9" * 40])
def test_a_marker_that_makes_no_sense_is_none(dumped: str) -> None:
    mark = ReadUpTo(FakeClock())
    mark.load(dumped)
    assert mark.newer(at(5)) == []


@pytest.mark.parametrize("text", ["²", "--5", "", "5 ", "5.0", "٣"])
def test_text_that_only_looks_like_a_number_is_none(text: str) -> None:
    assert number_of(text, 7) == 7
    assert number_of("-5", 7) == -5


# --- who we are ---------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def peers() -> AsyncIterator[tuple[str, ...]]:
    """A swarm in which nobody serves anything."""
    bootstrap = Bootstrap()
    try:
        await bootstrap.start()
        yield tuple(bootstrap.transport.addresses)
    finally:
        await bootstrap.leave()


@pytest.mark.slow
@pytest.mark.parametrize("is_reading", [False, True])
async def test_a_revoked_token_ends_the_bots_process_with_one_sentence_and_exit_status_2(
    synapse: Synapse, account: Account, anna: Human, tmp_path: Path, peers: tuple[str, ...], is_reading: bool
) -> None:
    section = matrix_section(tmp_path, synapse.url, account)
    config = write_config(tmp_path, ROOT / "demo" / "model", peers, section)
    await log_in(synapse.url, account.user_id, account.password, tmp_path / "matrix")
    token = read_session(tmp_path / "matrix").access_token

    async def revoke() -> None:
        await asyncio.to_thread(synapse.ask, "POST", "/_matrix/client/v3/logout", {}, token)

    if not is_reading:
        await revoke()
    async with open_bot_process(config) as bot:
        if is_reading:
            await bot.until_said("ready on matrix")
            room_id = await anna.create_direct(account.user_id)
            await anna.wait_for_member(room_id, account.user_id)
            await revoke()
            await anna.say(room_id, "so that it hears of it at once", kind="m.notice")
        assert await bot.complaint() == LOGGED_OUT
        assert token not in bot.log.read_text()
