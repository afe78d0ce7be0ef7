"""Turn by turn, which jobs run in the next batch; what ran before tells how much that may be."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from server.batch_cost import BatchCost
from server.gathering import Gathering
from server.kv_cache import SessionCache
from server.scheduler import Limits, Served, Share, Waiting, plan_turn
from server.work import Job, Work


class Turns:
    """The memory of the compute thread; times are those of `time.monotonic`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._served = Served()
        self._gathering = Gathering()
        self._cost = BatchCost()
        self._num_blocks = 1
        """Of the largest span that came: the server's own, which it measures when it starts."""

    def job(self, work: Work, future: asyncio.Future[Tensor]) -> Job:
        """`work` as it waits."""
        num_blocks = len(work.span)
        self._num_blocks = max(self._num_blocks, num_blocks)
        return Job(work, future, work.hidden.shape[0] > self._limits.short_tokens, num_blocks)

    def patience_s(self, jobs: Collection[Job], waited_s: float) -> float:
        """For how long short works alone wait for those that are about to come."""
        for job in jobs:
            if job.is_prompt:
                return 0.0
        return self._gathering.patience_s({job.work.session for job in jobs}, waited_s, time.monotonic())

    def plan(self, jobs: Mapping[int, Job]) -> tuple[Share, ...]:
        """Choose the next batch from `jobs`, by number in order of arrival: of each cache the oldest."""
        oldest: dict[SessionCache, int] = {}
        for number, job in jobs.items():
            oldest.setdefault(job.work.cache, number)
        waiting = [self._waiting(number, jobs[number]) for number in oldest.values()]
        return plan_turn(waiting, self._served, self._limits, self._cost, time.monotonic())

    def _waiting(self, number: int, job: Job) -> Waiting:
        work, tokens = job.work, job.left_tokens
        rows = tokens * job.num_blocks / self._num_blocks
        return Waiting(number, work.peer, tokens, rows, job.is_prompt, work.session, job.since_s)

    def ran(self, batch: Sequence[tuple[Job, Share]], began_s: float, *, has_failed: bool) -> None:
        """Note that a batch has run, and how long it took if all of it did."""
        now_s = time.monotonic()
        rows = {False: 0.0, True: 0.0}
        for job, share in batch:
            self._served.note(share, job.work.session, now_s)
            rows[share.is_prompt] += share.tokens * job.num_blocks / self._num_blocks
        if has_failed:
            return
        if not rows[True]:
            self._gathering.ran([job.work.session for job, _ in batch], now_s - began_s, now_s)
        # A part of the blocks tells nothing of what all of them cost.
        if max([job.num_blocks for job, _ in batch]) == self._num_blocks:
            self._cost.ran(rows[False], rows[True], now_s - began_s, now_s)
