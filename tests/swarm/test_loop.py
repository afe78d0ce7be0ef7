"""How commands run: on uvloop, and a signal ends them through their clean-up."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
import uvloop

from swarm.loop import run


def test_the_result_comes_back_from_uvloop() -> None:
    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_a_second_one_does_not_cut_the_clean_up_short(number: signal.Signals) -> None:
    events: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(10)
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.05)
            events.append("cleaned")

    with pytest.raises(asyncio.CancelledError):
        run(main())
    assert events == ["cleaned"]


def test_what_is_loaded_holds_no_loop_up_when_garbage_is_collected() -> None:
    code = """if True:
        import gc, time, torch
        from swarm.loop import spare_what_is_loaded

        def collection_s():
            begun = time.perf_counter()
            gc.collect()
            return time.perf_counter() - begun

        gc.collect()
        before = min(collection_s() for _ in range(3))
        spare_what_is_loaded()
        print(min(collection_s() for _ in range(3)) / before)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) < 0.2
