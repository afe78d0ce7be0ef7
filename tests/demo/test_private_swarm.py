"""The demo's private swarm beside a zygote that the test plays."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.private_swarm import TRIES, PrivateSwarm, open_swarm
from swarm.background import running
from swarm.errors import MurmurError, SwarmError
from swarm.wire.blocks import PeerId, Span

SPANS = [Span(0, 1), Span(1, 2)]
SOON_S = 10.0


class FakeZygote:
    """Reports every service as started and as online; but those in `failing` say `words` and end."""

    def __init__(self, line: socket.socket, failing: str = "", words: str = "") -> None:
        self.orders: list[dict[str, Any]] = []
        self.failing = {failing: TRIES}
        self._line = line
        self._words = words
        self._writer: asyncio.StreamWriter | None = None

    async def play(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._line.dup())
        try:
            while (raw := await reader.readline()) and "stop" not in (order := json.loads(raw)):
                self._start(order)
        finally:
            self.die()

    def end(self, name: str) -> None:
        """The service `name` ends."""
        self._tell({"exited": name, "pid": self._pid_of(name)})

    def die(self) -> None:
        """What a process that ends leaves of the line."""
        assert self._writer is not None
        self._line.shutdown(socket.SHUT_RDWR)
        self._writer.close()

    def orders_for(self, name: str) -> list[dict[str, Any]]:
        return [order for order in self.orders if order["start"] == name]

    def _start(self, order: dict[str, Any]) -> None:
        self.orders.append(order)
        name = order["start"]
        self._tell({"started": name, "pid": self._pid_of(name)})
        if self.failing.get(name):
            self.failing[name] -= 1
            Path(order["log"]).write_text(self._words, encoding="utf-8")
            self.end(name)
        else:
            number = self._pid_of(name)
            ready = {"peer_id": f"{name} {number}", "addresses": [f"/ip4/127.0.0.1/tcp/{number}/p2p/{name}"]}
            Path(order["ready_file"]).write_text(json.dumps(ready), encoding="utf-8")

    def _pid_of(self, name: str) -> int:
        """No process of this machine has such a number."""
        return 2**30 + len(self.orders_for(name))

    def _tell(self, event: dict[str, Any]) -> None:
        assert self._writer is not None
        self._writer.write(f"{json.dumps(event)}\n".encode())


class Said(list[str]):
    """What the person is told."""

    async def wait_for(self, words: str) -> None:
        async with asyncio.timeout(SOON_S):
            while not any(words in sentence for sentence in self):  # noqa: ASYNC110 - a list tells nobody
                await asyncio.sleep(0.01)


Lines = tuple[socket.socket, socket.socket]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Both ends of the line between the swarm and its zygote."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


@asynccontextmanager
async def swarm_of(
    lines: Lines, folder: Path, failing: str = "", words: str = ""
) -> AsyncIterator[tuple[FakeZygote, PrivateSwarm, Said]]:
    """A swarm that is up, its zygote, and what it tells."""
    zygote, said = FakeZygote(lines[1], failing, words), Said()
    async with (
        running(zygote.play()),
        open_swarm(lines[0], "model", folder, SPANS, said.append) as swarm,
    ):
        yield zygote, swarm, said


async def failure(
    lines: Lines,
    folder: Path,
    failing: str = "",
    words: str = "",
    lose: Callable[[FakeZygote], None] = lambda zygote: None,
) -> MurmurError:
    """How the swarm ends if `failing` does not start, or after `lose` when it is up."""
    try:
        async with swarm_of(lines, folder, failing, words) as (zygote, _, _):
            lose(zygote)
            await asyncio.sleep(SOON_S)
    except MurmurError as error:
        return error
    raise AssertionError("it did not end")


@pytest.mark.parametrize("failing", ["bootstrap", "server 2"])
async def test_a_service_that_cannot_start_is_one_error_with_its_last_words(
    lines: Lines, tmp_path: Path, failing: str
) -> None:
    error = await failure(lines, tmp_path, failing, "Traceback ...\nOSError: no room\n")
    assert (
        str(error) == f"{failing} could not be started; its last words:\n  Traceback ...\n  OSError: no room"
    )


async def test_of_a_long_log_only_the_end_is_told(lines: Lines, tmp_path: Path) -> None:
    error = await failure(lines, tmp_path, "server 1", "".join(f"line {number}\n" for number in range(500)))
    assert str(error).splitlines()[1:] == [f"  line {number}" for number in range(488, 500)]


async def test_a_service_that_said_nothing_has_no_last_words(lines: Lines, tmp_path: Path) -> None:
    assert str(await failure(lines, tmp_path, "server 1", "")) == "server 1 could not be started"


async def test_a_new_bootstrap_node_has_the_lost_ones_key_and_address(lines: Lines, tmp_path: Path) -> None:
    async with swarm_of(lines, tmp_path) as (zygote, swarm, said):
        zygote.end("bootstrap")
        await said.wait_for("the bootstrap node is back")
        first, second = zygote.orders_for("bootstrap")
    assert said[0] == "the bootstrap node is gone; a new one takes its place"
    assert second["identity"] == first["identity"]
    assert second["host_maddrs"] == [f"/ip4/127.0.0.1/tcp/{2**30 + 1}"]
    assert second["initial_peers"] == [address for server in swarm.servers for address in server.addresses]


async def test_a_new_server_joins_through_all_that_are_there(lines: Lines, tmp_path: Path) -> None:
    async with swarm_of(lines, tmp_path) as (zygote, swarm, said):
        zygote.end("server 1")
        await said.wait_for("server 1 (blocks 0-0) is back")
        assert {swarm.name_of(PeerId(f"server 1 {2**30 + number}")) for number in (1, 2)} == {"server 1"}
        peers = [*swarm.initial_peers, *swarm.services["server 2"].addresses]
        assert zygote.orders_for("server 1")[-1]["initial_peers"] == peers


async def test_if_all_are_lost_at_once_the_bootstrap_node_is_the_first_to_come_back(
    lines: Lines, tmp_path: Path
) -> None:
    async with swarm_of(lines, tmp_path) as (zygote, swarm, said):
        for name in ("server 1", "server 2", "bootstrap"):
            zygote.end(name)
        await said.wait_for("server 1 (blocks 0-0) is back")
        await said.wait_for("server 2 (blocks 1-1) is back")
        assert zygote.orders_for("bootstrap")[-1]["initial_peers"] == []
        assert zygote.orders_for("server 2")[-1]["initial_peers"][:1] == list(swarm.initial_peers)


async def test_a_replacement_that_ends_before_it_is_ready_is_replaced(lines: Lines, tmp_path: Path) -> None:
    async with swarm_of(lines, tmp_path) as (zygote, _, said):
        zygote.failing = {"server 1": 1}
        zygote.end("server 1")
        await said.wait_for("server 1 (blocks 0-0) is back")
        assert len(zygote.orders_for("server 1")) == 3


async def test_a_server_that_cannot_be_replaced_is_one_error(lines: Lines, tmp_path: Path) -> None:
    def lose(zygote: FakeZygote) -> None:
        zygote.failing = {"server 1": TRIES}
        zygote.end("server 1")

    error = await failure(lines, tmp_path, words="no room\n", lose=lose)
    assert str(error) == "server 1 could not be started; its last words:\n  no room"


async def test_the_end_of_the_zygote_is_one_error(lines: Lines, tmp_path: Path) -> None:
    error = await failure(lines, tmp_path, lose=FakeZygote.die)
    assert isinstance(error, SwarmError)
    assert "processes are gone" in str(error)


async def test_a_frozen_server_is_ended_once(lines: Lines, tmp_path: Path) -> None:
    async with swarm_of(lines, tmp_path) as (zygote, swarm, said):
        frozen = swarm.services["server 1"]
        swarm.end_frozen(frozen)  # its process is gone already, though we have not heard of it yet
        zygote.end("server 1")
        await said.wait_for("is back")
        swarm.end_frozen(frozen)
    assert sum("server 1 does not answer" in sentence for sentence in said) == 1
