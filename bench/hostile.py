"""Decoding while a stranger breaks the rules against while nobody does: milliseconds per token, tiny, 1 hop.

The stranger is a process of its own with its own p2pd, on one core alone: what is measured is what its
messages cost the server, not that somebody else computes on the machine. One sends 200 messages a second,
another as many as it can; see hostile_peer.py for what they are.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.models import make_tiny, some_ids
from bench.report import Found, Pair, found, medians
from bench.swarms import Service, Swarm, open_swarm
from swarm.inference import InferenceSession

GOAL = 1.2
RATE = 200.0
PROMPT, TOKENS = 64, 128
PAIRS = 9
LEAD_S = 0.5
"""So long an attack has gone on, or is over, before tokens are counted."""


@dataclass
class Attack:
    """A hostile process, and what it and its target have used of the processor (seconds)."""

    process: "asyncio.subprocess.Process"
    target: Service

    async def switch(self) -> int:
        """Begin or pause; returns how many messages it has sent so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return int(json.loads(await self.process.stdout.readline()))

    def used_s(self) -> dict[str, float]:
        """Seconds of all cores, by who used them."""
        peers = {"attacker": self.process.pid, "server": self.target.process.pid}
        used = {name: _used_s(pid) for name, pid in peers.items()}
        return used | {f"{name}_p2pd": sum(map(_used_s, _children(pid))) for name, pid in peers.items()}


async def measure(pairs: int = PAIRS) -> Found:
    """Decode in turn without and with each attack."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_tiny(Path(folder))) as swarm:
            (server,) = await swarm.start((0, 8))
            async with swarm.session(server) as session:
                await session.feed(some_ids(1, PROMPT))
                await swarm.decode(session, 16)
                throttled, details = await _measured(swarm, server, session, RATE, pairs)
                flood, more = await _measured(swarm, server, session, 0.0, pairs)
    quiet_s, attacked_s = medians(throttled)
    return found(
        "hostile",
        f"time per token while a stranger sends {RATE:.0f} bad messages a second / alone, tiny, fp32, 1 hop",
        throttled,
        GOAL,
        is_least=False,
        attack="malformed frames on streams of their own, refused orders, steps out of turn; from one core",
        alone_ms=round(1e3 * quiet_s / TOKENS, 3),
        attacked_ms=round(1e3 * attacked_s / TOKENS, 3),
        **details,
        flood_ratio=found("", "", flood, GOAL).ratio,
        flood_ms=round(1e3 * medians(flood)[1] / TOKENS, 3),
        **{f"flood_{name}": figure for name, figure in more.items()},
    )


async def _measured(
    swarm: Swarm, server: Service, session: InferenceSession, rate: float, pairs: int
) -> tuple[list[Pair], dict[str, Any]]:
    """Times without and with the attack; messages a second, and parts of a core that everybody took."""
    times: list[Pair] = []
    sent, attacked_s, used_s = (
        0,
        0.0,
        dict.fromkeys(("attacker", "server", "attacker_p2pd", "server_p2pd"), 0.0),
    )
    async with _attacking(swarm, server, rate) as attack:
        for _ in range(pairs):
            await asyncio.sleep(LEAD_S)
            alone_s = await _decoded_s(swarm, session)
            sent_before, used_before, started = await attack.switch(), attack.used_s(), time.monotonic()
            await asyncio.sleep(LEAD_S)
            times.append((alone_s, await _decoded_s(swarm, session)))
            attacked_s += time.monotonic() - started
            used_s = {name: used_s[name] + now - used_before[name] for name, now in attack.used_s().items()}
            sent += await attack.switch() - sent_before
    cores = {f"{name}_cores": round(seconds / attacked_s, 2) for name, seconds in used_s.items()}
    return times, {"messages_per_s": round(sent / attacked_s)} | cores


async def _decoded_s(swarm: Swarm, session: InferenceSession) -> float:
    """The same tokens again: seconds."""
    session.rollback(PROMPT)
    return await swarm.decode(session, TOKENS)


@asynccontextmanager
async def _attacking(swarm: Swarm, server: Service, rate: float) -> AsyncIterator[Attack]:
    """Start a hostile process on one core; it waits to be told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.hostile_peer", server.addresses[0], swarm.checkpoint.fingerprint,
        str(rate), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    try:
        yield Attack(process, server)
    finally:
        process.kill()
        await process.wait()


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in listed.split()]
