"""What a model thinks before it answers is hidden, also while it is written, and paid for."""

from pathlib import Path

import pytest

from bot.rendering.thinking import OPENING, joined, opening_after, opening_of_prompt, without_thoughts
from storage.settings import set_setting
from tests.bot.world import World, open_world

THINKING = "<think>\nLet me see.\n</think>\n\nIt is 4."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (THINKING, "It is 4."),
        ("<think>\nLet me", ""),
        ("<thi", ""),
        ("  <think></think>yes", "yes"),
        ("I <think> so.</think>", "I <think> so.</think>"),
        ("<b>bold</b>", "<b>bold</b>"),
        ("", ""),
    ],
)
def test_thoughts_at_the_beginning_are_left_out(text: str, shown: str) -> None:
    assert without_thoughts(text) == shown


async def test_nobody_sees_thoughts_at_any_time_and_they_are_paid_for(world: World) -> None:
    world.brain.answer = lambda prompt: THINKING
    assert await world.ask("2 + 2?") == "It is 4."
    (shown,) = world.port.messages
    assert not any("<" in text or "see" in text for text in shown.history)
    (turn,) = await world.turns()
    assert turn.progress.new_tokens == len(THINKING)
    assert turn.progress.answer == THINKING, "the session was told so"


async def test_who_wants_thoughts_sees_them(world: World) -> None:
    world.brain.answer = lambda prompt: THINKING
    await world.ask("2 + 2?")
    (turn,) = await world.turns()
    await world.store.write(set_setting, "account", turn.question.account_id, "thinking", "show")
    assert await world.ask("2 + 2?") == THINKING


@pytest.mark.parametrize(
    ("answer", "opening"),
    [
        ("<think>\nLet me", OPENING),
        ("  <think>", OPENING),
        ("<think>\nLet me see.</thi", f"{OPENING}</thi"),
        (THINKING, ""),
        ("It is 4.", ""),
        ("I <think> so", ""),
        ("", ""),
    ],
)
def test_what_goes_on_in_mid_thought_is_kept_with_the_opening_that_it_lacks(
    answer: str, opening: str
) -> None:
    assert opening_after(answer) == opening
    for more in ("more", f"nk>{THINKING}"):
        assert joined(answer, opening + more) == answer + more


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("<|assistant|><think>", OPENING),
        ("<|assistant|>\n<think>\n", OPENING),
        ("<|assistant|>\n<think>\n\n</think>\n\n", ""),
        ("<|assistant|>\n", ""),
    ],
)
def test_a_template_that_opens_thoughts_is_known_by_the_end_of_what_it_rendered(
    prompt: str, opening: str
) -> None:
    assert opening_of_prompt(prompt) == opening


async def cut_off_in_mid_thought(world: World) -> None:
    world.brain.token_s = 0.01
    world.brain.answer = lambda prompt: "<think>\n" + "hm, " * 100
    cut = await world.ask("2 + 2?")
    assert cut == "(the length limit was reached: `continue` goes on)"
    assert "continue" in world.port.messages[-1].post.controls


async def test_what_goes_on_in_mid_thought_shows_no_thought(world: World) -> None:
    await cut_off_in_mid_thought(world)
    world.brain.token_s = 0.1
    world.brain.answer = lambda prompt: "so it is even.</think>\n\nIt is 4."
    await world.call("continue")
    await world.quiet()
    shown = world.port.messages[-1]
    assert shown.post.text == "It is 4."
    assert not any("even" in text or "<" in text for text in shown.history)


async def test_thoughts_that_take_three_answers_are_shown_in_none(world: World) -> None:
    await cut_off_in_mid_thought(world)
    world.brain.answer = lambda prompt: "well, " * 100
    await world.call("continue")
    await world.quiet()
    world.brain.answer = lambda prompt: "even.</think>It is 4."
    await world.call("continue")
    await world.quiet()
    assert world.port.texts[-1] == "It is 4."
    assert not any("well" in text for shown in world.port.messages for text in shown.history)


async def test_the_history_hides_thoughts_that_went_on(world: World) -> None:
    await cut_off_in_mid_thought(world)
    world.brain.answer = lambda prompt: "so it is even.</think>\n\nIt is 4."
    await world.call("continue")
    await world.quiet()
    await world.call("history")
    await world.until(lambda: world.port.told_files)
    ((_, (_, content)),) = world.port.told_files
    assert b"It is 4." in content
    assert b"even" not in content
    assert b"think" not in content


async def test_the_model_is_told_thoughts_that_went_on_as_it_has_written_them(world: World) -> None:
    await cut_off_in_mid_thought(world)
    world.brain.answer = lambda prompt: "so it is even.</think>\n\nIt is 4."
    await world.call("continue")
    await world.quiet()
    await world.ask("thanks")
    told = "".join(map(chr, world.brain.requests[-1].ids))
    assert told.count("<think>") == 1
    assert "hm, so it is even.</think>" in told
    assert not (await world.turns())[-1].progress.is_anew


def open_thoughts_in_the_template(world: World) -> None:
    """As the templates of Qwen3-Thinking and R1 do."""
    brain, encode = world.brain, world.brain.encode
    brain.encode = lambda messages, held=(): [*encode(messages, held), *map(ord, OPENING)]  # type: ignore[method-assign]
    brain.text_of = lambda ids: "".join(map(chr, ids))  # type: ignore[attr-defined]


async def test_thoughts_that_the_template_has_opened_are_hidden(world: World) -> None:
    open_thoughts_in_the_template(world)
    world.brain.answer = lambda prompt: "Let me see.\n</think>\n\nIt is 4."
    assert await world.ask("2 + 2?") == "It is 4."
    (shown,) = world.port.messages
    assert not any("see" in text for text in shown.history)
    (turn,) = await world.turns()
    assert turn.progress.new_tokens == len(turn.progress.answer) - len(OPENING), "it is not paid for"


async def test_thoughts_that_the_template_has_opened_are_hidden_after_a_restart(store_path: Path) -> None:
    async with open_world(store_path) as before:
        open_thoughts_in_the_template(before)
        before.brain.answer = lambda prompt: "Let me see. " * 20
        await before.say("2 + 2?")
        await before.pass_(6)
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == ["(I was restarted: `continue` goes on)"]
