"""Answers reach their readers once, whatever the homeserver does: limits, refusals, lost answers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bot.on_matrix.wire import Wire, error_of
from bot.words import Limited, Post, Refused, SendError, Unreachable, Where
from tests.bot.on_matrix.conftest import NewBot
from tests.bot.on_matrix.world import Bot, Place, meet, open_bot, open_client
from tests.matrix_peer.human import Human, NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)


SLOW_S = 1.5


class Answer:
    """What a homeserver that does not do its work answers."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body
        self.content = self

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def read(self, size: int) -> bytes:
        body, self._body = self._body[:size], self._body[size:]
        return body


LIMITED = Answer(429, b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 300}')
FORBIDDEN = Answer(403, b'{"errcode": "M_FORBIDDEN"}')


class Trouble:
    """Stands between a bot and its homeserver."""

    def __init__(self, bot: Bot) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.instead: Callable[[str, bytes], Answer | None] = lambda path, body: None
        self.is_answer_lost: Callable[[str, bytes], bool] = lambda path, body: False
        self.is_slow: Callable[[str, bytes], bool] = lambda path, body: False
        self.num_cut_off = 0
        """Edits that were given up while they were sent."""
        self._send = bot.client.send
        bot.client.send = self._watched

    async def _watched(self, method: str, path: str, body: bytes | None = None, *rest: Any) -> Any:
        if method == "PUT":
            self.asked.append((path, body or b""))
        if method == "PUT" and (instead := self.instead(path, body or b"")) is not None:
            return Answer(instead.status, instead._body)
        try:
            answer = await self._send(method, path, body, *rest)
            if method == "PUT" and self.is_slow(path, body or b""):
                await asyncio.sleep(SLOW_S)
        except asyncio.CancelledError:
            self.num_cut_off += b"m.new_content" in (body or b"")
            raise
        if method == "PUT" and self.is_answer_lost(path, body or b""):
            raise OSError("the line went dead")
        return answer


def once(matches: Callable[[str, bytes], bool]) -> Callable[[str, bytes], bool]:
    """True for the first match alone."""
    seen: list[str] = []

    def is_first(path: str, body: bytes) -> bool:
        if seen or not matches(path, body):
            return False
        seen.append(path)
        return True

    return is_first


def is_final(path: str, body: bytes) -> bool:
    return b"the very end" in body and b"m.new_content" in body


def is_message(path: str, body: bytes) -> bool:
    return "/send/m.room.message/" in path


ANSWER = "word " * 20 + "the very end"


def writes_slowly(bot: Bot) -> None:
    bot.brain.answer = lambda prompt: ANSWER
    bot.brain.token_s = 0.01


async def test_behaviour_04_a_final_edit_that_is_limited_is_tried_again_and_there_once(chat: Place) -> None:
    writes_slowly(chat.bot)
    trouble, first = Trouble(chat.bot), once(is_final)
    trouble.instead = lambda path, body: LIMITED if first(path, body) else None
    await chat.say("tell me")
    answer = await chat.reads(ANSWER)
    await chat.bot.quiet()
    assert await chat.texts() == [ANSWER]
    assert sum(is_final(*asked) for asked in trouble.asked) == 2
    assert [edit["m.new_content"]["body"] for edit in answer.edits].count(ANSWER) == 1


async def test_behaviour_04_a_final_edit_that_is_refused_is_posted_anew_and_the_preview_goes_then(
    chat: Place,
) -> None:
    writes_slowly(chat.bot)
    trouble = Trouble(chat.bot)
    trouble.instead = lambda path, body: FORBIDDEN if is_final(path, body) else None
    await chat.say("tell me")
    await chat.reads(ANSWER)
    await chat.until(lambda them: [it.is_redacted for it in them] == [True, False])
    paths = [path for path, body in trouble.asked if b"the very end" in body or "/redact/" in path]
    assert ["/redact/" in path for path in paths] == [False, False, True]
    assert await chat.texts() == [ANSWER]


@pytest.mark.parametrize("is_final_lost", [False, True])
async def test_behaviour_15_a_post_whose_answer_was_lost_is_sent_under_the_same_name(
    chat: Place, is_final_lost: bool
) -> None:
    writes_slowly(chat.bot)
    chat.bot.brain.token_s = 0.0 if is_final_lost else 0.01
    trouble = Trouble(chat.bot)
    trouble.is_answer_lost = once(is_message)
    await chat.say("tell me")
    await chat.reads(ANSWER)
    await chat.bot.quiet()
    assert await chat.texts() == [ANSWER]
    posts = [path for path, body in trouble.asked if is_message(path, body) and b"m.new_content" not in body]
    assert len(posts) == 2
    assert len(set(posts)) == 1


async def test_behaviour_15_a_preview_that_is_cut_off_by_the_end_of_its_answer_is_the_answer_then(
    chat: Place,
) -> None:
    writes_slowly(chat.bot)
    chat.bot.brain.token_s = 0.005
    trouble = Trouble(chat.bot)
    trouble.is_slow = once(is_message)
    await chat.say("tell me")
    await chat.reads(ANSWER)
    await chat.bot.quiet()
    assert await chat.texts() == [ANSWER]


async def test_an_edit_that_is_cut_off_ends_before_the_next_one_begins(chat: Place) -> None:
    writes_slowly(chat.bot)
    chat.bot.brain.answer = lambda prompt: "word " * 20 + ANSWER
    trouble = Trouble(chat.bot)
    trouble.is_slow = lambda path, body: b"m.new_content" in body and not is_final(path, body)
    await chat.say("tell me")
    answer = await chat.reads("word " * 20 + ANSWER)
    await chat.bot.quiet()
    assert len(answer.edits) > 1
    assert trouble.num_cut_off == 0


async def test_behaviour_15_the_same_transaction_after_a_crash_is_no_second_event(
    anna: Human, bot: Bot
) -> None:
    place = await meet(anna, bot, direct=True)
    where = Where("matrix", place.room_id, "direct")
    asked = await place.say("not heard", kind="m.notice")
    first = await bot.adapter.port.post(where, asked, Post("half an ans", "a-key"))
    found = await bot.adapter.port.find(where, asked, ["a-key", "never-sent"])
    assert found["a-key"] == first
    await bot.adapter.port.edit(where, first, Post("half an answer", "a-key"))
    await bot.adapter.port.remove(where, found["never-sent"])
    await bot.adapter.port.remove(where, found["never-sent"])
    await place.reads("half an answer")
    assert await place.texts() == ["half an answer"]


async def test_behaviour_07_long_answers_of_wide_letters_are_several_messages(chat: Place) -> None:
    text = "Съешь же ещё этих мягких булок. " * 100 + "🙂🙃" * 750
    chat.bot.brain.answer = lambda prompt: text
    await chat.say("tell me")
    await chat.until(lambda them: "".join(it.text for it in them) == text)
    assert len(await chat.texts()) > 1


async def test_an_answer_that_is_too_long_for_messages_is_a_file(chat: Place) -> None:
    text = "🙂" * 3900
    chat.bot.brain.answer = lambda prompt: text
    chat.bot.adapter.port.limits = chat.bot.adapter.port.limits.__class__(5000, most_parts=3)
    asked = await chat.say("tell me")
    file = await chat.until(lambda them: next((it for it in them if it.kind == "m.file"), None))
    assert (file.text, file.reply_to) == ("answer.md", asked)
    address = file.content["url"].removeprefix("mxc://")
    wire = Wire(chat.human.client)
    status, body = await wire._send(
        "GET", f"/_matrix/client/v1/media/download/{address}", b"", "text/plain", 5.0, 1 << 20
    )
    assert (status, body.decode()) == (200, text)


async def test_behaviour_03_more_answers_than_three_on_stock_limits_are_one_event_each(
    new_bot: NewBot, new_human: NewHuman
) -> None:
    bot = await new_bot(send_burst=50, sends_per_second=0.2)
    people = [await new_human(f"person{number}") for number in range(4)]
    places = [await meet(human, bot, direct=True) for human in people]
    writes_slowly(bot)
    trouble = Trouble(bot)
    await asyncio.gather(*(place.say("tell me") for place in places))
    for place in places:
        await place.reads(ANSWER)
    await bot.quiet()
    assert sum(is_message(*asked) for asked in trouble.asked) == len(places)


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_behaviour_03_a_minute_of_writing_on_stock_limits_is_hardly_ever_refused(
    synapse: Synapse, new_human: NewHuman, store_path: Any
) -> None:
    account = await asyncio.to_thread(synapse.register, "limited", is_limited=True)
    anna = await new_human("anna")
    text = "A sentence of words. " * 60
    async with (
        open_client(synapse.url, account) as client,
        open_bot(client, store_path, answer=text, send_burst=10, sends_per_second=0.2) as bot,
    ):
        bot.brain.token_s = 60 / len(text)
        place = await meet(anna, bot, direct=True)
        refused: list[int] = []
        send = client.send

        async def watched(*asked: Any) -> Any:
            answer = await send(*asked)
            refused.extend([answer.status] if answer.status == 429 else [])
            return answer

        client.send = watched
        await place.say("tell me")
        answer = await place.reads(text, within_s=100)
        await bot.quiet(within_s=30)
        assert len(refused) <= 3
        assert 5 <= len(answer.edits) <= 60
        assert await place.texts() == [text]


@pytest.mark.parametrize(
    ("status", "errcode", "kind"),
    [
        (429, "M_LIMIT_EXCEEDED", Limited),
        (403, "M_FORBIDDEN", Refused),
        (404, "M_NOT_FOUND", Refused),
        (413, "M_TOO_LARGE", Refused),
        (400, "M_BAD_JSON", Refused),
        (401, "M_UNAUTHORIZED", Refused),
        (500, "M_UNKNOWN", Unreachable),
        (502, "", Unreachable),
        (408, "", Unreachable),
    ],
)
def test_every_refusal_is_one_of_ours(status: int, errcode: str, kind: type[SendError]) -> None:
    assert isinstance(error_of(status, f'{{"errcode": "{errcode}"}}'.encode()), kind)
    assert isinstance(error_of(status, b"<html>"), kind)


@pytest.mark.parametrize("named", ["-5", "1e400", "1e30", '"soon"', "null"])
def test_a_time_that_makes_no_sense_is_bounded(named: str) -> None:
    error = error_of(429, f'{{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": {named}}}'.encode())
    assert isinstance(error, Limited)
    assert 0 <= error.retry_after_s <= 3600


async def test_a_room_that_we_are_not_in_is_refused(bot: Bot) -> None:
    with pytest.raises(Refused):
        await bot.adapter.port.post(Where("matrix", "!none:localhost", "group"), "$x", Post("text", "key"))


async def test_a_homeserver_that_says_too_much_or_no_json_is_not_believed(bot: Bot) -> None:
    wire = Wire(bot.client)
    for body in (b"[]", b"nothing", b'"' + b"x" * 5_000_000 + b'"'):
        bot.client.send = lambda *_, body=body: _answered(Answer(200, body))
        with pytest.raises(Unreachable):
            await wire.ask("GET", "/account/whoami")


async def _answered(answer: Answer) -> Answer:
    return answer
