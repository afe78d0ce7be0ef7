"""What somebody said in a room, read from its event: whom it calls, without our name and quotes. Pure."""

import re
from dataclasses import dataclass

import msgspec

from bot.on_matrix.fields import MAX_NAME_LETTERS, Object, list_of, number_of, object_of, text_of
from bot.on_matrix.rooms import Room
from bot.words import MAX_TEXT_LETTERS, Attached

MAX_BODY_LETTERS = 70_000
"""No event holds more."""
MAX_ADDRESS_LETTERS = 600
FILE_KINDS = ("m.file", "m.image", "m.audio", "m.video")
OURS = "org.murmur.bot"
"""In the content of all that bots of our kind send: none answers another. Who forges it is not heard."""
NEW_CONTENT = "m.new_content"
MARK_BYTES = 2 * len(f'"{OURS}":{{}},')
"""So much the mark adds to an edit, which carries it twice."""

_QUOTE_START = re.compile(r"> (?:\* )?<@[^>\n]{1,255}>")


class Address(msgspec.Struct, frozen=True):
    """Where a file is, and what opens it if it is encrypted."""

    url: str
    key: str = ""
    digest: str = ""
    iv: str = ""
    is_sealed: bool = False


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
    is_for_all: bool
    """It calls everybody in the room."""
    files: tuple[Attached, ...] = ()


def marked(content: Object) -> Object:
    """The content of an event of ours, with our mark; what an edit puts in a message's place has it too."""
    mark: Object = {OURS: {}}
    new = content.get(NEW_CONTENT)
    return content | mark | ({NEW_CONTENT: new | mark} if isinstance(new, dict) else {})


def is_marked(content: Object) -> bool:
    """A bot of our kind says it, maybe we."""
    return OURS in content


def read_deletion(event: Object) -> str:
    """The event that a redaction takes back; "" if this is none."""
    if event.get("type") != "m.room.redaction" or "state_key" in event:
        return ""
    target = event.get("redacts") or object_of(event.get("content")).get("redacts")
    return text_of(target)


def read_message(event: Object, room: Room, own_id: str, now_ms: int) -> Message | None:
    """The message of an event, or None if it is none that anybody could want an answer to.

    Notices are what bots say, and edits were said before.
    """
    content = object_of(event.get("content"))
    relation = object_of(content.get("m.relates_to"))
    event_id, sender = text_of(event.get("event_id")), text_of(event.get("sender"))
    body, files = text_of(content.get("body"), MAX_BODY_LETTERS), read_files(content)
    is_said = event.get("type") == "m.room.message" and (content.get("msgtype") == "m.text" or bool(files))
    if not (is_said and event_id and sender and body) or sender == own_id or is_marked(content):
        return None
    if files and text_of(content.get("filename"), MAX_BODY_LETTERS) in ("", body):
        body = ""  # that is the file's name, and nothing was said about it
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
        object_of(content.get("m.mentions")).get("room") is True,
        files,
    )


def read_files(content: Object) -> tuple[Attached, ...]:
    """The file that a message consists of, if it does."""
    sealed = object_of(content.get("file"))
    address = text_of(content.get("url") or sealed.get("url"), MAX_ADDRESS_LETTERS)
    if content.get("msgtype") not in FILE_KINDS or not address.startswith("mxc://"):
        return ()
    name = text_of(content.get("filename") or content.get("body"), MAX_BODY_LETTERS)[:MAX_NAME_LETTERS]
    info = object_of(content.get("info"))
    where = Address(address) if content.get("url") else _sealed_address(address, sealed)
    size_bytes = max(number_of(info.get("size")), 0)
    return (Attached(name, text_of(info.get("mimetype")), size_bytes, msgspec.json.encode(where).decode()),)


def _sealed_address(address: str, sealed: Object) -> "Address":
    key, digest = object_of(sealed.get("key")).get("k"), object_of(sealed.get("hashes")).get("sha256")
    return Address(address, text_of(key), text_of(digest), text_of(sealed.get("iv")), is_sealed=True)


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
