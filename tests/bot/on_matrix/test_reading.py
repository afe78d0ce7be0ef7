"""Reading the homeserver: nothing is left out or heard twice, over gaps, restarts and lost homeservers."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest

from bot.on_matrix.memory import PLATFORM
from bot.on_matrix.wire import LoggedOut
from bot.receiving.reception import JOIN_MS
from storage.database import open_database
from storage.inbox import get_marker, set_marker
from tests.bot.on_matrix.test_deliveries import Answer
from tests.bot.on_matrix.world import Place, meet, open_bot, open_client
from tests.matrix_peer.human import Human, open_human
from tests.matrix_peer.synapse import Account, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)


@pytest.fixture
def account(synapse: Synapse) -> Account:
    return synapse.register("murmur")


async def test_what_was_said_while_we_were_away_is_answered_once_also_over_a_gap(
    synapse: Synapse, account: Account, anna: Human, store_path: Path
) -> None:
    async with open_client(synapse.url, account) as client:
        async with open_bot(client, store_path, boot="one") as bot:
            place = await meet(anna, bot, direct=True)
            await place.say("before")
            await place.reads("You said: before")
            await bot.quiet()
        await place.say("the first")
        for number in range(130):
            await place.say(f"a notice {number}", kind="m.notice")
        await asyncio.sleep(JOIN_MS / 1000)  # what is said within a moment is a part of what was said before
        await place.say("the last")
        async with open_bot(client, store_path, boot="two") as bot:
            await place.reads("You said: the last")
            await bot.quiet()
            place.bot = bot
            await place.say("after")
            await place.reads("You said: after")
    answers = [f"You said: {text}" for text in ("before", "the first", "the last", "after")]
    assert await place.texts() == answers


async def test_a_store_without_a_token_answers_nothing_old(
    synapse: Synapse, account: Account, anna: Human, store_path: Path
) -> None:
    async with open_client(synapse.url, account) as client:
        room_id = await anna.create_direct(account.user_id)
        await client.join(room_id)
        await anna.say(room_id, "old")
        async with open_bot(client, store_path) as bot:
            place = Place(anna, bot, room_id)
            await place.say("new")
            await place.reads("You said: new")
            assert len(await bot.turns()) == 1


async def test_a_token_that_the_homeserver_does_not_know_begins_anew_and_answers_nothing_old(
    synapse: Synapse, account: Account, anna: Human, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(store_path) as store:
        await store.write(set_marker, PLATFORM, "sync", "s_no_such_token")
    async with open_client(synapse.url, account) as client:
        room_id = await anna.create_direct(account.user_id)
        await client.join(room_id)
        await anna.say(room_id, "old")
        async with open_bot(client, store_path) as bot:
            place = Place(anna, bot, room_id)
            await place.say("new")
            await place.reads("You said: new")
            assert len(await bot.turns()) == 1
            assert await bot.store.read(get_marker, PLATFORM, "sync") != "s_no_such_token"
    assert sum("Matrix cannot be read" in it.getMessage() for it in caplog.records) == 1


async def test_an_access_token_that_is_gone_ends_it_with_one_sentence(
    synapse: Synapse, account: Account, store_path: Path
) -> None:
    async with open_client(synapse.url, account) as client:
        token, client.access_token = client.access_token, "syt_forged"
        with pytest.raises(LoggedOut, match="log in anew"):
            async with open_bot(client, store_path):
                await asyncio.sleep(5)
        client.access_token = token


async def test_a_room_whose_gap_may_not_be_read_does_not_make_us_forget_the_others(
    synapse: Synapse, account: Account, anna: Human, store_path: Path
) -> None:
    async with open_client(synapse.url, account) as client:
        async with open_bot(client, store_path, boot="one") as bot:
            places = [await meet(anna, bot, direct=True) for _ in range(2)]
            for place in places:
                await place.say("before")
                await place.reads("You said: before")
        for number in range(101):
            await places[0].say(f"a notice {number}", kind="m.notice")
        await places[1].say("a question")
        send = client.send

        async def forbidding(method: str, path: str, *rest: Any) -> Any:
            return Answer(403, b"{}") if "/messages?" in path else await send(method, path, *rest)

        client.send = forbidding
        async with open_bot(client, store_path, boot="two"):
            await places[1].reads("You said: a question")


async def test_an_invitation_that_was_not_followed_before_a_restart_is_followed_after_it(
    synapse: Synapse, account: Account, anna: Human, store_path: Path
) -> None:
    async with open_client(synapse.url, account) as client:
        send, asked = client.send, asyncio.Event()

        async def failing(method: str, path: str, *rest: Any) -> Any:
            if "/join/" not in path:
                return await send(method, path, *rest)
            asked.set()
            return Answer(502, b"")

        client.send = failing
        async with open_bot(client, store_path, boot="one") as bot:
            room_id = await anna.create_direct(bot.user_id)
            await asked.wait()
            synced_s = bot.adapter.synced_s
            other = await anna.create_direct(bot.user_id)
            await bot.until(lambda: bot.adapter.synced_s != synced_s)
        client.send = send
        async with open_bot(client, store_path, boot="two"):
            for each in (room_id, other):
                await anna.wait_for_member(each, account.user_id)


@pytest.mark.slow
async def test_a_homeserver_that_is_gone_at_the_start_and_in_the_middle_is_waited_for(
    own_synapse: Synapse, store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    account, human = [await asyncio.to_thread(own_synapse.register, name) for name in ("murmur", "anna")]
    async with (
        open_client(own_synapse.url, account) as client,
        open_human(own_synapse.url, human, None) as anna,
    ):
        await asyncio.to_thread(own_synapse.stop)
        back = asyncio.create_task(_start_later(own_synapse))
        async with open_bot(client, store_path) as bot:
            await back
            place = await meet(anna, bot, direct=True)
            await place.say("one")
            await place.reads("You said: one")
            await asyncio.to_thread(own_synapse.restart)
            await place.say("two")
            await place.reads("You said: two", within_s=20)
    said = [it.getMessage() for it in caplog.records if it.name == "bot.on_matrix.trying"]
    assert len(said) == 4
    assert sum("no longer so" in it for it in said) == 2


async def _start_later(synapse: Synapse) -> None:
    await asyncio.sleep(2.5)
    await asyncio.to_thread(synapse.start)


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"next_batch": 5}',
        b'{"next_batch": "x", "rooms": 5}',
        b'{"next_batch": "x", "rooms": {"join": [], "leave": [5], "invite": {"a": 5}}}',
        b'{"next_batch": "x", "rooms": {"join": {"!a:b": 5, "!c:d": {"timeline": {"events": [5, {}]}}}}}',
        b'{"next_batch": "x", "rooms": {"join": {"!a:b": {"state": {"events": {"x": 5}}, "timeline": 0}}}}',
        b'{"next_batch": "x", "rooms": {"join": {"!a:b": {"timeline": {"events": '
        b'[{"type": "m.reaction", "event_id": 5, "content": {"m.relates_to": {"key": {}}}}]}}}}}',
    ],
)
async def test_an_answer_that_is_not_what_the_specification_says_does_no_harm(
    synapse: Synapse, account: Account, anna: Human, store_path: Path, answer: bytes
) -> None:
    async with open_client(synapse.url, account) as client, open_bot(client, store_path) as bot:
        send, wrong = client.send, [Answer(200, answer)]

        async def lying(method: str, path: str, *rest: Any) -> Any:
            if "/sync" in path and wrong:
                return wrong.pop()
            return await send(method, path, *rest)

        client.send = lying
        room_id = await anna.create_direct(account.user_id)
        with contextlib.suppress(AssertionError):
            await bot.until(lambda: not wrong, within_s=3)
        await anna.wait_for_member(room_id, account.user_id)
        assert not wrong
