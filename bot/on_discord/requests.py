"""How the library's requests leave: not more of them than Discord takes from one account, and never cut off.

Discord counts all requests of an account, beside those of each channel. When it says so, the library stops
every request until one of them has slept for as long as Discord wants; if that one is cancelled meanwhile,
as a preview is when its final text is there, nothing is ever sent again (discord.py 2.x).
"""

from asyncio import Lock
from collections import deque
from typing import Any

from discord.http import HTTPClient, Route

from bot.clock import Clock
from bot.words import Unreachable
from swarm.background import finish

MOST_IN_A_SECOND = 45
"""Discord takes 50 from an account."""
WITHIN_S = 120.0
"""Longer than the library waits in all for limits, in five tries of `MOST_LIMITED_S`."""
MOST_LIMITED_S = 10.0
"""After longer waits than this the library tells us instead of waiting."""


class AccountRate:
    """Lets so many pass in each second, in the order in which they came."""

    def __init__(self, clock: Clock, most: int = MOST_IN_A_SECOND) -> None:
        self._clock = clock
        self._passed_s: deque[float] = deque(maxlen=most)
        self._line = Lock()

    async def wait(self) -> None:
        """Wait until one more may pass."""
        async with self._line:
            if len(self._passed_s) == self._passed_s.maxlen:
                await self._clock.sleep(max(0.0, self._passed_s[0] + 1.0 - self._clock.now_s()))
            self._passed_s.append(self._clock.now_s())


def protect(http: HTTPClient, clock: Clock) -> None:
    """From now on what `http` sends waits for its time, and is finished before whoever cancels it goes on.

    Before the login it raises Unreachable.
    """
    send, rate = http.request, AccountRate(clock)

    async def request(route: Route, **how: Any) -> Any:
        if http.token is None:
            raise Unreachable("Discord was not reached yet")
        if _is_counted(route):
            await rate.wait()
        return await finish(send(route, **how), WITHIN_S)

    http.request = request  # type: ignore[method-assign]


def _is_counted(route: Route) -> bool:
    return not route.path.startswith(("/interactions", "/webhooks"))
