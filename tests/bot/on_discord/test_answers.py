"""Answers on Discord: who is answered, how it looks, and that it is there exactly once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bot.on_discord import hearing
from bot.sending.pacing import ChannelPace
from storage.errors import StoreBusy
from storage.inbox import Event
from storage.rate import Rate
from tests.bot.on_discord.conftest import Place, furnished
from tests.bot.on_discord.stage import DELETE, EDIT, JOIN_S, POST, RULES, TYPING, Stage, open_stage, pause
from tests.discord_peer import FakeDiscord
from tests.discord_peer.conftest import fake_discord

LONG = "A long answer, of several sentences. " * 10
SUPPRESS_EMBEDS = 1 << 2


async def test_behaviour_01_a_mention_is_answered_with_one_streamed_reply(stage: Stage, place: Place) -> None:
    stage.brain.answer = lambda prompt: f"{prompt}: {LONG}"
    asked = place.alice.says(place.channel, "why?", mentions=[stage.fake.bot])
    (answer,) = await stage.answers(place.channel, 1)
    assert answer.content == f"why?: {LONG}".strip()
    assert answer.reply_to is asked
    assert stage.fake.calls(TYPING)
    drafts = [text.removesuffix("...").rstrip() for text in answer.contents[:-1]]
    assert len(drafts) > 1
    assert all(answer.content.startswith(draft) for draft in drafts)
    assert answer.versions[0].flags & SUPPRESS_EMBEDS
    assert [button["label"] for button in answer.buttons] == ["Retry", "Report"]


async def test_a_long_answer_is_several_messages_with_buttons_below_the_last(
    stage: Stage, place: Place
) -> None:
    stage.brain.token_s = 0
    stage.brain.answer = lambda prompt: "🦊 " * 1000
    place.alice.says(place.alice.direct, "foxes")
    messages = await stage.answers(place.alice.direct, 2)
    assert "".join(message.content for message in messages).count("🦊") == 1000
    assert [len(message.buttons) for message in messages] == [0, 2]


async def test_behaviour_02_two_answers_in_a_channel_keep_its_limits_and_both_finish(
    store_path: Path,
) -> None:
    async with fake_discord(limits={}) as fake:
        place = furnished(fake)
        async with open_stage(fake, store_path, pace=ChannelPace, token_s=0.04) as stage:
            stage.brain.answer = lambda prompt: f"{prompt} {'word ' * 15}"
            place.alice.says(place.channel, "one", mentions=[fake.bot])
            place.bob.says(place.channel, "two", mentions=[fake.bot])
            answers = await stage.answers(place.channel, 2)
            assert sorted(answer.content[:3] for answer in answers) == ["one", "two"]
            assert all(answer.content.endswith("word") for answer in answers)
        sent = sorted(call.at_s for route in (POST, EDIT) for call in fake.calls(route))
        assert all(late - early >= 4.9 for early, late in zip(sent, sent[5:], strict=False))
        assert all(call.status == 200 for route in (POST, EDIT) for call in fake.calls(route))
        waits = [late - early for early, late in pairwise(sent)]
        assert max(waits) < 6


async def test_behaviour_04_a_limited_final_edit_is_made_again(stage: Stage, place: Place) -> None:
    place.alice.says(place.channel, "hm", mentions=[stage.fake.bot])
    stage.brain.answer = lambda prompt: LONG
    await stage.until(lambda: place.channel.by(stage.fake.bot))
    stage.fake.limit_next(EDIT, 0.3, times=2)
    (answer,) = await stage.answers(place.channel, 1)
    assert answer.content == LONG.strip()
    assert 429 in [call.status for call in stage.fake.calls(EDIT)]


async def test_behaviour_04_what_cannot_be_edited_is_posted_anew_and_removed_only_then(
    stage: Stage, place: Place
) -> None:
    stage.brain.answer = lambda prompt: LONG
    place.alice.says(place.channel, "hm", mentions=[stage.fake.bot])
    await stage.until(lambda: place.channel.by(stage.fake.bot))
    (preview,) = place.channel.by(stage.fake.bot)
    stage.fake.fail_next(EDIT, 403, times=100, code=50013)
    await stage.until(lambda: preview.is_deleted)
    await stage.quiet()
    (answer,) = place.channel.by(stage.fake.bot)
    assert answer.content == LONG.strip()
    assert preview.deleted_s is not None
    assert answer.versions[0].at_s < preview.deleted_s
    assert len(stage.fake.calls(DELETE)) == 1


async def test_an_answer_whose_posting_was_not_confirmed_is_there_once(stage: Stage, place: Place) -> None:
    stage.fake.lose_answer_of_next(POST, times=1)
    place.alice.says(place.channel, "hm", mentions=[stage.fake.bot])
    await stage.until(lambda: len(stage.fake.calls(POST)) == 2)
    await stage.quiet()
    assert stage.texts(place.channel) == ["You said: hm"]
    bodies = [call.fields for call in stage.fake.calls(POST)]
    assert len(bodies) == 2
    assert bodies[0]["nonce"] == bodies[1]["nonce"]
    assert len(bodies[0]["nonce"]) == 25
    assert all(body["enforce_nonce"] for body in bodies)


async def test_behaviour_10_nothing_that_is_said_pings_anybody(stage: Stage, place: Place) -> None:
    role = stage.fake.role(place.guild, "crew")
    pings = f"@everyone @here {role.mention} {place.bob.mention} "
    stage.brain.answer = lambda prompt: pings * 4
    place.alice.says(place.channel, "call", mentions=[stage.fake.bot])
    (answer,) = await stage.answers(place.channel, 1)
    assert len(answer.versions) > 1
    place.alice.runs("ask", {"text": pings}, channel=place.channel)
    await stage.answers(place.channel, 3)
    quota = place.alice.runs("quota", channel=place.channel)
    await stage.until(lambda: quota.messages and not quota.is_pending)
    shown = [*place.channel.by(stage.fake.bot), *place.alice.private]
    assert len(shown) == 4
    for version in (version for message in shown for version in message.versions if version.content):
        assert version.allowed_mentions is not None
        assert version.allowed_mentions["parse"] == []
        assert not version.allowed_mentions.get("replied_user")
        assert [*version.pings, *version.pings_roles] == []
        assert not version.pings_everyone


@pytest.mark.parametrize("how", ["direct", "reply", "own thread", "thread of before"])
async def test_a_message_for_us_needs_no_mention(stage: Stage, place: Place, how: str) -> None:
    channel, reply_to = place.channel, None
    if how == "direct":
        channel = place.alice.direct
    elif how == "reply":
        place.alice.says(channel, "first", mentions=[stage.fake.bot])
        (reply_to,) = await stage.answers(channel, 1)
    elif how == "own thread":
        channel = stage.fake.world.start_thread(channel, stage.fake.bot, "ours")
    else:
        channel = place.bob.starts_thread(channel, "theirs")
        place.alice.says(channel, "first", mentions=[stage.fake.bot])
        await stage.answers(channel, 1)
        await pause(JOIN_S)  # what is said within a moment is a part of what was said before
    before = len(channel.by(stage.fake.bot))
    if reply_to is not None:
        place.alice.silently_replies(reply_to, "second")
    else:
        place.alice.says(channel, "second")
    answers = await stage.answers(channel, before + 1)
    assert answers[-1].content == "You said: second"
    turns = await stage.turns()
    assert len({one.question.conversation_id for one in turns}) == 1


async def test_what_is_not_for_us_is_not_answered(stage: Stage, place: Place) -> None:
    bot, channel = stage.fake.bot, place.channel
    robot = stage.fake.user("robot", place.guild)
    robot.is_bot = True
    robot.says(channel, "beep", mentions=[bot])
    place.alice.says(channel, "just talking")
    place.alice.says(channel, "@everyone look")
    place.alice.says(channel, "to bob", mentions=[place.bob])
    place.alice.says(channel, "", mentions=[bot])
    place.alice.says(place.bob.starts_thread(channel, "theirs"), "in their thread")
    edited = place.alice.says(channel, "not yet")
    place.alice.edits(edited, f"{bot.mention} now?")
    place.alice.says(channel, "this one", mentions=[bot])
    answers = await stage.answers(channel, 1)
    assert [answer.content for answer in answers] == ["You said: this one"]
    assert await stage.num_turns() == 1


async def test_a_person_whom_the_operator_denies_is_not_answered(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, denied_users=(place.alice.id,), direct_messages=False) as stage:
        place.alice.says(place.channel, "me?", mentions=[fake.bot])
        place.bob.says(place.bob.direct, "me?")
        place.bob.says(place.channel, "me!", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
        assert stage.texts(place.channel) == ["You said: me!"]
        assert stage.texts(place.bob.direct) == []


async def test_a_question_that_waits_has_a_clock_until_its_time_has_come(stage: Stage, place: Place) -> None:
    stage.brain.answer = lambda prompt: "word " * 80
    channel = place.alice.direct
    place.alice.says(channel, "one")
    await stage.until(lambda: channel.by(stage.fake.bot))
    second = place.alice.says(channel, "two")
    await stage.until(lambda: "🕒" in second.reactions)
    await stage.until(lambda: "🕒" not in second.reactions)
    await stage.answers(channel, 2)
    assert await stage.num_turns() == 2


async def test_a_refusal_is_said_privately_or_else_in_place(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:

    rules = replace(RULES, rate=Rate(burst=1, interval_ms=60_000))
    place.bob.takes_direct_messages = False
    async with open_stage(fake, store_path, rules=rules) as stage:
        for person in (place.alice, place.bob):
            place_before = len(place.channel.by(fake.bot))
            person.says(place.channel, "one", mentions=[fake.bot])
            await stage.answers(place.channel, place_before + 1)
            person.says(place.channel, "two", mentions=[fake.bot])
        await stage.until(lambda: len(place.channel.by(fake.bot)) == 3 and stage.texts(place.alice.direct))
        assert [text[:13] for text in stage.texts(place.alice.direct)] == ["That was fast"]
        texts = stage.texts(place.channel)
        assert [text[:13] for text in texts] == ["You said: one", "You said: one", "That was fast"]


async def test_a_command_in_a_thread_does_not_make_the_thread_ours(stage: Stage, place: Place) -> None:
    thread = place.bob.starts_thread(place.channel, "theirs")
    asked = place.bob.runs("help", channel=thread)
    await stage.until(lambda: asked.messages and not asked.is_pending)
    place.bob.says(thread, "just talking")
    await pause(0.2)  # it must have been passed over before the thread becomes ours
    place.bob.says(thread, "to you", mentions=[stage.fake.bot])
    await stage.answers(thread, 1)
    assert stage.texts(thread) == ["You said: to you"]


async def test_a_store_that_is_busy_is_asked_again(
    stage: Stage, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "BUSY_S", (0.01, 0.01))
    core = BusyCore(stage)
    stage.discord.hearing.core = core
    place.alice.says(place.channel, "hm", mentions=[stage.fake.bot])
    await stage.answers(place.channel, 1)
    assert core.num_refused == 2


async def test_what_people_write_is_never_logged(
    fake: FakeDiscord, place: Place, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_stage(fake, store_path) as stage:
        stage.brain.answer = lambda prompt: "the answer is marzipan"
        place.alice.says(place.channel, "the word is nougat", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
        asked = place.bob.runs("ask", {"text": "the word is praline"}, channel=place.channel)
        await stage.until(lambda: asked.messages)
        await stage.answers(place.channel, 3)
        assert "marzipan" in stage.texts(place.channel)[0]
    logged = [record for record in caplog.records if not record.name.startswith("tests.")]
    assert logged
    words = ("nougat", "marzipan", "praline")
    assert not [record for record in logged if any(word in record.getMessage() for word in words)]


class BusyCore:
    """Cannot keep anything at first."""

    def __init__(self, stage: Stage) -> None:
        self._core = stage.core
        self.num_refused = 0

    async def receive(
        self, platform: str, events: Sequence[Event], markers: Mapping[str, str] | None = None
    ) -> None:
        if self.num_refused < 2:
            self.num_refused += 1
            raise StoreBusy("too much waits")
        await self._core.receive(platform, events, markers)

    async def leave_place(self, platform: str, place: str) -> None:
        await self._core.leave_place(platform, place)

    def stop(self, turn_id: str) -> None:
        self._core.stop(turn_id)
