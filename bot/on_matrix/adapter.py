"""The Matrix adapter put together: an account, a port for the core, and a loop that reads."""

import logging

from nio import AsyncClient

from bot.clock import Clock
from bot.config.platforms import MatrixSettings
from bot.core import Core
from bot.on_matrix.account import introduce
from bot.on_matrix.invitations import Invitations
from bot.on_matrix.moving import Moving
from bot.on_matrix.port import MatrixPort
from bot.on_matrix.presence import Look, show_presence_forever
from bot.on_matrix.rooms import Rooms
from bot.on_matrix.sealing import Sealer
from bot.on_matrix.sending import Sending
from bot.on_matrix.syncing import Parts, SyncLoop
from bot.on_matrix.translating import Translator
from bot.on_matrix.unread import Unread
from bot.on_matrix.wire import Wire
from bot.receiving.access import Access
from bot.vitals import Vitals
from storage.database import Database
from swarm.background import running

# It quotes events that are not what it expects, and with them what people say.
QUOTING_LOGGERS = ("nio.events.misc", "nio.responses")
MOST_AGE_S = 90.0
"""A homeserver answers within half a minute, even if nothing has happened."""


class MatrixAdapter:
    """One account on its homeserver. `port` is what the core sends through."""

    def __init__(
        self,
        client: AsyncClient,
        settings: MatrixSettings,
        store: Database,
        clock: Clock,
        *,
        prefix: str = "!",
        access: Access | None = None,
    ) -> None:
        """`client` is logged in, see account.py, and is used by nobody else."""
        for name in QUOTING_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        wire, rooms = Wire(client), Rooms(client.user_id)
        sealer = Sealer(client) if client.olm is not None else None
        sending = Sending(wire, rooms, sealer, store, clock)
        self._client, self._settings, self._clock = client, settings, clock
        self._sending, self._prefix = sending, prefix
        self.rooms = rooms
        self.port = MatrixPort(sending, settings, store, clock)
        access = access or Access(clock)
        translator = Translator(client.user_id, settings, prefix, store, clock, access)
        self.unread = Unread(rooms, sealer, translator, self.port.tell, store=store, clock=clock)
        self.invitations = Invitations(wire, rooms, settings, clock, access, self.port.whole_pacer)
        moving = Moving(sending, store, clock, access)
        parts = Parts(sending, translator, self.invitations, self.unread, moving, sealer)
        self._loop = SyncLoop(parts, store, clock)

    async def read_forever(self, core: Core, survey: Look | None = None) -> None:
        """Read what people say, until cancelled, and show them what `survey` sees.

        Our device is signed before, if it can encrypt.
        Raises LoggedOut, IdentityRefused or SeedsUnusable if only the operator can help.
        """
        if self._client.olm is not None:
            secret = self._settings.store_secret.get_secret_value()
            await introduce(self._client, self._settings.store, secret, self._clock)
        beside = [self.port.learn_limits(), self.port.clocks.take_away_forever()]
        if survey is not None:
            beside.append(show_presence_forever(self._sending, survey, self._prefix, self._clock))
        async with running(*beside):
            await self._loop.read_forever(core)

    @property
    def synced_s(self) -> float | None:
        """When the homeserver has answered last, on the clock's `now_s`; None if not yet."""
        return self._loop.synced_s

    def vitals(self) -> Vitals:
        """How the connection is."""
        synced_s = self.synced_s
        age_s = None if synced_s is None else self._clock.now_s() - synced_s
        return Vitals(synced_s is not None, age_s, MOST_AGE_S, num_unreadable=self.unread.num_failures)
