"""Who serves one model now: records polled from the DHT, and pushed by servers that we talk to."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from swarm.errors import SwarmError
from swarm.wire.blocks import PeerId
from swarm.wire.records import BadRecord, ServerRecord, open_record

logger = logging.getLogger(__name__)

POLL_S = 2.0  # a server that joins is to be used within 5 s, look-up and first bind included
MAX_SERVERS = 4096

FindServers = Callable[[str], Awaitable[Collection[ServerRecord]]]


class ServerDirectory:
    """The newest record of every server of `fingerprint`, as far as we know.

    `find_servers` is that of the DHT, goodbyes included: a record that merely fails to turn up in one answer
    still holds. Listeners are called after each change, in the loop.
    """

    def __init__(
        self, fingerprint: str, find_servers: FindServers, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._fingerprint = fingerprint
        self._find_servers = find_servers
        self._clock = clock
        self._records: dict[PeerId, ServerRecord] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def servers(self) -> tuple[ServerRecord, ...]:
        """Records that hold now, by peer id, without servers that said goodbye."""
        now = self._clock()
        held = (record for record in self._records.values() if record.expires_at > now)
        return tuple(sorted((r for r in held if r.state != "offline"), key=lambda r: r.peer))

    def find(self, peer_id: PeerId) -> ServerRecord | None:
        """The record of one server, if it holds now."""
        return next((record for record in self.servers if record.peer == peer_id), None)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each change; calling what this returns ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def apply(self, raw: bytes, peer_id: PeerId) -> bool:
        """Take a pushed record of `peer_id`; tell whether it was news. Raises BadRecord."""
        record = open_record(raw, peer_id, self._clock())
        if record.fingerprint != self._fingerprint:
            raise BadRecord("the record is about another model")
        return self._take([record])

    async def refresh(self) -> None:
        """Ask the DHT once; if that fails, the records that we have still hold."""
        try:
            self._take(await self._find_servers(self._fingerprint))
        except SwarmError as error:
            logger.warning("could not ask for servers: %s", error)

    async def refresh_forever(self) -> None:
        """Ask the DHT every POLL_S, for as long as routes are needed; also after a look-up failed."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)

    def _take(self, records: Collection[ServerRecord]) -> bool:
        news = [record for record in records if self._is_news(record)]
        before = self.servers
        now = self._clock()
        self._records = {p: r for p, r in self._records.items() if r.expires_at > now}
        for record in news:
            if record.peer_id in self._records or len(self._records) < MAX_SERVERS:
                self._records[record.peer_id] = record
        if self.servers != before:
            for listener in tuple(self._listeners):
                listener()
        return bool(news)

    def _is_news(self, record: ServerRecord) -> bool:
        held = self._records.get(record.peer_id)
        return held is None or record.sequence > held.sequence
