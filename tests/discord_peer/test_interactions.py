"""Commands, buttons, forms: discord.py answers them in the fake as it does in Discord."""

import discord
import pytest
from discord import app_commands

from tests.discord_peer import FakeDiscord, Interaction, NotPossible, Permission
from tests.discord_peer.conftest import Bot

AskedBy = discord.Interaction[discord.Client]


async def test_a_slash_command_is_deferred_then_answered_then_followed_up(
    fake: FakeDiscord, bot: Bot
) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)

    @bot.tree.command(description="Ask the swarm")
    async def ask(interaction: AskedBy, text: str, tokens: int = 8) -> None:
        await interaction.response.defer()
        await interaction.edit_original_response(content=f"{text} {tokens}")
        await interaction.followup.send("and more", ephemeral=True)

    assert [command.name for command in await bot.tree.sync()] == ["ask"]
    asked = alice.runs("ask", {"text": "why?"}, channel=channel)
    await fake.until(lambda: len(asked.messages) == 2)
    (public,) = channel.messages
    assert public.contents == ["", "why? 8"]
    assert public.versions[0].flags == 1 << 7
    assert [message.content for message in alice.private] == ["and more"]
    assert asked.acknowledged_after_s is not None
    assert asked.acknowledged_after_s < 1


async def test_a_private_answer_is_seen_by_one_person_and_can_be_edited_and_deleted(
    fake: FakeDiscord, bot: Bot
) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice, bob = fake.user("alice", guild), fake.user("bob", guild)

    @bot.tree.command(description="Yours alone")
    async def quota(interaction: AskedBy) -> None:
        await interaction.response.send_message("you have 10", ephemeral=True)

    await bot.tree.sync()
    asked = alice.runs("quota", channel=channel)
    await fake.until(lambda: asked.acknowledged_s)
    (answer,) = alice.private
    assert (answer.content, channel.messages, bob.sees(channel)) == ("you have 10", [], [])
    assert alice.sees(channel) == [answer]
    assert fake.private_messages() == {alice.id: [answer]}
    (heard,) = bot.interactions
    await heard.edit_original_response(content="you have 9")
    assert answer.contents == ["you have 10", "you have 9"]
    assert answer.now.flags == 1 << 6
    await heard.delete_original_response()
    assert alice.private == []
    (session,) = fake.gateway.connected
    assert not [event for event in session.events if event["t"].startswith("MESSAGE_")]


async def test_the_first_follow_up_of_a_deferred_answer_fills_it_as_privately_as_it_waited(
    fake: FakeDiscord, bot: Bot
) -> None:
    alice = fake.user("alice")

    @bot.tree.command(description="Wait")
    async def wait(interaction: AskedBy) -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        await interaction.followup.send("meant for all")

    await bot.tree.sync()
    alice.runs("wait", channel=alice.direct)
    await fake.until(lambda: alice.private and not alice.private[0].is_waiting)
    assert [message.content for message in alice.private] == ["meant for all"]
    assert alice.direct.messages == []


async def test_options_arrive_as_people_channels_and_subcommands(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice, bob = fake.user("alice", guild), fake.user("bob", guild)
    arrived: list[object] = []
    settings = app_commands.Group(name="settings", description="How it answers")

    @settings.command(name="set", description="Change one")
    async def set_one(interaction: AskedBy, name: str, value: app_commands.Range[float, 0, 2]) -> None:
        arrived.append((name, value))
        await interaction.response.send_message("done")

    @bot.tree.command(description="Of whom")
    async def quota(interaction: AskedBy, user: discord.User, place: discord.TextChannel) -> None:
        arrived.append((user.id, place.id, interaction.permissions.send_messages))
        await interaction.response.send_message("done")

    bot.tree.add_command(settings)
    bot.tree.copy_global_to(guild=guild_object(guild.id))
    await bot.tree.sync(guild=guild_object(guild.id))
    alice.runs("settings set", {"name": "temperature", "value": 0.5}, channel=channel)
    alice.runs("quota", {"user": bob, "place": channel}, channel=channel)
    await fake.until(lambda: len(arrived) == 2)
    assert arrived == [("temperature", 0.5), (bob.id, channel.id, True)]
    with pytest.raises(NotPossible, match="between 0"):
        alice.runs("settings set", {"name": "temperature", "value": 3.0}, channel=channel)
    with pytest.raises(NotPossible, match="must be filled in"):
        alice.runs("quota", {"user": bob}, channel=channel)
    with pytest.raises(NotPossible, match="no command"):
        alice.runs("quota", {"user": bob}, channel=alice.direct)


def guild_object(guild_id: int) -> discord.Object:
    return discord.Object(guild_id)


async def test_a_command_in_a_message_s_menu_gets_the_message(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice, bob = fake.user("alice", guild), fake.user("bob", guild)

    @bot.tree.context_menu(name="Ask about this")
    async def ask_about(interaction: AskedBy, message: discord.Message) -> None:
        await interaction.response.send_message(f"{message.author.name}: {message.content}")

    await bot.tree.sync()
    said = bob.says(channel, "the sky is green")
    alice.runs("Ask about this", channel=channel, on=said)
    await fake.until(lambda: channel.by(fake.bot))
    assert channel.by(fake.bot)[0].content == "bob: the sky is green"


async def test_a_button_is_pressed_and_its_message_changes(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice, bob = fake.user("alice", guild), fake.user("bob", guild)
    view = discord.ui.View(timeout=None)
    stop: discord.ui.Button[discord.ui.View] = discord.ui.Button(label="Stop", custom_id="stop:7")

    async def pressed(interaction: discord.Interaction) -> None:
        if interaction.user.id != alice.id:
            await interaction.response.send_message("Only alice can stop this.", ephemeral=True)
            return
        await interaction.response.edit_message(content="stopped", view=None)

    stop.callback = pressed  # type: ignore[assignment]
    view.add_item(stop)
    bot.add_view(view)
    await bot.place(channel.id).send("working", view=view)
    (message,) = channel.messages
    refused = bob.presses(message, "stop:7")
    await fake.until(lambda: bob.private)
    assert refused.messages == bob.private
    alice.presses(message, "Stop")
    await fake.until(lambda: message.content == "stopped")
    assert message.buttons == []
    with pytest.raises(NotPossible, match="no button"):
        alice.presses(message, "Stop")


async def test_a_button_can_be_acknowledged_without_a_change(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    alice = fake.user("alice", guild)
    view = discord.ui.View(timeout=None)
    view.add_item(discord.ui.Button(label="Retry", custom_id="retry:1"))
    await bot.place(channel.id).send("old", view=view)
    (message,) = channel.messages
    pressed = alice.presses(message, "Retry")
    await fake.until(lambda: bot.interactions)
    await bot.interactions[0].response.defer()
    assert (pressed.answered_with, pressed.messages) == (6, [])
    await bot.interactions[0].edit_original_response(content="new", view=None)
    assert message.contents == ["old", "new"]
    await bot.interactions[0].followup.send("done", ephemeral=True)
    assert [one.content for one in alice.private] == ["done"]


async def test_a_form_is_opened_and_filled_in(fake: FakeDiscord, bot: Bot) -> None:
    alice = fake.user("alice")
    typed: list[str] = []

    class Persona(discord.ui.Modal, title="Persona"):
        words: discord.ui.TextInput["Persona"] = discord.ui.TextInput(label="Words", custom_id="words")

        async def on_submit(self, interaction: discord.Interaction, /) -> None:
            typed.append(self.words.value)
            await interaction.response.send_message("set", ephemeral=True)

    @bot.tree.command(description="Who it is")
    async def persona(interaction: AskedBy) -> None:
        await interaction.response.send_modal(Persona())

    await bot.tree.sync()
    opened = alice.runs("persona", channel=alice.direct)
    await fake.until(lambda: opened.modal)
    alice.submits(opened, {"words": "a pirate"})
    await fake.until(lambda: alice.private)
    assert typed == ["a pirate"]


async def test_what_is_typed_into_an_option_is_completed(fake: FakeDiscord, bot: Bot) -> None:
    alice = fake.user("alice")

    @bot.tree.command(description="Explain")
    async def explain(interaction: AskedBy, command: str) -> None:
        await interaction.response.send_message(command)

    @explain.autocomplete("command")
    async def propose(interaction: AskedBy, typed: str) -> list[app_commands.Choice[str]]:
        return [app_commands.Choice(name=typed + "ta", value=typed + "ta")]

    await bot.tree.sync()
    typing = alice.completes("explain", "command", "quo", channel=alice.direct)
    await fake.until(lambda: typing.choices)
    assert typing.choices == [{"name": "quota", "value": "quota"}]


async def test_commands_are_offered_only_where_and_to_whom_they_are_meant(
    fake: FakeDiscord, bot: Bot
) -> None:
    guild = fake.guild()
    channel = fake.channel(guild)
    mods = fake.role(guild, "mods", Permission.MANAGE_GUILD)
    alice, bob = fake.user("alice", guild), fake.user("bob", guild, roles=(mods,))

    @bot.tree.command(description="For moderators")
    @app_commands.default_permissions(manage_guild=True)
    @app_commands.guild_only()
    async def admin(interaction: AskedBy) -> None:
        await interaction.response.send_message("yes")

    await bot.tree.sync()
    with pytest.raises(NotPossible, match="not shown"):
        alice.runs("admin", channel=channel)
    with pytest.raises(NotPossible, match="not offered"):
        bob.runs("admin", channel=bob.direct)
    asked = bob.runs("admin", channel=channel)
    await fake.until(lambda: asked.messages)


async def test_where_the_bot_is_no_member_only_the_interaction_itself_works(
    fake: FakeDiscord, bot: Bot
) -> None:
    elsewhere = fake.guild("Elsewhere", with_bot=False)
    channel = fake.channel(elsewhere)
    alice = fake.user("alice", elsewhere)
    asked = await ask_elsewhere(fake, bot, alice.id)
    interaction = alice.runs("ask", channel=channel)
    await fake.until(lambda: interaction.messages)
    assert asked[0].is_user_integration()
    with pytest.raises(discord.Forbidden) as refused:
        await bot.place(channel.id).send("in the channel")
    assert refused.value.code == 50001
    for number in range(5):
        await asked[0].followup.send(str(number))
    with pytest.raises(discord.HTTPException) as too_many:
        await asked[0].followup.send("one more")
    assert too_many.value.code == 40094


async def ask_elsewhere(fake: FakeDiscord, bot: Bot, user_id: int) -> list[discord.Interaction]:
    asked: list[discord.Interaction] = []

    @bot.tree.command(description="Ask")
    @app_commands.allowed_installs(guilds=True, users=True)
    async def ask(interaction: AskedBy) -> None:
        assert interaction.user.id == user_id
        asked.append(interaction)
        await interaction.response.send_message("here")

    await bot.tree.sync()
    return asked


async def test_an_unchanged_command_keeps_its_id(fake: FakeDiscord, bot: Bot) -> None:
    @bot.tree.command(description="Help")
    async def help(interaction: AskedBy) -> None:
        await interaction.response.send_message("no")

    first = await bot.tree.sync()
    second = await bot.tree.sync()
    fetched = await bot.tree.fetch_commands()
    assert first[0].id == second[0].id == fetched[0].id
    assert len(fake.calls("PUT /applications/{application_id}/commands")) == 2


async def test_a_person_sees_that_nothing_came(fake: FakeDiscord) -> None:
    alice = fake.user("alice")
    lonely = Interaction(1, "t", 2, alice, alice.direct, fake.clock.now_s(), {})
    assert not lonely.has_failed(fake.clock.now_s())
    fake.clock.turn(3.1)
    assert lonely.has_failed(fake.clock.now_s())
