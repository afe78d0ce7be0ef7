"""Bots on the homeserver that all tests of a process share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest_asyncio

from tests.bot.on_matrix.world import Bot, Place, meet, open_bot, open_client
from tests.matrix_peer.human import Human, NewHuman
from tests.matrix_peer.synapse import Synapse


class NewBot(Protocol):
    """Starts bots: the fixture `new_bot`."""

    async def __call__(self, **settings: Any) -> Bot: ...


@pytest_asyncio.fixture
async def new_bot(synapse: Synapse, store_path: Path) -> AsyncIterator[NewBot]:
    """Starts the test's bot, an account without a limit on messages."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings: Any) -> Bot:
            account = await asyncio.to_thread(synapse.register, "murmur")
            client = await stack.enter_async_context(open_client(synapse.url, account))
            return await stack.enter_async_context(open_bot(client, store_path, **settings))

        yield start


@pytest_asyncio.fixture
async def bot(new_bot: NewBot) -> Bot:
    return await new_bot()


@pytest_asyncio.fixture
async def anna(new_human: NewHuman) -> Human:
    return await new_human("anna")


@pytest_asyncio.fixture
async def chat(anna: Human, bot: Bot) -> Place:
    """Anna and the bot alone."""
    return await meet(anna, bot, direct=True)


@pytest_asyncio.fixture
async def group(anna: Human, bot: Bot, new_human: NewHuman) -> Place:
    """Anna, the bot, and Ben, who is invited."""
    ben = await new_human("ben")
    place = await meet(anna, bot)
    await anna.invite(place.room_id, ben.user_id)
    await anna._until(lambda: ben.user_id in anna.client.rooms[place.room_id].invited_users, "Ben")
    return place
