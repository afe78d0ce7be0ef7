"""Messages that are deleted on Discord take with them what was made of them."""

from pathlib import Path

from sqlalchemy import func, select

from storage.schema import inbox
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import Stage, open_stage
from tests.bot.on_discord.test_restarts import run_until_killed
from tests.discord_peer import FakeDiscord, Message

STORY = "Once upon a time there was a swarm of servers, and it told stories. " * 20
SECRET = "a very private question"


def asks(stage: Stage, place: Place, text: str = SECRET) -> Message:
    return place.alice.says(place.channel, text, mentions=[stage.fake.bot])


def on_disk(stage: Stage) -> bytes:
    return b"".join(file.read_bytes() for file in stage.store.path.parent.glob(f"{stage.store.path.name}*"))


async def no_answers(stage: Stage, place: Place) -> None:
    """Wait until the bot shows nothing in the channel, and has nothing to do."""
    await stage.until(lambda: not place.channel.by(stage.fake.bot))
    await stage.quiet()


async def num_events(stage: Stage) -> int | None:
    return await stage.store.read(lambda c: c.scalar(select(func.count()).select_from(inbox)))


async def test_who_deletes_a_question_deletes_its_answer(stage: Stage, place: Place) -> None:
    asked = asks(stage, place)
    await stage.answers(place.channel, 1)
    place.alice.deletes(asked)
    await no_answers(stage, place)
    assert await stage.num_turns() == 0
    assert SECRET.encode() not in on_disk(stage)
    assert stage.brain.forgotten == [1]


async def test_an_answer_that_is_being_written_is_stopped_and_goes(stage: Stage, place: Place) -> None:
    stage.brain.answer = lambda prompt: STORY
    asked = asks(stage, place)
    await stage.until(lambda: place.channel.by(stage.fake.bot))
    (answer,) = place.channel.by(stage.fake.bot)
    place.moderator.deletes(asked)
    await no_answers(stage, place)
    assert len(answer.content) < len(STORY)
    assert await stage.num_turns() == 0


async def test_many_messages_that_are_deleted_at_once_all_go(stage: Stage, place: Place) -> None:
    asked = [asks(stage, place, "one")]
    await stage.answers(place.channel, 1)
    asked.append(place.bob.says(place.channel, "two", mentions=[stage.fake.bot]))
    await stage.answers(place.channel, 2)
    asked.append(place.bob.says(place.channel, "not for the bot"))
    place.moderator.purges(place.channel, asked)
    await no_answers(stage, place)
    assert await stage.num_turns() == 0


async def test_a_message_that_was_joined_takes_the_question_away(stage: Stage, place: Place) -> None:
    stage.brain.token_s = 0.2
    place.alice.says(place.alice.direct, "one")
    joined = place.alice.says(place.alice.direct, SECRET)
    await stage.until(lambda: stage.brain.requests)
    stage.brain.token_s = 0.001
    (answer,) = await stage.answers(place.alice.direct, 1)
    assert answer.content == f"You said: one\n{SECRET}"
    place.alice.deletes(joined)
    await stage.until(lambda: not place.alice.direct.by(stage.fake.bot))
    await stage.quiet()
    assert await stage.num_turns() == 0


async def test_a_message_that_is_deleted_at_once_is_not_answered(stage: Stage, place: Place) -> None:
    place.alice.deletes(asks(stage, place))
    kept = place.bob.says(place.channel, "kept", mentions=[stage.fake.bot])
    await stage.until(lambda: any(it.reply_to is kept for it in place.channel.by(stage.fake.bot)))
    await stage.quiet()
    await stage.until(lambda: len(place.channel.by(stage.fake.bot)) == 1)
    assert [said.question.prompt for said in await stage.turns()] == ["kept"]


async def test_what_is_deleted_and_was_not_for_the_bot_is_not_even_noted(stage: Stage, place: Place) -> None:
    asks(stage, place, "one")
    await stage.answers(place.channel, 1)
    before = await num_events(stage)
    place.bob.deletes(place.bob.says(place.channel, "not for the bot"))
    place.moderator.deletes(place.channel.by(stage.fake.bot)[0])
    asks(stage, place, "two")
    await stage.until(lambda: place.channel.by(stage.fake.bot))
    await stage.quiet()
    assert await num_events(stage) == (before or 0) + 1


async def test_a_question_of_before_a_crash_can_be_deleted_after_it(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    asked: list[Message] = []

    def begin(stage: Stage) -> None:
        asked.append(asks(stage, place))

    def is_shown(stage: Stage) -> bool:
        shown = place.channel.by(fake.bot)
        return bool(shown) and len(shown[0].versions) > 2

    await run_until_killed(fake, store_path, begin, is_shown)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.quiet()
        place.alice.deletes(asked[0])
        await no_answers(stage, place)
        assert await stage.num_turns() == 0
