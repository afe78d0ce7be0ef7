"""The core: messages become answers, once; who stops, tries again or replies gets what they expect."""

from dataclasses import replace
from pathlib import Path

from bot.words import Refused, Unreachable
from storage.transcript import Said
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT, MODERATOR
from tests.bot.platform import said as said_by
from tests.bot.world import RULES, World, open_world


def states(turns: list[Said]) -> list[str]:
    return [said.state for said in turns]


async def test_a_message_is_answered_below_it_and_paid_for(world: World) -> None:
    message = await world.say("hello")
    await world.quiet()
    (shown,) = world.port.messages
    assert (shown.reply_to, shown.post.text, shown.post.controls) == (
        message,
        "You said: hello",
        ("retry", "report"),
    )
    assert world.port.marks == [(message, "seen")]
    assert world.port.num_typing > 0
    (said,) = await world.turns()
    cost = len("You said: hello") + said.progress.prefill_tokens // 4
    assert (await world.standing()).used_today == cost


async def test_an_answer_is_shown_while_it_is_written(world: World) -> None:
    world.brain.answer = lambda prompt: "A first sentence. " + "word " * 30
    world.brain.token_s = 0.04
    await world.ask("tell me")
    (shown,) = world.port.messages
    assert len(shown.history) > 3
    assert shown.history[0].startswith("A first sentence.")
    assert all(text.endswith("...") for text in shown.history[:-1])
    assert shown.post.text == ("A first sentence. " + "word " * 30)


async def test_the_same_event_twice_is_answered_once(world: World) -> None:
    for _ in range(2):
        await world.say("hello", event_id="same")
    await world.quiet()
    assert world.port.texts == ["You said: hello"]


async def test_a_conversation_goes_on_and_sends_only_what_is_new(world: World) -> None:
    await world.ask("one")
    await world.ask("two")
    first, second = world.brain.requests
    held = [*first.ids, *map(ord, "You said: one")]
    assert list(second.ids[: len(held)]) == held
    turns = await world.turns()
    assert turns[1].parent_id == turns[0].question.turn_id
    assert turns[1].progress.prompt_ids == list(second.ids[len(held) :])


async def test_in_a_channel_every_question_begins_anew_and_a_reply_goes_on(world: World) -> None:
    await world.ask("one", where=CHANNEL)
    await world.ask("two", where=CHANNEL)
    await world.ask("three", where=CHANNEL, reply_to="m1")
    one, two, three = await world.turns()
    assert (one.parent_id, two.parent_id, three.parent_id) == (None, None, two.question.turn_id)


async def test_behaviour_24_a_reply_to_an_older_answer_forks(world: World) -> None:
    for text in ("one", "two"):
        await world.ask(text)
    await world.ask("another two", reply_to="m0")
    await world.ask("three")
    one, two, other, three = await world.turns()
    assert other.parent_id == one.question.turn_id
    assert other.question.conversation_id != two.question.conversation_id
    assert three.parent_id == other.question.turn_id, "in a chat of two the fork is what goes on"
    assert world.port.texts[2:] == [
        'You said: another two\n\n(forked from the answer to "one")',
        "You said: three",
    ]


async def test_behaviour_23_stop_keeps_what_is_there_and_nothing_comes_after(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 100
    await world.say("tell me")
    await world.until(lambda: world.port.texts)
    await world.call("stop")
    await world.quiet()
    (shown,) = world.port.messages
    assert shown.post.text.endswith("(stopped)")
    assert shown.post.controls == ("retry", "continue", "report")
    before = list(shown.history)
    await world.pass_(30)
    assert shown.history == before
    (said,) = await world.turns()
    assert (said.state, shown.post.text) == ("stopped", f"{said.progress.answer}\n\n(stopped)")
    cost = len(said.progress.answer) + said.progress.prefill_tokens // 4
    assert (await world.standing()).used_today == cost


async def test_behaviour_23_a_stranger_cannot_stop_and_a_moderator_can(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 100
    question = await world.say("tell me", where=CHANNEL)
    await world.until(lambda: world.port.texts)
    thread = CHANNEL.__class__("fake", "channel", "group", question)
    await world.call("stop", where=thread, author=BOB)
    await world.until(lambda: world.port.told)
    assert world.port.told == [("bob", "Only who asked for this answer, or a moderator, can stop it.")]
    await world.call("stop", where=thread, author=MODERATOR)
    await world.quiet()
    assert states(await world.turns()) == ["stopped"]


async def test_behaviour_24_retry_answers_anew_without_asking_twice(world: World) -> None:
    await world.ask("one")
    await world.ask("two")
    world.brain.answer = lambda prompt: "Something else."
    await world.call("retry", temperature="0.9")
    await world.quiet()
    one, two, again = await world.turns()
    assert (again.parent_id, again.question.prompt) == (one.question.turn_id, "two")
    assert list(world.brain.requests[2].ids) == list(world.brain.requests[1].ids)
    assert world.brain.requests[2].params.temperature == 0.9
    assert (again.progress.answer, two.progress.answer) == ("Something else.", "You said: two")
    assert (again.progress.prefill_tokens, two.progress.prefill_tokens) == (1, len("u:two") + 2)


async def test_behaviour_24_continue_goes_on_at_the_very_token(world: World) -> None:
    world.brain.answer = lambda prompt: "x" * 500
    await world.ask("tell me")
    assert world.port.messages[0].post.controls == ("continue", "retry", "report")
    first = world.brain.requests[0]
    world.brain.answer = lambda prompt: "and so on"
    await world.call("continue")
    await world.quiet()
    assert list(world.brain.requests[1].ids) == [*first.ids, *map(ord, "x" * 200)]
    assert world.port.texts[1] == "and so on"
    world.brain.answer = lambda prompt: "fine"
    await world.ask("thanks")
    held = [*world.brain.requests[1].ids, *map(ord, "and so on")]
    assert list(world.brain.requests[2].ids[: len(held)]) == held


async def test_undo_takes_back_the_last_question(world: World) -> None:
    for text in ("one", "two"):
        await world.ask(text)
    await world.call("undo")
    await world.until(lambda: world.port.told)
    assert world.port.told == [("ada", "Taken back: “two”")]
    await world.ask("three")
    turns = await world.turns()
    assert turns[2].parent_id == turns[0].question.turn_id


async def test_new_begins_a_conversation_and_lets_go_of_the_old_one(world: World) -> None:
    await world.ask("one")
    await world.call("new")
    await world.until(lambda: world.port.told)
    await world.ask("two")
    one, two = await world.turns()
    assert two.parent_id is None
    assert world.brain.forgotten == [one.question.conversation_id]


async def test_questions_wait_for_each_other_in_a_conversation_and_see_their_place(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 20
    await world.say("one")
    await world.pass_(2)
    second = await world.say("two")
    await world.quiet()
    assert (second, "queued") in world.port.marks
    assert world.port.messages[1].history[0] == "(queued: 1 ahead)"
    turns = await world.turns()
    assert states(turns) == ["done", "done"]
    assert turns[1].parent_id == turns[0].question.turn_id


async def test_too_many_questions_are_refused_with_a_sentence(world: World) -> None:
    world.brain.answer = lambda prompt: "word " * 20
    for text in ("one", "two", "three", "four"):
        await world.say(text)
        await world.pass_(1.5)
    await world.quiet()
    assert world.port.told == [("ada", "You have questions waiting already; please wait for their answers.")]
    assert states(await world.turns()) == ["done", "done", "done", "failed"]


async def test_what_is_added_within_a_moment_belongs_to_the_question(world: World) -> None:
    await world.say("tell me")
    await world.pass_(0.2)
    await world.say("about Murmur")
    await world.quiet()
    assert world.port.texts == ["You said: tell me\nabout Murmur"]
    assert len(await world.turns()) == 1


async def test_behaviour_04_a_final_that_cannot_be_edited_is_posted_anew_and_only_then_replaced(
    world: World,
) -> None:
    world.brain.answer = lambda prompt: "A first sentence. " + "word " * 20
    await world.say("tell me")
    await world.until(lambda: world.port.texts)
    world.port.failures["edit"] = [Refused("gone")] * 20
    await world.quiet()
    preview, final = world.port.messages
    assert (preview.is_gone, final.is_gone) == (True, False)
    assert final.post.text == "A first sentence. " + "word " * 20


async def test_a_final_is_sent_until_the_platform_has_it(world: World) -> None:
    world.port.failures["post"] = [Unreachable("down")] * 4
    await world.ask("hello")
    assert world.port.texts == ["You said: hello"]


async def test_an_answer_in_several_parts_has_its_controls_on_the_last(world: World) -> None:
    world.brain.answer = lambda prompt: ("A paragraph. " * 5 + "\n\n") * 9
    world.port.limits = world.port.limits.__class__(200)
    world.brain.token_s = 0.01
    await world.ask("tell me")
    posts = [shown.post for shown in world.port.messages if not shown.is_gone]
    assert len(posts) >= 2
    assert [bool(post.controls) for post in posts] == [False] * (len(posts) - 1) + [True]


async def test_quota_that_is_used_up_is_told_in_a_sentence_and_costs_nothing(world: World) -> None:
    world.brain.token_s = 0.001
    world.brain.answer = lambda prompt: "x" * 1000
    for number in range(60):
        await world.ask(f"question {number}", where=CHANNEL)
        if "quota is too low" in world.port.texts[-1]:
            break
    *_, shortened, refused = world.port.texts
    assert shortened.endswith("(your quota ends here; there is more in 2 hours)")
    assert refused.startswith("Your quota is too low for an answer (")
    assert (await world.standing()).held == 0


async def test_two_people_in_one_channel_are_answered_side_by_side(world: World) -> None:
    world.brain.answer = lambda prompt: f"{prompt} " * 10
    await world.say("one", where=CHANNEL, author=ADA)
    await world.say("two", where=CHANNEL, author=BOB)
    await world.quiet()
    assert sorted(world.port.texts) == ["one " * 10, "two " * 10]
    assert all(len(shown.history) > 1 for shown in world.port.messages)


async def test_somebody_who_wrote_while_we_were_away_for_long_is_asked_to_ask_again(world: World) -> None:
    old = said_by("hello", "old", where=DIRECT, author=ADA, sent_ms=world.clock.now_ms() - 700_000)
    await world.core.receive("fake", [old])
    await world.until(lambda: world.port.told)
    assert world.port.told == [("ada", "I was away when you wrote; please ask again.")]
    assert await world.turns() == []


async def test_a_place_is_told_before_its_first_turn_and_a_person_below_their_first_answer(
    store_path: Path,
) -> None:
    rules = replace(RULES, place_notice="Servers can read this.", person_notice="They can read you.")
    async with open_world(store_path, rules=rules) as world:
        await world.ask("one", where=CHANNEL)
        await world.ask("two", where=CHANNEL)
        await world.ask("three", where=CHANNEL, author=BOB)
        await world.ask("four")
        assert world.port.texts == [
            "Servers can read this.",
            "You said: one\n\n(They can read you.)",
            "You said: two",
            "You said: three\n\n(They can read you.)",
            "Servers can read this.",
            "You said: four",
        ]
