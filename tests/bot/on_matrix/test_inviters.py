"""Who may bring the bot into a room: whoever may use it, and admins."""

from typing import Any

import pytest

from storage.access import Said
from tests.bot.on_matrix.test_invitations import BOSS, EVE, FIRST, SECOND, THIRD, Bot
from tests.bot.on_matrix.test_rooms import ANNA


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        (Said({f"matrix:{EVE}": False, f"matrix:{BOSS}": False}, {}), {}),
        (Said({"matrix:evil": False}, {}), {}),
        (Said({}, {f"matrix:{EVE}": 2**60, f"matrix:{BOSS}": 2**60}), {}),
        (Said({}, {}), {"denied_users": ("evil",)}),
        (Said({}, {}), {"allowed_users": (ANNA,)}),
    ],
)
async def test_who_may_not_use_the_bot_cannot_bring_it_into_a_room_and_an_admin_can(
    said: Said, settings: dict[str, Any]
) -> None:
    bot = Bot(max_rooms=5, allowed_inviters=("*",), **settings)
    bot.is_invited(FIRST, EVE)
    expected = "leave" if settings else "join"
    assert await bot.asks() == [(expected, FIRST)]
    bot.access._said = said
    bot.is_invited(SECOND, EVE)
    bot.is_invited(THIRD, BOSS)
    assert await bot.asks() == [("join", THIRD), ("leave", SECOND)]


async def test_whom_nobody_hears_for_a_while_cannot_bring_the_bot_into_a_room_meanwhile() -> None:
    bot = Bot(max_rooms=5, allowed_inviters=("*",))
    bot.access.ignore("matrix", EVE, 1000)
    bot.is_invited(FIRST, EVE)
    await bot.clock.advance(2)
    bot.is_invited(SECOND, EVE)
    assert await bot.asks() == [("join", SECOND), ("leave", FIRST)]


async def test_whom_admins_let_use_the_bot_can_bring_it_into_a_room_past_the_operators_list() -> None:
    bot = Bot(max_rooms=5, allowed_inviters=("*",), allowed_users=(ANNA,))
    bot.access._said = Said({f"matrix:{EVE}": True}, {})
    bot.is_invited(FIRST, EVE)
    assert await bot.asks() == [("join", FIRST)]
