"""Turn by turn, which jobs run in the next batch; what ran before tells how much that may be."""

import asyncio
import time
from collections.abc import Collection, Hashable, Mapping, Sequence

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
        """Of the largest span that came; rows are counted by it."""

    def job(self, work: Work, future: asyncio.Future[Tensor]) -> Job:
        """`work` as it waits."""
        num_blocks = len(work.span)
        if num_blocks > self._num_blocks:  # rows counted by fewer blocks were others
            self._num_blocks, self._cost = num_blocks, BatchCost()
        return Job(work, future, work.hidden.shape[0] > self._limits.short_tokens, num_blocks)

    def patience_s(self, jobs: Collection[Job], waited_s: float) -> float:
        """For how long these wait for those that are about to come."""
        sessions: set[Hashable] = set()
        has_prompt = False
        for job in jobs:
            sessions.add(job.work.session)
            has_prompt |= job.is_prompt
        return self._gathering.patience_s(sessions, waited_s, time.monotonic(), has_prompt=has_prompt)

    def plan(self, jobs: Mapping[int, Job]) -> tuple[Share, ...]:
        """Choose the next batch from `jobs`, by number in order of arrival: of each cache the oldest."""
        oldest: dict[SessionCache, int] = {}
        for number, job in jobs.items():
            oldest.setdefault(job.work.cache, number)
        waiting = [self._waiting(number, jobs[number]) for number in oldest.values()]
        shares = plan_turn(waiting, self._served, self._limits, self._cost, time.monotonic())
        if len({share.is_prompt for share in shares}) < 2:
            return shares
        short = tuple(share for share in shares if not share.is_prompt)
        rows, _, _ = _counted([(jobs[share.number], share) for share in short])
        return short if self._cost.wants_alone(rows, time.monotonic()) else shares

    def _waiting(self, number: int, job: Job) -> Waiting:
        work, tokens = job.work, job.left_tokens
        rows = tokens * job.num_blocks / self._num_blocks
        return Waiting(number, work.peer, tokens, rows, job.is_prompt, work.session, job.since_s)

    def ran(self, batch: Sequence[tuple[Job, Share]], began_s: float, *, is_one_batch: bool) -> None:
        """Note that a batch has run, and how long it took if it did so at once."""
        now_s = time.monotonic()
        for job, share in batch:
            self._served.note(share, job.work.session, now_s)
        if not is_one_batch:
            return
        rows, prompt_rows, num_blocks = _counted(batch)
        if rows:
            came_s = {job.work.session: job.since_s for job, share in batch if not share.is_prompt}
            self._gathering.ran(came_s, now_s - began_s, now_s)
        # A batch through a part of the blocks tells what one through all of them would take.
        self._cost.ran(rows, prompt_rows, (now_s - began_s) * self._num_blocks / num_blocks, now_s)


def _counted(batch: Sequence[tuple[Job, Share]]) -> tuple[float, float, int]:
    """Rows of short works and of prompts, by the share that they pass of the most blocks; and these."""
    num_blocks = max([job.num_blocks for job, _ in batch])
    rows = {False: 0, True: 0}
    for job, share in batch:
        rows[share.is_prompt] += share.tokens * job.num_blocks
    return rows[False] / num_blocks, rows[True] / num_blocks, num_blocks
