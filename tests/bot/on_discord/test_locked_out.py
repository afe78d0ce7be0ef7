"""An admin on Discord who denies where they are, or a role of theirs, takes it back there."""

from pathlib import Path
from typing import Any

import pytest

from bot.on_discord.interactions import NOT_HERE
from storage.access import set_rule
from storage.database import Transaction
from storage.ledger import Person as Named
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import open_stage
from tests.bot.on_discord.test_access import boss_of, is_answered, order, refusal
from tests.bot.world import KEY
from tests.discord_peer import FakeDiscord, Person


def role_of(place: Place, person: Person) -> int:
    (role,) = place.guild.members[person.id].roles
    return role


@pytest.mark.parametrize("what", ["channel", "role", "thread of the channel"])
async def test_behaviour_29_an_admin_takes_back_what_was_denied_where_they_are(
    fake: FakeDiscord, place: Place, store_path: Path, what: str
) -> None:
    boss = boss_of(fake, place)
    other, here = fake.channel(place.guild), place.channel
    if what == "thread of the channel":
        here = place.alice.starts_thread(place.channel, "a thread")
    who = f"<@&{role_of(place, boss)}>" if what == "role" else f"<#{place.channel.id}>"
    async with open_stage(fake, store_path, admins=(str(boss.id),)) as stage:
        assert "may not use the bot any more" in await order(stage, boss, here, "admin deny", who=who)
        assert not await is_answered(stage, boss, here, (place.bob, other)), "only their commands are heard"
        assert await refusal(stage, boss, here) == NOT_HERE
        if what != "role":
            assert await refusal(stage, place.alice, here) == NOT_HERE
        assert "may use the bot now" in await order(stage, boss, here, "admin allow", who=who)
        assert await is_answered(stage, boss, here, (place.bob, other))


@pytest.mark.parametrize("which", ["allowed_channels", "allowed_users"])
async def test_behaviour_29_past_a_list_of_who_is_allowed_too(
    fake: FakeDiscord, place: Place, store_path: Path, which: str
) -> None:
    boss, other = boss_of(fake, place), fake.channel(place.guild)
    is_place = which == "allowed_channels"
    who = f"<#{place.channel.id}>" if is_place else f"<@&{role_of(place, boss)}>"
    lists: dict[str, Any] = {which: (other.id if is_place else place.bob.id,)}
    async with open_stage(fake, store_path, admins=(str(boss.id),), **lists) as stage:
        assert await refusal(stage, boss, place.channel) == NOT_HERE
        if is_place:
            await order(stage, boss, other, "admin allow", who=who)
        else:
            await stage.store.write(_allow, role_of(place, boss))
            await stage.core.commands.desk.access.load(stage.store)
        denied = await order(stage, boss, place.channel, "admin deny", who=who)
        assert "may not use the bot any more" in denied
        assert await refusal(stage, boss, place.channel) == NOT_HERE, "only their commands are heard"
        assert "may use the bot now" in await order(stage, boss, place.channel, "admin allow", who=who)
        assert await is_answered(stage, boss, place.channel, (boss if is_place else place.bob, other))


def _allow(connection: Transaction, role_id: int) -> None:
    set_rule(connection, Named("discord", str(role_id)), is_allowed=True, key=KEY, now_ms=0)


@pytest.mark.parametrize("which", ["denied_channels", "denied_users", "denied_roles", "allowed_channels"])
async def test_behaviour_29_what_the_configuration_denies_is_denied_to_admins_too(
    fake: FakeDiscord, place: Place, store_path: Path, which: str
) -> None:
    boss = boss_of(fake, place)
    other = fake.channel(place.guild)
    denied = {
        "denied_channels": place.channel.id,
        "denied_users": boss.id,
        "denied_roles": role_of(place, boss),
        "allowed_channels": other.id,
    }
    lists: dict[str, Any] = {which: (denied[which],)}
    async with open_stage(fake, store_path, admins=(str(boss.id),), **lists) as stage:
        assert (
            await order(stage, boss, place.channel, "admin allow", who=f"<#{place.channel.id}>") == NOT_HERE
        )
