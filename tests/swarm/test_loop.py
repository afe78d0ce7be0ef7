"""How commands run: on uvloop, and a signal ends them through their clean-up."""

import asyncio
import os
import signal

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
