"""The only ways to start background work, and to protect clean-up that must happen.

Everything else uses a TaskGroup, or awaits.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def running(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run coroutines beside the block; they end with it.

    A failure in one of them cancels the block and the others. A single error is raised as it is, however many
    task groups it came through; several as a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in work]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as errors:
        error = _unwrapped(errors)
        if error is errors:
            raise
        raise error from error.__cause__


def _unwrapped(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class RunningGroup:
    """Starts tasks that end with their block. See `running_group`."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[Any]] = set()

    def create_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` beside the block; its failure ends the block."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def stop(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def running_group() -> AsyncIterator["RunningGroup"]:
    """A task group whose tasks may be started at any time, and end with the block instead of keeping it."""
    try:
        async with asyncio.TaskGroup() as group:
            stopper = RunningGroup(group)
            try:
                yield stopper
            finally:
                stopper.stop()
    except BaseExceptionGroup as errors:
        error = _unwrapped(errors)
        if error is errors:
            raise
        raise error from error.__cause__


async def finish(work: Coroutine[Any, Any, T], within_s: float) -> T:
    """Run `work` to its end even if we are cancelled meanwhile; the cancellation goes on afterwards.

    Raises TimeoutError, after cancelling `work`, if it takes longer than `within_s`.
    """
    task = asyncio.create_task(_limited(work, within_s))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and task.exception() is not None:
        cancelled.add_note(f"the clean-up failed as well: {task.exception()!r}")
    raise cancelled


async def _limited(work: Coroutine[Any, Any, T], within_s: float) -> T:
    async with asyncio.timeout(within_s):
        return await work
