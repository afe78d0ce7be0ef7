"""The demo's private swarm beside a zygote that the test plays."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.private_swarm import open_swarm
from swarm.errors import ConfigError
from swarm.wire.blocks import Span

SPANS = [Span(0, 1), Span(1, 2)]


@pytest.fixture
def lines() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of the line between the swarm and its zygote."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


async def play_zygote(line: socket.socket, failing: str, words: str) -> None:
    """Report every service as started, and as online but for `failing`, which says `words` and ends."""
    reader, writer = await asyncio.open_connection(sock=line.dup())
    while raw := await reader.readline():
        order = json.loads(raw)
        if "stop" in order:
            break
        events = [{"started": order["start"], "pid": 7}]
        if order["start"] == failing:
            Path(order["log"]).write_text(words, encoding="utf-8")
            events.append({"exited": failing, "pid": 7})
        else:
            ready = json.dumps({"peer_id": order["start"], "addresses": []})
            Path(order["ready_file"]).write_text(ready, encoding="utf-8")
        writer.write("".join(f"{json.dumps(event)}\n" for event in events).encode())
    writer.close()


async def failure(lines: tuple[socket.socket, socket.socket], folder: Path, failing: str, words: str) -> str:
    """What is told when `failing` does not start."""
    said: list[str] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(play_zygote(lines[1], failing, words))
        with pytest.raises(ConfigError) as caught:
            async with open_swarm(lines[0], "model", folder, SPANS, said.append):
                pass
    return str(caught.value)


@pytest.mark.parametrize("failing", ["bootstrap", "server 2"])
async def test_a_service_that_cannot_start_is_one_error_with_its_last_words(
    lines: tuple[socket.socket, socket.socket], tmp_path: Path, failing: str
) -> None:
    said = await failure(lines, tmp_path, failing, "Traceback ...\nOSError: no room\n")
    assert said == f"{failing} could not be started; its last words:\n  Traceback ...\n  OSError: no room"


async def test_of_a_long_log_only_the_end_is_told(
    lines: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    said = await failure(lines, tmp_path, "server 1", "".join(f"line {number}\n" for number in range(500)))
    assert said.splitlines()[1:] == [f"  line {number}" for number in range(488, 500)]


async def test_a_service_that_said_nothing_has_no_last_words(
    lines: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    assert await failure(lines, tmp_path, "server 1", "") == "server 1 could not be started"
