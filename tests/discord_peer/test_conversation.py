"""discord.py works with the fake as it does with Discord: reading, writing, threads, direct chats, files."""

import discord
import pytest

from tests.discord_peer import FakeDiscord, NotPossible, Permission
from tests.discord_peer.conftest import Bot, all_intents, logged_in


async def test_a_mention_is_answered_with_typing_a_reply_with_a_button_and_edits(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    asked = alice.says(channel, "how are you?", mentions=[fake.bot])
    await fake.until(lambda: bot.heard)
    heard = bot.heard[0]
    assert bot.user in heard.mentions
    assert heard.content == f"<@{fake.bot.id}> how are you?"
    assert isinstance(heard.author, discord.Member)

    async with heard.channel.typing():
        assert channel.is_typing(fake.bot, fake.clock.now_s())
        view = discord.ui.View(timeout=None)
        view.add_item(discord.ui.Button(label="Stop", custom_id="stop:1"))
        sent = await heard.reply("I", view=view, allowed_mentions=discord.AllowedMentions.none())
    quiet = discord.AllowedMentions.none()
    for text in ("I am", "I am well"):
        await sent.edit(content=text, allowed_mentions=quiet)
    await sent.edit(content="I am well.", view=None, allowed_mentions=quiet)

    (answer,) = channel.by(fake.bot)
    assert answer.contents == ["I", "I am", "I am well", "I am well."]
    assert answer.reply_to is asked
    assert answer.now.pings == ()
    assert answer.versions[0].components
    assert answer.buttons == []
    times = [version.at_s for version in answer.versions]
    assert times == sorted(times)
    assert not channel.is_typing(fake.bot, fake.clock.now_s())


async def test_who_is_mentioned_follows_allowed_mentions(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    words = f"hello {alice.mention} and @everyone"
    fake.world.guilds[guild.id].everyone.permissions |= Permission.MENTION_EVERYONE
    place = bot.place(channel.id)
    await place.send(words)
    await place.send(words, allowed_mentions=discord.AllowedMentions.none())
    await place.send("hello")
    loud, quiet, plain = channel.messages
    assert not plain.now.pings_everyone
    assert loud.now.pings == (alice,)
    assert loud.now.pings_everyone
    assert quiet.now.pings == ()
    assert not quiet.now.pings_everyone


async def test_edits_deletes_and_reactions_of_people_are_heard(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    happened: list[str] = []

    @bot.event
    async def on_raw_message_edit(event: discord.RawMessageUpdateEvent) -> None:
        happened.append(f"edit {event.data['content']}")

    @bot.event
    async def on_raw_message_delete(event: discord.RawMessageDeleteEvent) -> None:
        happened.append(f"delete {event.message_id}")

    @bot.event
    async def on_raw_reaction_add(event: discord.RawReactionActionEvent) -> None:
        happened.append(f"react {event.emoji.name}")

    message = alice.says(channel, "one")
    alice.edits(message, "two")
    alice.reacts(message, "👍")
    alice.deletes(message)
    await fake.until(lambda: len(happened) == 3)
    assert happened == ["edit two", "react 👍", f"delete {message.id}"]


async def test_many_messages_that_are_deleted_at_once_are_heard_of_at_once(
    fake: FakeDiscord, bot: Bot
) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    moderator = fake.user("mo", guild, roles=(fake.role(guild, "mods", Permission.MANAGE_MESSAGES),))
    heard: list[set[int]] = []

    @bot.event
    async def on_raw_bulk_message_delete(event: discord.RawBulkMessageDeleteEvent) -> None:
        heard.append(event.message_ids)

    messages = [moderator.says(channel, str(number)) for number in range(3)]
    moderator.purges(channel, messages[:2])
    await fake.until(lambda: heard)
    assert heard == [{message.id for message in messages[:2]}]
    assert channel.messages == messages[2:]
    with pytest.raises(NotPossible):
        fake.user("alice", guild).purges(channel, messages)


async def test_the_bot_reacts_and_takes_it_back(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    message = fake.user("alice", *fake.world.guilds.values()).says(channel, "wait")
    partial = bot.place(channel.id).get_partial_message(message.id)
    await partial.add_reaction("⏳")
    assert message.reactions == {"⏳": [fake.bot]}
    assert bot.user is not None
    await partial.remove_reaction("⏳", bot.user)
    assert message.reactions == {}


async def test_threads_are_started_by_both_sides_and_talked_in(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    alice.says(channel, "let us talk")
    await fake.until(lambda: bot.heard)
    thread = await bot.heard[0].create_thread(name="A talk")
    await thread.send("here")
    (made,) = channel.threads
    assert (made.name, [m.content for m in made.messages]) == ("A talk", ["here"])

    alice.says(made, "and there")
    own = alice.starts_thread(channel, "Mine")
    alice.says(own, "hello")
    await fake.until(lambda: len(bot.heard) == 3)
    assert all(isinstance(message.channel, discord.Thread) for message in bot.heard[1:])
    assert [message.channel.id for message in bot.heard[1:]] == [made.id, own.id]


async def test_direct_messages_go_both_ways(fake: FakeDiscord, bot: Bot) -> None:
    alice = fake.user("alice")
    alice.says(alice.direct, "psst")
    await fake.until(lambda: bot.heard)
    assert isinstance(bot.heard[0].channel, discord.DMChannel)
    await bot.heard[0].channel.send("yes?")
    user = await bot.fetch_user(alice.id)
    await user.send("still there?")
    assert [message.content for message in alice.direct.messages] == ["psst", "yes?", "still there?"]
    with pytest.raises(NotPossible):
        fake.user("bob").says(alice.direct, "me too")


async def test_history_after_a_message_comes_oldest_first_and_in_pages(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    said = [alice.says(channel, str(number), ago_s=1000.0 - number) for number in range(130)]
    place = bot.place(channel.id)
    after = [m.content async for m in place.history(limit=120, after=discord.Object(said[4].id))]
    assert after == [str(number) for number in range(5, 125)]
    newest = [m.content async for m in place.history(limit=3)]
    assert newest == ["129", "128", "127"]


async def test_files_travel_both_ways(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    alice.says(channel, "read this", files={"notes.txt": b"four lines"})
    await fake.until(lambda: bot.heard)
    (attached,) = bot.heard[0].attachments
    assert (attached.filename, await attached.read()) == ("notes.txt", b"four lines")

    embed = discord.Embed(title="Swarm", description="3 servers").add_field(name="speed", value="4 tok/s")
    file = discord.File(__file__, filename="answer.md", description="all of it")
    await bot.place(channel.id).send("as a file", file=file, embed=embed)
    sent = channel.messages[-1].now
    assert [(one.filename, one.description) for one in sent.attachments] == [("answer.md", "all of it")]
    assert sent.attachments[0].content.startswith(b'"""discord.py works')
    assert sent.embeds[0]["title"] == "Swarm"


async def test_a_bot_that_logs_in_later_finds_guilds_channels_and_members(fake: FakeDiscord) -> None:
    guild = fake.guild("Swarm")
    channel = fake.channel(guild, "talk")
    hidden = fake.channel(guild, "staff")
    hidden.deny(guild.everyone, Permission.VIEW_CHANNEL)
    alice = fake.user("alice", guild, roles=(fake.role(guild, "mods", Permission.MANAGE_MESSAGES),))
    async with logged_in(fake) as bot:
        (seen,) = bot.guilds
        assert [one.name for one in seen.text_channels] == ["talk"]
        member = seen.get_member(alice.id)
        assert member is not None
        found = seen.get_channel(channel.id)
        assert isinstance(found, discord.TextChannel)
        assert found.permissions_for(member).manage_messages
        application = await bot.application_info()
        assert application.id == fake.bot.id
        assert application.flags.gateway_message_content_limited
        await bot.change_presence(activity=discord.CustomActivity("ready"))
        await fake.until(lambda: fake.gateway.presences)
        assert fake.gateway.presences[0]["activities"][0]["state"] == "ready"


async def test_white_space_around_a_message_is_taken_off(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    sent = await bot.place(channel.id).send("\n  one\n two \n")
    assert sent.content == "one\n two"


async def test_people_are_seen_typing(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    seen: list[int] = []

    @bot.event
    async def on_raw_typing(event: discord.RawTypingEvent) -> None:
        seen.append(event.user_id)

    alice.types(channel)
    alice.types(alice.direct)
    await fake.until(lambda: len(seen) == 2)
    assert seen == [alice.id, alice.id]
    assert channel.is_typing(alice, fake.clock.now_s())
    fake.clock.turn(11)
    assert not channel.is_typing(alice, fake.clock.now_s())


async def test_members_come_in_chunks_to_a_bot_that_does_not_watch_presences(fake: FakeDiscord) -> None:
    guild = fake.guild()
    alice = fake.user("alice", guild)
    intents = all_intents()
    intents.presences = False
    async with logged_in(fake, intents) as bot:
        assert bot.guilds[0].get_member(alice.id) is not None
        bob = fake.user("bob", guild)
        await fake.until(lambda: bot.guilds[0].get_member(bob.id))


async def test_a_thread_is_made_renamed_archived_and_deleted_by_the_bot(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    await fake.until(lambda: bot.get_channel(channel.id))
    place = bot.get_channel(channel.id)
    assert isinstance(place, discord.TextChannel)
    thread = await place.create_thread(name="one", type=discord.ChannelType.public_thread)
    await thread.edit(name="two", archived=True)
    (made,) = channel.threads
    assert (made.name, made.is_archived) == ("two", True)
    with pytest.raises(discord.Forbidden):
        await thread.delete()
    channel.allow(fake.bot, Permission.MANAGE_THREADS)
    await thread.delete()
    assert channel.threads == []


async def test_what_the_bot_can_ask_for_is_answered(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    fetched = await bot.fetch_guild(guild.id)
    assert {one.name for one in await fetched.fetch_channels()} == {"general"}
    assert {one.name for one in await fetched.fetch_roles()} == {"@everyone"}
    assert (await fetched.fetch_member(alice.id)).name == "alice"
    assert await fetched.active_threads() == []
    assert [one.name async for one in bot.fetch_guilds()] == ["Swarm"]
    assert (await bot.fetch_channel(channel.id)).id == channel.id
    with pytest.raises(discord.NotFound):
        await fetched.fetch_member(fake.user("stranger").id)
