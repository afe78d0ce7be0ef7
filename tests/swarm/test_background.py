"""running() and finish(): nothing is left running, nothing fails unseen, clean-up is not cut short."""

import asyncio

import pytest

from swarm.background import finish, running, running_group


async def forever(events: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        events.append("ended")


async def fail() -> None:
    raise ValueError("broken")


async def test_background_work_ends_with_the_block() -> None:
    events: list[str] = []
    async with running(forever(events), forever(events)):
        await asyncio.sleep(0)
        assert events == []
    assert events == ["ended", "ended"]


async def test_a_failure_in_the_background_ends_the_block_and_is_raised_as_it_is() -> None:
    events: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        async with running(fail(), forever(events)):
            await asyncio.Event().wait()
    assert events == ["ended"]


async def test_a_single_failure_is_raised_as_it_is_through_any_number_of_groups() -> None:
    async def fail_deep() -> None:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(fail_deeper())

    async def fail_deeper() -> None:
        async with asyncio.TaskGroup() as inner:
            inner.create_task(fail())

    with pytest.raises(ValueError, match="broken"):
        async with running(fail_deep()):
            await asyncio.Event().wait()
    with pytest.raises(ValueError, match="broken"):
        async with running_group() as group:
            await group.create_task(fail_deep())


async def test_a_failure_of_the_block_is_raised_as_it_is() -> None:
    events: list[str] = []

    async def fail_in_the_block() -> None:
        async with running(forever(events)):
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await fail_in_the_block()
    assert events == ["ended"]


async def test_two_failures_are_raised_as_a_group() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("clean-up failed")

    async def fail_in_the_block() -> None:
        async with running(fail_when_cancelled()):
            await asyncio.sleep(0)
            raise ValueError("block failed")

    with pytest.raises(ExceptionGroup) as caught:
        await fail_in_the_block()
    assert {type(error) for error in caught.value.exceptions} == {OSError, ValueError}


async def test_work_that_returns_early_does_not_end_the_block() -> None:
    async with running(asyncio.sleep(0)):
        for _ in range(3):
            await asyncio.sleep(0)


async def test_a_cancelled_block_stays_cancelled() -> None:
    events: list[str] = []

    async def work() -> None:
        async with running(forever(events)):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["ended"]


async def test_finish_returns_the_result_and_passes_on_the_error() -> None:
    assert await finish(asyncio.sleep(0, "done"), within_s=1) == "done"
    with pytest.raises(ValueError, match="broken"):
        await finish(fail(), within_s=1)


async def test_finish_ends_its_work_before_the_cancellation_goes_on() -> None:
    started, may_end, events = asyncio.Event(), asyncio.Event(), []

    async def clean_up() -> None:
        started.set()
        await may_end.wait()
        events.append("cleaned")

    task = asyncio.create_task(finish(clean_up(), within_s=5))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["cleaned"]


async def test_finish_gives_up_after_its_time() -> None:
    events: list[str] = []
    with pytest.raises(TimeoutError):
        await finish(forever(events), within_s=0.01)
    assert events == ["ended"]


async def test_a_cleanup_that_fails_under_cancellation_is_noted() -> None:
    started = asyncio.Event()

    async def clean_up() -> None:
        started.set()
        await asyncio.sleep(0.01)
        raise ValueError("broken")

    task = asyncio.create_task(finish(clean_up(), within_s=5))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert "broken" in str(caught.value.__notes__)
