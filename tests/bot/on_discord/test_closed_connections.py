"""A connection that Discord ends for good: the operator hears what to do."""

import asyncio
from pathlib import Path

import pytest

from bot.on_discord.opening import OTHER_REMEDY, WRONG_TOKEN, why_closed
from swarm.errors import ConfigError
from tests.bot.on_discord.stage import open_stage
from tests.discord_peer import FakeDiscord


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (4010, "update it"),
        (4011, "take it off some of them"),
        (4012, "update it"),
        (4013, r"look at the intents on .* set \[discord\] message_content = false"),
        (4999, "look at https://discordstatus.com"),
        (None, "look at https://discordstatus.com"),
    ],
)
def test_every_code_has_a_remedy(code: int | None, remedy: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Discord has closed .* \(code {code}\): .*{remedy}"):
        raise ConfigError(why_closed(code))


def test_a_token_that_is_not_known_is_told_as_at_the_login() -> None:
    assert why_closed(4004) == WRONG_TOKEN


@pytest.mark.parametrize(("code", "remedy"), [(4012, "update it"), (4011, "take it off some of them")])
async def test_a_bot_whose_connection_is_closed_for_good_ends_with_the_remedy(
    code: int, remedy: str, fake: FakeDiscord, store_path: Path
) -> None:
    async def run() -> None:
        async with open_stage(fake, store_path):
            await fake.drop_gateway(resume=True, code=code)
            await asyncio.sleep(10)

    with pytest.raises(ConfigError, match=rf"\(code {code}\): .*{remedy}$") as ended:
        await run()
    assert OTHER_REMEDY not in str(ended.value)
