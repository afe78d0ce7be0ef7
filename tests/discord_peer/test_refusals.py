"""What Discord refuses, the fake refuses, as seen through discord.py."""

import io
from collections.abc import Awaitable

import discord
import pytest
from discord import app_commands

from tests.discord_peer import FakeDiscord, Permission
from tests.discord_peer.conftest import Bot

AskedBy = discord.Interaction[discord.Client]


async def code_of(work: Awaitable[object], kind: type[discord.HTTPException] = discord.HTTPException) -> int:
    """Discord's own number for the refusal that `work` meets."""
    with pytest.raises(kind) as refused:
        await work
    return refused.value.code


async def test_two_thousand_units_are_taken_and_one_more_is_not(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    place = bot.place(channel.id)
    sent = await place.send("😀" * 1000)
    assert await code_of(place.send("😀" * 1000 + "a")) == 50035
    assert await code_of(sent.edit(content="a" * 2001)) == 50035
    assert [message.content for message in channel.messages] == ["😀" * 1000]


@pytest.mark.parametrize("words", ["", " \n"])
async def test_an_empty_message_is_refused(fake: FakeDiscord, bot: Bot, words: str) -> None:
    channel = fake.channel(fake.guild())
    assert await code_of(bot.place(channel.id).send(words)) == 50006


async def test_an_interaction_must_be_acknowledged_within_three_seconds(fake: FakeDiscord, bot: Bot) -> None:
    interaction = await asked(fake, bot)
    fake.clock.turn(3.1)
    assert await code_of(interaction.response.send_message("late"), discord.NotFound) == 10062
    assert await code_of(interaction.followup.send("later"), discord.NotFound) == 10015


async def test_an_interaction_is_acknowledged_once(fake: FakeDiscord, bot: Bot) -> None:
    interaction = await asked(fake, bot)
    await interaction.response.defer()
    interaction.response._response_type = None
    assert await code_of(interaction.response.defer()) == 40060


async def test_the_token_of_an_interaction_lives_fifteen_minutes(fake: FakeDiscord, bot: Bot) -> None:
    interaction = await asked(fake, bot)
    await interaction.response.defer()
    fake.clock.turn(14 * 60)
    await interaction.edit_original_response(content="in time")
    fake.clock.turn(61)
    assert await code_of(interaction.edit_original_response(content="late")) == 50027
    assert await code_of(interaction.followup.send("late")) == 50027


async def test_nothing_follows_an_interaction_that_was_not_acknowledged(fake: FakeDiscord, bot: Bot) -> None:
    interaction = await asked(fake, bot)
    assert await code_of(interaction.followup.send("first"), discord.NotFound) == 10015


async def asked(fake: FakeDiscord, bot: Bot) -> discord.Interaction:
    """An interaction that nobody has answered."""

    @bot.tree.command(description="Ask")
    async def ask(interaction: AskedBy) -> None:
        pass

    await bot.tree.sync()
    alice = fake.user("alice")
    alice.runs("ask", channel=alice.direct)
    await fake.until(lambda: bot.interactions)
    return bot.interactions[-1]


async def test_a_message_that_is_gone_is_unknown(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    place = bot.place(channel.id)
    sent = await place.send("mine")
    prompt = alice.says(channel, "hm")
    await sent.delete()
    alice.deletes(prompt)
    assert await code_of(sent.edit(content="again"), discord.NotFound) == 10008
    assert await code_of(sent.delete(), discord.NotFound) == 10008
    assert await code_of(place.fetch_message(sent.id), discord.NotFound) == 10008
    assert await code_of(place.get_partial_message(prompt.id).add_reaction("👀"), discord.NotFound) == 10008


async def test_a_reply_to_a_message_that_is_gone_is_refused_unless_it_may_be(
    fake: FakeDiscord, bot: Bot
) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    prompt = alice.says(channel, "hm")
    alice.deletes(prompt)
    place = bot.place(channel.id)
    strict = discord.MessageReference(message_id=prompt.id, channel_id=channel.id)
    lax = discord.MessageReference(message_id=prompt.id, channel_id=channel.id, fail_if_not_exists=False)
    assert await code_of(place.send("to you", reference=strict)) == 50035
    await place.send("to nobody", reference=lax)
    assert [(m.content, m.reply_to) for m in channel.messages] == [("to nobody", None)]


async def test_a_person_who_takes_no_direct_messages_gets_none(fake: FakeDiscord, bot: Bot) -> None:
    alice = fake.user("alice")
    alice.takes_direct_messages = False
    user = await bot.fetch_user(alice.id)
    assert await code_of(user.send("psst"), discord.Forbidden) == 50007


async def test_what_the_bot_may_not_do_in_a_channel_is_refused(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    said = alice.says(channel, "hm")
    await fake.until(lambda: bot.guilds)
    place = bot.place(channel.id, guild.id)
    partial = place.get_partial_message(said.id)
    assert await code_of(partial.delete(), discord.Forbidden) == 50013
    assert await code_of(partial.edit(content="mine"), discord.Forbidden) == 50005
    channel.deny(fake.bot, Permission.ATTACH_FILES, Permission.EMBED_LINKS, Permission.CREATE_PUBLIC_THREADS)
    file = discord.File(io.BytesIO(b"a"), "a.txt")
    assert await code_of(place.send(file=file), discord.Forbidden) == 50013
    assert await code_of(place.send(embed=discord.Embed(title="a")), discord.Forbidden) == 50013
    assert await code_of(partial.create_thread(name="a"), discord.Forbidden) == 50013
    channel.deny(fake.bot, Permission.ADD_REACTIONS)
    assert await code_of(partial.add_reaction("👀"), discord.Forbidden) == 50013
    channel.deny(fake.bot, Permission.READ_MESSAGE_HISTORY)
    assert [message async for message in place.history()] == []
    assert await code_of(partial.reply("a")) == 160002
    channel.deny(fake.bot, Permission.SEND_MESSAGES)
    assert await code_of(place.send("a"), discord.Forbidden) == 50013
    channel.deny(fake.bot, Permission.VIEW_CHANNEL)
    assert await code_of(place.send("a"), discord.Forbidden) == 50001
    assert channel.messages == [said]


async def test_a_guild_that_the_bot_left_is_closed_to_it(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    await fake.until(lambda: bot.guilds)
    fake.remove_bot(guild)
    await fake.until(lambda: not bot.guilds)
    assert await code_of(bot.place(channel.id).send("hello"), discord.Forbidden) == 50001
    assert await code_of(bot.fetch_guild(guild.id), discord.Forbidden) == 50001
    assert await code_of(bot.fetch_guild(1), discord.NotFound) == 10004
    assert await code_of(bot.place(1).send("hello"), discord.NotFound) == 10003


async def test_a_nonce_that_was_used_minutes_ago_returns_the_same_message(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = fake.channel(fake.guild())
    place = bot.place(channel.id)
    first = await place.send("one", nonce="turn-1-part-1")
    again = await place.send("two", nonce="turn-1-part-1")
    other = await place.send("three", nonce="turn-1-part-2")
    assert (first.id == again.id, again.content, first.id == other.id) == (True, "one", False)
    fake.clock.turn(180)
    late = await place.send("four", nonce="turn-1-part-1")
    assert late.id != first.id
    assert [message.content for message in channel.messages] == ["one", "three", "four"]
    assert await code_of(place.send("five", nonce="n" * 26)) == 50035
    fake.findings.clear()  # the document forbids the long one as well


async def test_an_answer_can_be_private_only_to_an_interaction(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    flags = discord.MessageFlags(ephemeral=True)
    with discord.http.handle_message_parameters("a secret", flags=flags) as parameters:
        await bot.http.send_message(channel.id, params=parameters)
    (message,) = channel.messages
    assert (message.now.flags, alice.private) == (0, [])
    assert fake.findings.pop() == (
        "POST /channels/{channel_id}/messages: only answers to interactions can be private"
    )


async def test_components_that_discord_does_not_know_how_to_show_are_refused(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = fake.channel(fake.guild())
    place = bot.place(channel.id)
    twins = discord.ui.View(timeout=None)
    for label in ("a", "b"):
        twins.add_item(discord.ui.Button(label=label, custom_id="same"))
    assert await code_of(place.send("a", view=twins)) == 50035
    unnamed = discord.ui.View(timeout=None)
    unnamed.add_item(discord.ui.Button(custom_id="nameless"))
    assert await code_of(place.send("a", view=unnamed)) == 50035
    assert channel.messages == []


async def test_embeds_that_are_too_long_are_refused_and_reported(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    place = bot.place(channel.id)
    assert await code_of(place.send(embed=discord.Embed(title="a" * 257))) == 50035
    fake.findings.clear()  # the document forbids it as well
    full = [discord.Embed(description="a" * 4096), discord.Embed(description="a" * 2000)]
    assert await code_of(place.send(embeds=full)) == 50035


async def test_a_file_that_is_too_large_is_refused(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    file = discord.File(io.BytesIO(bytes(10 * 1024 * 1024 + 1)), "large.bin")
    assert await code_of(bot.place(channel.id).send(file=file)) == 40005


async def test_words_are_no_emoji(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    sent = await bot.place(channel.id).send("hm")
    assert await code_of(sent.add_reaction("thumbsup")) == 10014


async def test_one_message_has_one_thread(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    await fake.until(lambda: bot.guilds)
    sent = await bot.place(channel.id, guild.id).send("hm")
    await sent.create_thread(name="one")
    assert await code_of(sent.create_thread(name="two")) == 160004


async def test_in_a_locked_thread_only_who_manages_threads_writes(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    thread = fake.user("alice", channel.guild).starts_thread(channel, "locked")  # type: ignore[arg-type]
    thread.is_locked = True
    assert await code_of(bot.place(thread.id).send("hm")) == 160005
    channel.allow(fake.bot, Permission.MANAGE_THREADS)
    await bot.place(thread.id).send("hm")
    assert [message.content for message in thread.messages] == ["hm"]


async def test_nothing_is_edited_in_an_archived_thread(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    thread = fake.user("alice", guild).starts_thread(fake.channel(guild), "talk")
    sent = await bot.place(thread.id).send("hm")
    thread.is_archived = True
    assert await code_of(sent.edit(content="later")) == 50083
    await bot.place(thread.id).send("awake")
    assert not thread.is_archived


async def test_commands_that_cannot_be_registered_are_refused(fake: FakeDiscord, bot: Bot) -> None:
    @bot.tree.command(description="a")
    async def ask(interaction: AskedBy) -> None:
        pass

    ask.description = "a" * 101
    with pytest.raises(app_commands.CommandSyncFailure):
        await bot.tree.sync()
    assert fake.commands == {}
    fake.findings.clear()  # the document forbids it as well
