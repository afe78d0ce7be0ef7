"""Tickets of conversations' sessions, kept in the store: what attaches to what servers still hold."""

import logging
from collections.abc import Callable, Sequence

from bot.clock import Clock
from storage.database import Database
from storage.errors import StorageError
from storage.live_sessions import (
    LiveSession,
    drop_session,
    keep_session,
    kept_session,
    kept_session_of_parent,
)
from swarm.client import SwarmModel
from swarm.epochs import SaveTicket
from swarm.errors import LocalProtocolError
from swarm.inference import InferenceSession

logger = logging.getLogger(__name__)


class Tickets:
    """Those of one model's sessions, which servers keep for `lease_ms`."""

    def __init__(self, store: Database, clock: Clock, fingerprint: str, lease_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._fingerprint = fingerprint
        self._lease_ms = lease_ms

    async def find(self, conversation_id: int) -> LiveSession | None:
        """The conversation's, whatever it is still good for."""
        return await self._store.read(kept_session, conversation_id)

    async def find_of_parent(self, conversation_id: int) -> LiveSession | None:
        """The one of the conversation that this one was forked from."""
        return await self._store.read(kept_session_of_parent, conversation_id)

    def is_good(self, kept: LiveSession) -> bool:
        """The servers still hold the session, and it is one of this model."""
        return kept.fingerprint == self._fingerprint and kept.lease_until_ms > self._clock.now_ms()

    def saver(
        self,
        conversation_id: int,
        session: Callable[[], InferenceSession | None],
        known: Sequence[int] = (),
    ) -> SaveTicket:
        """Writes tickets down; `known` are the ids before the session is open."""

        async def save(ticket: bytes) -> None:
            opened = session()
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

    async def drop(self, conversation_id: int) -> None:
        """It is of no use any more."""
        await self._store.write(drop_session, conversation_id)

    def _live(self, conversation_id: int, ticket: bytes, ids: Sequence[int]) -> LiveSession:
        until_ms = self._clock.now_ms() + self._lease_ms
        return LiveSession(conversation_id, self._fingerprint, ticket, ids, until_ms)


async def close_kept(model: SwarmModel, kept: LiveSession) -> None:
    """Have the servers free a session that is not open here, as far as they can be reached."""
    try:
        await model.close_kept(kept.ticket)
    except LocalProtocolError as error:
        logger.warning("what conversation %s was told stays for its lease: %s", kept.conversation_id, error)
