"""A peer behind a slow link, for tests: what it announces is a relay's address (see bench/links.py)."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.links import Link, free_port, maddr_of, open_link
from swarm.transport import Transport, open_transport


@asynccontextmanager
async def open_slow_transport(
    *, delay_s: float, bytes_per_s: float = math.inf, **options: Any
) -> AsyncIterator[tuple[Transport, Link]]:
    """A transport that others reach over a link with `delay_s` and `bytes_per_s` in each direction.

    `options` go to `open_transport`. Whoever dials it has the slow link; where it dials itself it has not.
    """
    port = free_port()
    async with (
        open_link(port, delay_s=delay_s, bytes_per_s=bytes_per_s) as link,
        open_transport(host_maddrs=(maddr_of(port),), announce_maddrs=(link.maddr,), **options) as transport,
    ):
        yield transport, link
