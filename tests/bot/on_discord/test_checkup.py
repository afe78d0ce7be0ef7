"""What `./murmur doctor` finds out about Discord, and what the pages of a running bot tell of the gateway."""

from bot.on_discord.checkup import address, check_discord
from tests.bot.on_discord.stage import Stage, settings_of
from tests.discord_peer import FakeDiscord, Intent
from tests.discord_peer.conftest import fake_discord


async def found(fake: FakeDiscord, **settings: object) -> list[tuple[str, str]]:
    """Checks and levels."""
    return [(each.check, each.level) for each in await check_discord(settings_of(fake, **settings))]


async def test_a_good_token_with_its_intents_is_well(fake: FakeDiscord) -> None:
    assert await found(fake) == [("discord token", "ok"), ("discord intents", "ok")]
    assert address() == f"{fake.api_url}/gateway"


async def test_a_wrong_token_is_told_with_where_to_get_another(fake: FakeDiscord) -> None:
    (finding,) = await check_discord(settings_of(fake, token="no token of anybody"))
    assert (finding.check, finding.level) == ("discord token", "FAILED")
    assert "copy it anew from https://discord.com/developers/applications" in finding.sentence
    assert "no token of anybody" not in finding.sentence


async def test_an_intent_that_was_not_granted_is_a_warning() -> None:
    async with fake_discord(approved=Intent.NONE) as fake:
        (_, intents) = await check_discord(settings_of(fake))
        assert (intents.check, intents.level) == ("discord intents", "warning")
        assert "page Bot" in intents.sentence
        assert (await found(fake, message_content=False))[1] == ("discord intents", "ok")


async def test_trouble_of_discord_is_told(fake: FakeDiscord) -> None:
    fake.fail_next("GET /users/@me", 403, times=10)
    (finding,) = await check_discord(settings_of(fake))
    assert (finding.check, finding.level) == ("discord", "FAILED")


async def test_a_running_bot_is_not_disturbed(stage: Stage) -> None:
    identified = stage.fake.gateway.identified
    assert (await found(stage.fake))[0] == ("discord token", "ok")
    assert stage.fake.gateway.identified == identified
    assert stage.discord.is_ready


async def test_behaviour_30_a_gateway_that_is_silent_is_noticed(stage: Stage) -> None:
    client = stage.discord.client
    await stage.until(lambda: client.vitals().latency_s is not None)
    vitals = client.vitals()
    assert vitals.is_ready
    assert vitals.trouble() == ""
    assert vitals.heard_age_s is not None
    assert 0 <= vitals.heard_age_s < 10
    later_s = vitals.heard_age_s
    await stage.until(lambda: (client.vitals().heard_age_s or 0) > later_s)
    beats = client.ws._keep_alive
    assert beats is not None
    beats._last_ack -= 60
    assert "was last heard 6" in client.vitals().trouble()
    beats.ack()  # as the library does when Discord answers
    assert client.vitals().trouble() == ""
