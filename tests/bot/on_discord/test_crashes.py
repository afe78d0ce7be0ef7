"""The bot's process is killed at any point, and whatever was said is answered and paid for once."""

from pathlib import Path

import pytest

from bot.turns.endings import footer_of
from storage.amounts import charge
from storage.schema import hold, ledger
from tests.bot.dying import assert_killed, open_dying
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.dying import ANSWER, HALF, POINTS, QUESTION
from tests.bot.on_discord.stage import EDIT, RULES, Stage, open_stage, pause
from tests.discord_peer import FakeDiscord, Message

RESTARTED = footer_of("interrupted", has_text=True)


async def killed(fake: FakeDiscord, place: Place, store_path: Path, point: str) -> None:
    """Alice asks in a channel where the bot has answered Bob, and it is killed at `point`."""
    async with open_stage(fake, store_path, boot="first") as stage:
        place.bob.says(place.channel, "old", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
    named = (fake.api_url, fake.gateway.url, str(store_path), point)
    async with open_dying("tests.bot.on_discord.dying", *named, token=fake.token) as process:
        place.alice.says(place.channel, QUESTION, mentions=[fake.bot])
        await assert_killed(process)
    await fake.until(lambda: not fake.gateway.connected)


async def assert_paid_once(stage: Stage, num: int) -> None:
    """Each of so many turns has ended, is shown, and was settled once, for what its transcript has."""
    turns = await stage.turns()
    assert len(turns) == num
    paid = await stage.store.read(
        lambda c: [
            (row.turn_id, -row.amount) for row in c.execute(ledger.select()) if row.turn_id is not None
        ]
    )
    costs = [
        (
            each.question.turn_id,
            charge(
                RULES.rates,
                new_tokens=each.progress.new_tokens,
                prefill_tokens=each.progress.prefill_tokens,
            ),
        )
        for each in turns
    ]
    assert sorted(paid) == sorted(costs)
    assert await stage.store.read(lambda c: c.execute(hold.select()).all()) == []


@pytest.mark.parametrize(
    "point", [pytest.param(it, marks=() if it == "posted" else pytest.mark.slow) for it in POINTS]
)
async def test_behaviour_13_whenever_the_bot_is_killed_what_was_said_is_answered_and_paid_once(
    fake: FakeDiscord, place: Place, store_path: Path, point: str
) -> None:
    await killed(fake, place, store_path, point)
    async with open_stage(fake, store_path, boot="again") as stage:
        await stage.until(lambda: stage.texts(place.channel)[1:] == [ANSWER])
        await stage.quiet()
        _, answer = place.channel.by(fake.bot)
        assert answer.content == ANSWER
        assert [button["label"] for button in answer.buttons] == ["Retry", "Report"]
        assert stage.texts(place.alice.direct) == []
        await assert_paid_once(stage, 2)
        place.alice.says(place.channel, "and on", reply_to=answer)
        assert len(await stage.answers(place.channel, 3)) == 3
    async with open_stage(fake, store_path, boot="once more") as stage:
        await stage.quiet()
        await pause(0.3)
        assert len(place.channel.by(fake.bot)) == 3
        await assert_paid_once(stage, 3)


@pytest.mark.slow
async def test_behaviour_13_half_an_answer_of_a_killed_process_is_finished_with_a_note_and_its_buttons_answer(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    await killed(fake, place, store_path, HALF)
    _, half = place.channel.by(fake.bot)
    assert [button["label"] for button in half.buttons] == ["Stop"]
    fake.delay_next(EDIT, 1.0)
    async with open_stage(fake, store_path, boot="again") as stage:
        await assert_old_buttons_are_answered(stage, place, half)
        await stage.until(lambda: half.content.endswith(RESTARTED))
        await stage.quiet()
        assert place.channel.by(fake.bot)[1:] == [half]
        kept = half.content.removesuffix(RESTARTED).rstrip()
        assert ANSWER.startswith(kept)
        assert 20 < len(kept) < len(ANSWER)
        turn = (await stage.turns())[1]
        assert (turn.state, turn.progress.answer.rstrip()) == ("interrupted", kept)
        assert turn.progress.new_tokens == len(turn.progress.answer)
        await assert_paid_once(stage, 2)
        stage.brain.answer = lambda prompt: ANSWER[len(turn.progress.answer) :]
        place.alice.presses(half, "Continue")
        _, _, rest = await stage.answers(place.channel, 3)
        assert f"{turn.progress.answer}{rest.content}".strip() == ANSWER
        place.alice.presses(half, "Retry")
        await stage.until(lambda: len(place.alice.private) == 2)
        assert "newer answer" in place.alice.private[1].content


async def assert_old_buttons_are_answered(stage: Stage, place: Place, half: Message) -> None:
    """Who presses Stop below a message of the dead process reads a sentence."""
    place.bob.presses(half, "Stop")
    place.alice.presses(half, "Stop")
    await stage.until(lambda: place.bob.private and place.alice.private)
    told = [message.content for message in (*place.bob.private, *place.alice.private)]
    assert told == ["Nothing is being written here."] * 2
