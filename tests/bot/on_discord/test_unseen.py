"""Discord refuses an answer for good: nobody pays for what they cannot have read."""

from pathlib import Path

from sqlalchemy import select

from bot.clock import RealClock
from storage.ledger import Person, open_account, standing
from storage.schema import ledger
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import RULES, Stage, open_stage
from tests.bot.world import KEY
from tests.discord_peer import FakeDiscord, Permission
from tests.discord_peer import Person as Human

SENTENCE = "A sentence of some length. "


async def kinds(stage: Stage) -> list[str]:
    """What turns have changed in the ledger."""
    which = select(ledger.c.kind).where(ledger.c.turn_id.is_not(None)).order_by(ledger.c.id)
    return list(await stage.store.read(lambda c: list(c.scalars(which))))


async def used(stage: Stage, human: Human) -> int:
    """What somebody has used today."""
    now_ms = RealClock().now_ms()
    person = Person("discord", str(human.id))
    return await stage.store.write(
        lambda c: standing(c, open_account(c, person, RULES.rates, KEY, now_ms), now_ms).used_today
    )


async def test_behaviour_21_who_asks_where_the_bot_may_not_write_pays_nothing(
    stage: Stage, place: Place
) -> None:
    place.channel.deny(stage.fake.bot, Permission.SEND_MESSAGES)
    place.alice.says(place.channel, "hello", mentions=[stage.fake.bot])
    await stage.until(lambda: stage.brain.requests)
    await stage.quiet()
    assert stage.texts(place.channel) == []
    assert await kinds(stage) == ["charge", "refund"]
    assert await used(stage, place.alice) == 0
    place.channel.allow(stage.fake.bot, Permission.SEND_MESSAGES)
    place.alice.says(place.channel, "again", mentions=[stage.fake.bot])
    assert [message.content for message in await stage.answers(place.channel, 1)] == ["You said: again"]


async def test_behaviour_21_when_the_bot_is_shut_out_in_mid_answer_what_was_seen_is_paid_for(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, token_s=0.01) as stage:
        stage.brain.answer = lambda prompt: SENTENCE * 12
        place.alice.says(place.channel, "hello", mentions=[fake.bot])
        await stage.until(lambda: stage.texts(place.channel))
        place.channel.deny(fake.bot, Permission.VIEW_CHANNEL)
        await stage.quiet()
        (shown,) = stage.texts(place.channel)
        seen = shown.removesuffix("...").rstrip()
        assert (SENTENCE * 12).startswith(seen)
        assert len(seen) < len(SENTENCE) * 11
        (turn,) = await stage.turns()
        assert turn.progress.answer == SENTENCE * 12
        assert await kinds(stage) == ["charge", "refund"]
        assert await used(stage, place.alice) == len(seen) + turn.progress.prefill_tokens // 4
