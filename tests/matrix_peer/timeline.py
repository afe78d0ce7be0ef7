"""What people see of a room: its events folded into messages, with edits, redactions and reactions. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]


@dataclass
class Message:
    """One message as its readers see it now."""

    event_id: str
    sender: str
    content: Event
    """Of the newest edit; of the message itself if there is none."""
    is_encrypted: bool = False
    """Whether it and all that was done to its text went over the wire encrypted."""
    thread: str = ""
    reply_to: str = ""
    edits: list[Event] = field(default_factory=list)
    """Whole contents, fallback and all, oldest first."""
    reactions: list[tuple[str, str]] = field(default_factory=list)
    """Sender and key."""
    is_redacted: bool = False

    @property
    def text(self) -> str:
        """Empty if it was redacted."""
        return str(self.content.get("body", ""))

    @property
    def html(self) -> str:
        """Empty if it has none."""
        return str(self.content.get("formatted_body", ""))

    @property
    def kind(self) -> str:
        """Such as m.text and m.notice."""
        return str(self.content.get("msgtype", ""))


class Timeline:
    """A room's messages in order. Events come in the order of the room, decrypted where that was possible."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._edits: dict[str, tuple[Message, Event]] = {}
        self._originals: dict[str, Event] = {}
        self._reactions: dict[str, tuple[Message, tuple[str, str]]] = {}

    @property
    def messages(self) -> list[Message]:
        """All, redacted ones too."""
        return list(self._messages.values())

    def add(self, event: Event, *, is_encrypted: bool) -> None:
        """Take in the next event."""
        content, kind = event.get("content", {}), event.get("type")
        relation = content.get("m.relates_to", {})
        target = self._messages.get(relation.get("event_id", ""))
        if kind == "m.room.redaction":
            self._redact(event.get("redacts") or content.get("redacts", ""))
        elif kind == "m.reaction" and target is not None:
            self._react(target, event, relation)
        elif kind == "m.room.message" and relation.get("rel_type") == "m.replace":
            # Only the author may edit; clients ignore what others try.
            if target is not None and target.sender == event["sender"]:
                self._edit(target, event, is_encrypted)
        elif kind == "m.room.message" and content:
            self._post(event, relation, is_encrypted)

    def _post(self, event: Event, relation: Event, is_encrypted: bool) -> None:
        event_id, content = event["event_id"], event["content"]
        is_fallback = relation.get("is_falling_back", False)
        reply_to = "" if is_fallback else relation.get("m.in_reply_to", {}).get("event_id", "")
        thread = relation.get("event_id", "") if relation.get("rel_type") == "m.thread" else ""
        self._originals[event_id] = content
        self._messages[event_id] = Message(event_id, event["sender"], content, is_encrypted, thread, reply_to)

    def _edit(self, target: Message, event: Event, is_encrypted: bool) -> None:
        self._edits[event["event_id"]] = (target, event["content"])
        target.edits.append(event["content"])
        target.is_encrypted &= is_encrypted
        self._show_newest(target)

    def _show_newest(self, message: Message) -> None:
        original = self._originals[message.event_id]
        message.content = message.edits[-1].get("m.new_content", {}) if message.edits else original

    def _react(self, target: Message, event: Event, relation: Event) -> None:
        reaction = (event["sender"], str(relation.get("key", "")))
        self._reactions[event["event_id"]] = (target, reaction)
        target.reactions.append(reaction)

    def _redact(self, event_id: str) -> None:
        if message := self._messages.get(event_id):
            message.is_redacted, message.content = True, {}
        elif edited := self._edits.pop(event_id, None):
            message, content = edited
            message.edits.remove(content)
            self._show_newest(message)
        elif reacted := self._reactions.pop(event_id, None):
            message, reaction = reacted
            message.reactions.remove(reaction)


def fold(events: Iterable[tuple[Event, bool]]) -> list[Message]:
    """Messages of events, each with whether it was encrypted."""
    timeline = Timeline()
    for event, is_encrypted in events:
        timeline.add(event, is_encrypted=is_encrypted)
    return timeline.messages
