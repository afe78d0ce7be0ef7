"""/healthz, /readyz and /metrics, asked over HTTP: what they answer, and when."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from bot.clock import Clock, RealClock
from bot.config.models import OpsSettings
from bot.observing.health import Report
from bot.observing.loop_lag import watch_lag_forever
from bot.observing.pages import Pages, open_pages
from bot.observing.watched import Watched
from bot.observing.watching import Watch, open_watch
from bot.vitals import Vitals
from storage.database import Database, open_database
from swarm.background import running
from swarm.errors import ConfigError

WELL = {"discord": Vitals(True, 5.0, 60.0, latency_s=0.1), "matrix": Vitals(True, 20.0, 90.0)}


class Parts:
    """Neither turns nor sessions."""

    num_waiting = num_running = num_live = num_rebuilding = 0


class Operated:
    """A bot whose platforms and swarm are as the test says, and its pages."""

    def __init__(self, watch: Watch, store: Database, port: int) -> None:
        self.watch = watch
        self.vitals = dict(WELL)
        self.swarm_trouble = ""
        self.url = f"http://127.0.0.1:{port}"
        self._store = store

    def begin(self, clock: Clock) -> None:
        """It runs now."""
        platforms: dict[str, Callable[[], Vitals]] = {
            "discord": lambda: self.vitals["discord"],
            "matrix": lambda: self.vitals["matrix"],
        }
        parts = Parts()
        self.watch.begin(Watched(self._store, clock, platforms, parts, parts, lambda: self.swarm_trouble))

    async def ask(self, path: str) -> tuple[int, str]:
        """Status and body."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def ready(self) -> tuple[int, Report]:
        """What /readyz says."""
        status, body = await self.ask("/readyz")
        return status, msgspec.json.decode(body, type=Report)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def operated(path: Path) -> AsyncIterator[Operated]:
    ops = OpsSettings(metrics_port=free_port())
    async with open_watch(ops, {}) as watch, open_database(path) as store:
        yield Operated(watch, store, ops.metrics_port)


@pytest_asyncio.fixture
async def starting(store_path: Path) -> AsyncIterator[Operated]:
    async with operated(store_path) as bot:
        yield bot


@pytest.fixture
def bot(starting: Operated) -> Operated:
    starting.begin(RealClock())
    return starting


async def test_a_bot_that_is_well_is_ready(bot: Operated) -> None:
    assert await bot.ready() == (200, Report("ready"))
    assert await bot.ask("/healthz") == (200, "ok\n")


async def test_a_bot_that_starts_is_alive_and_not_ready(starting: Operated) -> None:
    assert (await starting.ask("/healthz"))[0] == 200
    status, report = await starting.ready()
    assert (status, report.problems) == (503, ("the bot is starting: it loads its model and connects",))
    assert (await starting.ask("/metrics"))[0] == 200


@pytest.mark.parametrize(
    ("platform", "vitals", "words"),
    [
        ("matrix", Vitals(True, 90.0, 90.0), "matrix was last heard 90 s ago, and 90 s is the limit"),
        ("matrix", Vitals(False, None, 90.0), "matrix is not connected yet"),
        ("discord", Vitals(True, 61.0, 60.0), "discord was last heard 61 s ago, and 60 s is the limit"),
        ("discord", Vitals(True, 1.0, 60.0, 75.0), "discord takes 75 s to answer, and 60 s is the limit"),
        ("discord", Vitals(False, 1.0, 60.0), "discord is not connected yet"),
    ],
)
async def test_behaviour_30_a_platform_beyond_its_limit_is_503_while_the_bot_stays_alive(
    bot: Operated, platform: str, vitals: Vitals, words: str
) -> None:
    bot.vitals[platform] = vitals
    status, report = await bot.ready()
    assert (status, report.status, len(report.problems)) == (503, "not ready", 1)
    assert report.problems[0].startswith(words)
    assert await bot.ask("/healthz") == (200, "ok\n")
    bot.vitals[platform] = WELL[platform]
    assert (await bot.ready())[0] == 200


async def test_just_below_the_limits_all_is_well(bot: Operated) -> None:
    bot.vitals |= {"matrix": Vitals(True, 89.9, 90.0), "discord": Vitals(True, 59.9, 60.0, 59.0)}
    assert (await bot.ready())[0] == 200


async def test_a_swarm_that_lacks_blocks_is_degraded_not_down(bot: Operated) -> None:
    bot.swarm_trouble = "the swarm cannot answer: no server for blocks 3-5"
    assert await bot.ready() == (200, Report("degraded", (bot.swarm_trouble,)))


async def test_a_store_that_is_closed_is_not_ready(store_path: Path) -> None:
    async with operated(store_path) as bot:
        bot.begin(RealClock())
        await bot._store.close()
        status, report = await bot.ready()
        assert (status, report.problems) == (
            503,
            (f"the store cannot be written: {store_path} is closed",),
        )
        assert (await bot.ask("/metrics"))[0] == 200


async def test_metrics_are_in_the_format_of_prometheus(bot: Operated) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{bot.url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        lines = (await answer.text()).splitlines()
    assert "murmur_matrix_sync_age_seconds 20.0" in lines
    assert 'murmur_platform_connected{platform="discord"} 1.0' in lines
    await bot.ready()
    _, text = await bot.ask("/metrics")
    assert "murmur_db_write_seconds_count 1.0" in text.splitlines()


async def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = holder.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"^\[ops\] metrics_port {port} at 127.0.0.1 is in use: choose"
        ):
            async with open_watch(OpsSettings(metrics_port=port), {}):
                pass


async def test_a_host_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="is metrics_host an address of this machine"):
        async with open_watch(OpsSettings(metrics_host="192.0.2.1", metrics_port=free_port()), {}):
            pass


async def test_without_a_port_there_are_no_pages() -> None:
    async with open_watch(OpsSettings(), {}) as watch:
        assert (await watch.look()).status == "not ready"


async def test_pages_take_a_free_port_for_0() -> None:
    async def nothing() -> bytes:
        return b""

    async def look() -> Report:
        return Report("ready")

    async with open_pages("127.0.0.1", 0, Pages(nothing, look)) as port:
        assert port > 0


async def test_what_a_caller_sends_is_not_logged_and_our_own_mistakes_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def break_down() -> bytes:
        raise ZeroDivisionError

    async def look() -> Report:
        return Report("ready")

    async with open_pages("127.0.0.1", 0, Pages(break_down, look)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /" + b"secret" * 2000 + b" HTTP/1.1\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        assert not caplog.records
        async with aiohttp.ClientSession() as session:
            assert (await session.get(f"http://127.0.0.1:{port}/metrics")).status == 500
    assert "ZeroDivisionError" in caplog.text


async def test_how_late_the_loop_is_is_measured() -> None:
    lags: list[float] = []
    async with running(watch_lag_forever(lags.append, every_s=0.01)):
        await until(lambda: len(lags) > 1)
        lags.clear()
        time.sleep(0.08)  # noqa: ASYNC251 - that is what is measured
        await until(lambda: lags)
    assert 0.05 < lags[0] < 5


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - looked at by the test alone
            await asyncio.sleep(0.002)
