"""The referee finds what the document forbids, in requests and answers; without it nothing is checked."""

import discord
import pytest

from tests.discord_peer import open_fake_discord
from tests.discord_peer.conftest import logged_in
from tests.discord_peer.referee import DOCUMENT, Referee, ids_as_text, load_referee
from tests.discord_peer.rest import ROUTES
from tests.discord_peer.server import redirected

CREATE = "POST /channels/{channel_id}/messages"


@pytest.fixture
def referee() -> Referee:
    loaded = load_referee()
    if loaded is None:
        pytest.skip("Discord's OpenAPI document, ../shared/discord/openapi.json, is not here")
    return loaded


def test_every_route_of_the_fake_is_one_of_discord(referee: Referee) -> None:
    unknown = [route for route in ROUTES if referee.request_errors(route, {}, None)]
    assert unknown == []


def test_a_wrong_request_is_found(referee: Referee) -> None:
    assert referee.request_errors(CREATE, {}, {"content": "a"}) == []
    assert referee.request_errors(CREATE, {}, {"embeds": [{"title": "a" * 257}]}) != []
    assert referee.request_errors("POST /channels/{channel_id}/shout", {}, {}) != []
    assert referee.request_errors("GET /channels/{channel_id}/messages", {"limit": "500"}, None) != []
    assert referee.request_errors("GET /channels/{channel_id}/messages", {"since": "1"}, None) != []
    assert referee.request_errors("POST /channels/{channel_id}/typing", {}, {"content": "a"}) != []


def test_a_wrong_answer_is_found(referee: Referee) -> None:
    assert referee.answer_errors(CREATE, 200, {"id": "1"}) != []
    assert referee.answer_errors(CREATE, 404, {"message": "Unknown Message", "code": 10008}) == []
    assert referee.answer_errors(CREATE, 202, None) != []


def test_ids_become_text_and_other_numbers_stay() -> None:
    body = {"message_reference": {"message_id": 1}, "flags": 4, "attachments": [{"id": 0, "filename": "a"}]}
    assert ids_as_text(body) == {
        "message_reference": {"message_id": "1"},
        "flags": 4,
        "attachments": [{"id": "0", "filename": "a"}],
    }


async def test_a_mistake_of_the_bot_is_among_the_findings(referee: Referee) -> None:
    async with open_fake_discord() as fake:
        with redirected(fake):
            async with logged_in(fake) as bot:
                channel = fake.channel(fake.guild())
                with pytest.raises(discord.HTTPException):
                    await bot.place(channel.id).send(embed=discord.Embed(title="a" * 257))
                assert len(fake.findings) == 1
                await bot.http.request(discord.http.Route("GET", "/users/@me"), params={"why": "not"})
                assert "no 'why'" in fake.findings[1]


def test_without_the_document_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.discord_peer.referee as module

    monkeypatch.setattr(module, "DOCUMENT", DOCUMENT / "not-there")
    load_referee.cache_clear()
    assert load_referee() is None
    load_referee.cache_clear()
