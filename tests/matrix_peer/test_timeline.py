"""What readers see: the newest edit of the author, nothing that was redacted, and who reacted."""

from typing import Any

from tests.matrix_peer.timeline import Message, fold

ANNA, BEN = "@anna:localhost", "@ben:localhost"


def event(event_id: str, body: str, sender: str = ANNA, more: dict[str, Any] | None = None) -> dict[str, Any]:
    said = {"msgtype": "m.text", "body": body} | (more or {})
    return {"type": "m.room.message", "event_id": event_id, "sender": sender, "content": said}


def edit(event_id: str, of: str, body: str, sender: str = ANNA) -> dict[str, Any]:
    relation = {"rel_type": "m.replace", "event_id": of}
    new = {"m.new_content": {"msgtype": "m.text", "body": body}, "m.relates_to": relation}
    return event(event_id, f"* {body}", sender, new)


def reaction(event_id: str, to: str, key: str) -> dict[str, Any]:
    relation = {"rel_type": "m.annotation", "event_id": to, "key": key}
    return {"type": "m.reaction", "event_id": event_id, "sender": BEN, "content": {"m.relates_to": relation}}


def redaction(of: str) -> dict[str, Any]:
    return {"type": "m.room.redaction", "event_id": f"{of}-gone", "sender": ANNA, "content": {"redacts": of}}


def seen(*events: dict[str, Any], is_encrypted: bool = False) -> list[Message]:
    return fold((event, is_encrypted) for event in events)


def test_messages_stand_in_order_and_other_events_are_none() -> None:
    joined = {"type": "m.room.member", "event_id": "$0", "sender": ANNA, "content": {"membership": "join"}}
    shown = seen(joined, event("$1", "one"), event("$2", "two", BEN, {"msgtype": "m.notice"}))
    assert [(m.event_id, m.sender, m.kind, m.text) for m in shown] == [
        ("$1", ANNA, "m.text", "one"),
        ("$2", BEN, "m.notice", "two"),
    ]


def test_the_newest_edit_of_the_author_counts() -> None:
    first, other = seen(
        event("$1", "one"),
        event("$2", "two"),
        edit("$3", "$1", "once"),
        edit("$4", "$1", "on"),
        edit("$5", "$1", "forged", BEN),
    )
    assert (first.text, [content["body"] for content in first.edits]) == ("on", ["* once", "* on"])
    assert (other.text, other.edits) == ("two", [])


def test_a_redacted_edit_no_longer_counts() -> None:
    (message,) = seen(event("$1", "one"), edit("$2", "$1", "once"), edit("$3", "$1", "on"), redaction("$3"))
    assert message.text == "once"
    (message,) = seen(event("$1", "one"), edit("$2", "$1", "once"), redaction("$2"))
    assert message.text == "one"


def test_a_redacted_message_has_no_text_and_a_redacted_reaction_is_gone() -> None:
    gone, kept = seen(
        event("$1", "one"),
        event("$2", "two"),
        reaction("$3", "$2", "a"),
        reaction("$4", "$2", "b"),
        redaction("$1"),
        redaction("$3"),
    )
    assert (gone.is_redacted, gone.text) == (True, "")
    assert (kept.is_redacted, kept.reactions) == (False, [(BEN, "b")])


def test_a_message_redacted_before_we_came_is_not_shown() -> None:
    assert seen(event("$1", "") | {"content": {}}) == []


def test_a_thread_is_no_reply_unless_it_says_so() -> None:
    thread = {"rel_type": "m.thread", "event_id": "$1", "m.in_reply_to": {"event_id": "$1"}}
    reply = {"m.in_reply_to": {"event_id": "$1"}}
    _, in_thread, in_both, replying = seen(
        event("$1", "root"),
        event("$2", "a", more={"m.relates_to": thread | {"is_falling_back": True}}),
        event("$3", "b", more={"m.relates_to": thread}),
        event("$4", "c", more={"m.relates_to": reply}),
    )
    assert (in_thread.thread, in_thread.reply_to) == ("$1", "")
    assert (in_both.thread, in_both.reply_to) == ("$1", "$1")
    assert (replying.thread, replying.reply_to) == ("", "$1")


def test_one_plain_edit_makes_an_encrypted_message_plain() -> None:
    (message,) = fold([(event("$1", "one"), True), (edit("$2", "$1", "once"), True)])
    assert message.is_encrypted
    (message,) = fold([(event("$1", "one"), True), (edit("$2", "$1", "once"), False)])
    assert not message.is_encrypted
