"""Who may use the bot on Discord: what the operator has set, and what admins have said since."""

from pathlib import Path
from typing import Any

import pytest

from bot.commands.catalogue import COMMANDS
from bot.on_discord.interactions import NOT_HERE
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import Stage, open_stage
from tests.discord_peer import Channel, FakeDiscord, NotPossible, Permission, Person


async def is_answered(
    stage: Stage, person: Person, channel: Channel, witness: tuple[Person, Channel]
) -> bool:
    """Whether a message is. Who speaks after it is, so that nobody waits for what never comes."""
    before, (other, elsewhere) = len(stage.texts(channel)), witness
    num_seen = len(stage.texts(elsewhere))
    person.says(channel, "hello", mentions=[stage.fake.bot])
    other.says(elsewhere, "a witness", mentions=[stage.fake.bot])
    await stage.until(lambda: "You said: a witness" in stage.texts(elsewhere)[num_seen:])
    await stage.quiet()
    return "You said: hello" in stage.texts(channel)[before:]


async def refusal(stage: Stage, person: Person, channel: Channel) -> str:
    """What a command is answered with, to its giver alone."""
    num_private, num_shown = len(person.private), len(channel.messages)
    asked = person.runs("ask", {"text": "hello"}, channel=channel)
    await stage.until(lambda: asked.messages and not asked.is_pending)
    assert len(channel.messages) == num_shown
    (told,) = person.private[num_private:]
    return told.content


def boss_of(fake: FakeDiscord, place: Place) -> Person:
    """Somebody to whom Discord shows what is for admins."""
    roles = (fake.role(place.guild, "bosses", Permission.MANAGE_GUILD),)
    return fake.user("boss", place.guild, roles=roles)


async def order(stage: Stage, boss: Person, channel: Channel, command: str, **options: Any) -> str:
    num_private = len(boss.private)
    asked = boss.runs(command, options, channel=channel)
    await stage.until(lambda: asked.messages and not asked.is_pending and len(boss.private) > num_private)
    return boss.private[-1].content


@pytest.mark.parametrize("which", ["users", "roles"])
async def test_behaviour_29_who_is_denied_stays_so_whatever_else_allows_it(
    fake: FakeDiscord, place: Place, store_path: Path, which: str
) -> None:
    rude = fake.role(place.guild, "rude", Permission(0))
    mallory = fake.user("mallory", place.guild, roles=(rude,))
    denied = {"users": mallory.id, "roles": rude.id}[which]
    boss = boss_of(fake, place)
    lists: dict[str, Any] = {f"denied_{which}": (denied,), "allowed_users": (mallory.id, boss.id)}
    async with open_stage(fake, store_path, admins=(str(boss.id),), **lists) as stage:
        assert not await is_answered(stage, mallory, place.channel, (boss, place.channel))
        await order(stage, boss, place.channel, "admin allow", who=str(mallory.id))
        assert not await is_answered(stage, mallory, place.channel, (boss, place.channel))
        assert await refusal(stage, mallory, place.channel) == NOT_HERE


async def test_behaviour_29_only_members_of_allowed_roles_are_answered(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    friends = fake.role(place.guild, "friends", Permission(0))
    carol = fake.user("carol", place.guild, roles=(friends,))
    async with open_stage(fake, store_path, allowed_roles=(friends.id,)) as stage:
        witness = (carol, place.channel)
        assert not await is_answered(stage, place.alice, place.channel, witness)
        assert await refusal(stage, place.alice, place.channel) == NOT_HERE


async def test_behaviour_29_direct_messages_can_be_switched_off(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, direct_messages=False) as stage:
        witness = (place.bob, place.channel)
        assert not await is_answered(stage, place.alice, place.alice.direct, witness)
        assert await refusal(stage, place.alice, place.alice.direct) == NOT_HERE
        assert await is_answered(stage, place.alice, place.channel, witness)


async def test_behaviour_29_nothing_is_said_in_a_muted_channel_or_its_threads(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    other = fake.channel(place.guild)
    async with open_stage(fake, store_path, denied_channels=(place.channel.id,)) as stage:
        witness = (place.bob, other)
        thread = place.alice.starts_thread(place.channel, "a thread")
        for muted in (place.channel, thread):
            assert not await is_answered(stage, place.alice, muted, witness)
            assert await refusal(stage, place.alice, muted) == NOT_HERE


async def test_behaviour_29_admins_ban_with_a_slash_command_and_choose_whom(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    boss = boss_of(fake, place)
    async with open_stage(fake, store_path, admins=(str(boss.id),)) as stage:
        witness = (place.bob, place.channel)
        assert await is_answered(stage, place.alice, place.channel, witness)
        said = await order(stage, boss, place.channel, "admin ban", user=place.alice, hours="24")
        assert said == f"`{place.alice.id}` is ignored for 24 hours."
        assert not await is_answered(stage, place.alice, place.channel, witness)
        assert not await is_answered(stage, place.alice, place.alice.direct, witness)
        assert await refusal(stage, place.alice, place.channel) == NOT_HERE
        await order(stage, boss, place.channel, "admin unban", user=place.alice)
        assert await is_answered(stage, place.alice, place.channel, witness)
        assert f"`{place.alice.id}` has" in await order(stage, boss, place.channel, "quota", user=place.alice)


async def test_behaviour_29_what_admins_allow_gets_past_the_lists_of_who_is_allowed(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    boss = boss_of(fake, place)
    other = fake.channel(place.guild)
    lists: dict[str, Any] = {"allowed_users": (boss.id,), "allowed_channels": (place.channel.id,)}
    async with open_stage(fake, store_path, admins=(str(boss.id),), **lists) as stage:
        witness = (boss, place.channel)
        assert not await is_answered(stage, place.alice, place.channel, witness)
        await order(stage, boss, place.channel, "admin allow", who=f"<@{place.alice.id}>")
        assert await is_answered(stage, place.alice, place.channel, witness)
        assert not await is_answered(stage, place.alice, other, witness)
        await order(stage, boss, place.channel, "admin allow", who=f"<#{other.id}>")
        assert await is_answered(stage, place.alice, other, witness)
        await order(stage, boss, place.channel, "admin deny", who=str(place.channel.id))
        assert not await is_answered(stage, place.alice, place.channel, (boss, other))


async def test_behaviour_29_admin_commands_are_not_shown_to_others_and_refused_if_they_are(
    stage: Stage, place: Place
) -> None:
    for name in (it.name for it in COMMANDS if it.who == "admin"):
        for channel in (place.channel, place.alice.direct):
            with pytest.raises(NotPossible, match=r"not shown|not offered"):
                place.alice.runs(name, channel=channel)
    boss = boss_of(stage.fake, place)  # of the guild, which makes nobody an admin of the bot
    assert await order(stage, boss, place.channel, "admin drain") == "Only admins of this bot may do that."
    assert not stage.core.must_leave.is_set()
    assert "admin" not in await order(stage, boss, place.channel, "help")
