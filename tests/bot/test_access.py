"""Who may use the bot, and what admins can do: in the core, whatever the platform."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot.commands.catalogue import COMMANDS
from bot.commands.handlers import HANDLERS
from bot.commands.registry import Mistake
from bot.receiving.haste import RIGHTS_RATE, Patience
from bot.words import Author, Call, Where
from storage.access import Deed, account_named, last_deeds, what_admins_said
from storage.ledger import Person
from storage.live_sessions import LiveSession, keep_session
from storage.privacy import forget_person
from storage.rate import Rate
from tests.bot.test_commands import told
from tests.bot.world import KEY, RULES, World, open_world

ADA = Author("@ada:example.org", "Ada")
BOB = Author("@bob:example.org", "Bob")
BOSS = Author("@boss:example.org", "Boss")
DIRECT = Where("matrix", "!bob:example.org", "direct")
GROUP = Where("matrix", "!group:example.org", "group")
ADMINS = [name for name in HANDLERS if name.startswith("admin ")]
HASTY = replace(RULES, rate=Rate(burst=2, interval_ms=10_000), patience=Patience(3, 600_000))


@pytest_asyncio.fixture
async def world(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path, admins=(BOSS.external_id,)) as world:
        yield world


async def order(world: World, command: str, author: Author = BOSS, /, **arguments: str) -> str:
    """What is told to somebody who gives an admin's command."""
    return await told(world, command, author=author, where=DIRECT, **arguments)


async def asks(world: World, author: Author = BOB, where: Where = DIRECT) -> bool:
    """Whether somebody who asks something is answered, where others have asked before them or not."""
    answer = await world.ask("hello", author=author, where=where)
    return answer in ("You said: hello", f"You said: [{author.name}]:\nhello")


async def deeds(world: World) -> list[Deed]:
    return [deed for _, deed in await world.store.read(last_deeds, 100)]


# --- who is heard ---------------------------------------------------------------------------------------


async def test_behaviour_29_a_banned_person_is_not_answered_and_not_told(world: World) -> None:
    assert await asks(world)
    assert await order(world, "admin ban", user=BOB.external_id) == "`@bob:example.org` is ignored for good."
    num_told = len(world.port.told)
    assert not await asks(world)
    assert await order(world, "help", BOB) == ""
    assert len(world.port.told) == num_told
    assert await asks(world, ADA)
    assert await order(world, "admin unban", user=BOB.external_id) == "`@bob:example.org` is heard again."
    assert await asks(world)
    assert "is not ignored" in await order(world, "admin unban", user=BOB.external_id)


async def test_behaviour_29_a_ban_for_some_hours_ends_by_itself_and_survives_a_restart(
    world: World, store_path: Path
) -> None:
    assert "for 2 hours" in await order(world, "admin ban", user=BOB.external_id, hours="2")
    assert not await asks(world)
    await world.clock.advance(2 * 3600 - 60)
    assert not await asks(world)
    await world.clock.advance(120)
    assert await asks(world)


async def test_behaviour_29_what_admins_said_holds_after_a_restart(store_path: Path) -> None:
    async with open_world(store_path, admins=(BOSS.external_id,)) as world:
        await order(world, "admin ban", user=BOB.external_id)
        await order(world, "admin deny", who=GROUP.place)
    async with open_world(store_path, boot="again", like=world) as again:
        assert not await asks(again)
        assert not await asks(again, ADA, GROUP)
        assert await asks(again, ADA)


async def test_behaviour_29_who_is_denied_stays_so_whatever_else_allows_it(world: World) -> None:
    await order(world, "admin allow", who=BOB.external_id)
    await order(world, "admin deny", who=GROUP.place)
    assert not await asks(world, BOB, GROUP)
    assert await asks(world, BOB)
    await order(world, "admin deny", who=BOB.external_id)
    assert not await asks(world, BOB)
    await order(world, "admin allow", who=BOB.external_id)
    assert await asks(world, BOB), "the last word counts"


async def test_a_ban_ends_the_answer_that_is_being_written(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 1000
    await world.say("go on", author=BOB, where=DIRECT)
    await world.until(lambda: world.port.texts)
    await order(world, "admin ban", user=BOB.external_id)
    assert world.port.texts[-1].endswith("(stopped)")


async def test_who_is_forgotten_stays_banned_and_denied_and_is_named_nowhere(store_path: Path) -> None:
    async with open_world(store_path, admins=(BOSS.external_id,)) as world:
        await asks(world)
        await asks(world, ADA)
        await order(world, "admin ban", user=BOB.external_id)
        await order(world, "admin deny", who=ADA.external_id)
        for author in (ADA, BOB):
            person = Person("matrix", author.external_id)
            account_id = await world.store.read(account_named, person)
            assert account_id is not None
            await world.store.write(forget_person, account_id, KEY, world.clock.now_ms())
        assert [deed.target.rstrip("0123456789abcdef") for deed in await deeds(world)] == ["#", "#"]
        said = await world.store.read(what_admins_said, world.clock.now_ms())
        assert {name[0] for name in (*said.rules, *said.banned_until_ms)} == {"#"}
    async with open_world(store_path, boot="again", like=world, admins=(BOSS.external_id,)) as again:
        assert not await asks(again, BOB)
        assert not await asks(again, ADA)
        await order(again, "admin unban", user=BOB.external_id)
        await order(again, "admin allow", who=ADA.external_id)
        for author in (ADA, BOB):  # today's grant does not come twice
            await order(again, "admin grant", user=author.external_id, credits="1000")
        assert await asks(again, BOB)
        assert await asks(again, ADA)


# --- too fast -------------------------------------------------------------------------------------------


async def test_behaviour_29_who_sends_too_much_too_fast_is_told_once_and_then_ignored(
    store_path: Path,
) -> None:
    async with open_world(store_path, rules=HASTY) as world:
        for number in range(10):
            await world.say(f"spam {number}", author=BOB, where=DIRECT)
        await world.quiet()
        mine = [text for who, text in world.port.told if who == BOB.external_id]
        assert [text.partition(";")[0] for text in mine] == ["That was fast"] * 2 + [
            "That was too much too fast"
        ]
        assert mine[-1].endswith("I listen to you again in 10 minutes.")
        assert await asks(world, ADA), "others are heard"
        await world.pass_(60)
        assert not await asks(world), "ignored although there would be room by now"
        await world.clock.advance(600)
        assert await asks(world)


async def test_who_was_too_fast_now_and_then_is_not_ignored(store_path: Path) -> None:
    async with open_world(store_path, rules=HASTY) as world:
        for _ in range(4):
            for number in range(4):
                await world.say(f"quick {number}", author=BOB, where=DIRECT)
            await world.quiet()
            await world.pass_(30)
        assert "too much" not in " ".join(text for _, text in world.port.told)
        assert await asks(world)


async def test_commands_count_but_those_that_people_have_a_right_to(store_path: Path) -> None:
    async with open_world(store_path, rules=HASTY) as world:
        for _ in range(5):
            for command in ("help", "privacy", "stop", "forget"):
                assert "That was fast" not in await order(world, command, BOB)
        said = [await order(world, "quota", BOB) for _ in range(3)]
        assert ["fast" in text for text in said] == [False, False, True]


async def test_what_people_have_a_right_to_is_no_way_to_flood_the_bot(store_path: Path) -> None:
    async with open_world(store_path, rules=HASTY) as world:
        for _ in range(100):
            await world.call("help", author=BOB)
        await world.quiet()
        told = [text for _, text in world.port.told]
        assert "too much too fast" in told[-1]
        assert len(told) == RIGHTS_RATE.burst + HASTY.patience.ignore_after


async def test_an_admin_lifts_what_haste_has_brought(store_path: Path) -> None:
    async with open_world(store_path, rules=HASTY, admins=(BOSS.external_id,)) as world:
        for number in range(6):
            await world.say(f"spam {number}", author=BOB, where=DIRECT)
        await world.quiet()
        assert "heard again" in await order(world, "admin unban", user=BOB.external_id)
        await world.pass_(30)
        assert await asks(world)


# --- admins' commands -----------------------------------------------------------------------------------


def test_every_admin_command_of_the_catalogue_is_carried_out_by_somebody() -> None:
    assert [it.name for it in COMMANDS if it.who == "admin" and it.name not in HANDLERS] == []
    assert [name for name in ADMINS if (COMMANDS.get(name) or COMMANDS.commands[0]).who != "admin"] == []


@pytest.mark.parametrize("command", ADMINS)
async def test_behaviour_29_admin_commands_are_refused_to_others(world: World, command: str) -> None:
    arguments = {"who": BOSS.external_id, "user": BOSS.external_id, "credits": "5", "session": "1"}
    moderator = Author(BOB.external_id, "Bob", is_moderator=True)
    assert await order(world, command, moderator, **arguments) == "Only admins of this bot may do that."
    assert await deeds(world) == []
    assert not world.core.must_leave.is_set()


async def test_behaviour_29_admin_commands_are_shown_to_admins_alone(world: World) -> None:
    assert "admin" not in await order(world, "help", BOB)
    assert "no command of that name" in await order(world, "help", BOB, command="admin ban")
    assert "no command of that name" in await order(world, "help", BOB, command="admin")
    assert "admin ban user [hours]" in await order(world, "help")
    assert "Example: admin ban" in await order(world, "help", command="admin ban")
    assert COMMANDS.read("admin", "!") == Mistake("There is no command `admin`; `!help` names all commands.")
    assert COMMANDS.read("admin ban", "!") == Mistake(
        "There is no command `admin ban`; `!help` names all commands."
    )
    ban = COMMANDS.read("admin ban @bob:example.org", "!", is_admin=True)
    assert ban == Call("admin ban", {"user": "@bob:example.org"})
    assert "`!admin ban`" in COMMANDS.read("admin", "!", is_admin=True).sentence  # type: ignore[union-attr]


async def test_grant_gives_and_takes_but_never_what_is_held(world: World) -> None:
    given = await order(world, "admin grant", user=BOB.external_id, credits="5000")
    assert given == "5000 credits given to `@bob:example.org`, who has 15000 now."
    taken = await order(world, "admin grant", user=BOB.external_id, credits="-1")
    assert taken == "1 credit taken from `@bob:example.org`, who has 14999 now."
    world.brain.answer = lambda prompt: "word " * 1000
    await world.say("go on", author=BOB, where=DIRECT)
    await world.until(lambda: world.port.texts)
    refused = await order(world, "admin grant", user=BOB.external_id, credits="-14999")
    assert refused.startswith("Only ")
    assert refused.endswith("credits can be taken from them now.")
    await world.check()
    for wrong in ("0", "many", "1.5", "9" * 30):
        assert (await order(world, "admin grant", user=BOB.external_id, credits=wrong)).startswith(
            "credits is a"
        )


async def test_admins_see_what_others_have(world: World) -> None:
    assert "has not used the bot" in await order(world, "quota", user=BOB.external_id)
    await asks(world)
    assert "`@bob:example.org` has" in await order(world, "quota", user=BOB.external_id)
    assert await order(world, "quota", BOB, user=BOSS.external_id) == "Only admins can see what others have."


async def test_sessions_are_listed_without_what_was_said_and_can_be_ended(world: World) -> None:
    assert await order(world, "admin sessions") == "There are no sessions."
    await world.ask("a secret question", author=BOB, where=GROUP)
    lease_ms = world.clock.now_ms() + 60_000
    await world.store.write(keep_session, LiveSession(1, "f", b"t", [1, 2, 3], lease_ms))
    listed = await order(world, "admin sessions")
    assert listed.startswith("1: matrix:!group:example.org, detached, 3 tokens, used ")
    assert "secret" not in listed
    assert "Session 1 has ended" in await order(world, "admin kill", session="1")
    assert world.brain.forgotten == [1]
    assert "no session 7" in await order(world, "admin kill", session="7")
    assert "whole number" in await order(world, "admin kill", session="seven")


async def test_drain_asks_the_bot_to_leave(world: World) -> None:
    assert "the bot stops" in await order(world, "admin drain")
    assert world.core.must_leave.is_set()


async def test_whatever_admins_do_is_written_down_without_words_of_people(world: World) -> None:
    await order(world, "admin ban", user=BOB.external_id, hours="1")
    await order(world, "admin allow", who="example.com")
    await order(world, "admin grant", user=ADA.external_id, credits="-5")
    boss, bob, ada = (f"matrix:{it.external_id}" for it in (BOSS, BOB, ADA))
    assert await deeds(world) == [
        Deed(boss, "grant", ada, "-5"),
        Deed(boss, "allow", "matrix:example.com"),
        Deed(boss, "ban", bob, "for 1 hour"),
    ]
    assert f"{boss} ban {bob} for 1 hour" in await order(world, "admin audit")


async def test_admins_cannot_shut_each_other_out(world: World) -> None:
    assert "is an admin" in await order(world, "admin ban", user=BOSS.external_id)
    assert "is an admin" in await order(world, "admin deny", who=BOSS.external_id)
    assert await deeds(world) == []


async def test_a_ban_takes_hours_that_make_sense(world: World) -> None:
    for wrong in ("0", "-1", "soon", "9999999"):
        assert "hours is a whole number" in await order(world, "admin ban", user=BOB.external_id, hours=wrong)
    assert await asks(world)
