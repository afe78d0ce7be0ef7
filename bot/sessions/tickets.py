"""Tickets of conversations' sessions, kept in the store: what attaches to what servers still hold."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from bot.clock import Clock
from storage.database import Database
from storage.errors import StorageError
from storage.live_sessions import (
    LiveSession,
    keep_session,
    kept_session,
    kept_session_of_parent,
    take_session,
)
from swarm.client import SwarmModel
from swarm.epochs import SaveTicket
from swarm.inference import InferenceSession

logger = logging.getLogger(__name__)


class Tickets:
    """Those of one model's sessions, which servers keep for `lease_ms`; `session_of` are those open now."""

    def __init__(
        self,
        model: SwarmModel,
        store: Database,
        clock: Clock,
        lease_ms: int,
        session_of: Callable[[int], InferenceSession | None],
    ) -> None:
        self._model = model
        self._store = store
        self._clock = clock
        self._lease_ms = lease_ms
        self._session_of = session_of

    async def find(self, conversation_id: int) -> LiveSession | None:
        """The conversation's, whatever it is still good for."""
        return await self._store.read(kept_session, conversation_id)

    async def find_of_parent(self, conversation_id: int) -> LiveSession | None:
        """The one of the conversation that this one was forked from."""
        return await self._store.read(kept_session_of_parent, conversation_id)

    def is_good(self, kept: LiveSession) -> bool:
        """The servers still hold the session, and it is one of this model."""
        return (
            kept.fingerprint == self._model.checkpoint.fingerprint
            and kept.lease_until_ms > self._clock.now_ms()
        )

    def begun(self, conversation_id: int) -> AbstractAsyncContextManager[InferenceSession]:
        """A session that nothing is known of yet."""
        return self._model.session(save_ticket=self.saver(conversation_id))

    def attached(self, kept: LiveSession) -> AbstractAsyncContextManager[InferenceSession]:
        """The session that a ticket attaches to."""
        save = self.saver(kept.conversation_id, kept.ids)
        return self._model.session(ticket=kept.ticket, ids=kept.ids, save_ticket=save)

    def saver(self, conversation_id: int, known: Sequence[int] = ()) -> SaveTicket:
        """Writes tickets down; `known` are the ids before the session is open."""

        async def save(ticket: bytes) -> None:
            opened = self._session_of(conversation_id)
            ids = opened.ids if opened is not None else known
            await self._store.write(keep_session, self._live(conversation_id, ticket, ids))

        return save

    async def keep(self, conversation_id: int, session: InferenceSession) -> None:
        """Note the newest ticket. Without it only time is lost."""
        live = self._live(conversation_id, session.ticket(), session.ids)
        try:
            await self._store.write(keep_session, live)
        except StorageError as error:
            logger.warning("the ticket of conversation %s is not kept: %s", conversation_id, error)

    async def take(self, conversation_id: int) -> LiveSession | None:
        """Forget the conversation's; returns it, so that its servers can be told."""
        return await self._store.write(take_session, conversation_id)

    def _live(self, conversation_id: int, ticket: bytes, ids: Sequence[int]) -> LiveSession:
        until_ms = self._clock.now_ms() + self._lease_ms
        return LiveSession(conversation_id, self._model.checkpoint.fingerprint, ticket, ids, until_ms)
