"""Decoding while a stranger floods the server against while nobody does: time per token, tiny, 1 hop.

There are two servers: one is flooded, beside the other nobody does anything, so that what a flood leaves
behind is no part of the baseline. Each flood of hostile_floods.py has a process of its own, with its own p2pd
and a new identity for every pair, on one core and less urgent than all others: what is measured is what its
messages cost the server, not that somebody else computes on the machine.

Steps as they should be take their share of the computation, whoever sends them. So those that are sent as
fast as they can be, single tokens or prompts, are compared with another peer who feeds as many sessions and
waits for each result: who does not must not slow down others more than who does. What both cost beside
nobody is told as well; by the scheduler's rule (server/scheduler.py) two batches that take twice as long.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.models import make_tiny, some_ids
from bench.report import Found, Pair, found, medians
from bench.swarms import Service, Swarm, open_swarm
from swarm.inference import InferenceSession

GOAL = 1.2
PROMPT, TOKENS = 64, 128
FEW_TOKENS = 24
PAIRS = 7
LEAD_S = 0.5
"""So long a flood has gone on before tokens are counted."""
LONG_LEAD_S = 3.0
"""So long it takes until all sessions are open."""
BAD = ("malformed", "bad steps", "out of turn", "orders", "sessions", "streams", "held", "halves", "records")
VALID = ("steps", "prompts")


@dataclass(frozen=True)
class Bench:
    """A server that is flooded and one that is left alone, with a session on each."""

    swarm: Swarm
    servers: tuple[Service, Service]
    sessions: tuple[InferenceSession, InferenceSession]

    async def decoded_s(self, which: int, num_tokens: int) -> float:
        """The same tokens again: seconds."""
        self.sessions[which].rollback(PROMPT)
        return await self.swarm.decode(self.sessions[which], num_tokens)


FLOODED, OTHER = 0, 1


@dataclass
class Attack:
    """A hostile process and its target."""

    process: "asyncio.subprocess.Process"
    target: Service

    async def num_sent(self) -> int:
        """How many messages it has sent; the first time, it begins."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        return int(await self.process.stdout.readline())

    def used_s(self) -> Counter[str]:
        """Seconds of all cores, by who used them."""
        peers = {"attacker": self.process.pid, "server": self.target.process.pid}
        used = {name: _used_s(pid) for name, pid in peers.items()}
        return Counter(
            used | {f"{name}_p2pd": sum(map(_used_s, _children(pid))) for name, pid in peers.items()}
        )


@dataclass
class Measured:
    """Pairs of seconds without and with a flood, and what it was meanwhile."""

    pairs: list[Pair] = field(default_factory=list)
    num_sent: int = 0
    flooded_s: float = 0.0
    used_s: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return round(statistics.median(flooded / alone for alone, flooded in self.pairs), 3)

    def told(self, num_tokens: int) -> dict[str, float]:
        """For people: milliseconds a token, messages a second, parts of a core."""
        cores = {f"{name}_cores": round(seconds / self.flooded_s, 2) for name, seconds in self.used_s.items()}
        return {
            "ratio": self.ratio,
            "ms": round(1e3 * medians(self.pairs)[1] / num_tokens, 2),
            "messages_per_s": round(self.num_sent / self.flooded_s),
            **cores,
        }


async def measure(pairs: int = PAIRS) -> Found:
    """Decode without and with each flood in turn; the worst of them is the result."""
    async with _open_bench() as bench:
        floods = {name: await _flooded(bench, name, pairs) for name in BAD}
        valid = {name: await _valid(bench, name, pairs) for name in VALID}
    worst = max(floods, key=lambda name: floods[name].ratio)
    alone_s = [alone for flood in floods.values() for alone, _ in flood.pairs]
    told = {name.replace(" ", "_"): flood.told(TOKENS) for name, flood in floods.items()}
    return found(
        "hostile",
        f"time per token under a stranger's flood / alone, the worst of {len(BAD)} floods, tiny, fp32, 1 hop",
        floods[worst].pairs,
        GOAL,
        is_least=False,
        also={f"{name}_ratio <= {GOAL}": measured.ratio <= GOAL for name, (measured, _) in valid.items()},
        worst=worst,
        alone_ms=round(1e3 * statistics.median(alone_s) / TOKENS, 3),
        **told,
        **{name: measured.told(FEW_TOKENS) for name, (measured, _) in valid.items()},
        **{f"{name}_ratio": measured.ratio for name, (measured, _) in valid.items()},
        **{f"polite_{name}_ms": _few_ms(measured) for name, (measured, _) in valid.items()},
        **{f"beside_no_{name}_ms": _few_ms(alone) for name, (_, alone) in valid.items()},
    )


def _few_ms(measured: Measured) -> float:
    """Milliseconds a token before the flood."""
    return round(1e3 * medians(measured.pairs)[0] / FEW_TOKENS, 2)


@asynccontextmanager
async def _open_bench() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        swarm = await stack.enter_async_context(open_swarm(make_tiny(Path(folder))))
        flooded, other = await swarm.start((0, 8), (0, 8))
        sessions = [await stack.enter_async_context(swarm.session(server)) for server in (flooded, other)]
        for session in sessions:
            await session.feed(some_ids(1, PROMPT))
            await swarm.decode(session, 16)
        yield Bench(swarm, (flooded, other), (sessions[0], sessions[1]))


async def _flooded(bench: Bench, name: str, num_pairs: int) -> Measured:
    measured = Measured()
    for _ in range(num_pairs):
        async with _attacking(bench, FLOODED, name) as attack:
            alone_s = await bench.decoded_s(OTHER, TOKENS)
            await _add(measured, bench, attack, alone_s, TOKENS, LEAD_S)
    return measured


async def _valid(bench: Bench, name: str, num_pairs: int) -> tuple[Measured, Measured]:
    """A flood of what is valid against whoever feeds as many sessions politely, and that against nobody.

    Both servers see both in turn: what a batch may be follows from what a server has seen.
    """
    flood, polite = Measured(), Measured()
    for number in range(num_pairs):
        which, other = (FLOODED, OTHER) if number % 2 else (OTHER, FLOODED)
        alone_s = await bench.decoded_s(other, FEW_TOKENS)
        async with _attacking(bench, other, f"polite {name}") as attack:
            await _add(polite, bench, attack, alone_s, FEW_TOKENS, LONG_LEAD_S)
        async with _attacking(bench, which, name) as attack:
            await _add(flood, bench, attack, polite.pairs[-1][1], FEW_TOKENS, LONG_LEAD_S)
    return flood, polite


async def _add(
    measured: Measured, bench: Bench, attack: Attack, alone_s: float, num_tokens: int, lead_s: float
) -> None:
    """Begin the flood and decode under it."""
    which = bench.servers.index(attack.target)
    sent_before, used_before, began_s = await attack.num_sent(), attack.used_s(), time.monotonic()
    await asyncio.sleep(lead_s)
    measured.pairs.append((alone_s, await bench.decoded_s(which, num_tokens)))
    measured.flooded_s += time.monotonic() - began_s
    measured.used_s.update(attack.used_s() - used_before)
    measured.num_sent += await attack.num_sent() - sent_before


@asynccontextmanager
async def _attacking(bench: Bench, which: int, name: str) -> AsyncIterator[Attack]:
    """Start a hostile process on one core; it waits to be told."""
    target = bench.servers[which]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.hostile_peer", target.addresses[0], bench.swarm.checkpoint.fingerprint,
        name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    try:
        assert process.stdout is not None
        await process.stdout.readline()  # it has joined
        yield Attack(process, target)
    finally:
        process.kill()
        await process.wait()


def _used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> Sequence[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in listed.split()]
