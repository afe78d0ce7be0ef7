"""Where the bot is no member: what is tried again is answered too, and everything in time."""

from pathlib import Path

import pytest

from bot.on_discord import elsewhere
from bot.on_discord.elsewhere import CUT
from bot.turns.endings import FOOTERS
from tests.bot.on_discord.stage import Stage, open_stage
from tests.discord_peer import Channel, FakeDiscord, Interaction, Person

STORY = "Once upon a time there was a swarm of servers, and it told stories. "


def someone_elsewhere(fake: FakeDiscord) -> tuple[Person, Channel]:
    guild = fake.guild("Elsewhere", with_bot=False)
    return fake.user("carol", guild), fake.channel(guild)


async def last_shown(stage: Stage, asked: Interaction, text: str) -> None:
    """Wait until the last message that answers a command says so, to all who are there."""
    await stage.until(lambda: asked.messages and asked.messages[-1].content == text)
    await stage.quiet()
    assert asked.messages[-1].private_to is None
    assert not asked.is_pending


@pytest.mark.parametrize("happens", ["the token grows old", "the bot is restarted"])
async def test_what_is_tried_again_is_answered_through_the_command_that_asked_for_it(
    fake: FakeDiscord, store_path: Path, happens: str
) -> None:
    carol, channel = someone_elsewhere(fake)
    async with open_stage(fake, store_path, boot="first") as stage:
        asked = carol.runs("ask", {"text": "one"}, channel=channel)
        await last_shown(stage, asked, "You said: one")
        if happens == "the token grows old":
            fake.clock.turn(16 * 60.0)
            again = carol.runs("retry", channel=channel)
            await last_shown(stage, again, "You said: one")
    async with open_stage(fake, store_path, boot="second") as stage:
        fake.clock.turn(16 * 60.0)
        again = carol.runs("retry", channel=channel)
        await last_shown(stage, again, "You said: one")
        assert len(again.messages) == 1
        assert asked.messages[-1].content == "You said: one"
        assert len({said.question.event_id for said in await stage.turns()}) == 1


async def test_a_question_that_is_newer_than_what_was_tried_again_has_its_own_answer(
    fake: FakeDiscord, store_path: Path
) -> None:
    carol, channel = someone_elsewhere(fake)
    dora = fake.user("dora", channel.guild)  # type: ignore[arg-type]
    async with open_stage(fake, store_path) as stage:
        one = carol.runs("ask", {"text": "one"}, channel=channel)
        await last_shown(stage, one, "You said: one")
        await last_shown(stage, carol.runs("retry", channel=channel), "You said: one")
        two = carol.runs("ask", {"text": "two"}, channel=channel)
        await last_shown(stage, two, "You said: two")
        hers = dora.runs("ask", {"text": "three"}, channel=channel)
        await last_shown(stage, hers, "You said: three")


async def test_who_has_nothing_to_try_again_is_told_so_in_time(fake: FakeDiscord, store_path: Path) -> None:
    carol, channel = someone_elsewhere(fake)
    async with open_stage(fake, store_path) as stage:
        asked = carol.runs("retry", channel=channel)
        await stage.until(lambda: asked.messages and not asked.is_pending)
        assert asked.messages[0].content == "There is no conversation of yours here yet."


async def test_an_answer_that_takes_too_long_is_cut_and_says_why(
    fake: FakeDiscord, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "WRITING_S", 1.5)
    carol, channel = someone_elsewhere(fake)
    async with open_stage(fake, store_path, token_s=0.01) as stage:
        stage.brain.answer = lambda prompt: STORY * 20
        asked = carol.runs("ask", {"text": "a story"}, channel=channel)
        await stage.until(lambda: asked.messages and asked.messages[-1].content.endswith(CUT))
        await stage.quiet()
        (said,) = await stage.turns()
        assert said.state == "stopped"
        shown = asked.messages[-1].content
        assert shown.startswith("Once upon a time")
        assert FOOTERS["stopped"] not in shown
        again = carol.runs("continue", channel=channel)
        await stage.until(lambda: again.messages and not again.is_pending)


async def test_an_answer_that_has_ended_is_left_as_it_is(
    fake: FakeDiscord, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "WRITING_S", 0.5)
    carol, channel = someone_elsewhere(fake)
    async with open_stage(fake, store_path) as stage:
        one = carol.runs("ask", {"text": "one"}, channel=channel)
        await last_shown(stage, one, "You said: one")
        await stage.until(lambda: any(stage.discord.port._elsewhere._turns.values()))
        assert one.messages[-1].content == "You said: one"
