"""A fake Discord with a guild, a channel and people, and a bot that hears them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.bot.on_discord.stage import Stage, open_stage
from tests.discord_peer import Channel, FakeDiscord, Guild, Permission, Person
from tests.discord_peer.conftest import fake_discord


@dataclass
class Place:
    """A guild with a channel, two members and a moderator."""

    guild: Guild
    channel: Channel
    alice: Person
    bob: Person
    moderator: Person


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeDiscord]:
    async with fake_discord() as running:
        yield running


@pytest.fixture
def place(fake: FakeDiscord) -> Place:
    return furnished(fake)


def furnished(fake: FakeDiscord) -> Place:
    """A place in a fake."""
    guild = fake.guild()
    mods = fake.role(guild, "mods", Permission.MANAGE_MESSAGES)
    people = (fake.user("alice", guild), fake.user("bob", guild), fake.user("mo", guild, roles=(mods,)))
    return Place(guild, fake.channel(guild), *people)


@pytest_asyncio.fixture
async def stage(fake: FakeDiscord, place: Place, store_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(fake, store_path) as running:
        yield running
