"""Marks at messages: that one was seen, or that it waits."""

import logging
from collections.abc import Mapping
from typing import Literal

from bot.sending.outbound import Outbound
from bot.turns.run import Gate
from bot.words import Origin

logger = logging.getLogger(__name__)


class Marks:
    """Puts them there and takes them away; that they cannot be had is no trouble."""

    def __init__(self, ports: Mapping[str, Outbound]) -> None:
        self._ports = ports

    async def follow(self, origin: Origin, gate: Gate) -> None:
        """Show that a message was seen, or that it waits, as long as it does."""
        if gate.opened.is_set():
            await self.put(origin, "seen")
            return
        await self.put(origin, "queued")
        await gate.opened.wait()
        await self.put(origin, "")

    async def put(self, origin: Origin, mark: Literal["seen", "queued", ""]) -> None:
        """Put a mark at a message; "" takes it away."""
        try:
            await self._ports[origin.where.platform].acknowledge(origin.where, origin.event_id, mark)
        except Exception as error:  # noqa: BLE001 - a mark is worth no answer
            logger.info("message %s is not marked: %s", origin.event_id, error)
