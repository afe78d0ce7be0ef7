"""What a message says to us: our name and quotes are no part of it, and what is odd in it does no harm."""

from typing import Any

import pytest

from bot.on_matrix.calls import read_call, read_reaction
from bot.on_matrix.messages import Message, read_message
from bot.on_matrix.people import is_among
from bot.on_matrix.rooms import Room
from bot.words import MAX_TEXT_LETTERS, Call

BOT, ANNA = "@murmur:localhost", "@anna:localhost"


def room() -> Room:
    room = Room("!room:localhost")
    member = {"membership": "join", "displayname": "Murmur the Bot"}
    room.fold({"type": "m.room.member", "state_key": BOT, "sender": BOT, "content": member})
    return room


def read(body: object, *, mentions: object = None, **more: Any) -> Message | None:
    content = {"msgtype": "m.text", "body": body, **more}
    if mentions is not None:
        content["m.mentions"] = mentions
    event = {"type": "m.room.message", "event_id": "$e", "sender": ANNA, "origin_server_ts": 5}
    return read_message(event | {"content": content}, room(), BOT, 1000)


def said(body: str, **more: Any) -> tuple[str, bool]:
    message = read(body, **more)
    assert message is not None
    return message.text, message.is_mention


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("@murmur:localhost: hello", "hello"),
        ("@murmur:localhost hello", "hello"),
        ("Murmur the Bot: hello", "hello"),
        ("murmur the bot, hello", "hello"),
        ("@murmur hello", "hello"),
        ("murmur: hello", "hello"),
    ],
)
def test_our_name_at_the_start_is_a_call_and_no_part_of_the_text(body: str, text: str) -> None:
    assert said(body, mentions={}) == (text, True)
    assert said(body, mentions={"user_ids": [BOT]}) == (text, True)
    assert said(body) == (text, True)


def test_a_call_in_the_middle_or_at_the_end_is_one_if_the_client_says_so_or_says_nothing() -> None:
    named = {"user_ids": [BOT]}
    assert said("what does Murmur the Bot say?", mentions=named) == ("what does Murmur the Bot say?", True)
    assert said("hello Murmur the Bot!", mentions=named) == ("hello!", True)
    assert said("what does Murmur the Bot say?") == ("what does Murmur the Bot say?", True)
    assert said("what does Murmur the Bot say?", mentions={}) == ("what does Murmur the Bot say?", False)
    assert said("Murmur the Bot says much", mentions={}) == ("Murmur the Bot says much", False)
    assert said(f"ask {BOT} that", mentions={}) == (f"ask {BOT} that", True)
    assert said(f"ask {BOT}.evil that", mentions={}) == (f"ask {BOT}.evil that", False)
    assert said("murmurs and murmuring") == ("murmurs and murmuring", False)


def test_only_what_an_old_client_quotes_is_left_out() -> None:
    reply = {"m.relates_to": {"m.in_reply_to": {"event_id": "$a"}}}
    quote = f"> <{BOT}> a\n> b\n\nmy answer"
    assert said(quote, **reply)[0] == "my answer"
    assert said(f"> * <{BOT}> waves\n\nmy answer", **reply)[0] == "my answer"
    assert said("> my own quote\n\nand text", **reply)[0] == "> my own quote\n\nand text"
    assert said(quote)[0] == quote


def test_a_reply_that_is_there_for_old_clients_is_none() -> None:
    thread = {"rel_type": "m.thread", "event_id": "$root", "m.in_reply_to": {"event_id": "$a"}}
    fallback, genuine = (
        read("x", **{"m.relates_to": thread | {"is_falling_back": True}}),
        read("x", **{"m.relates_to": thread}),
    )
    assert fallback is not None
    assert genuine is not None
    assert (fallback.root, fallback.reply_to) == ("$root", "")
    assert (genuine.root, genuine.reply_to) == ("$root", "$a")


def test_a_long_text_is_cut_and_a_time_to_come_is_now() -> None:
    message = read("x" * (MAX_TEXT_LETTERS + 5))
    assert message is not None
    assert len(message.text) == MAX_TEXT_LETTERS
    event = {"type": "m.room.message", "event_id": "$e", "sender": ANNA, "origin_server_ts": 10**17}
    future = read_message(event | {"content": {"msgtype": "m.text", "body": "x"}}, room(), BOT, 1000)
    assert future is not None
    assert future.sent_ms == 1000


@pytest.mark.parametrize("body", [None, 5, "", [], {}, "x" * 100_000])
def test_a_body_that_is_no_text_is_no_message(body: object) -> None:
    assert read(body) is None


@pytest.mark.parametrize("odd", [None, 5, "x", [], [[]], {"event_id": 5}, {"m.in_reply_to": []}])
def test_odd_relations_and_mentions_do_no_harm(odd: object) -> None:
    assert said("hello", mentions=odd, **{"m.relates_to": odd})[0] == "hello"
    assert read_reaction({"type": "m.reaction", "content": {"m.relates_to": odd}}) is None
    assert read_reaction({"type": "m.reaction", "content": odd}) is None


@pytest.mark.parametrize(
    ("sign", "command"), [("⏹", "stop"), ("⏹️", "stop"), ("🔁", "retry"), ("▶️", "continue"), ("👍", None)]
)
def test_signs_stand_for_commands(sign: str, command: str | None) -> None:
    relation = {"rel_type": "m.annotation", "event_id": "$a", "key": sign}
    event = {"type": "m.reaction", "content": {"m.relates_to": relation}}
    assert read_reaction(event) == (("$a", command) if command else None)


def call(line: str, *, is_for_us: bool = True, is_mention: bool = False) -> object:
    return read_call(line, "!", is_for_us=is_for_us, is_mention=is_mention)


def test_commands_are_those_that_are_ours_or_said_to_us() -> None:
    assert call("!stop") == call("/stop") == call("//stop") == call(" !STOP ") == Call("stop")
    assert call("!weather", is_for_us=False) is None
    assert call("!weather") is not None
    assert call("/weather") is None
    assert call("!stop", is_for_us=False) == Call("stop")
    assert call("!") is call("! ") is call("!!!") is call("/") is call("") is None
    assert call("stop") is None
    assert call("stop", is_mention=True) == Call("stop")
    assert call("stop it", is_mention=True) is None


def test_lists_of_people_name_users_servers_or_all() -> None:
    assert is_among(ANNA, ("localhost",))
    assert is_among(ANNA, (ANNA,))
    assert is_among(ANNA, ("*",))
    assert not is_among(ANNA, ())
    assert not is_among("@anna:evil.localhost", ("localhost",))
    assert not is_among("@anna:localhost:8448", ("localhost",))
