"""Channels in which a moderator has the bot answer every message."""

from pathlib import Path

from bot.on_discord.opening import READS_LESS
from tests.bot.on_discord.conftest import Place, furnished
from tests.bot.on_discord.stage import Stage, open_stage, pause
from tests.bot.on_discord.test_thread_settings import sets
from tests.discord_peer import PRIVILEGED, FakeDiscord, Intent, Permission
from tests.discord_peer.conftest import fake_discord


async def test_every_message_is_answered_where_a_moderator_wants_it(stage: Stage, place: Place) -> None:
    other = stage.fake.channel(place.guild)
    told = await sets(stage, place.alice, place.channel, "always", "on", "channel")
    assert told == "Only moderators may set that for all."
    place.alice.says(place.channel, "not yet")
    told = await sets(stage, place.moderator, place.channel, "always", "on", "channel")
    assert told == "always is on now, for this channel."
    place.alice.says(other, "not there")
    place.alice.says(place.channel, "one")
    place.bob.says(place.channel, "two", mentions=[place.alice])
    await stage.answers(place.channel, 2)
    assert set(stage.texts(place.channel)) == {
        "You said: one",
        f"You said: {place.alice.mention} two",
    }
    assert stage.texts(other) == []
    await sets(stage, place.moderator, place.channel, "always", "off", "channel")
    place.alice.says(place.channel, "not any more")
    place.alice.says(other, "a witness", mentions=[stage.fake.bot])
    await stage.answers(other, 1)
    assert await stage.num_turns() == 3


async def test_bots_webhooks_and_calls_to_everybody_are_ignored_there_too(stage: Stage, place: Place) -> None:
    await sets(stage, place.moderator, place.channel, "always", "on", "channel")
    robot = stage.fake.user("robot", place.guild)
    robot.is_bot = True
    robot.says(place.channel, "beep")
    everybody = stage.fake.role(place.guild, "loud", Permission.MENTION_EVERYONE)
    loud = stage.fake.user("loud", place.guild, roles=(everybody,))
    loud.says(place.channel, "@everyone look at this")
    place.alice.says(place.channel, "this one")
    await stage.answers(place.channel, 1)
    await pause(0.1)  # it must not hear itself either
    assert stage.texts(place.channel) == ["You said: this one"]
    assert await stage.num_turns() == 1


async def test_it_holds_after_a_restart_and_ends_with_a_reset(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        await sets(stage, place.moderator, place.channel, "always", "on", "channel")
    async with open_stage(fake, store_path, boot="second") as stage:
        place.alice.says(place.channel, "one")
        await stage.answers(place.channel, 1)
        given = {"name": "always", "scope": "channel"}
        asked = place.moderator.runs("settings reset", given, channel=place.channel)
        await stage.until(lambda: asked.messages and not asked.is_pending)
        place.alice.says(place.channel, "two")
        place.alice.says(place.channel, "three", mentions=[fake.bot])
        await stage.answers(place.channel, 2)
        assert stage.texts(place.channel) == ["You said: one", "You said: three"]


async def test_with_threads_each_of_them_gets_one(fake: FakeDiscord, place: Place, store_path: Path) -> None:
    async with open_stage(fake, store_path, threads=True) as stage:
        await sets(stage, place.moderator, place.channel, "always", "on", "channel")
        asked = [place.alice.says(place.channel, text) for text in ("one", "two")]
        await stage.until(lambda: all(it.thread and it.thread.by(fake.bot) for it in asked))
        await stage.quiet()
        assert [stage.texts(it.thread) for it in asked if it.thread] == [["You said: one"], ["You said: two"]]


async def test_without_the_intent_a_moderator_is_told_that_it_cannot_be(store_path: Path) -> None:
    assert "message content intent" in READS_LESS
    async with fake_discord(approved=PRIVILEGED & ~Intent.MESSAGE_CONTENT) as fake:
        place = furnished(fake)
        async with open_stage(fake, store_path) as stage:
            told = await sets(stage, place.moderator, place.channel, "always", "on", "channel")
            assert told.startswith("I cannot do that: Discord shows me only messages that mention me")
            told = await sets(stage, place.moderator, place.channel, "always", "off", "channel")
            assert told == "always is off now, for this channel."
