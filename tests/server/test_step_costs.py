"""What a step costs beside the model's arithmetic, counted: as much with 64 sessions as with one, or less."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from bench.host import Group, open_host, open_sessions
from server.host import Host
from server.kv_cache import KVPool
from server.span import SpanModel
from tests.conftest import ROOT
from tests.end_to_end.exact import small_model
from tests.server.test_torch_operations import SPAN, step, warm

NUMBERS = (1, 8, 64)
ROUNDS = 24
MOST_CALLS = 152
OURS = tuple(str(ROOT / package) for package in ("server", "swarm"))
TOLERANCE = 1.01  # the server looks around now and then


class Calls:
    """Counts calls of our own functions."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.counts[frame.f_code.co_qualname] += 1


@contextmanager
def counting() -> Iterator[Calls]:
    """Count calls until the block ends, also in threads that start in it."""
    calls, before = Calls(), sys.getprofile()
    threading.setprofile(calls.note)
    sys.setprofile(calls.note)
    try:
        yield calls
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]


async def step_as_one_batch(host: Host, group: Group) -> None:
    """Let the compute thread begin when all steps wait: else chance decides how many a batch gets."""
    entered, gate = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert gate.wait(10)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(host.executor.call(hold))
        while not entered.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        tasks.create_task(group.step())
        while len(host.executor._jobs) < len(group):  # noqa: ASYNC110 - our own property would be counted
            await asyncio.sleep(0)
        gate.set()


async def calls_per_step(host: Host, number: int, calls: Calls) -> float:
    group = await open_sessions(host, number)
    await step_as_one_batch(host, group)  # grants credit, makes room
    before = calls.counts.total()
    for _ in range(ROUNDS):
        await step_as_one_batch(host, group)
    return (calls.counts.total() - before) / (ROUNDS * number)


async def test_a_step_takes_no_more_calls_with_many_sessions_than_with_one() -> None:
    with counting() as calls:
        async with open_host() as host:
            each = [await calls_per_step(host, number, calls) for number in NUMBERS]
    assert each[0] <= MOST_CALLS, each
    assert each[1] <= TOLERANCE * each[0], each
    assert each[2] <= TOLERANCE * each[1], each


@pytest.fixture(scope="module", params=["llama", "bloom"])
def model(request: pytest.FixtureRequest) -> SpanModel:
    return small_model(request.param).span(SPAN)


def test_a_step_takes_no_more_operations_of_torch_with_many_sessions_than_with_one(model: SpanModel) -> None:
    pool = KVPool(1_000_000)
    each: list[float] = []
    for number in NUMBERS:
        works: dict[Any, int] = {warm(model, pool, 20 + 3 * place): 1 for place in range(number)}
        each.append(step(model, pool, works).counts.total() / number)
    assert each[1] <= each[0], each
    assert each[2] <= each[1], each
