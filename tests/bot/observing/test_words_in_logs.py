"""Whatever people say and whatever goes wrong: nothing of it is logged, at no level, by no logger."""

import logging
from pathlib import Path

from bot.words import Limited, Refused, Unreachable
from storage.errors import StoreBusy
from swarm.errors import SwarmTimeout
from tests.bot.eavesdropping import WORDS, eavesdropping
from tests.bot.on_discord.conftest import furnished
from tests.bot.on_discord.stage import EDIT, POST, open_stage
from tests.bot.platform import CHANNEL
from tests.bot.world import open_world
from tests.discord_peer.conftest import fake_discord

QUESTION = f"Tell me of the {WORDS}."


def test_an_eavesdropper_hears_all_loggers() -> None:
    with eavesdropping() as overheard:
        logging.getLogger("bot.somewhere").debug("a %s", "Xylograph")
        logging.getLogger("somebody.else").debug("of %s", "quartz")
        assert len(overheard.lines_with_words()) == 4


async def test_behaviour_28_logs_contain_no_message_text(store_path: Path) -> None:
    with eavesdropping() as overheard:
        async with open_world(store_path) as world:
            await world.ask(QUESTION)
            await world.ask(QUESTION, where=CHANNEL)
            await world.call("persona set", text=f"You love {WORDS}.")
            await world.call("ask", text=QUESTION)
            await world.quiet()
            await world.call("retry")
            await world.quiet()
            await world.say(f"!no-such-command {WORDS}")
            await world.quiet()
            for name in ("history", "export", "report", "undo", "new"):
                await world.call(name)
                await world.quiet()
        assert overheard.lines_with_words() == []


async def test_behaviour_28_logs_of_failures_contain_no_message_text(store_path: Path) -> None:
    with eavesdropping() as overheard:
        async with open_world(store_path) as world:
            world.port.failures = {"edit": [Limited(0.5), Refused("no")], "post": [Unreachable("gone")] * 3}
            world.brain.errors = [SwarmTimeout("late"), RuntimeError("broken")]
            await world.ask(QUESTION)
            world.brain.errors = [StoreBusy("busy"), KeyError("a key")]
            await world.ask(QUESTION)
            await world.ask(QUESTION)
            world.port.failures = {"post": [Refused("no")] * 3}
            await world.ask(QUESTION)
        assert "Traceback" in overheard.written.getvalue()
        assert overheard.lines_with_words() == []


async def test_behaviour_28_lines_about_a_turn_name_it(store_path: Path) -> None:
    with eavesdropping() as overheard:
        async with open_world(store_path) as world:
            world.brain.errors = [RuntimeError("broken")]
            await world.ask(QUESTION)
            (turn,) = await world.turns()
        failures = [line for line in overheard.written.getvalue().splitlines() if "failed" in line]
    assert len(failures) == 1
    assert f'"turn": "{turn.question.turn_id}"' in failures[0]
    assert '"platform": "fake"' in failures[0]
    assert f'"conversation": {turn.question.conversation_id}' in failures[0]


async def test_behaviour_28_logs_of_discord_contain_no_message_text(store_path: Path) -> None:
    with eavesdropping() as overheard:
        async with fake_discord() as fake:
            place = furnished(fake)
            async with open_stage(fake, store_path) as stage:
                fake.limit_next(EDIT, 0.05)
                fake.fail_next(POST, 400, code=50035)
                place.alice.says(place.channel, f"@bot {QUESTION}", mentions=[fake.bot])
                await stage.quiet()
                message = place.alice.says(place.alice.direct, QUESTION)
                await stage.quiet()
                place.alice.edits(message, f"{QUESTION} Please!")
                place.bob.runs("ask", {"text": QUESTION}, channel=place.channel)
                await stage.quiet()
                place.bob.runs("persona set", {"text": WORDS}, channel=place.bob.direct)
                await stage.quiet()
                place.alice.deletes(message)
                await stage.quiet()
        assert overheard.num_lines > 3
        assert overheard.lines_with_words() == []
