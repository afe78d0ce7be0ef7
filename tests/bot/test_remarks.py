"""What is said below an answer beside how it ended."""

from dataclasses import replace
from pathlib import Path

import pytest

from bot.turns.remarks import SLOW, Remarks
from tests.bot.platform import CHANNEL
from tests.bot.world import RULES, World, open_world


@pytest.mark.parametrize(("tokens_per_s", "told"), [(None, ""), (5.0, ""), (1.0, ""), (0.9, SLOW)])
def test_below_a_token_a_second_it_is_said_how_to_help(tokens_per_s: float | None, told: str) -> None:
    assert Remarks().on_speed(1, tokens_per_s, 0.0) == told


def test_slowness_is_told_once_a_day_in_each_conversation() -> None:
    remarks = Remarks()
    told = [
        bool(remarks.on_speed(number, 0.5, at_s)) for number, at_s in ((1, 0), (1, 60), (2, 60), (1, 9e4))
    ]
    assert told == [True, False, True, True]


async def test_a_slow_answer_points_to_contribute_below_its_end(store_path: Path) -> None:
    rules = replace(RULES, turn=replace(RULES.turn, seconds=10_000))
    async with open_world(store_path, rules=rules) as world:
        world.brain.token_s, world.brain.answer = 1.5, lambda prompt: "slow"
        await world.ask("hello", where=CHANNEL)
        assert world.port.texts == [f"slow\n\n{SLOW}"]


async def test_a_fork_quotes_the_beginning_of_the_question_in_one_line(world: World) -> None:
    for text in (f"first `line`\nand more {'x' * 50}", "two"):
        await world.ask(text)
    await world.ask("another two", reply_to="m0")
    quoted = "\"first 'line' and more xxxxxxxxxxxxxxxxxx...\""
    assert world.port.texts[-1].endswith(f"(forked from the answer to {quoted})")
