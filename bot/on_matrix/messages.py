"""What somebody said in a room, read from its event: whom it calls, without our name and quotes. Pure."""

import re
from dataclasses import dataclass

from bot.on_matrix.fields import Object, list_of, number_of, object_of, text_of
from bot.on_matrix.rooms import Room
from bot.words import MAX_TEXT_LETTERS

MAX_BODY_LETTERS = 70_000
"""No event holds more."""

_QUOTE_START = re.compile(r"> (?:\* )?<@[^>\n]{1,255}>")


@dataclass(frozen=True, slots=True)
class Message:
    """One message."""

    event_id: str
    sender: str
    text: str
    """Without what it quotes, and without our name where it calls us."""
    sent_ms: int
    root: str
    """The thread that it is in."""
    reply_to: str
    is_mention: bool


def read_message(event: Object, room: Room, own_id: str, now_ms: int) -> Message | None:
    """The message of an event, or None if it is none that anybody could want an answer to.

    Notices are what bots say, and edits were said before.
    """
    content = object_of(event.get("content"))
    relation = object_of(content.get("m.relates_to"))
    event_id, sender = text_of(event.get("event_id")), text_of(event.get("sender"))
    is_said = event.get("type") == "m.room.message" and content.get("msgtype") == "m.text"
    body = text_of(content.get("body"), MAX_BODY_LETTERS)
    if not (is_said and event_id and sender and body) or sender == own_id:
        return None
    if relation.get("rel_type") == "m.replace":
        return None
    text, is_mention = _without_call(_without_quote(body, relation), content, room.name_of(own_id), own_id)
    is_threaded = relation.get("rel_type") == "m.thread"
    return Message(
        event_id,
        sender,
        text[:MAX_TEXT_LETTERS],
        min(max(number_of(event.get("origin_server_ts")), 0), now_ms),
        text_of(relation.get("event_id")) if is_threaded else "",
        "" if relation.get("is_falling_back") is True else _replied_to(relation),
        is_mention,
    )


def _replied_to(relation: Object) -> str:
    return text_of(object_of(relation.get("m.in_reply_to")).get("event_id"))


def _without_quote(body: str, relation: Object) -> str:
    """Old clients put what they reply to before the text."""
    if not _replied_to(relation) or not _QUOTE_START.match(body):
        return body
    lines = body.split("\n")
    first = next((number for number, line in enumerate(lines) if not line.startswith(">")), len(lines))
    return "\n".join(lines[first:]).lstrip("\n")


def _without_call(text: str, content: Object, name: str, own_id: str) -> tuple[str, bool]:
    """A text without our name at its ends, and whether it calls us.

    Clients say whom a message calls. Where they do not, our name anywhere in it is a call; and our id, or our
    name and a colon at its start, is one in any case: somebody typed it by hand.
    """
    mentions, local = content.get("m.mentions"), own_id[1:].partition(":")[0]
    is_called = own_id in list_of(object_of(mentions).get("user_ids"))
    names = "|".join(re.escape(it) for it in (own_id, f"@{name}", f"@{local}", name, local) if it)
    first = re.match(rf"\s*(?:{names})(?P<colon>\s*[:,])?(?:\s+|$)", text, re.IGNORECASE)
    if first and (is_called or first["colon"] or first[0].lstrip().startswith("@")):
        return text[first.end() :].strip(), True
    typed = re.escape(own_id) if mentions is not None else names
    if not is_called and not re.search(rf"(?<!\w)(?:{typed})(?![\w:.-]*\w)", text, re.IGNORECASE):
        return text.strip(), False
    return re.sub(rf"[\s,]+(?:{names})\s*([.!?]*)\s*$", r"\1", text, flags=re.IGNORECASE).strip(), True
