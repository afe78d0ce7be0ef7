"""An interaction: a command that somebody ran, or a button that somebody pressed, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

from tests.discord_peer.things import Channel, Json, Message, User

COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5
MESSAGE, DEFERRED_MESSAGE, DEFERRED_UPDATE, UPDATE, CHOICES, MODAL = 4, 5, 6, 7, 8, 9
ACKNOWLEDGE_WITHIN_S = 3.0
TOKEN_LIVES_S = 15 * 60.0


@dataclass(eq=False)
class Interaction:
    """What the bot is told, when it acknowledged, and what it answered."""

    id: int
    token: str
    kind: int
    user: User
    channel: Channel
    created_s: float
    data: Json
    source: Message | None = None
    """The message whose button was pressed."""
    opened_by: "Interaction | None" = None
    """For a form that was filled in: what opened it."""
    is_only_user_install: bool = False
    """Whether the bot is no member where it happened."""
    acknowledged_s: float | None = None
    answered_with: int = 0
    """The type of the first answer, 0 before it."""
    original: Message | None = None
    followups: list[Message] = field(default_factory=list)
    modal: Json | None = None
    choices: list[Json] | None = None

    @property
    def acknowledged_after_s(self) -> float | None:
        return None if self.acknowledged_s is None else self.acknowledged_s - self.created_s

    @property
    def messages(self) -> list[Message]:
        """All answers that are visible to the person who asked, the first one first."""
        own = [] if self.original is None or self.original is self.source else [self.original]
        return [message for message in [*own, *self.followups] if not message.is_deleted]

    @property
    def is_pending(self) -> bool:
        """Whether the person still sees that the bot thinks."""
        return self.original is not None and self.original.is_waiting and not self.original.is_deleted

    def has_failed(self, now_s: float) -> bool:
        """Whether the person was told that the application did not respond."""
        return self.acknowledged_s is None and now_s - self.created_s > ACKNOWLEDGE_WITHIN_S

    def owners(self) -> dict[str, str]:
        """By whose installation the bot was asked: the guild's (0) or the person's (1)."""
        if self.is_only_user_install:
            return {"1": str(self.user.id)}
        return {"0": str(self.channel.guild.id) if self.channel.guild else "0"}

    def metadata(self, user_shown: Json) -> Json:
        """As answers name it."""
        shown: Json = {
            "id": str(self.id),
            "type": self.kind,
            "user": user_shown,
            "authorizing_integration_owners": self.owners(),
        }
        if self.kind == COMPONENT and self.source is not None:
            shown["interacted_message_id"] = str(self.source.id)
        if self.opened_by is not None:
            shown["triggering_interaction_metadata"] = self.opened_by.metadata(user_shown)
        return shown

    def response(self) -> Json:
        """What the first answer gets back."""
        told: Json = {"id": str(self.id), "type": self.kind}
        if self.original is not None:
            told |= {
                "response_message_id": str(self.original.id),
                "response_message_loading": self.original.is_waiting,
                "response_message_ephemeral": self.original.private_to is not None,
            }
        return told


def answers_allowed(kind: int, is_on_message: bool) -> set[int]:
    """Types of first answers that an interaction of `kind` takes."""
    if kind == AUTOCOMPLETE:
        return {CHOICES}
    allowed = {MESSAGE, DEFERRED_MESSAGE}
    if is_on_message:
        allowed |= {DEFERRED_UPDATE, UPDATE}
    return allowed if kind == MODAL_SUBMIT else allowed | {MODAL}


def modal_fields(modal: Json, values: dict[str, Any]) -> list[Json]:
    """A modal's components as a client sends them back, filled with `values` by custom id."""
    filled = []
    for outer in modal.get("components", []):
        inner = outer["component"] if "component" in outer else outer["components"][0]
        typed = {"type": inner["type"], "id": 1, "custom_id": inner["custom_id"]}
        typed["value"] = values.get(inner["custom_id"], inner.get("value", ""))
        if "component" in outer:
            filled.append({"type": outer["type"], "id": 1, "component": typed})
        else:
            filled.append({"type": 1, "id": 1, "components": [typed]})
    return filled
