"""This machine: files that others can read, free disk, the clock, the port of the pages."""

import asyncio
import errno
import shutil
import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp

from bot.config.files import is_open_to_others
from bot.config.loading import Loaded
from bot.config.mistakes import safe
from bot.config.models import OpsSettings, Settings
from bot.findings import Finding, failed, ok, warning
from bot.observing.pages import why_not

LEAST_FREE_BYTES = 100 << 20
FEW_FREE_BYTES = 1 << 30
MOST_SKEW_S = 3.0
"""More is refused by the swarm."""
ANSWERS_WITHIN_S = 15.0


def check_files(loaded: Loaded) -> Iterator[Finding]:
    """The configuration's own warnings, secrets, and files that others can read."""
    yield ok("config", f"{safe(str(loaded.path))} has no mistakes")
    yield from (warning("config", sentence) for sentence in loaded.warnings)
    yield from _secrets(loaded)
    settings = loaded.settings
    paths = [settings.swarm.identity_file, settings.storage.path]
    for path in [*paths, *([settings.matrix.store] if settings.matrix.enabled else [])]:
        yield from _mode(path)


def _secrets(loaded: Loaded) -> Iterator[Finding]:
    settings = loaded.settings
    found = (("discord", "token"), ("matrix", "store_secret"))
    for section, key in found:
        if getattr(settings, section).enabled:  # loading the configuration fails without it
            yield ok("secrets", f"[{section}] {key} comes from {loaded.origins[section, key]}")


def _mode(path: Path) -> Iterator[Finding]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return  # made at the first start
    except OSError as error:
        yield failed("files", f"{safe(str(path))} cannot be looked at: {error.strerror}")
        return
    if is_open_to_others(status):
        mode = "700" if path.is_dir() else "600"
        yield warning("files", f"others can read {safe(str(path))}; run: chmod {mode} {safe(str(path))}")


def check_disk(settings: Settings) -> Finding:
    """How much is free where the store is."""
    folder = settings.storage.path.absolute().parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return failed("disk", f"{safe(str(folder))} cannot be looked at: {error.strerror}; make that folder")
    amount = f"{free / 1e9:.1f} GB are free in {safe(str(folder))}"
    if free < LEAST_FREE_BYTES:
        return failed("disk", f"only {amount}: make room, or no message can be kept")
    return warning("disk", f"only {amount}: make room soon") if free < FEW_FREE_BYTES else ok("disk", amount)


async def check_clock(url: str) -> Finding:
    """This machine's clock beside that of the server at `url`."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            told, now_s = answer.headers.get("Date", ""), time.time()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return warning("clock", "it could not be compared: the server did not answer")
    return compare_clocks(told, now_s)


def compare_clocks(told: str, now_s: float) -> Finding:
    """`told` is the Date of an answer that came at `now_s`."""
    try:
        skew_s = now_s - parsedate_to_datetime(told).timestamp()
    except (ValueError, TypeError, OverflowError):
        return warning("clock", "it could not be compared: the server does not tell the time")
    skew_s = max(0.0, abs(skew_s) - 1.0)  # the server leaves out parts of a second
    if skew_s > MOST_SKEW_S:
        return failed(
            "clock", f"it is {skew_s:.0f} s off: switch time synchronization on (timedatectl set-ntp true)"
        )
    return ok("clock", "it agrees with the server's")


async def check_port(ops: OpsSettings) -> Finding:
    """Whether the pages can be served, or are already."""
    if not ops.metrics_port:
        return ok("metrics", "[ops] metrics_port is 0: neither metrics nor health pages")
    where = f"port {ops.metrics_port} at {ops.metrics_host}"
    try:
        await asyncio.to_thread(_bind, ops.metrics_host, ops.metrics_port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await _is_ours(ops):
            return ok("metrics", f"a bot serves them already, on {where}")
        return failed("metrics", why_not(ops.metrics_host, ops.metrics_port, error))
    return ok("metrics", f"{where} is free")


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


async def _is_ours(ops: OpsSettings) -> bool:
    host = f"[{ops.metrics_host}]" if ":" in ops.metrics_host else ops.metrics_host
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)) as session,
            session.get(f"http://{host}:{ops.metrics_port}/healthz") as answer,
        ):
            return answer.status == 200 and await answer.content.read(16) == b"ok\n"
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
