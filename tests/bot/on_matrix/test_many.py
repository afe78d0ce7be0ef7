"""Many conversations at once on one account: each message is answered once, and with its own answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.turns.queue import Bounds
from tests.bot.on_matrix.test_deliveries import Trouble
from tests.bot.on_matrix.world import RULES, Bot, Place, meet, open_bot, open_client
from tests.matrix_peer.human import NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PEOPLE = 10
ROOMS_EACH = 5
WITHIN_S = 90.0
LIMITED = 8


def answer_to(prompt: str) -> str:
    """Long enough to be shown while it is written."""
    return f"{prompt}: {'so it is. ' * 12}".strip()


async def people_with_rooms(new_human: NewHuman, bot: Bot, people: int, rooms: int) -> list[Place]:
    """Each of them alone with the bot, in so many rooms."""

    humans = [await new_human(f"person{number}") for number in range(people)]
    return [await meet(human, bot, direct=True) for human in humans for _ in range(rooms)]


async def shown(places: Sequence[Place]) -> list[list[str]]:
    """What the bot has said in each room, as it looks now."""
    humans = {id(place.human): place.human for place in places}
    await asyncio.gather(*(human.sync(0) for human in humans.values()))
    return [place.human.visible_text(place.room_id, place.bot.user_id) for place in places]


async def ask_everywhere(places: Sequence[Place], turn: int) -> None:
    await asyncio.gather(*(place.say(f"question {turn} of {at}") for at, place in enumerate(places)))


def expected(at: int, turns: int) -> list[str]:
    return [answer_to(f"question {turn} of {at}") for turn in range(turns)]


async def test_fifty_conversations_at_once_are_answered_each_once_and_as_it_asked(
    synapse: Synapse, new_human: NewHuman, store_path: Path
) -> None:
    account = await asyncio.to_thread(synapse.register, "many")
    rules = replace(RULES, bounds=Bounds(running=PEOPLE * ROOMS_EACH, running_of_person=ROOMS_EACH))
    async with (
        open_client(synapse.url, account) as client,
        open_bot(client, store_path, rules=rules) as bot,
    ):
        bot.brain.answer, bot.brain.token_s = answer_to, 0.02
        places = await people_with_rooms(new_human, bot, PEOPLE, ROOMS_EACH)
        for turn in range(2):
            await ask_everywhere(places, turn)
            async with asyncio.timeout(WITHIN_S):
                while len(await bot.turns()) < (turn + 1) * len(places):  # noqa: ASYNC110 - the store has no event for it
                    await asyncio.sleep(0.1)
            await bot.quiet(WITHIN_S)
            await asyncio.sleep(1.2)  # what is said within a moment is a part of what was said before
        for at, texts in enumerate(await shown(places)):
            assert texts == expected(at, 2)
        assert {said.state for said in await bot.turns()} == {"done"}
        assert await bot.undelivered() == 0


async def test_behaviour_03_eight_answers_at_once_on_stock_limits_are_eight_events_and_none_is_refused(
    synapse: Synapse, new_human: NewHuman, store_path: Path
) -> None:
    account = await asyncio.to_thread(synapse.register, "few")
    async with (
        open_client(synapse.url, account) as client,
        open_bot(client, store_path, send_burst=10, sends_per_second=0.2) as bot,
    ):
        bot.brain.answer, bot.brain.token_s = answer_to, 0.05
        places = await people_with_rooms(new_human, bot, LIMITED, 1)
        await asyncio.sleep(LIMITED / 0.2)  # they were counted as they came in
        await asyncio.to_thread(synapse.remove_override, account.user_id)
        trouble = Trouble(bot)
        await ask_everywhere(places, 0)
        for at, place in enumerate(places):
            await place.reads(expected(at, 1)[0], within_s=30)
        await bot.quiet(WITHIN_S)
        assert sum("/send/" in path for path, _ in trouble.asked) == LIMITED


async def test_on_stock_limits_eight_conversations_at_once_are_shown_when_they_are_finished(
    synapse: Synapse, new_human: NewHuman, store_path: Path
) -> None:
    account = await asyncio.to_thread(synapse.register, "few", is_limited=True)
    async with (
        open_client(synapse.url, account) as client,
        open_bot(client, store_path, send_burst=10, sends_per_second=0.2) as bot,
    ):
        bot.brain.answer, bot.brain.token_s = answer_to, 0.05
        places = await people_with_rooms(new_human, bot, LIMITED, 1)
        await ask_everywhere(places, 0)
        async with asyncio.timeout(WITHIN_S):
            while [len(texts) for texts in await shown(places)] != [1] * LIMITED:  # noqa: ASYNC110 - a homeserver's news
                await asyncio.sleep(0.2)
        await bot.quiet(WITHIN_S)
        for at, texts in enumerate(await shown(places)):
            assert texts == expected(at, 1)
