"""`./murmur demo`: a private swarm with the bundled model, and a room in the terminal to talk to it."""

import argparse
import asyncio
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from demo.zygote import fork_zygote
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
CODE_IF_STOPPED = 130
END_S = 6.0
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


def main(arguments: list[str]) -> int:
    """Run the demo; returns the exit code."""
    parsed = parse_arguments(arguments)
    started = time.monotonic()
    try:
        check_temporary_folder()
    except ConfigError as error:
        say(f"murmur demo: {error}")
        return 2
    _say("starting a swarm of three servers on this machine ...")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for name in IMPORTS:
        importlib.import_module(name)
    from demo.private_swarm import run_service
    from swarm.loop import run_command

    line = fork_zygote(run_service)
    return run_command(
        "demo", _demo(line, started, fail_server=parsed.fail_server), code_if_stopped=CODE_IF_STOPPED
    )


async def _demo(line: socket.socket, started: float, *, fail_server: bool) -> None:
    """The demo and its clean-up, which waits for every process: a second Ctrl-C does not cut it short."""
    from swarm.background import finish

    with tempfile.TemporaryDirectory(prefix="murmur-demo-") as folder:
        try:
            await _talk(line, Path(folder), started, fail_server=fail_server)
        finally:
            await finish(asyncio.to_thread(_wait_for_end, line), within_s=2 * END_S)


async def _talk(line: socket.socket, folder: Path, started: float, *, fail_server: bool) -> None:
    import torch

    from demo.private_swarm import open_swarm
    from demo.room import Room
    from swarm.checkpoint import open_checkpoint
    from swarm.client import join
    from swarm.wire.blocks import Span

    torch.set_num_threads(1)
    num_blocks = open_checkpoint(str(MODEL)).num_blocks
    cuts = [0, num_blocks // 3, 2 * num_blocks // 3, num_blocks]
    spans = [Span(start, end) for start, end in itertools.pairwise(cuts)]
    async with open_swarm(line, str(MODEL), folder, spans, _say) as private:
        for server in private.servers:
            _say(f"{server.title}: process {server.pid}")
        async with join(private.initial_peers) as swarm:
            model = await swarm.load(str(MODEL))
            _say(f"ready after {time.monotonic() - started:.1f} s")
            room = Room(private, model, fail_server=fail_server)
            _let_interrupt_stop(room)
            await room.run()


def _let_interrupt_stop(room: "object") -> None:
    """Ctrl-C ends the answer that is being written; without one, the demo."""
    from demo.room import Room

    assert isinstance(room, Room)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if not room.stop_answer() and not task.cancelling():
            task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)


def _wait_for_end(line: socket.socket) -> None:
    """Wait until the zygote has ended everything."""
    line.setblocking(True)
    line.settimeout(END_S)
    try:
        line.sendall(b'{"stop": true}\n')
        while line.recv(4096):
            continue
    except OSError:
        return
    finally:
        line.close()


def _say(sentence: str) -> None:
    say(f"[{sentence}]")


if __name__ == "__main__":
    leave_on_signals(CODE_IF_STOPPED)
    code = main(sys.argv[1:])
    leave_on_signals(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread that waits for a line of input cannot be stopped, and Python would abort
