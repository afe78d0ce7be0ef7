"""The link with which the bot is added to a server."""

from urllib.parse import parse_qs, urlsplit

import discord
import pytest

from bot.on_discord.inviting import invite_url
from swarm.errors import ConfigError
from tests.discord_peer import FakeDiscord


async def test_the_link_names_the_application_and_the_rights_that_the_bot_needs(fake: FakeDiscord) -> None:
    link = urlsplit(await invite_url(fake.token))
    asked = parse_qs(link.query)
    assert (link.scheme, link.hostname) == ("https", "discord.com")
    assert asked["client_id"] == [str(fake.bot.id)]
    assert asked["scope"] == ["bot applications.commands"]
    rights = discord.Permissions(int(asked["permissions"][0]))
    assert rights.send_messages
    assert rights.create_public_threads
    assert not rights.administrator
    assert not rights.manage_messages


async def test_a_wrong_token_is_told_in_one_sentence(fake: FakeDiscord) -> None:
    with pytest.raises(ConfigError, match="does not know the token"):
        await invite_url("wrong")
