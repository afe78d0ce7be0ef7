"""What every test can rely on: no process outlives the run, and a loop can be watched for blocking calls."""

import asyncio
import gc
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio

RUN_MARK = "MURMUR_TEST_RUN"
DEVICE_VARIABLE = "MURMUR_TEST_DEVICE"
ROOT = Path(__file__).parents[1]
# Processes that tests start may import the tests; ./murmur keeps the working directory out of the path.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
# Nobody answers there: no test may ask the real Hub, and its library asks more than it is told to.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
LAST_EXITS_S = 3.0  # processes whose parent was just killed need a moment to notice
SLOW_CALLBACK_S = 0.1
SLOW_LENGTH = 40  # of a test that is marked so; of any other 1
LENGTHS = {"end_to_end": 6, "demo": 6}  # in these folders, where whole swarms are started

# A busy machine makes an example slow, not wrong.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--device`."""
    parser.addoption(
        "--device",
        default="cpu",
        help="where tests of exactness load the servers' blocks: cpu (default), cuda or cuda:N",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make `--device` known to tests/devices.py. Raises UsageError if there is no such device."""
    name = config.getoption("--device")
    if name != "cpu":
        import torch

        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:  # what torch says depends on how it was built
            raise pytest.UsageError(f"there is no device {name!r} here; use --device cpu") from error
    os.environ[DEVICE_VARIABLE] = name


@pytest.hookimpl(trylast=True)  # what is deselected has gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip `gpu` tests without CUDA; files that run side by side begin with the longest.

    A long file that began last would be waited for alone.
    """
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not has_cuda():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    if hasattr(config, "workerinput"):
        lengths: Counter[Path] = Counter()
        for item in items:
            is_slow = item.get_closest_marker("slow") is not None
            lengths[item.path] += SLOW_LENGTH if is_slow else LENGTHS.get(item.path.parent.name, 1)
        items.sort(key=lambda item: -lengths[item.path])


def pytest_collection_finish() -> None:
    """Spare what was imported the garbage collections of all tests."""
    gc.collect()
    gc.freeze()


def has_cuda() -> bool:
    """Tell whether there is a CUDA device; imports torch, which takes a second."""
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(settings: Any) -> Generator[None, object, object]:
    """Let a test's timeout come again and again, until the test has ended.

    To hypothesis it is a failure like any other, which it repeats: an example that hangs does so again.
    """
    was_set = yield
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, settings.timeout)
    return was_set


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_run() -> Iterator[None]:
    """Fail the run if a process that a test started, or a descendant of one, is still there at its end.

    Descendants are found by a variable in their environment, so one that lost its parent is found too. What
    is found is killed: a failed run must not leave a swarm behind. Without /proc (macOS) nothing is checked.
    """
    mark = f"{RUN_MARK}={uuid.uuid4().hex}"
    os.environ[RUN_MARK] = mark.partition("=")[2]
    yield
    deadline = time.monotonic() + LAST_EXITS_S
    while (left := find_marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process_id in left:
        os.kill(process_id, signal.SIGKILL)
    assert not left, f"processes outlived the tests: {left}"


def find_marked_processes(mark: str) -> dict[int, str]:
    """The command lines, by process id, of living processes with `mark` in their environment but this one."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended while we looked, or belongs to somebody else
            continue
        # Python's own tracker of shared memory ends with the process that started it: with us.
        if command and int(folder.name) != os.getpid() and "resource_tracker" not in command:
            found[int(folder.name)] = command
    return found


@pytest_asyncio.fixture
async def unblocked_loop(caplog: pytest.LogCaptureFixture) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """The running loop, in debug mode; fails the test if any callback held the loop for more than 0.1 s."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = SLOW_CALLBACK_S
    yield loop
    records = caplog.get_records("call")
    blocked = [
        record.getMessage() for record in records if record.name == "asyncio" and "Executing" in record.msg
    ]
    assert not blocked, f"the loop was blocked: {blocked}"
