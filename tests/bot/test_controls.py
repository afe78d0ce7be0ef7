"""What can be pressed below an answer, and which answer it is about."""

from pathlib import Path

from bot.words import Limits
from tests.bot.platform import BOB, CHANNEL
from tests.bot.world import World, open_world

LONG = "word " * 20


async def test_an_answer_can_be_stopped_while_it_is_written_and_not_after(world: World) -> None:
    world.brain.answer = lambda prompt: LONG
    await world.say("one")
    await world.until(lambda: world.port.messages)
    assert world.port.messages[0].post.controls == ("stop",)
    await world.quiet()
    assert world.port.messages[-1].post.controls == ("retry", "report")


async def test_only_the_last_message_of_a_draft_has_controls(world: World) -> None:
    world.port.limits = Limits(120)
    world.brain.answer = lambda prompt: "word " * 38
    seen = set()

    def both() -> bool:
        seen.add(tuple(shown.post.controls for shown in world.port.messages))
        return ((), ("stop",)) in seen

    await world.say("one")
    await world.until(both)
    await world.quiet()
    assert not any(controls.count(("stop",)) > 1 for controls in seen if len(controls) > 2)


async def test_a_control_is_about_the_answer_that_it_is_below(world: World) -> None:
    await world.ask("one", where=CHANNEL)
    await world.ask("two", where=CHANNEL)
    one, _ = await world.turns()
    await world.call("retry", where=CHANNEL, turn=one.question.turn_id)
    await world.quiet()
    assert (await world.turns())[2].question.prompt == "one"


async def test_a_control_below_an_older_answer_says_that_there_is_a_newer_one(world: World) -> None:
    await world.ask("one")
    await world.ask("two")
    one, _ = await world.turns()
    await world.call("retry", turn=one.question.turn_id)
    await world.quiet()
    assert "newer answer" in world.port.told[0][1]
    assert len(await world.turns()) == 2


async def test_a_control_below_an_answer_that_was_forgotten_or_is_elsewhere_finds_nothing(
    world: World,
) -> None:
    await world.ask("one")
    (one,) = await world.turns()
    for turn_id, where in (("f" * 32, {}), (one.question.turn_id, {"where": CHANNEL})):
        await world.call("retry", turn=turn_id, **where)  # type: ignore[arg-type]
        await world.quiet()
    assert [sentence for _, sentence in world.port.told][-2:] == [
        "There is no conversation of yours here yet."
    ] * 2
    assert len(await world.turns()) == 1


async def test_the_mark_of_a_question_that_waits_goes_when_its_time_has_come(world: World) -> None:
    world.brain.answer = lambda prompt: LONG
    await world.say("one", where=CHANNEL, author=BOB)
    first = await world.say("two")
    await world.pass_(2)
    second = await world.say("three")
    await world.quiet()
    assert [mark for event_id, mark in world.port.marks if event_id == first] == ["seen"]
    assert [mark for event_id, mark in world.port.marks if event_id == second] == ["queued", ""]


async def test_the_mark_of_a_question_that_is_stopped_while_it_waits_goes_too(world: World) -> None:
    world.brain.answer = lambda prompt: LONG
    await world.say("one")
    await world.pass_(2)
    second = await world.say("two")
    await world.until(lambda: (second, "queued") in world.port.marks)
    await world.call("stop")
    await world.quiet()
    assert [mark for event_id, mark in world.port.marks if event_id == second][-1] == ""


async def test_what_was_shown_of_a_turn_that_begins_again_after_a_crash_is_replaced(store_path: Path) -> None:
    async with open_world(store_path, boot="first") as world:
        world.brain.answer = lambda prompt: LONG
        await world.say("one")
        await world.until(lambda: world.port.messages)
    async with open_world(store_path, boot="second", like=world) as world:
        world.brain.answer = lambda prompt: "short"
        await world.quiet()
        assert world.port.texts == ["short"]
