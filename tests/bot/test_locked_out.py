"""An admin who denies the place they are in takes it back there; nothing else of theirs is heard."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from storage.access import ban, set_rule
from storage.ledger import Person
from tests.bot.test_access import BOB, BOSS, DIRECT, GROUP, asks, order
from tests.bot.test_commands import told
from tests.bot.world import KEY, World, open_world


@pytest_asyncio.fixture
async def world(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path, admins=(BOSS.external_id,)) as world:
        yield world


async def test_behaviour_29_an_admin_takes_back_what_was_denied_where_they_are(world: World) -> None:
    denied = await told(world, "admin deny", author=BOSS, where=GROUP, who=GROUP.place)
    assert denied == f"`{GROUP.place}` may not use the bot any more."
    assert not await asks(world, BOB, GROUP)
    assert not await asks(world, BOSS, GROUP), "only their commands are heard"
    for command in ("help", "quota", "settings show", "stop"):
        assert await told(world, command, author=BOSS, where=GROUP) == ""
    assert await told(world, "admin allow", author=BOB, where=GROUP, who=GROUP.place) == ""
    allowed = await told(world, "admin allow", author=BOSS, where=GROUP, who=GROUP.place)
    assert "may use the bot now" in allowed
    assert await asks(world, BOB, GROUP)


@pytest.mark.parametrize("what", ["banned", "denied", "ignored"])
async def test_behaviour_29_an_admin_who_was_banned_before_they_became_one_lifts_it(
    world: World, what: str
) -> None:
    person, now_ms = Person("matrix", BOSS.external_id), world.clock.now_ms()
    access = world.core.commands.desk.access
    if what == "banned":
        await world.store.write(ban, person, now_ms + 10**9, now_ms)
    elif what == "denied":
        await world.store.write(_deny, person, now_ms)
    else:
        access.ignore("matrix", BOSS.external_id, now_ms + 10**9)
    await access.load(world.store)
    assert not await asks(world, BOSS)
    command = "admin allow" if what == "denied" else "admin unban"
    name = "who" if what == "denied" else "user"
    assert await order(world, command, **{name: BOSS.external_id})
    assert await asks(world, BOSS, DIRECT)


async def test_behaviour_29_a_list_of_who_is_allowed_keeps_nothing_that_was_denied_from_being_taken_back(
    world: World,
) -> None:
    access = world.core.commands.desk.access
    ids = (GROUP.place, BOSS.external_id)

    def said(*, is_order: bool) -> list[bool | None]:
        return [access.rule_for("matrix", (each,), is_order=is_order) for each in ids]

    assert said(is_order=True) == [None, None], "nobody has lifted the list for them"
    for each in ids:
        await order(world, "admin allow", who=each)
    await order(world, "admin deny", who=GROUP.place)
    await world.store.write(_deny, Person("matrix", BOSS.external_id), world.clock.now_ms())
    await access.load(world.store)
    assert said(is_order=True) == [True, True]
    assert said(is_order=False) == [False, False]


async def test_nothing_that_only_begins_like_an_admins_command_is_heard(world: World) -> None:
    access = world.core.commands.desk.access
    await order(world, "admin deny", who=GROUP.place)
    heard = [
        command
        for command in ("admin", "admin audit", "admins", "administer", "ask", "")
        if access.may_be_heard("matrix", BOSS.external_id, GROUP.place, command)
    ]
    assert heard == ["admin", "admin audit"]
    assert not access.may_be_heard("matrix", BOB.external_id, GROUP.place, "admin audit")


def _deny(connection: object, person: Person, now_ms: int) -> None:
    set_rule(connection, person, is_allowed=False, key=KEY, now_ms=now_ms)  # type: ignore[arg-type]
