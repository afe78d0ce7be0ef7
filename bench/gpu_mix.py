"""What a span on a GPU does besides decoding alone: prompts, both at once, and quantized blocks.

Sessions of eight peers decode through an executor, as in a server, while another peer's prompt is read; each
is also timed without the other. The scheduler means to let a batch take at most twice as long.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.decode_context import WARM_UP_STEPS, Decoding
from server.executor import Executor
from server.kv_cache import KVPool, SessionCache
from server.recent import PRESENT_S
from server.span import SpanModel
from server.work import Work
from swarm.wire.blocks import PeerId

SESSIONS = 8
PROMPT_TOKENS = 4096
STEPS = 100
ROUNDS = 5
READER = PeerId("reader")
CONTEXT_TOKENS = 64


async def mixed(
    model: SpanModel, *, prompt_tokens: int = PROMPT_TOKENS, steps: int = STEPS, rounds: int = ROUNDS
) -> dict[str, float]:
    """Time steps and prompts alone and together, in turn; medians in ms, the first round not counted."""
    pool = KVPool(10_000_000)
    async with Executor(model, pool) as executor:
        crowd = _Crowd(executor, pool, model, prompt_tokens)
        found = [await crowd.round(steps) for _ in range(rounds + 1)][1:]
    middle = {name: statistics.median(it[name] for it in found) for name in found[0]}
    return {name: round(seconds * 1e3, 3) for name, seconds in middle.items()} | {
        "steps_slower": round(middle["beside_ms"] / middle["steps_ms"], 2),
        "prompt_slower": round(middle["prompt_beside_ms"] / middle["prompt_ms"], 2),
    }


class _Crowd:
    """Sessions of several peers that decode on one executor, and one who has long prompts."""

    def __init__(self, executor: Executor, pool: KVPool, model: SpanModel, prompt_tokens: int) -> None:
        self._executor, self._pool, self._span = executor, pool, model.span
        self._caches = {PeerId(f"peer {number}"): pool.open(model.span) for number in range(SESSIONS)}
        self._noise = torch.randn(prompt_tokens, model.hidden_size).to(model.dtype)

    async def round(self, steps: int) -> dict[str, float]:
        """Seconds: a step without a prompt, a prompt without steps, and each beside the other."""
        for cache in self._caches.values():
            cache.used = min(cache.used, CONTEXT_TOKENS)  # every round begins as far as the others
        steps_s = await self._decode(lambda times: len(times) >= steps)
        await asyncio.sleep(PRESENT_S)  # until then they are between two steps, and the prompt is not alone
        prompt_s = await self._read()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read())
            decoding = tasks.create_task(self._decode(lambda _: reading.done()))
        return {
            "steps_ms": statistics.median(steps_s),
            "prompt_ms": prompt_s,
            "beside_ms": statistics.median(decoding.result()),
            "prompt_beside_ms": reading.result(),
        }

    async def _read(self) -> float:
        cache = self._pool.open(self._span)
        started = time.perf_counter()
        await self._run(cache, self._noise, READER)
        self._pool.close(cache)
        return time.perf_counter() - started

    async def _decode(self, is_enough: Callable[[list[float]], bool]) -> list[float]:
        """Steps of all sessions until each has enough; the seconds of each step."""
        all_times: list[float] = []

        async def decode(peer: PeerId) -> None:
            times: list[float] = []
            while not is_enough(times):
                started = time.perf_counter()
                await self._run(self._caches[peer], self._noise[:1], peer)
                times.append(time.perf_counter() - started)
            all_times.extend(times)

        async with asyncio.TaskGroup() as tasks:
            for peer in self._caches:
                tasks.create_task(decode(peer))
        return all_times

    async def _run(self, cache: SessionCache, hidden: Tensor, peer: PeerId) -> None:
        await self._executor.run(Work(cache, cache.span, cache.used, hidden, peer, session=cache))


def quantized(models: Mapping[str, SpanModel], pairs: int, prompt_tokens: int = 256) -> dict[str, Any]:
    """Time a step of one session, one of 32, and a prompt on each of `models`, in turn; medians in ms.

    How near they are to full ones is for `bench quantization`: random weights make any rounding grow.
    """
    runs = {name: _Runs(model, prompt_tokens) for name, model in models.items()}
    rounds = [{name: run.times_s() for name, run in runs.items()} for _ in range(pairs + 1)][1:]
    return {name: _medians_ms([it[name] for it in rounds]) for name in models}


def _medians_ms(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows) * 1e3, 3) for name in rows[0]}


class _Runs:
    """One span, 32 sessions that decode on it, and prompts of so many tokens."""

    def __init__(self, model: SpanModel, prompt_tokens: int) -> None:
        self._decoding, self._prompt_tokens = Decoding(model), prompt_tokens
        self._caches = [self._decoding.open(1) for _ in range(32)]
        for _ in range(WARM_UP_STEPS):
            self._decoding.step_s(*self._caches), self._decoding.step_s(self._caches[0])

    def times_s(self) -> dict[str, float]:
        """Seconds of a step of one session, of 32, and of a prompt."""
        return {
            "step_ms": self._decoding.step_s(self._caches[0]),
            "steps_ms": self._decoding.step_s(*self._caches),
            "prompt_ms": self._decoding.prompt_s(self._prompt_tokens),
        }
