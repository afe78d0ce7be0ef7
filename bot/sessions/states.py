"""How conversations' sessions are, for those who ask: see bot.survey.SessionState."""

from bot.survey import SessionState
from storage.conversations import get_conversation
from storage.database import Transaction
from storage.live_sessions import kept_session
from swarm.inference import InferenceSession

TOLD_TOKENS = 256
"""Restoring so much takes long enough to be worth a word."""
MOST_BROKEN = 1000


class Broken:
    """Conversations whose session broke when it was last used; the newest ones."""

    def __init__(self) -> None:
        self._conversations: dict[int, None] = {}

    def note(self, conversation_id: int) -> None:
        """It broke."""
        self.forget(conversation_id)
        self._conversations[conversation_id] = None
        if len(self._conversations) > MOST_BROKEN:
            del self._conversations[next(iter(self._conversations))]

    def forget(self, conversation_id: int) -> None:
        """There is another session, or none is wanted any more."""
        self._conversations.pop(conversation_id, None)

    def state_of(self, conversation_id: int) -> SessionState | None:
        """That it broke, if it did."""
        return SessionState("failed") if conversation_id in self._conversations else None


def state_of(session: InferenceSession | None) -> SessionState:
    """How an open session is, or one that is being opened."""
    if session is None:
        return SessionState("live", has_servers=False)
    if session.is_recovering:
        return SessionState("rebuilding")
    if session.position - session.num_done >= TOLD_TOKENS:
        return SessionState("rebuilding", session.num_done, session.position)
    return SessionState("live", session.position, session.position, has_servers=bool(session.route))


def state_in_store(
    connection: Transaction, conversation_id: int, fingerprint: str, now_ms: int
) -> SessionState:
    """How a session is that is not open: kept by its servers, or known by what was said alone."""
    kept = kept_session(connection, conversation_id)
    if kept is not None and kept.fingerprint == fingerprint and kept.lease_until_ms > now_ms:
        return SessionState("detached", len(kept.ids), len(kept.ids))
    conversation = get_conversation(connection, conversation_id)
    if conversation is None or conversation.head_id is None:
        return SessionState("none")
    return SessionState("parked", 0, len(kept.ids) if kept is not None else 0)
