"""The only thread that touches the device: takes what waits from all sessions and runs it as one batch.

Its loop is three verbs: schedule, run, postprocess; a batch waits a moment for those that are about to come
(gathering.py). Callers live on the event loop; what goes to the thread is bounded, what comes back is one
`call_soon_threadsafe` per batch.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from server.attention import Chunk
from server.kv_cache import KVPool, SessionCache
from server.overloaded import Overloaded, as_told
from server.scheduler import Limits, Share
from server.turns import Turns
from server.work import Job, Work
from swarm.errors import ContextTooLong

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_WAITING = 1024


class Runner(Protocol):
    """What runs batches: a `SpanModel`, or a fake."""

    @property
    def hidden_size(self) -> int:
        """Width of hidden states."""

    @property
    def max_positions(self) -> int | None:
        """Tokens that a session may have here unless it `is_long`; None if rope knows no such limit."""

    @property
    def turn(self) -> AbstractContextManager[object] | None:
        """Held while the device is used, if executors have to take turns."""

    @property
    def progress(self) -> int:
        """Grows while a batch runs, if only it runs for long. From any thread."""

    def run(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Run `chunks` as one batch; [tokens, hidden] for each."""


class Executor:
    """Runs works in batches. An async context manager: its thread ends with it.

    Works of one cache run in the order in which they came; what nobody waits for any more is dropped before
    its next batch. A batch that fails is run again one by one, so that only the guilty fail.
    """

    def __init__(
        self,
        runner: Runner,
        pool: KVPool,
        *,
        num_threads: int = 1,
        limits: Limits | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._runner = runner
        self._pool = pool
        self._num_threads, self._max_waiting = num_threads, max_waiting
        self._changed = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._calls: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._next_number = 0
        self._turn = runner.turn or threading.Lock()
        self._turns = Turns(limits or Limits())
        self.num_batches = 0
        """Batches that have finished."""
        self._num_calls = self._num_answered = 0
        self._is_stopping = False
        self._thread = threading.Thread(target=self._compute_forever, name="murmur-compute", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        _settle_all(self._give_up(Overloaded("this server is stopping")))

    @property
    def progress(self) -> int:
        """Grows with every block, batch and call: if it stands still while some wait, the thread is stuck."""
        return self.num_batches + self._num_answered + self._runner.progress + self._pool.progress

    @property
    def queue_depth(self) -> int:
        """Works and calls that wait or run."""
        return len(self._jobs) + self._num_calls - self._num_answered

    async def run(self, work: Work) -> Tensor:
        """Run `work` and return its outputs `[tokens, hidden]`, the model's dtype, on the CPU.

        Whatever the cache held at and above `work.position` is gone as soon as this is called; no tokens at
        all is a mere rollback. Raises KVFull or Overloaded (busy; nothing is cached anew), ContextTooLong,
        ValueError if the work does not fit its cache or this server, and whatever the model raises.
        """
        self._check(work)
        tokens = work.hidden.shape[0]
        self._pool.begin_write(work.cache, work.position, work.position + tokens)
        if not tokens:
            return work.hidden
        future: asyncio.Future[Tensor] = self._loop.create_future()
        with self._changed:
            self._jobs[self._next_number] = self._turns.job(work, future)
            self._next_number += 1
            self._changed.notify()
        return await future

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the compute thread between two batches: spilling, copying pages.

        Raises what `function` raises, or Overloaded if this executor has stopped.
        """
        with self._changed:
            self._check_open()
            future: asyncio.Future[T] = self._loop.create_future()
            self._calls.append((function, future))
            self._num_calls += 1
            self._changed.notify()
        return await future

    def forget(self, caches: Collection[SessionCache]) -> None:
        """Nobody waits for what these have here: it fails with Overloaded before its next batch."""
        with self._changed:
            for job in self._jobs.values():
                job.is_unwanted |= job.work.cache in caches

    def _check_open(self) -> None:
        if self._is_stopping:
            raise Overloaded("this server has stopped")

    def _check(self, work: Work) -> None:
        self._check_open()
        if len(self._jobs) >= self._max_waiting:
            raise Overloaded("this server has too many steps waiting; try again in a moment")
        if work.span != work.cache.span or work.hidden.dim() != 2:
            raise ValueError("a work needs hidden states [tokens, hidden] and the span of its cache")
        if work.hidden.shape[1] != self._runner.hidden_size:
            raise ValueError(f"hidden states are {work.hidden.shape[1]} wide, not {self._runner.hidden_size}")
        limit = None if work.is_long else self._runner.max_positions
        if limit is not None and work.position + work.hidden.shape[0] > limit:
            raise ContextTooLong(f"this model's rope is exact here for at most {limit} tokens")

    # --- compute thread --------------------------------------------------------------------------

    def _compute_forever(self) -> None:
        torch.set_num_threads(self._num_threads)  # holds for the calling thread only
        try:
            while self._take_turn():
                pass
        except Exception as error:
            logger.exception("the compute thread has failed; this server can run no more steps")
            self._loop.call_soon_threadsafe(_settle_all, self._give_up(error))

    def _take_turn(self) -> bool:
        """Wait for something to do and do it: calls, then one batch. Return False when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._jobs or self._calls)
            if self._is_stopping:
                return False
            self._wait_for_more()
        with self._turn:
            with self._changed:
                if self._is_stopping:
                    return False
                calls, self._calls = self._calls, []
                shares = self._schedule()
            for function, future in calls:
                self._answer(function, future)
            if shares:
                began_s = time.monotonic()
                batch = [(self._jobs[share.number], share) for share in shares]
                results, is_one_batch = self._run([(job, share.tokens) for job, share in batch])
                self._turns.ran(batch, began_s, is_one_batch=is_one_batch)
                self._postprocess(batch, results)
        return True

    def _wait_for_more(self) -> None:
        """Let a batch wait for short works that are about to come."""
        began_s, num_before = time.monotonic(), 0
        while len(self._jobs) > num_before and not self._calls and not self._is_stopping:
            num_before = len(self._jobs)
            patience_s = self._turns.patience_s(self._jobs.values(), time.monotonic() - began_s)
            if patience_s:
                self._changed.wait(patience_s)

    def _schedule(self) -> tuple[Share, ...]:
        """Choose the next batch, of what somebody still waits for."""
        gone = [
            number
            for number, job in self._jobs.items()
            if job.is_unwanted or job.future.done() or job.work.cache.is_closed
        ]
        if gone:
            answers = [(job.future, _why_gone(job)) for job in map(self._jobs.pop, gone)]
            self._loop.call_soon_threadsafe(_settle_all, answers)
        return self._turns.plan(self._jobs)

    def _run(self, batch: Sequence[tuple[Job, int]]) -> tuple[list[Tensor | Exception], bool]:
        """Run the next tokens of each job; the outputs, or what went wrong, and whether all ran at once."""
        try:
            return list(self._runner.run([job.chunk(tokens) for job, tokens in batch])), True
        except Exception as error:  # noqa: BLE001 - belongs to the callers, whose futures get it
            if len(batch) == 1:
                return [as_told(error)], False
            return [self._run([alone])[0][0] for alone in batch], False

    def _postprocess(self, batch: Sequence[tuple[Job, Share]], results: Sequence[Tensor | Exception]) -> None:
        """Answer those whose work is done."""
        finished: dict[int, tuple[asyncio.Future[Tensor], Tensor | Exception]] = {}
        for (job, share), result in zip(batch, results, strict=True):
            answer = job.ran(share.tokens, result) if isinstance(result, Tensor) else result
            if answer is not None:
                finished[share.number] = job.future, answer
        with self._changed:
            for number in finished:
                del self._jobs[number]
        self.num_batches += 1
        if finished:
            self._loop.call_soon_threadsafe(_settle_all, finished.values())

    def _give_up(self, error: Exception) -> list[tuple[asyncio.Future[Any], Exception]]:
        """Accept nothing more; return `error` for everybody who waits."""
        with self._changed:
            self._is_stopping = True
            waiting = [job.future for job in self._jobs.values()] + [future for _, future in self._calls]
            self._jobs.clear()
            self._calls.clear()
        return [(future, error) for future in waiting]

    def _answer(self, function: Callable[[], T], future: asyncio.Future[T]) -> None:
        result: T | Exception
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - belongs to the caller, whose future gets it
            result = error
        self._num_answered += 1
        self._loop.call_soon_threadsafe(_settle_all, [(future, result)])


def _why_gone(job: Job) -> Exception:
    if job.is_unwanted:
        return Overloaded("nobody waits for this step any more")
    return ValueError("the KV cache was closed while its step waited")


def _settle_all(finished: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in finished:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
