"""Telling servers that a session is over which is not open here: what it knows is not to be kept."""

import asyncio
import logging

from storage.live_sessions import LiveSession
from swarm.background import RunningGroup
from swarm.client import SwarmModel
from swarm.errors import LocalProtocolError

logger = logging.getLogger(__name__)


class Farewells:
    """Those of one model, said in `group`. A server out of reach frees the session when its lease ends."""

    def __init__(self, model: SwarmModel, group: RunningGroup) -> None:
        self._model = model
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, *sessions: LiveSession | None) -> None:
        """Have the servers of these sessions free them, soon."""
        fingerprint = self._model.checkpoint.fingerprint
        ours = {it.ticket: it for it in sessions if it is not None and it.fingerprint == fingerprint}
        for kept in ours.values():
            task = self._group.create_task(self._close(kept))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, within_s: float) -> None:
        """Wait for what is under way."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within_s)

    async def _close(self, kept: LiveSession) -> None:
        try:
            await self._model.close_kept(kept.ticket)
        except LocalProtocolError as error:
            logger.warning("the servers of session %s cannot be told: %s", kept.conversation_id, error)
