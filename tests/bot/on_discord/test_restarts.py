"""What is lost and found when the connection breaks, the process dies, or Discord does not let us in."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from bot.clock import RealClock
from bot.on_discord import port
from bot.receiving.reception import AWAY
from bot.turns import runner as turns
from bot.words import Author, Call, Inbound, Post, Unreachable, Where
from storage.database import open_database
from storage.inbox import Event, receive
from storage.ledger import CHARGE
from storage.schema import ledger
from tests.bot.on_discord.conftest import Place, furnished
from tests.bot.on_discord.stage import POST, Stage, open_stage
from tests.discord_peer import PRIVILEGED, FakeDiscord, Intent, Message
from tests.discord_peer.conftest import fake_discord

STORY = "Once upon a time there was a swarm of servers, and it told stories. " * 10


class Killed(BaseException):
    """The process ends here, as far as one process can show it."""


async def run_until_killed(
    fake: FakeDiscord, path: Path, begin: Callable[[Stage], object], is_time: Callable[[Stage], object]
) -> None:
    """Run a bot until it is time, then end its tasks where they are: none of them gets to write or send."""
    with suppress(Killed):
        async with open_stage(fake, path, boot="first") as stage:
            stage.brain.answer = lambda prompt: STORY
            begin(stage)
            await stage.until(lambda: is_time(stage))
            raise Killed


async def settled(stage: Stage) -> list[str]:
    """Turns that were paid for, once for each payment."""
    return await stage.store.read(
        lambda c: [row.turn_id for row in c.execute(ledger.select()) if row.kind == CHARGE]
    )


async def test_behaviour_12_a_message_that_is_replayed_is_answered_and_paid_once(
    stage: Stage, place: Place
) -> None:
    stage.brain.answer = lambda prompt: STORY
    place.alice.says(place.channel, "a story", mentions=[stage.fake.bot])
    await stage.until(lambda: place.channel.by(stage.fake.bot))
    (session,) = stage.fake.gateway.connected
    said = next(event for event in session.events if event["t"] == "MESSAGE_CREATE")
    with stage.fake.gateway_held():
        await stage.fake.drop_gateway(resume=True)
        session.dispatch("MESSAGE_CREATE", said["d"])
    await stage.until(lambda: stage.fake.gateway.resumed)
    (answer,) = await stage.answers(place.channel, 1)
    assert answer.content == STORY.strip()
    assert len(await settled(stage)) == len(await stage.turns()) == 1


async def test_what_is_said_during_a_gap_is_answered_after_the_resume(stage: Stage, place: Place) -> None:
    with stage.fake.gateway_held():
        await stage.fake.drop_gateway(resume=True)
        place.alice.says(place.channel, "in the gap", mentions=[stage.fake.bot])
    (answer,) = await stage.answers(place.channel, 1)
    assert answer.content == "You said: in the gap"


@pytest.fixture
def kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is kept every moment instead of every five seconds."""
    monkeypatch.setattr(turns, "HEARTBEAT_S", 0.02)


def asks_for_a_story(place: Place) -> Callable[[Stage], object]:
    return lambda stage: place.alice.says(place.channel, "a story", mentions=[stage.fake.bot])


@pytest.mark.usefixtures("kept_at_once")
async def test_behaviour_13_half_an_answer_is_finished_with_a_note_after_a_restart(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    await run_until_killed(
        fake,
        store_path,
        asks_for_a_story(place),
        lambda stage: any(len(message.versions) > 3 for message in place.channel.by(fake.bot)),
    )
    (half,) = place.channel.by(fake.bot)
    assert [button["label"] for button in half.buttons] == ["Stop"]
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: "I was restarted" in half.content)
        await stage.quiet()
        assert half.content.startswith("Once upon a time")
        assert place.channel.by(fake.bot) == [half]
        assert [said.state for said in await stage.turns()] == ["interrupted"]
        assert len(await settled(stage)) == 1
        place.bob.presses(half, "Retry")
        await stage.until(lambda: place.bob.private)
        assert "Only who asked" in place.bob.private[0].content
        place.alice.presses(half, "Retry")
        _, again = await stage.answers(place.channel, 2)
        assert again.content == "You said: a story"
        place.alice.presses(half, "Retry")
        await stage.until(lambda: place.alice.private)
        assert "newer answer" in place.alice.private[0].content


async def test_behaviour_13_what_was_not_kept_is_written_anew_in_the_same_message(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    await run_until_killed(
        fake, store_path, asks_for_a_story(place), lambda stage: place.channel.by(fake.bot)
    )
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: stage.texts(place.channel) == ["You said: a story"])
        await stage.quiet()
        assert stage.texts(place.channel) == ["You said: a story"]
        assert len(await settled(stage)) == 1


@pytest.mark.usefixtures("kept_at_once")
@pytest.mark.parametrize("is_old", [False, True])
async def test_behaviour_13_a_post_whose_id_was_never_learned_is_found(
    fake: FakeDiscord, place: Place, store_path: Path, is_old: bool
) -> None:
    fake.lose_answer_of_next(POST, times=100)
    await run_until_killed(
        fake, store_path, asks_for_a_story(place), lambda stage: place.channel.by(fake.bot)
    )
    fake.rest._plans.clear()
    if is_old:
        fake.clock.turn(200.0)  # Discord has forgotten the nonce
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: stage.texts(place.channel) != [] and not stage.core.num_busy)
        (text,) = stage.texts(place.channel)
        assert text == "You said: a story" or "I was restarted" in text


@pytest.mark.parametrize("is_old", [False, True])
async def test_a_final_text_whose_posting_was_not_confirmed_replaces_what_is_there(
    stage: Stage, place: Place, is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = Where("discord", str(place.channel.id), "group")
    asked = place.alice.says(place.channel, "not for the bot")
    stage.fake.lose_answer_of_next(POST)
    with pytest.raises(Unreachable):
        await stage.discord.port.post(where, str(asked.id), Post("half", "k" * 25))
    if is_old:
        stage.fake.clock.turn(200.0)
        monkeypatch.setattr(port, "NONCE_S", 0.0)
    message_id = await stage.discord.port.post(where, str(asked.id), Post("whole", "k" * 25))
    (shown,) = place.channel.by(stage.fake.bot)
    assert (str(shown.id), shown.content) == (message_id, "whole")


async def test_what_was_said_while_the_bot_was_away_is_answered_if_it_is_recent(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        place.alice.says(place.channel, "before", mentions=[fake.bot])
        place.bob.says(place.bob.direct, "before")
        await stage.answers(place.channel, 1)
        await stage.answers(place.bob.direct, 1)
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.says(place.channel, "nothing for you")
    place.alice.says(place.channel, "meanwhile", mentions=[fake.bot])
    place.bob.says(place.bob.direct, "meanwhile")
    for boot in ("second", "third"):
        async with open_stage(fake, store_path, boot=boot) as stage:
            for channel in (place.channel, place.bob.direct):
                await stage.answers(channel, 2)
                assert stage.texts(channel) == ["You said: before", "You said: meanwhile"]


@pytest.mark.slow  # the library waits five seconds before it begins another session
async def test_what_was_said_between_two_sessions_is_answered(stage: Stage, place: Place) -> None:
    place.alice.says(place.channel, "before", mentions=[stage.fake.bot])
    await stage.answers(place.channel, 1)
    with stage.fake.gateway_held():
        await stage.fake.drop_gateway(resume=False)
        place.alice.says(place.channel, "in the gap", mentions=[stage.fake.bot])
    await stage.answers(place.channel, 2)
    assert stage.texts(place.channel) == ["You said: before", "You said: in the gap"]
    assert (stage.fake.gateway.identified, stage.fake.gateway.resumed) == (2, 0)


async def test_a_command_that_was_kept_is_carried_out_after_a_restart(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    clock = RealClock()
    call = Inbound(
        "123456",
        Where("discord", str(place.channel.id), "group"),
        Author(str(place.alice.id), "Alice"),
        "",
        clock.now_ms(),
        call=Call("undo"),
    )
    event = Event(call.event_id, call.author.external_id, msgspec.json.encode(call))
    async with open_database(store_path) as store:
        await store.write(receive, "discord", [event], clock.now_ms())
    async with open_stage(fake, store_path) as stage:
        await stage.until(lambda: stage.texts(place.alice.direct))
        assert stage.texts(place.alice.direct) == ["There is no conversation of yours here yet."]


async def test_what_was_said_long_before_gets_a_note_in_private(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        place.alice.says(place.channel, "first", mentions=[fake.bot], ago_s=1800)
        await stage.until(lambda: stage.texts(place.alice.direct))
    place.alice.says(place.channel, "second", mentions=[fake.bot], ago_s=1200)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: len(stage.texts(place.alice.direct)) == 2)
        assert stage.texts(place.alice.direct) == [AWAY, AWAY]
        assert stage.texts(place.channel) == []


async def test_without_the_intent_it_works_as_far_as_it_can_and_says_so(
    store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with fake_discord(approved=PRIVILEGED & ~Intent.MESSAGE_CONTENT) as fake:
        place = furnished(fake)
        async with open_stage(fake, store_path) as stage:
            place.alice.says(place.channel, "hello", mentions=[fake.bot])
            place.bob.says(place.bob.direct, "hello")
            (answer,) = await stage.answers(place.channel, 1)
            await stage.answers(place.bob.direct, 1)
            place.alice.says(place.channel, "and now?", reply_to=answer)
            assert len(await stage.answers(place.channel, 2)) == 2
    assert "message content intent" in caplog.text
    assert "hello" not in caplog.text


@pytest.mark.usefixtures("kept_at_once")
async def test_a_clock_goes_when_what_waited_runs_at_once_after_a_restart(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    waited: list[Message] = []

    def begin(stage: Stage) -> None:
        stage.brain.answer = lambda prompt: STORY * 4
        place.alice.says(place.channel, "a story", mentions=[fake.bot])

    def second_waits(stage: Stage) -> bool:
        if not waited and any(len(shown.versions) > 3 for shown in place.channel.by(fake.bot)):
            waited.append(place.alice.says(place.channel, "two", mentions=[fake.bot]))
        return bool(waited) and port.CLOCK in waited[0].reactions

    await run_until_killed(fake, store_path, begin, second_waits)
    assert list(waited[0].reactions) == [port.CLOCK]
    async with open_stage(fake, store_path, boot="second", seen_reaction=True) as stage:
        await stage.until(lambda: "You said: two" in stage.texts(place.channel))
        await stage.until(lambda: list(waited[0].reactions) == [port.SEEN])


async def test_behaviour_13_what_could_not_be_looked_for_is_looked_for_before_it_is_sent(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    fake.lose_answer_of_next(POST, times=100)
    await run_until_killed(
        fake, store_path, asks_for_a_story(place), lambda stage: place.channel.by(fake.bot)
    )
    fake.rest._plans.clear()
    fake.clock.turn(200.0)  # Discord has forgotten the nonce
    fake.fail_next("GET /channels/{channel_id}/messages", 503, times=2)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: stage.texts(place.channel) == ["You said: a story"])
        await stage.quiet()
        assert stage.texts(place.channel) == ["You said: a story"]
