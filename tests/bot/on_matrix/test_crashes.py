"""The bot is killed at any point, and whatever was said is answered once after its restart."""

import asyncio
from pathlib import Path

import pytest
from nio import AsyncClient

from tests.bot.dying import assert_killed, open_dying
from tests.bot.on_matrix.dying import ANSWER, POINTS
from tests.bot.on_matrix.world import Bot, Place, open_bot, open_client
from tests.matrix_peer.human import Human
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)


async def killed(client: AsyncClient, store_path: Path, point: str, anna: Human, room_id: str) -> None:
    """Anna asks, and the bot is killed at `point`."""
    named = (client.homeserver, client.user_id, client.device_id, str(store_path), point)
    async with open_dying("tests.bot.on_matrix.dying", *named, token=client.access_token) as process:
        await anna.say(room_id, "tell me")
        await assert_killed(process, within_s=20)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
async def test_behaviour_14_whenever_the_bot_is_killed_what_was_said_is_answered_once(
    synapse: Synapse, anna: Human, store_path: Path, point: str
) -> None:
    account = await asyncio.to_thread(synapse.register, "murmur")
    async with open_client(synapse.url, account) as client:
        room_id = await anna.create_direct(account.user_id)
        await client.join(room_id)
        await anna.wait_for_member(room_id, account.user_id)
        await anna.say(room_id, "old")
        await killed(client, store_path, point, anna, room_id)
        async with open_bot(client, store_path, boot="again", answer=ANSWER) as bot:
            place = Place(anna, bot, room_id)
            await assert_answered_once(place, bot)
            await place.say("and on")
            await place.until(lambda them: len([it for it in them if not it.is_redacted]) == 2)
            await bot.quiet()
        async with open_bot(client, store_path, boot="once more") as bot:
            await bot.quiet()
        assert len(await place.texts()) == 2


async def assert_answered_once(place: Place, bot: Bot) -> None:
    await place.until(lambda them: [it for it in them if it.text == ANSWER])
    await bot.quiet()
    assert await place.texts() == [ANSWER]
    (said,) = await bot.turns()
    assert (said.question.prompt, await bot.undelivered()) == ("tell me", 0)
