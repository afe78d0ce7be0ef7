"""`./murmur demo`: a private swarm with the bundled model, and a room in the terminal to talk to it."""

import argparse
import asyncio
import importlib
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from demo.own_folder import OwnFolder
from demo.zygote import END_S, Zygote, fork_zygote
from swarm.errors import ConfigError
from swarm.identity import check_temporary_folder
from swarm.say import say
from swarm.signals import leave_on_signals

MODEL = Path(__file__).with_name("model")
IMPORTS = (
    "server.block_server",
    "swarm.client",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "demo.room",
)
SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXAMPLES = """examples
  ./murmur demo
  ./murmur demo --fail-server                      a server dies in the middle of the first answer
  printf 'What is Murmur?\\n' | ./murmur demo       one message a line, answers on standard output"""


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./murmur demo",
        description="All on this machine: a bootstrap node, three block servers, and a room to chat in.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--fail-server", action="store_true", help="end a server in the middle of the first answer"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str], folder: OwnFolder) -> int:
    """Run the demo; returns the exit code."""
    parsed = parse_arguments(arguments)
    started = time.monotonic()
    try:
        check_temporary_folder()
        _say("starting a swarm of three servers on this machine ...")
        folder.make()
    except ConfigError as error:
        say(f"murmur demo: {error}")
        return 2
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for name in IMPORTS:
        importlib.import_module(name)
    from demo.private_swarm import run_service
    from swarm.loop import run_command

    zygote = fork_zygote(run_service, folder.remove)
    demo = _demo(zygote, folder, started, fail_server=parsed.fail_server)
    return run_command("demo", demo, code_if_stopped=_code_of(signal.SIGINT))


def _code_of(number: int) -> int:
    """The exit code of a process that a signal has ended, as shells have it."""
    return 128 + number


class _Signals:
    """Signals while the demo runs: the first ends it, but a Ctrl-C ends the answer that is being written."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.stop_answer: Callable[[], bool] = lambda: False
        self._task = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._hear, number)

    def _hear(self, number: int) -> None:
        if self.first is not None or (number == signal.SIGINT and self.stop_answer()):
            return
        self.first = number
        assert self._task is not None
        self._task.cancel()


async def _demo(zygote: Zygote, folder: OwnFolder, started: float, *, fail_server: bool) -> None:
    """The demo and its clean-up, which waits for every process: a second Ctrl-C does not cut it short."""
    from swarm.background import finish

    signals = _Signals()
    try:
        try:
            await _talk(zygote, folder, started, signals, fail_server=fail_server)
        finally:
            await finish(asyncio.to_thread(_clean_up, zygote, folder), within_s=2 * END_S)
    except asyncio.CancelledError:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(_code_of(signals.first or signal.SIGINT))


def _clean_up(zygote: Zygote, folder: OwnFolder) -> None:
    zygote.end()
    folder.remove()  # if the zygote could not


async def _talk(
    zygote: Zygote, folder: OwnFolder, started: float, signals: _Signals, *, fail_server: bool
) -> None:
    import torch

    from demo.private_swarm import open_swarm
    from demo.room import Room, talk
    from swarm.checkpoint import open_checkpoint
    from swarm.client import join
    from swarm.wire.blocks import Span

    assert folder.path is not None
    torch.set_num_threads(1)
    num_blocks = open_checkpoint(str(MODEL)).num_blocks
    cuts = [0, num_blocks // 3, 2 * num_blocks // 3, num_blocks]
    spans = [Span(start, end) for start, end in itertools.pairwise(cuts)]
    async with open_swarm(zygote.line, str(MODEL), folder.path, spans, _say) as private:
        for server in private.servers:
            _say(f"{server.title}: process {server.pid}")
        async with join(private.initial_peers) as swarm:
            model = await swarm.load(str(MODEL))
            _say(f"ready after {time.monotonic() - started:.1f} s")
            room = Room()
            signals.stop_answer = room.stop_answer
            await talk(private, model, room, folder.path / "murmur.db", fail_server=fail_server)


def _leave_on_signals(folder: OwnFolder) -> None:
    """Until the loop runs: end at once, with the folder. A zygote sees to everything else."""

    def leave(number: int, frame: FrameType | None) -> None:
        folder.remove()
        os._exit(_code_of(number))

    for number in SIGNALS:
        signal.signal(number, leave)


def _say(sentence: str) -> None:
    say(f"[{sentence}]")


if __name__ == "__main__":
    own_folder = OwnFolder()
    _leave_on_signals(own_folder)
    code = main(sys.argv[1:], own_folder)
    leave_on_signals(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread that waits for a line of input cannot be stopped, and Python would abort
