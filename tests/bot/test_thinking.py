"""What a model thinks before it answers is hidden, also while it is written, and paid for."""

import pytest

from bot.rendering.thinking import without_thoughts
from storage.settings import set_setting
from tests.bot.world import World

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
