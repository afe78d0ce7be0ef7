"""What systemd is told (sd_notify(3)): that the bot runs, that it is alive, and that it stops.

It is alive as long as its loop turns and every platform is heard; systemd restarts it when it says no more.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

LOOK_S = 1.0
BEATS_PER_DEADLINE = 3
EVERY_S = 10.0


class Notifier:
    """Sends to the socket that systemd has named; to nowhere if it has named none."""

    def __init__(self, address: str = "") -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._is_silent = False

    def send(self, message: str) -> None:
        """Send a message such as `READY=1`. What systemd cannot hear ends nothing."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), self._address)
        except (OSError, ValueError) as error:
            if not self._is_silent:
                logger.warning("systemd cannot be told: %s", error)
            self._is_silent = True


def beat_interval_s(environment: Mapping[str, str]) -> float:
    """How often systemd wants to hear from this process, with some to spare."""
    deadline_us, process_id = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (deadline_us.isdecimal() and process_id in ("", str(os.getpid()))):
        return EVERY_S
    return min(EVERY_S, max(int(deadline_us) / 1e6 / BEATS_PER_DEADLINE, 0.01))


async def beat_forever(notifier: Notifier, is_alive: Callable[[], bool], every_s: float) -> None:
    """Say that the bot runs as soon as it is alive, and from then on, as long as it is, that it still is."""
    while not is_alive():  # noqa: ASYNC110 - what makes it alive is not one event
        await asyncio.sleep(min(LOOK_S, every_s))
    notifier.send("READY=1")
    while True:
        if is_alive():
            notifier.send("WATCHDOG=1")
        await asyncio.sleep(every_s)
