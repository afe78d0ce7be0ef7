"""When something fails: one sentence, nothing lost, nothing paid for that was not shown."""

import pytest

from bot.brain import Event
from bot.turns.troubles import trouble_of
from bot.words import Refused
from storage.errors import QuotaExceeded, StoreBusy
from swarm.errors import ContextTooLong, NoRouteError, PeerBusy, SessionLost, SwarmTimeout
from swarm.wire.blocks import PeerId
from tests.bot.world import World

NO_ROUTE = NoRouteError("no server for blocks 3-5", (3, 4, 5))


async def test_behaviour_26_missing_blocks_are_named_and_the_answer_comes_when_somebody_serves_them(
    world: World,
) -> None:
    world.brain.errors = [NO_ROUTE] * 4
    await world.ask("hello")
    (shown,) = world.port.messages
    assert shown.history[0].startswith("Nobody serves blocks 3-5 of the model right now. I try again for a")
    assert "`contribute` tells how to help" in shown.history[0]
    assert shown.post.text == "You said: hello"


async def test_behaviour_26_who_waits_in_vain_is_told_after_a_minute_and_pays_nothing(world: World) -> None:
    world.brain.errors = [NO_ROUTE] * 100
    await world.ask("hello")
    (shown,) = world.port.messages
    assert shown.post.text == (
        "Nobody serves blocks 3-5 of the model right now; please ask again later."
        " `contribute` tells how to help."
    ), "nothing is tried any more"
    assert shown.post.controls == ("retry",)
    standing = await world.standing()
    assert (standing.used_today, standing.held) == (0, 0)
    assert len(world.brain.requests) < 40


async def test_behaviour_21_partial_text_is_kept_and_paid_for_when_the_swarm_fails(world: World) -> None:
    world.brain.answer = lambda prompt: Breaking()
    await world.ask("hello")
    (shown,) = world.port.messages
    assert shown.post.text == "half\n\nThe swarm did not answer in time; please try again."
    (turn,) = await world.turns()
    assert (turn.state, turn.progress.answer) == ("failed", "half")
    assert (await world.standing()).used_today == 4 + turn.progress.prefill_tokens // 4


class Breaking(str):
    """A script in the middle of which the swarm fails."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from "half"
        raise SwarmTimeout("nothing came")


async def test_an_answer_that_ends_in_the_middle_for_want_of_servers_promises_no_further_try(
    world: World,
) -> None:
    world.brain.answer = lambda prompt: Leaving()
    await world.ask("hello")
    (shown,) = world.port.messages
    assert shown.post.text.startswith("half\n\nNobody serves blocks 3-5 of the model right now; please ask")
    assert "try again" not in shown.post.text


class Leaving(str):
    """A script in the middle of which servers go."""

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from "half"
        raise NO_ROUTE


async def test_a_mistake_of_ours_is_one_sentence_with_an_id_and_the_next_question_is_answered(
    world: World,
) -> None:
    world.brain.errors = [ZeroDivisionError("oh")]
    answer = await world.ask("hello")
    assert answer.startswith("Something went wrong here; the operator finds it under ")
    assert await world.ask("again") == "You said: again"


async def test_a_long_loss_is_mentioned_and_a_short_one_is_not(world: World) -> None:
    world.brain.events = [Event("lost"), Event("recovered", pause_s=1.0)]
    assert await world.ask("one") == "You said: one"
    world.brain.events = [Event("lost"), Event("recovered", pause_s=5.0)]
    assert await world.ask("two") == "You said: two\n\n(a server was lost; I went on after 5 s)"


async def test_behaviour_21_a_full_conversation_forgets_whole_turns_and_says_so_and_nobody_pays(
    world: World,
) -> None:
    world.brain.max_tokens = 800
    world.brain.answer = lambda prompt: "word " * 10
    answers = [await world.ask(f"question {number} " + "x" * 40) for number in range(8)]
    (forgot,) = [number for number, answer in enumerate(answers) if "I forget its oldest part" in answer]
    turns = await world.turns()
    assert 3 < forgot < 7, "and so much that the next turns need not do it again"
    assert [number for number, turn in enumerate(turns) if turn.progress.is_anew] == [0, forgot]
    assert turns[forgot].progress.num_dropped == turns[7].progress.num_dropped >= 2
    told = "".join(map(chr, world.brain.requests[7].ids))
    assert "question 1 " not in told
    assert f"question {forgot - 1} " in told
    assert turns[forgot].progress.prefill_tokens < 70, "the question is paid for, not what was said again"


async def test_that_a_conversation_is_full_is_said_once_however_often_the_turn_is_tried(world: World) -> None:
    world.brain.max_tokens = 800
    world.brain.answer = lambda prompt: "word " * 10
    answers = []
    for number in range(8):
        world.brain.errors = [SwarmTimeout("late"), SwarmTimeout("late")]
        answers.append(await world.ask(f"question {number} " + "x" * 40))
    assert sum(answer.count("I forget its oldest part") for answer in answers) == 1


async def test_a_question_that_is_too_long_is_refused_in_a_sentence(world: World) -> None:
    world.brain.max_tokens = 100
    assert await world.ask("x" * 200) == "That is longer than this model can take; please shorten it."


def test_who_has_one_credit_left_does_not_read_of_1_credits() -> None:
    assert "(1 credit left)" in trouble_of(QuotaExceeded(1, 10), "abc123").sentence
    assert "(0 credits left)" in trouble_of(QuotaExceeded(0, 10), "abc123").sentence
    forgotten = trouble_of(QuotaExceeded(2, 10, used_earlier=1), "abc123").sentence
    assert "(2 credits left)" in forgotten
    assert "count the 1 credit that you had used today" in forgotten


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NO_ROUTE, "no_route"),
        (PeerBusy("full", PeerId("a"), 1.0), "full"),
        (ContextTooLong("long"), "too_long"),
        (SessionLost("gone"), "lost"),
        (SwarmTimeout("late"), "slow"),
        (QuotaExceeded(3, 10), "quota"),
        (StoreBusy("busy"), "store"),
        (Refused("no permission"), "not_allowed"),
        (ValueError("oh"), "internal"),
    ],
)
def test_every_error_has_one_sentence_without_a_word_of_its_own(error: Exception, kind: str) -> None:
    trouble = trouble_of(error, "abc123")
    assert trouble.kind == kind
    for sentence in (trouble.sentence, trouble.in_the_end):
        assert sentence[0].isupper() and sentence.endswith(".")  # noqa: PT018
        assert "Error" not in sentence
