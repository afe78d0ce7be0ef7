"""Fifty conversations at once on one bot: each message is answered once, and with its own answer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.turns.queue import Bounds
from tests.bot.on_discord.conftest import furnished
from tests.bot.on_discord.stage import JOIN_S, RULES, open_stage, pause
from tests.discord_peer import Channel, FakeDiscord, Message
from tests.discord_peer.conftest import fake_discord

CONVERSATIONS = 8
MOST = Bounds(running=3, waiting=5)
pytestmark = pytest.mark.timeout(90)


def answer_to(prompt: str) -> str:
    """Long enough to be shown while it is written."""
    return f"{prompt}: {'so it is. ' * 12}"


def text_of(prompt: str) -> str:
    return answer_to(prompt).strip()


async def test_fifty_conversations_at_once_are_answered_each_once_and_as_it_asked(store_path: Path) -> None:
    async with fake_discord() as fake, open_stage(fake, store_path) as stage:
        guild = furnished(fake).guild
        stage.brain.answer = answer_to
        people = [fake.user(f"person{number}", guild) for number in range(CONVERSATIONS)]
        places = [
            person.direct if number % 2 else fake.channel(guild, f"channel{number}")
            for number, person in enumerate(people)
        ]
        asked: dict[str, Message] = {}
        for turn in range(2):
            for number, (person, place) in enumerate(zip(people, places, strict=True)):
                text = f"question {turn} of {number}"
                asked[text] = person.says(place, text, mentions=[] if number % 2 else [fake.bot])
            await stage.until(lambda: len(shown(fake, places)) >= len(asked), 40)
            await stage.quiet(40)
            await pause(JOIN_S)
        messages = shown(fake, places)
        assert sorted(message.content for message in messages) == sorted(map(text_of, asked))
        for message in messages:
            assert message.reply_to is asked[message.content.partition(":")[0]]
        turns = await stage.turns()
        assert {turn.state for turn in turns} == {"done"}
        assert len(turns) == 2 * CONVERSATIONS
        assert len({turn.question.conversation_id for turn in turns}) == CONVERSATIONS + CONVERSATIONS // 2


async def test_of_more_messages_than_may_wait_each_is_answered_or_refused_with_a_reason(
    store_path: Path,
) -> None:
    rules = replace(RULES, bounds=MOST)
    async with fake_discord() as fake, open_stage(fake, store_path, rules=rules) as stage:
        stage.brain.token_s = 0.02
        people = [fake.user(f"person{number}", furnished(fake).guild) for number in range(20)]
        for person in people:
            person.says(person.direct, f"I am {person.name}")
        await stage.until(lambda: len(shown(fake, [person.direct for person in people])) >= 20, 40)
        await stage.quiet(40)
        told = [message.content for person in people for message in person.direct.by(fake.bot)]
        answered = [text for text in told if text.startswith("You said: I am ")]
        assert len(told) == 20
        assert len(answered) == MOST.running + MOST.waiting
        assert {text for text in told if text not in answered} == {
            "Too many people are asking right now; please try again in a minute."
        }


def shown(fake: FakeDiscord, places: Sequence[Channel]) -> list[Message]:
    """The bot's messages in some places."""
    return [message for place in places for message in place.by(fake.bot)]
