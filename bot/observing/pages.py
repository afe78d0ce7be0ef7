"""The pages for operators: /metrics, /healthz, /readyz. Nothing guards them but their address."""

import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from bot.observing.health import Report
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

STOP_S = 2.0


class Pages:
    """Answers requests; `metrics` and `look` are asked each time."""

    def __init__(
        self, metrics: Callable[[], Awaitable[bytes]], look: Callable[[], Awaitable[Report]]
    ) -> None:
        self._metrics = metrics
        self._look = look

    async def healthz(self, _: web.Request) -> web.Response:
        """That there is an answer says all."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        """503 while people are not heard, and why."""
        report = await self._look()
        status = 503 if report.status == "not ready" else 200
        return web.Response(body=report.as_json(), status=status, content_type="application/json")

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(body=await self._metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def open_pages(host: str, port: int, pages: Pages) -> AsyncIterator[int]:
    """Serve the pages for the length of the block; yields the port, which is a free one for 0.

    Raises ConfigError if nobody may listen there.
    """
    application = web.Application(client_max_size=1024)
    routes = {"/healthz": pages.healthz, "/readyz": pages.readyz, "/metrics": pages.metrics}
    application.add_routes([web.get(path, answer) for path, answer in routes.items()])
    logger.addFilter(_is_ours)
    runner = web.AppRunner(
        application, access_log=None, logger=logger, shutdown_timeout=STOP_S, handle_signals=False
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(why_not(host, port, error)) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether something went wrong here, and not with what a caller sent, which is not for the log."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def why_not(host: str, port: int, error: OSError) -> str:
    """Why nobody can listen at an address, and what to do."""
    where = f"[ops] metrics_port {port} at {host}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: choose another port, or 0 for none"
    if error.errno == errno.EACCES:
        return f"{where} may not be used: choose a port from 1024 on, or 0 for none"
    return f"{where} cannot be used: is metrics_host an address of this machine?"
