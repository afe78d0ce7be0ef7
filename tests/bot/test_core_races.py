"""Things that happen at the same time, or in the worst order: still one answer, the right one."""

import asyncio

from bot.words import Author, Unreachable, Where
from storage.errors import StoreBusy
from swarm.errors import NoRouteError
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT, called, said
from tests.bot.world import World

SENTENCE = "A sentence here. "


async def test_an_answer_that_ends_while_its_first_post_is_on_its_way_is_shown_whole(world: World) -> None:
    world.brain.answer = lambda prompt: SENTENCE + "And more."
    world.brain.token_s = 0.04
    world.port.post_s = 0.5
    await world.ask("hello")
    assert world.port.texts == [SENTENCE + "And more."]
    assert world.port.messages[0].post.controls == ("retry", "report")


async def test_a_post_whose_answer_was_lost_is_shown_once_and_becomes_the_final_text(world: World) -> None:
    world.brain.answer = lambda prompt: SENTENCE * 5
    world.port.lost_answers = 1
    await world.ask("hello")
    assert world.port.texts == [SENTENCE * 5]


async def test_a_final_that_could_not_be_sent_for_long_is_sent_when_the_platform_is_back(
    world: World,
) -> None:
    world.port.failures["post"] = [Unreachable("down")] * 12
    await world.say("hello")
    await world.until(lambda: world.port.texts)
    await world.quiet()
    assert world.port.texts == ["You said: hello"]


async def test_many_events_at_once_are_all_dealt_with(world: World) -> None:
    world.brain.token_s = 0.001
    events = [
        said(f"{number}", f"m{number}", where=Where("fake", f"c{number}", "group"),
             author=Author(f"p{number}", "P"), sent_ms=world.clock.now_ms())
        for number in range(300)
    ]  # fmt: skip
    await world.core.receive("fake", events)
    await world.quiet()
    assert [turn.state for turn in await world.turns()] == ["done"] * 300


async def test_a_store_that_is_busy_for_a_moment_ends_nothing(world: World) -> None:
    write, failures = world.store.write, [StoreBusy("locked")] * 3

    async def busy(work, *args, **kwargs):  # type: ignore[no-untyped-def]
        if failures and getattr(work, "__name__", "") in ("ended", "settle_expired", "_accept"):
            raise failures.pop()
        return await write(work, *args, **kwargs)

    world.store.write = busy  # type: ignore[method-assign]
    assert await world.ask("one") == "You said: one"
    await world.pass_(70)
    assert await world.ask("two") == "You said: two"
    assert failures == []


async def test_a_turn_whose_end_could_not_be_written_down_is_ended_by_the_sweep(world: World) -> None:
    write = world.store.write

    async def unusable(work, *args, **kwargs):  # type: ignore[no-untyped-def]
        if getattr(work, "__name__", "") in ("ended", "fail"):
            raise StoreBusy("the disk is full")
        return await write(work, *args, **kwargs)

    world.store.write = unusable  # type: ignore[method-assign]
    await world.say("one")
    await world.until(lambda: world.core.num_running)
    await world.until(lambda: not world.core.num_busy)
    assert [turn.state for turn in await world.turns()] == ["running"]
    world.store.write = write  # type: ignore[method-assign]
    await world.pass_(130)
    assert [turn.state for turn in await world.turns()] == ["failed"]
    assert await world.ask("two") == "You said: two"


async def test_a_failed_question_can_be_tried_again_and_the_one_before_stays_as_it_is(world: World) -> None:
    await world.ask("one")
    world.brain.errors = [NoRouteError("nobody", (1,))] * 100
    await world.ask("two")
    world.brain.errors = []
    await world.call("retry")
    await world.quiet()
    one, _, again = await world.turns()
    assert (again.question.prompt, again.parent_id) == ("two", one.question.turn_id)
    await world.ask("three")
    assert (await world.turns())[3].parent_id == again.question.turn_id


async def test_a_retry_that_fails_takes_nothing_away(world: World) -> None:
    await world.ask("one")
    await world.ask("two")
    world.brain.errors = [NoRouteError("nobody", (1,))] * 100
    await world.call("retry")
    await world.quiet()
    world.brain.errors = []
    await world.ask("three")
    turns = await world.turns()
    assert turns[3].parent_id == turns[1].question.turn_id


async def test_of_two_retries_at_once_one_is_told_to_wait(world: World) -> None:
    await world.ask("one")
    events = [called("retry", f"r{number}", sent_ms=world.clock.now_ms()) for number in range(2)]
    await world.core.receive("fake", events)
    await world.quiet()
    assert world.port.told == [("ada", "An answer is being written here; stop it first.")]
    assert [turn.parent_id for turn in await world.turns()] == [None, None]


async def test_a_stranger_cannot_end_somebody_elses_conversation(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 30
    thread = Where("fake", "thread", "thread")
    await world.say("tell me", where=thread)
    await world.until(lambda: world.port.texts)
    await world.call("new", where=thread, author=BOB)
    await world.quiet()
    assert world.port.told == [("bob", "Only who began this conversation, or a moderator, can do that.")]
    assert [turn.state for turn in await world.turns()] == ["done"]
    assert world.brain.forgotten == []


async def test_behaviour_23_a_stop_that_comes_with_the_question_stops_it(world: World) -> None:
    now_ms = world.clock.now_ms()
    await world.core.receive("fake", [said("hello", "m", where=DIRECT, author=ADA, sent_ms=now_ms)])
    while not await world.turns():  # noqa: ASYNC110 - until it is queued, and no longer
        await asyncio.sleep(0.001)
    await world.call("stop")
    await world.quiet()
    (turn,) = await world.turns()
    assert (turn.state, turn.progress.answer) == ("stopped", "")
    assert (await world.standing()).used_today == 0


async def test_behaviour_23_stop_is_heeded_while_nobody_serves_the_model(world: World) -> None:
    world.brain.errors = [NoRouteError("nobody", (1,))] * 100
    await world.say("hello")
    await world.until(lambda: world.port.texts)
    before_s = world.clock.now_s()
    await world.call("stop")
    await world.quiet()
    assert world.clock.now_s() - before_s < 3
    assert [turn.state for turn in await world.turns()] == ["stopped"]


async def test_a_reply_to_a_question_that_came_to_nothing_goes_on_where_it_was_asked(world: World) -> None:
    await world.ask("one")
    world.brain.errors = [NoRouteError("nobody", (1,))] * 100
    await world.ask("two")
    world.brain.errors = []
    await world.ask("three", reply_to="m1")
    turns = await world.turns()
    assert turns[2].parent_id == turns[0].question.turn_id


async def test_a_question_that_grows_may_cost_more(world: World) -> None:
    world.brain.token_s = 0.2
    await world.say("short")
    await world.pass_(0.3)
    await world.say("and then " + "long " * 300)
    await world.quiet()
    (turn,) = await world.turns()
    assert turn.state == "done" or turn.state == "length"
    assert turn.progress.answer.startswith("You said: short\nand then long")
    assert turn.progress.prefill_tokens > 1500


async def test_two_people_are_answered_at_the_same_time(world: World) -> None:
    world.brain.answer = lambda prompt: f"{prompt} " * 10
    began_s = world.clock.now_s()
    await world.say("one", where=CHANNEL, author=ADA)
    await world.say("two", where=CHANNEL, author=BOB)
    await world.quiet()
    assert world.clock.now_s() - began_s < 1.5 * 40 * world.brain.token_s
