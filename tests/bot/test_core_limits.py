"""What the operator has set is obeyed: letters, tokens, seconds; and none of it is a surprise to people."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from bot.receiving.limits import Letters
from bot.turns.limits import TurnLimits
from storage.schema import turn
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT
from tests.bot.platform import said as said_by
from tests.bot.world import RULES, World, open_world


async def test_a_message_that_is_too_long_is_refused_in_a_sentence(store_path: Path) -> None:
    async with open_world(store_path, rules=replace(RULES, letters=Letters(message=20))) as world:
        await world.ask("x" * 21)
        assert world.port.told == [
            ("ada", "That is 21 letters long; please write at most 20 letters at once.")
        ]
        assert await world.turns() == []
        assert await world.ask("x" * 20) == "You said: " + "x" * 20


async def test_a_question_does_not_grow_beyond_what_one_message_may_have(store_path: Path) -> None:
    async with open_world(store_path, rules=replace(RULES, letters=Letters(message=20))) as world:
        await world.say("x" * 15)
        await world.pass_(0.2)
        await world.say("y" * 15)
        await world.quiet()
        assert [turn.question.prompt for turn in await world.turns()] == ["x" * 15, "y" * 15]


async def test_a_persona_has_as_many_letters_as_the_operator_allows(store_path: Path) -> None:
    async with open_world(store_path, rules=replace(RULES, letters=Letters(persona=10))) as world:
        await world.call("persona set", text="x" * 11)
        await world.call("persona set", text="x" * 10)
        await world.quiet()
        assert world.port.told == [
            ("ada", "That is 11 letters long; 10 are the most."),
            ("ada", "From now on I follow that, in a new conversation."),
        ]


async def test_a_conversation_is_no_longer_than_the_operator_allows(store_path: Path) -> None:
    rules = replace(RULES, turn=TurnLimits(context_tokens=400))
    async with open_world(store_path, rules=rules) as world:
        for number in range(12):
            await world.ask(f"question {number} " + "x" * 30)
        assert max(len(request.ids) for request in world.brain.requests) <= 400 - 16
        assert any("I forget its oldest part" in text for text in world.port.texts)
        assert (await world.ask("y" * 500)).startswith("That is longer than this model can take")


async def test_what_the_model_takes_is_less_than_what_is_allowed(store_path: Path) -> None:
    rules = replace(RULES, turn=TurnLimits(context_tokens=100_000))
    async with open_world(store_path, rules=rules) as world:
        world.brain.max_tokens = 100
        assert (await world.ask("y" * 500)).startswith("That is longer than this model can take")


async def test_nobody_gets_longer_answers_than_the_operator_allows(world: World) -> None:
    world.brain.answer = lambda prompt: "x" * 1000
    await world.ask("one")
    await world.call("settings set", name="max_new_tokens", value="300")
    await world.quiet()
    assert world.port.told == [("ada", "max_new_tokens is a whole number from 16 to 200.")]
    assert world.brain.requests[0].params.max_new_tokens == 200


async def test_what_was_set_under_an_older_configuration_is_cut_down(store_path: Path) -> None:
    async with open_world(store_path) as before:
        await before.ask("one")
        await before.call("settings set", name="max_new_tokens", value="150", scope="me")
        await before.quiet()
    params = replace(RULES.wishes.params, max_new_tokens=100)
    rules = replace(RULES, wishes=replace(RULES.wishes, params=params))
    async with open_world(store_path, rules=rules, like=before, boot="second") as world:
        await world.ask("two")
        assert world.brain.requests[0].params.max_new_tokens == 100


@pytest.mark.parametrize("is_written", [True, False])
async def test_behaviour_21_a_turn_ends_when_its_time_is_over_with_what_there_is(
    store_path: Path, is_written: bool
) -> None:
    async with open_world(store_path, rules=replace(RULES, turn=TurnLimits(seconds=20))) as world:
        world.brain.answer = lambda prompt: "word " * 100
        world.brain.token_s = 0.5 if is_written else 50.0
        await world.ask("tell me")
        (shown,) = world.port.messages
        (turn,) = await world.turns()
        assert turn.ended_ms is not None
        assert turn.ended_ms - turn.asked_ms < 22_000
        if is_written:
            assert shown.post.text.endswith("\n\n(my time for this answer is over: `continue` goes on)")
            assert (turn.state, shown.post.controls) == ("stopped", ("retry", "continue", "report"))
            assert 30 < len(turn.progress.answer) < 45
        else:
            assert shown.post.text == "I could not answer that in time; please try again later."
            assert (turn.state, shown.post.controls) == ("failed", ("retry",))
        standing = await world.standing()
        assert standing.used_today == len(turn.progress.answer) + turn.progress.prefill_tokens // 4
        assert standing.held == 0
        world.brain.token_s = 0.01
        assert (await world.ask("again")).startswith("word word ")


async def test_a_turn_that_waits_for_its_turn_ends_in_time_too(store_path: Path) -> None:
    async with open_world(store_path, rules=replace(RULES, turn=TurnLimits(seconds=20))) as world:
        world.brain.answer = lambda prompt: "word " * 40
        world.brain.token_s = 3.0
        await world.say("one")
        await world.pass_(10)
        await world.say("two")
        await world.pass_(1.3)
        await world.say("three")
        await world.quiet()
        assert [turn.state for turn in await world.turns()] == ["stopped", "stopped", "failed"]
        assert world.port.texts[2] == "I could not answer that in time; please try again later."


async def test_somebody_who_wrote_much_while_we_were_away_is_told_once_in_each_place(world: World) -> None:
    sent_ms = world.clock.now_ms() - 700_000
    events = [
        said_by("hello", f"{author.name}{where.place}{number}", where=where, author=author, sent_ms=sent_ms)
        for number in range(5)
        for where, author in ((DIRECT, ADA), (CHANNEL, ADA), (CHANNEL, BOB))
    ]
    await world.core.receive("fake", events)
    await world.quiet()
    away = "I was away when you wrote; please ask again."
    assert sorted(world.port.told) == [("ada", away), ("ada", away), ("bob", away)]
    assert await world.turns() == []


async def test_after_another_time_away_that_is_said_again(world: World) -> None:
    for number in range(2):
        old = said_by("hello", f"old{number}", sent_ms=world.clock.now_ms() - 700_000)
        await world.core.receive("fake", [old])
        await world.quiet()
        await world.clock.advance(720)
    assert len(world.port.told) == 2


async def test_a_very_long_answer_is_cut_beside_the_loop(store_path: Path) -> None:
    async with open_world(store_path) as before:
        await before.ask("hello")
        long = update(turn).values(answer="```\n" * 7500, delivered_at=None)
        await before.store.write(lambda connection: connection.execute(long).rowcount)
    async with open_world(store_path, like=before, boot="second") as world:
        await world.quiet()
        assert world.port.messages[0].post.file == ("answer.md", ("```\n" * 7500).encode())
        here = world.port.measured_on[threading.get_ident()]
        assert here < world.port.measured_on.total() // 10
