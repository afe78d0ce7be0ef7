"""Everything that watches over a bot, from its start to its end."""

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from bot.config.models import OpsSettings
from bot.observing.health import Report, look
from bot.observing.loop_lag import watch_lag_forever
from bot.observing.metrics import Metrics
from bot.observing.pages import Pages, open_pages
from bot.observing.readings import Readings
from bot.observing.systemd import Notifier, beat_forever, beat_interval_s
from bot.observing.watched import Watched
from swarm.background import running

logger = logging.getLogger(__name__)


class Watch:
    """`metrics` is for those who work; `begin` once there is a bot to look at. See `open_watch`."""

    def __init__(self, notifier: Notifier) -> None:
        self.metrics = Metrics()
        self._readings = Readings()
        self.metrics.registry.register(self._readings)
        self._notifier = notifier
        self._watched: Watched | None = None
        self._waits_for = ""

    def note_waiting(self, reason: str) -> None:
        """The bot does not run yet, for this reason, a sentence; "" if for none any more."""
        self._waits_for = reason

    def begin(self, watched: Watched) -> None:
        """The bot runs."""
        self._watched = watched
        watched.store.on_write = self.metrics.db_written

    def note_stopping(self) -> None:
        """The bot is told to stop."""
        self._notifier.send("STOPPING=1")

    def is_alive(self) -> bool:
        """The bot runs, and all its platforms are heard."""
        return self._watched is not None and self._watched.is_connected()

    async def look(self) -> Report:
        """How it is."""
        if self._watched is None and self._waits_for:
            return Report("not ready", (self._waits_for,))
        return await look(self._watched)

    async def metrics_now(self) -> bytes:
        """All that is known, in Prometheus' format."""
        await self._readings.refresh(self._watched)
        return self.metrics.as_text()


@asynccontextmanager
async def open_watch(ops: OpsSettings, environment: Mapping[str, str] = os.environ) -> AsyncIterator[Watch]:
    """Watch for the length of the block. Raises ConfigError if the pages cannot be served."""
    notifier = Notifier(environment.get("NOTIFY_SOCKET", ""))
    watch = Watch(notifier)
    async with AsyncExitStack() as stack:
        if ops.metrics_port:
            pages = Pages(watch.metrics_now, watch.look)
            port = await stack.enter_async_context(open_pages(ops.metrics_host, ops.metrics_port, pages))
            logger.info("health and metrics at %s, port %d", ops.metrics_host, port)
        beats = beat_forever(notifier, watch.is_alive, beat_interval_s(environment))
        await stack.enter_async_context(running(watch_lag_forever(watch.metrics.loop_lagged), beats))
        yield watch
