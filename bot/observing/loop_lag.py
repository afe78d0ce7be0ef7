"""How late the event loop is: everything that people see waits for it."""

import asyncio
from collections.abc import Callable

EVERY_S = 0.5


async def watch_lag_forever(tell: Callable[[float], None], *, every_s: float = EVERY_S) -> None:
    """Tell again and again how many seconds too late the loop has woken us."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        tell(max(0.0, loop.time() - due_s))
