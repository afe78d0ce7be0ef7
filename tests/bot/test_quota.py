"""What `quota` tells: what is left, what answers have cost, and when there is more."""

import pytest

from tests.bot.platform import ADA, BOB
from tests.bot.test_commands import told
from tests.bot.world import World


async def test_behaviour_22_quota_tells_what_is_left_and_when_there_is_more(world: World) -> None:
    await world.ask("one")
    stands = await world.standing(ADA)
    answer = await told(world, "quota")
    used = stands.used_today
    assert answer.startswith(f"You have {10_000 - used} credits left; today you have used {used}.")
    assert answer.endswith(
        f"There is more at {world.port.moment(stands.next_grant_ms, world.clock.now_ms())}."
    )
    assert "There is more at 00:00 UTC, in " in answer


async def test_what_others_have_is_told_to_admins_alone(world: World) -> None:
    assert await told(world, "quota", user="bob") == "Only admins can see what others have."


async def test_who_has_asked_nothing_is_told_of_no_answers(world: World) -> None:
    await world.ask("one", author=BOB)
    answer = await told(world, "quota")
    assert answer.startswith("You have 10000 credits left; today you have used 0.\nThere is more at ")


@pytest.mark.slow
async def test_what_the_last_three_answers_have_cost_is_told_the_newest_first(world: World) -> None:
    costs = []
    for text in ("one", "longer", "longer still", "the longest of all"):
        before = (await world.standing()).used_today
        await world.ask(text)
        costs.append((await world.standing()).used_today - before)
        await world.pass_(120)
    *_, second, third, fourth = costs
    answer = await told(world, "quota")
    assert (
        f"Your last answers have cost {fourth} credits 2 minutes ago, {third} credits 4 minutes ago,"
        f" {second} credits 6 minutes ago.\n"
    ) in answer
    assert len(set(costs)) == 4


async def test_an_answer_that_was_deleted_is_not_told_of(world: World) -> None:
    asked = await world.say("a very private question")
    await world.quiet()
    assert "Your last answer has cost" in await told(world, "quota")
    await world.delete(asked)
    await world.quiet()
    answer = await told(world, "quota")
    assert "cost" not in answer
    assert (await world.standing()).used_today > 0


async def test_what_is_held_for_an_answer_is_told_while_it_is_written(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 100
    await world.say("one")
    await world.until(lambda: world.port.messages)
    assert "credits more are held for answers that are being written." in await told_now(world)


async def told_now(world: World) -> str:
    """What is said to `quota` while something else goes on."""
    before = len(world.port.told)
    await world.call("quota")
    await world.until(lambda: len(world.port.told) > before)
    return world.port.told[-1][1]
