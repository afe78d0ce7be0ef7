"""What a Matrix message contains, and how large the event with it is. Pure.

Follows the Matrix specification, client-server API 1.18: `m.room.message`, event replacements, threading. An
edit carries its text four times: plain and as HTML, for old clients and for new ones.
"""

import json
from typing import Any, Literal

from bot.rendering.html import clean, matrix_html, plain_html

Content = dict[str, Any]
Kind = Literal["m.text", "m.notice"]

MAX_EVENT_BYTES = 65_536
"""What servers take, of a whole event."""
BUDGET_BYTES = 40_000
"""For the four texts of an edit, as `measure` counts; encryption adds a third, and servers an envelope."""
FORMAT = "org.matrix.custom.html"
EDIT_MARK = "* "

_ENVELOPE_BYTES = 2_500
"""At most, of what servers add: ids of events before it, hashes, signatures, who and where; often 600."""
_MEGOLM_BYTES = 84
"""Of a message: version, index, lengths, authentication, signature."""
_CIPHER_BLOCK_BYTES = 16
_ROOM = "!" + "r" * 80 + ":example.org"
_KEYS = {
    "algorithm": "m.megolm.v1.aes-sha2",
    "device_id": "D" * 32,
    "sender_key": "k" * 43,
    "session_id": "s" * 43,
}
_SLACK_BYTES = 120
"""Of HTML, beyond what the letters below allow."""
_TAG_BYTES = {
    "\n": 20,  # the paragraph, item or row that it begins
    "|": 10,  # a cell
    "`": 8,  # three and three of them: a block of code
    "*": 5,  # four of them: strong
    "_": 5,
    "~": 2,
    "#": 8,
    "[": 20,
    ">": 8,
    "-": 4,
}
"""So much more than itself a letter may become in HTML."""


def post_content(text: str, *, kind: Kind = "m.text", thread_root: str = "", reply_to: str = "") -> Content:
    """A new message. In a thread `reply_to` is only for clients without threads."""
    content = _content(text, kind)
    relation: Content = {"m.in_reply_to": {"event_id": reply_to}} if reply_to else {}
    if thread_root:
        relation |= {"rel_type": "m.thread", "event_id": thread_root}
        relation |= {"is_falling_back": True} if reply_to else {}
    return content | ({"m.relates_to": relation} if relation else {})


def edit_content(text: str, message_id: str, *, kind: Kind = "m.text") -> Content:
    """What replaces an earlier message; that keeps its place in its thread, which an edit must not name."""
    new = _content(text, kind)
    fallback = {key: EDIT_MARK + new[key] for key in ("body", "formatted_body")}
    relation = {"rel_type": "m.replace", "event_id": message_id}
    return {**new, **fallback, "m.mentions": {}, "m.new_content": new, "m.relates_to": relation}


def measure(text: str, *, is_encrypted: bool = True) -> int:
    """At most so many bytes take the four texts of an edit; more text never takes less.

    It adds up letters instead of making HTML, which takes 0.5 ms for 40,000 of them; the content builders use
    HTML that fits into it, or plain lines.
    """
    return 2 * (_size(EDIT_MARK + text, is_encrypted) + _html_bytes(text, is_encrypted))


def payload_bytes(content: Content, is_encrypted: bool) -> int:
    """The size of the event with `content` as the server counts it, rather too much than too little.

    Plain, it is canonical JSON in UTF-8; encrypted, JSON in ASCII, encrypted, in base64.
    """
    relation = {key: value for key, value in content.items() if key == "m.relates_to"}
    if not is_encrypted:
        return _size(content, is_encrypted) + _ENVELOPE_BYTES
    secret = {"type": "m.room.message", "room_id": _ROOM, "content": content}
    blocks = _size(secret, is_encrypted) // _CIPHER_BLOCK_BYTES + 1
    ciphertext = -(-(blocks * _CIPHER_BLOCK_BYTES + _MEGOLM_BYTES) * 4 // 3)
    return ciphertext + _size(_KEYS | relation, is_encrypted) + _ENVELOPE_BYTES


def _content(text: str, kind: Kind) -> Content:
    return {
        "msgtype": kind,
        "body": clean(text),
        "format": FORMAT,
        "formatted_body": _fitting_html(text),
        "m.mentions": {},
    }


def _fitting_html(text: str) -> str:
    html = matrix_html(text)
    fits = all(_size(EDIT_MARK + html, coding) <= _html_bytes(text, coding) for coding in (True, False))
    return html if fits else plain_html(text)


def _html_bytes(text: str, is_encrypted: bool) -> int:
    """So many bytes may the HTML of a text take: plain lines always do with less."""
    tags = sum(text.count(letter) * size for letter, size in _TAG_BYTES.items())
    return _size(plain_html(text), is_encrypted) + tags + _SLACK_BYTES


def _size(value: object, is_encrypted: bool) -> int:
    text = json.dumps(value, ensure_ascii=is_encrypted, separators=(",", ":"))
    return len(text) if is_encrypted else len(text.encode("utf-8", "surrogatepass"))
