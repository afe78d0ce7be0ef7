"""An admin on Matrix who denies their room, or their own server, takes it back there."""

from typing import Any

import msgspec
import pytest

from bot.config.platforms import MatrixSettings
from bot.on_matrix.translating import Heard, Translator
from bot.receiving.access import Access
from bot.words import Inbound
from storage.access import Said
from tests.bot.clock import FakeClock
from tests.bot.on_matrix.test_translating import ANNA, BEN, BOT, FakeStore, message, room

ROOM = "!room:localhost"
LINES = (
    "!admin allow !room:localhost",
    f"{BOT}: !admin unban @anna:localhost",
    "!admin dney x",
    "!admin",
    "!help",
    "!amdin allow x",
    "hello",
    f"{BOT}: hello",
    "!ask admin",
)


def said_by_admins(what: str) -> Said:
    rules = {"room": {f"matrix:{ROOM}": False}, "server": {"matrix:localhost": False}, "ban": {}}
    return Said(rules[what], {f"matrix:{ANNA}": 2**60} if what == "ban" else {})


async def heard_of(sender: str, said: Said | None, **settings: Any) -> list[Inbound]:
    """What of `LINES` the core hears, `sender` writing them in a room with others."""
    clock, heard = FakeClock(), Heard()
    access = Access(clock, (ANNA,))
    access._said = said or access._said
    own = MatrixSettings(**settings)
    translator = Translator(BOT, own, "!", FakeStore(), clock, access)  # type: ignore[arg-type]
    events = [message(f"${number}", line) | {"sender": sender} for number, line in enumerate(LINES)]
    await translator.hear(room(ANNA, BEN), events, heard)
    return [msgspec.json.decode(event.payload, type=Inbound) for event in heard.events]


@pytest.mark.parametrize("what", ["room", "server", "ban"])
async def test_behaviour_29_an_admins_commands_are_heard_whatever_admins_have_said_and_nothing_else(
    what: str,
) -> None:
    allow, unban, mistyped, group = await heard_of(ANNA, said_by_admins(what))
    assert [it.call.command for it in (allow, unban) if it.call is not None] == ["admin allow", "admin unban"]
    for wrong in (mistyped, group):
        assert wrong.mistake.startswith("`!admin` is one of")
        assert wrong.call is not None
        assert wrong.call.command == "admin"


@pytest.mark.parametrize(
    ("what", "lists"),
    [("room", {"allowed_rooms": ("!other:localhost",)}), ("server", {"allowed_users": (BEN,)})],
)
async def test_behaviour_29_past_a_list_of_who_is_allowed_too(what: str, lists: dict[str, Any]) -> None:
    heard = await heard_of(ANNA, said_by_admins(what), **lists)
    assert [it.call.command for it in heard if it.call is not None] == [
        "admin allow",
        "admin unban",
        "admin",
        "admin",
    ]


@pytest.mark.parametrize("settings", [{"denied_rooms": (ROOM,)}, {"denied_users": (ANNA,)}])
@pytest.mark.parametrize("what", ["room", "server"])
async def test_behaviour_29_what_admins_said_lifts_nothing_that_the_configuration_denies(
    what: str, settings: dict[str, Any]
) -> None:
    assert await heard_of(ANNA, said_by_admins(what), **settings) == []


@pytest.mark.parametrize("what", ["room", "server"])
async def test_behaviour_29_of_others_nothing_is_heard(what: str) -> None:
    assert await heard_of(BEN, said_by_admins(what)) == []


@pytest.mark.parametrize(
    "settings",
    [{"denied_rooms": (ROOM,)}, {"denied_users": (ANNA,)}, {"allowed_rooms": ("!other:localhost",)}],
)
async def test_behaviour_29_what_the_configuration_denies_is_denied_to_admins_too(
    settings: dict[str, Any],
) -> None:
    assert await heard_of(ANNA, None, **settings) == []
