"""What systemd hears, on a real datagram socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.config.models import OpsSettings
from bot.observing.systemd import EVERY_S, Notifier, beat_forever, beat_interval_s
from bot.observing.watching import open_watch
from swarm.background import running


class Systemd:
    """The receiving end."""

    def __init__(self, receiver: socket.socket, address: str) -> None:
        self.address = address
        self._receiver = receiver

    def heard(self) -> list[str]:
        """What has come since the last time."""
        messages = []
        while True:
            try:
                messages.append(self._receiver.recv(4096).decode())
            except BlockingIOError:
                return messages

    async def until(self, message: str) -> list[str]:
        """Wait for a message; returns all that has come until then."""
        messages: list[str] = []
        async with asyncio.timeout(5):
            while message not in messages:
                await asyncio.sleep(0.005)
                messages += self.heard()
        return messages


class Bot:
    """Well or not, as the test says; knows how often somebody looked."""

    def __init__(self) -> None:
        self.is_well = False
        self._num_looks = 0

    def is_alive(self) -> bool:
        self._num_looks += 1
        return self.is_well

    async def looked_at(self, times: int) -> None:
        """Wait until somebody has looked so often."""
        end = self._num_looks + times
        async with asyncio.timeout(5):
            while self._num_looks < end:  # noqa: ASYNC110 - looked at by the test alone
                await asyncio.sleep(0.002)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield Systemd(receiver, str(tmp_path / "notify"))


def test_a_message_reaches_the_socket(systemd: Systemd) -> None:
    Notifier(systemd.address).send("READY=1")
    assert systemd.heard() == ["READY=1"]


def test_a_message_reaches_an_abstract_socket() -> None:
    name = f"murmur-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(2)
        Notifier(f"@{name}").send("STOPPING=1")
        assert receiver.recv(100) == b"STOPPING=1"


def test_without_systemd_nothing_happens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier("").send("READY=1")
    assert caplog.records == []
    gone = Notifier(str(tmp_path / "gone"))
    gone.send("READY=1")
    gone.send("WATCHDOG=1")
    assert len(caplog.records) == 1


async def test_it_is_ready_when_it_is_connected_and_fed_only_while_it_is(systemd: Systemd) -> None:
    bot = Bot()
    async with running(beat_forever(Notifier(systemd.address), bot.is_alive, 0.002)):
        await bot.looked_at(3)
        assert systemd.heard() == []
        bot.is_well = True
        assert (await systemd.until("WATCHDOG=1"))[:2] == ["READY=1", "WATCHDOG=1"]
        bot.is_well = False
        systemd.heard()
        await bot.looked_at(3)
        assert systemd.heard() == []
        bot.is_well = True
        assert set(await systemd.until("WATCHDOG=1")) == {"WATCHDOG=1"}


async def test_a_bot_says_when_it_stops(systemd: Systemd) -> None:
    async with open_watch(OpsSettings(), {"NOTIFY_SOCKET": systemd.address}) as watch:
        watch.note_stopping()
        assert systemd.heard() == ["STOPPING=1"]


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, EVERY_S),
        ({"WATCHDOG_USEC": "3000000"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, EVERY_S),
        ({"WATCHDOG_USEC": "soon"}, EVERY_S),
        ({"WATCHDOG_USEC": "900000000"}, EVERY_S),
    ],
)
def test_it_beats_thrice_within_what_systemd_asks_for(environment: dict[str, str], interval_s: float) -> None:
    assert beat_interval_s(environment) == interval_s
