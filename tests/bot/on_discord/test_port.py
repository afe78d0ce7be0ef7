"""The way out by itself: finding what was sent, telling one person, and whose fault an error is."""

import asyncio

import aiohttp
import discord
import pytest

from bot.on_discord import pacers, telling
from bot.on_discord.errors import RefusedWith, translated
from bot.words import Author, Call, Inbound, Limited, Post, Refused, Unreachable, Where
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import DELETE, EDIT, POST, SYNC, TYPING, Stage
from tests.discord_peer import Message, Permission, Person

TURN = "a" * 32
KEYS = ["a" * 25, "b" * 25, "c" * 25]
REACT = "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji_name}/@me"


def where(place: Place) -> Where:
    return Where("discord", str(place.channel.id), "group")


def prompt(place: Place) -> Message:
    return place.alice.says(place.channel, "not for the bot")


def event_of(message: Message, person: Person, place: Where, command: str = "") -> Inbound:
    call = Call(command) if command else None
    author = Author(str(person.id), person.name)
    return Inbound(str(message.id), place, author, "hm", 0, call=call)


async def test_a_message_is_found_by_its_button_or_because_no_turn_knows_it(
    stage: Stage, place: Place
) -> None:
    stage.brain.token_s, stage.brain.answer = 0, lambda prompt: "🦊 " * 1000
    asked = place.alice.says(place.channel, "foxes", mentions=[stage.fake.bot])
    await stage.answers(place.channel, 2)
    here, sender = where(place), stage.discord.port
    lost = await sender.post(here, str(asked.id), Post("part two", KEYS[1]))
    last = await sender.post(here, str(asked.id), Post("part three", KEYS[2], TURN, ("retry",)))
    await sender.post(here, str(prompt(place).id), Post("another answer", "d" * 25))
    found = await sender.find(here, str(asked.id), [KEYS[2], KEYS[1]])
    assert found == {KEYS[1]: lost, KEYS[2]: last}
    assert await sender.find(here, str(prompt(place).id), KEYS[:1]) == {}


async def test_a_retry_far_below_its_prompt_is_found_too(stage: Stage, place: Place) -> None:
    asked, here = prompt(place), where(place)
    for number in range(120):
        place.bob.says(place.channel, f"talk {number}")
    sent = await stage.discord.port.post(here, str(asked.id), Post("late", KEYS[0], TURN, ("retry",)))
    for number in range(20):
        place.bob.says(place.channel, f"more talk {number}")
    assert await stage.discord.port.find(here, str(asked.id), KEYS[:1]) == {KEYS[0]: sent}


async def test_where_history_may_not_be_read_the_answer_is_no_reply(stage: Stage, place: Place) -> None:
    asked = prompt(place)
    place.channel.deny(stage.fake.bot, Permission.READ_MESSAGE_HISTORY)
    await stage.discord.port.post(where(place), str(asked.id), Post("an answer", KEYS[0]))
    (answer,) = place.channel.by(stage.fake.bot)
    assert (answer.content, answer.reply_to) == ("an answer", None)


async def test_a_message_without_words_says_so_and_a_file_is_attached(stage: Stage, place: Place) -> None:
    asked, sender = prompt(place), stage.discord.port
    sent = await sender.post(where(place), str(asked.id), Post(" ", KEYS[0]))
    await sender.edit(where(place), sent, Post("see the file", KEYS[0], file=("answer.md", b"all of it")))
    (answer,) = place.channel.by(stage.fake.bot)
    assert answer.contents == ["(nothing)", "see the file"]
    assert [(file.filename, file.content) for file in answer.now.attachments] == [("answer.md", b"all of it")]


async def test_a_message_that_is_gone_can_be_removed_again(stage: Stage, place: Place) -> None:
    asked, sender = prompt(place), stage.discord.port
    sent = await sender.post(where(place), str(asked.id), Post("gone soon", KEYS[0]))
    await sender.remove(where(place), sent)
    await sender.remove(where(place), sent)
    assert place.channel.by(stage.fake.bot) == []
    assert [call.status for call in stage.fake.calls(DELETE)] == [204, 404]


async def test_what_is_personal_is_not_said_where_others_read_it(stage: Stage, place: Place) -> None:
    place.alice.takes_direct_messages = False
    asked, sender = prompt(place), stage.discord.port
    await sender.tell(event_of(asked, place.alice, where(place), "quota"), "You have 3 credits.")
    (said,) = place.channel.by(stage.fake.bot)
    assert said.content == telling.NO_DIRECT_MESSAGES
    assert said.reply_to is asked


async def test_a_long_sentence_is_told_in_parts(stage: Stage, place: Place) -> None:
    asked = prompt(place)
    await stage.discord.port.tell(event_of(asked, place.alice, where(place)), "word " * 600)
    assert "".join(stage.texts(place.alice.direct)).count("word") == 600
    assert len(stage.texts(place.alice.direct)) == 2


@pytest.mark.parametrize("how", ["privately", "below a command", "in a direct chat"])
async def test_what_is_too_long_to_be_told_is_whole_in_a_file(stage: Stage, place: Place, how: str) -> None:
    text = "".join(f"session {number} of somebody's\n" for number in range(500))
    here = where(place)
    if how == "below a command":
        asked = place.alice.runs("undo", channel=place.channel)
        await stage.until(lambda: asked.messages and not asked.is_pending)
        event = Inbound(str(asked.id), here, Author(str(place.alice.id), "Alice"), "", 0)
    elif how == "in a direct chat":
        here = Where("discord", str(place.alice.direct.id), "direct")
        event = Inbound(str(stage.fake.world.ids.next()), here, Author(str(place.alice.id), "Alice"), "", 0)
    else:
        event = event_of(prompt(place), place.alice, here)
    await stage.discord.port.tell(event, text)
    told = place.alice.private[-1] if how == "below a command" else place.alice.direct.messages[-1]
    assert told.content.startswith("session 0 of somebody's\nsession 1 ")
    assert told.content.endswith(telling.IN_FILE)
    (file,) = told.now.attachments
    assert (file.filename, file.content.decode()) == (telling.WHOLE_NAME, text)


async def test_what_is_too_long_beside_a_file_says_how_much_is_left_out(stage: Stage, place: Place) -> None:
    event = event_of(prompt(place), place.alice, where(place))
    await stage.discord.port.tell(event, "a" * (3 * telling.LETTERS + 7), ("export.json", b"{}"))
    first, _, last = place.alice.direct.by(stage.fake.bot)
    assert [file.filename for file in first.now.attachments] == ["export.json"]
    assert last.content.endswith("\n(7 more letters are left out)")


@pytest.mark.parametrize(
    ("status", "code", "expected"), [(403, 50013, Refused), (404, 10008, Refused), (503, 0, Unreachable)]
)
async def test_errors_say_whether_to_try_again(
    stage: Stage, place: Place, status: int, code: int, expected: type[Exception]
) -> None:
    asked, sender = prompt(place), stage.discord.port
    sent = await sender.post(where(place), str(asked.id), Post("first", KEYS[0]))
    stage.fake.fail_next(EDIT, status, code=code)
    with pytest.raises(expected):
        await sender.edit(where(place), sent, Post("second", KEYS[0]))


async def test_a_long_limit_is_told_and_not_waited_for(stage: Stage, place: Place) -> None:
    asked = prompt(place)
    stage.fake.limit_next(POST, 45.0)
    with pytest.raises(Limited) as limited:
        await stage.discord.port.post(where(place), str(asked.id), Post("hm", KEYS[0]))
    assert limited.value.retry_after_s == 45.0


async def test_a_call_that_takes_too_long_or_breaks_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        async with translated(0.01):
            await asyncio.sleep(1)
    for error in (aiohttp.ServerDisconnectedError(), ConnectionResetError()):
        with pytest.raises(Unreachable):
            async with translated():
                raise error
    with pytest.raises(Refused):
        async with translated():
            raise discord.ClientException("no")


async def test_a_reaction_that_is_not_allowed_is_refused_with_its_number(stage: Stage, place: Place) -> None:
    asked = prompt(place)
    place.channel.deny(stage.fake.bot, Permission.ADD_REACTIONS)
    with pytest.raises(RefusedWith) as refused:
        await stage.discord.port.acknowledge(where(place), str(asked.id), "queued")
    assert refused.value.code == 50013
    assert len(stage.fake.calls(REACT)) == 1


async def test_pacers_are_one_for_each_channel_and_not_too_many(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacers, "MOST_PACERS", 2)
    places = [Where("discord", str(number), "group") for number in range(3)]
    one, two = (stage.discord.port.pacer(place) for place in places[:2])
    assert stage.discord.port.pacer(places[0]) is one
    stage.discord.port.pacer(places[2])
    assert stage.discord.port.pacer(places[0]) is one
    assert stage.discord.port.pacer(places[1]) is not two


async def test_typing_is_shown(stage: Stage, place: Place) -> None:
    await stage.discord.port.typing(where(place))
    assert place.channel.is_typing(stage.fake.bot, stage.fake.clock.now_s())
    assert len(stage.fake.calls(TYPING)) == 1
    assert len(stage.fake.calls(SYNC)) == 1
