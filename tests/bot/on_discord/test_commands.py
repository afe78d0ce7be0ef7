"""Commands and buttons on Discord: acknowledged in time, done for whom they are meant, answered privately."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.commands.catalogue import COMMANDS
from bot.on_discord import receipts
from bot.on_discord.interactions import NOT_HERE
from bot.on_discord.tree import ASK_ABOUT, MARKER
from storage.inbox import Event, get_marker
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import JOIN_S, RULES, SYNC, Stage, open_stage, pause
from tests.discord_peer import FakeDiscord, Interaction, NotPossible, Permission

STORY = "Once upon a time there was a swarm of servers, and it told stories. " * 20


class SlowCore:
    """Takes events in after a while."""

    def __init__(self, stage: Stage, wait_s: float) -> None:
        self._core = stage.core
        self._wait_s = wait_s

    async def receive(
        self, platform: str, events: Sequence[Event], markers: Mapping[str, str] | None = None
    ) -> None:
        await pause(self._wait_s)
        await self._core.receive(platform, events, markers)

    async def leave_place(self, platform: str, place: str) -> None:
        await self._core.leave_place(platform, place)

    def stop(self, turn_id: str) -> None:
        self._core.stop(turn_id)


async def asked_in(stage: Stage, place: Place, text: str = "hm") -> None:
    """Alice asks, and it is being answered."""
    before = len(place.channel.by(stage.fake.bot))
    place.alice.says(place.channel, text, mentions=[stage.fake.bot])
    await stage.until(lambda: len(place.channel.by(stage.fake.bot)) > before)


def is_answered(asked: Interaction) -> bool:
    return bool(asked.messages) and not asked.is_pending


@pytest.mark.slow
async def test_behaviour_11_a_command_is_acknowledged_in_time_however_slow_the_bot_is(
    stage: Stage, place: Place
) -> None:
    stage.discord.hearing.core = SlowCore(stage, 5.0)
    asked = place.alice.runs("ask", {"text": "why?"}, channel=place.channel)
    told = place.alice.runs("new", channel=place.alice.direct)
    await stage.until(lambda: asked.acknowledged_s and told.acknowledged_s)
    assert max(asked.acknowledged_after_s or 9, told.acknowledged_after_s or 9) < 3
    await stage.until(lambda: is_answered(told))
    assert (await stage.answers(place.channel, 2))[1].content == "You said: why?"


async def test_behaviour_11_an_answer_outlives_the_token_that_asked_for_it(
    stage: Stage, place: Place
) -> None:
    stage.brain.answer = lambda prompt: STORY
    asked = place.alice.runs("ask", {"text": "a story"}, channel=place.channel)
    await stage.until(lambda: len(place.channel.by(stage.fake.bot)) == 2)
    stage.fake.clock.turn(16 * 60.0)
    question, answer = await stage.answers(place.channel, 2)
    assert asked.acknowledged_after_s is not None
    assert question.content == "> a story"
    assert answer.content == STORY.strip()
    assert answer.reply_to is question


async def test_a_reply_to_the_answer_of_a_command_goes_on_with_it(stage: Stage, place: Place) -> None:
    place.alice.runs("ask", {"text": "one"}, channel=place.channel)
    _, answer = await stage.answers(place.channel, 2)
    place.alice.says(place.channel, "two", reply_to=answer)
    await stage.answers(place.channel, 3)
    one, two = await stage.turns()
    assert two.parent_id == one.question.turn_id


async def test_a_message_can_be_asked_about_from_its_menu(stage: Stage, place: Place) -> None:
    said = place.bob.says(place.channel, "the sky is green")
    place.alice.runs(ASK_ABOUT, channel=place.channel, on=said)
    _, answer = await stage.answers(place.channel, 2)
    assert answer.content == "You said: About what Bob wrote:\nthe sky is green"


async def test_private_answers_are_seen_by_one_person(stage: Stage, place: Place) -> None:
    asked = place.alice.runs("undo", channel=place.channel)
    await stage.until(lambda: is_answered(asked))
    assert [message.content for message in place.alice.private] == [
        "There is no conversation of yours here yet."
    ]
    assert place.channel.messages == []


async def test_a_command_whose_effect_shows_leaves_no_placeholder(
    stage: Stage, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "SILENT_S", 0.2)
    place.alice.says(place.alice.direct, "one")
    await stage.answers(place.alice.direct, 1)
    asked = place.alice.runs("retry", channel=place.alice.direct)
    await stage.answers(place.alice.direct, 2)
    await stage.until(lambda: not asked.messages)
    assert place.alice.private == []


async def test_a_command_that_nobody_answers_is_excused(
    stage: Stage, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "PATIENCE_S", 0.2)
    stage.discord.hearing.core = SlowCore(stage, 60.0)
    asked = place.alice.runs("help", channel=place.channel)
    await stage.until(lambda: is_answered(asked))
    assert place.alice.private[0].content == receipts.LOST


async def test_behaviour_23_stop_by_button_ends_the_answer_and_strangers_cannot(
    stage: Stage, place: Place
) -> None:
    stage.brain.answer = lambda prompt: STORY
    await asked_in(stage, place)
    (answer,) = place.channel.by(stage.fake.bot)
    place.bob.presses(answer, "Stop")
    await stage.until(lambda: place.bob.private)
    assert "can stop it" in place.bob.private[0].content
    pressed = place.alice.presses(answer, "Stop")
    await stage.until(lambda: answer.content.endswith("(stopped)"))
    await stage.quiet()
    shown = answer.content
    assert len(shown) < len(STORY)
    await pause(0.3)
    assert answer.content == shown
    assert (await stage.turns())[0].state == "stopped"
    assert pressed.messages == []
    assert [button["label"] for button in answer.buttons] == ["Retry", "Continue", "Report"]


@pytest.mark.parametrize("how", ["command", "moderator"])
async def test_behaviour_23_stop_by_command_or_by_a_moderator(stage: Stage, place: Place, how: str) -> None:
    stage.brain.answer = lambda prompt: STORY
    await asked_in(stage, place)
    (answer,) = place.channel.by(stage.fake.bot)
    if how == "command":
        place.alice.runs("stop", channel=place.channel)
    else:
        place.moderator.presses(answer, "Stop")
    await stage.until(lambda: answer.content.endswith("(stopped)"))
    assert len(answer.content) < len(STORY)


async def test_a_button_is_about_its_own_conversation(stage: Stage, place: Place) -> None:
    await asked_in(stage, place, "one")
    (one,) = await stage.answers(place.channel, 1)
    await pause(JOIN_S)
    await asked_in(stage, place, "two")
    await stage.answers(place.channel, 2)
    place.alice.presses(one, "Retry")
    answers = await stage.answers(place.channel, 3)
    assert answers[2].content == "You said: one"
    assert answers[2].reply_to is one.reply_to


async def test_behaviour_24_retry_answers_anew_without_asking_twice(stage: Stage, place: Place) -> None:
    await asked_in(stage, place, "hm")
    (first,) = await stage.answers(place.channel, 1)
    stage.brain.answer = lambda prompt: f"Again: {prompt}"
    place.alice.presses(first, "Retry")
    _, second = await stage.answers(place.channel, 2)
    assert second.content == "Again: hm"
    assert second.reply_to is first.reply_to
    assert stage.brain.requests[0].ids == stage.brain.requests[1].ids
    place.alice.presses(first, "Retry")
    await stage.until(lambda: place.alice.private)
    assert "newer answer" in place.alice.private[0].content
    assert await stage.num_turns() == 2


async def test_behaviour_24_continue_goes_on_where_the_answer_was_cut_off(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    params = replace(RULES.wishes.params, max_new_tokens=30)
    rules = replace(RULES, wishes=replace(RULES.wishes, params=params))
    async with open_stage(fake, store_path, rules=rules) as stage:
        stage.brain.answer = lambda prompt: "abcdefghijklmnopqrstuvwxyz0123456789"
        place.alice.says(place.alice.direct, "letters")
        (first,) = await stage.answers(place.alice.direct, 1)
        assert first.content.startswith("abcdefghijklmnopqrstuvwxyz0123\n")
        place.alice.presses(first, "Continue")
        await stage.answers(place.alice.direct, 2)
        before, after = stage.brain.requests
        assert after.ids == [*before.ids, *map(ord, "abcdefghijklmnopqrstuvwxyz0123")]


async def test_behaviour_24_a_reply_to_an_older_answer_forks(stage: Stage, place: Place) -> None:
    await asked_in(stage, place, "one")
    (one,) = await stage.answers(place.channel, 1)
    for num, text in ((2, "two"), (3, "instead of two")):
        await pause(JOIN_S)
        place.alice.says(place.channel, text, reply_to=one)
        await stage.answers(place.channel, num)
    first, second, third = await stage.turns()
    assert second.parent_id == third.parent_id == first.question.turn_id
    numbers = [said.question.conversation_id for said in (first, second, third)]
    assert numbers[0] == numbers[1] != numbers[2]


async def test_a_person_who_may_not_use_the_bot_is_told_so_privately(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, denied_channels=(place.channel.id,)) as stage:
        asked = place.alice.runs("ask", {"text": "me?"}, channel=place.channel)
        await stage.until(lambda: asked.messages)
        assert [message.content for message in place.alice.private] == [NOT_HERE]


async def test_behaviour_29_every_command_of_the_catalogue_is_there(stage: Stage, place: Place) -> None:
    (known,) = stage.fake.commands.values()
    names = set()
    for command in known.values():
        subcommands = [option for option in command.get("options") or [] if option["type"] == 1]
        names |= {f"{command['name']} {one['name']}" for one in subcommands} or {command["name"]}
        assert command["integration_types"]
    assert names == {command.name for command in COMMANDS} | {ASK_ABOUT}
    by_name = {command["name"]: command for command in known.values()}
    (text,) = by_name["ask"]["options"]
    assert text["required"]
    (what,) = by_name["forget"]["options"]
    assert [choice["value"] for choice in what["choices"]] == ["here", "everything"]


async def test_behaviour_29_commands_for_admins_are_hidden_from_others(stage: Stage, place: Place) -> None:
    with pytest.raises(NotPossible, match="not shown"):
        place.alice.runs("admin sessions", channel=place.channel)
    bosses = stage.fake.role(place.guild, "bosses", Permission.MANAGE_GUILD)
    boss = stage.fake.user("boss", place.guild, roles=(bosses,))
    with pytest.raises(NotPossible, match="not offered"):
        boss.runs("admin sessions", channel=boss.direct)
    asked = boss.runs("admin sessions", channel=place.channel)
    await stage.until(lambda: is_answered(asked))


async def test_behaviour_30_commands_are_sent_only_when_they_have_changed(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    for _ in range(2):
        async with open_stage(fake, store_path) as stage:
            known = await stage.store.read(get_marker, "discord", MARKER)
            await stage.until(lambda: len(fake.calls(SYNC)) == 1)
    assert known is not None
    assert json.dumps(known)


async def test_where_the_bot_is_no_member_the_command_itself_is_answered(stage: Stage, place: Place) -> None:
    guild = stage.fake.guild("Elsewhere", with_bot=False)
    channel = stage.fake.channel(guild)
    carol = stage.fake.user("carol", guild)
    stage.brain.answer = lambda prompt: STORY
    asked = carol.runs("ask", {"text": "a story"}, channel=channel)
    await stage.until(lambda: len(asked.messages) == 2)
    await stage.quiet()
    question, answer = asked.messages
    assert question.content == "> a story"
    assert answer.content == STORY.strip()
    assert len(answer.versions) > 1
    assert answer.buttons == []
