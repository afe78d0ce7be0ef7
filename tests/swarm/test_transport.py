"""Streams over real p2pd processes: authenticated, bounded, and every failure is one of our errors."""

import asyncio
import logging
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.addresses import dialable, dialable_by_others
from swarm.errors import ConfigError, PeerUnreachable, SwarmError
from swarm.incoming import MAX_REFUSALS, MAX_STREAMS_PER_PEER
from swarm.streams import EndOfStream, FrameStream
from swarm.transport import Transport, open_transport
from swarm.wire.blocks import PeerId
from swarm.wire.frames import FROM_CHAIN, FROM_SERVER
from swarm.wire.keys import peer_id_of
from swarm.wire.messages import Pages, SessionError
from tests.swarm.peers import is_relay

ECHO = "/murmur/echo/1"
LIMIT = 4 << 20
NOBODY = peer_id_of(bytes(32))
OTHER = peer_id_of(bytes([1]) * 32)


async def echo(stream: FrameStream) -> None:
    while True:
        frame = await stream.read()
        await stream.write(frame.message, frame.tensors)


@asynccontextmanager
async def two(handler: Any = echo) -> AsyncIterator[tuple[Transport, Transport]]:
    """A server with `handler`, and a client that listens nowhere."""
    async with open_transport() as server, open_transport(client_only=True) as client:
        await server.serve(ECHO, handler, limit=LIMIT, decoder=FROM_CHAIN)
        yield server, client


async def dial(client: Transport, server: Transport) -> FrameStream:
    return await client.open_stream(server.peer_id, ECHO, server.addresses, limit=LIMIT, decoder=FROM_CHAIN)


@pytest.mark.parametrize("use_relay", [True, False])
@pytest.mark.parametrize("client_only", [True, False])
async def test_who_uses_relays_is_one(use_relay: bool, client_only: bool) -> None:
    async with (
        open_transport() as first,
        open_transport(initial_peers=first.addresses, use_relay=use_relay, client_only=client_only) as second,
    ):
        await second.connect(first.peer_id, first.addresses)
        assert await is_relay(second.peer_id, second.addresses, asks=first) == use_relay


async def test_frames_and_tensors_come_back_as_they_were() -> None:
    async with two() as (server, client):
        stream = await dial(client, server)
        for size in (0, 1, 100_000, 500_000):
            sent = torch.randn(size)
            await stream.write(Pages(block=1, offset=size, last=False), (sent,))
            frame = await stream.read()
            assert torch.equal(frame.tensors[0], sent)
        assert stream.frames_in == stream.frames_out == 4
        assert stream.bytes_in == stream.bytes_out > 2_400_000


async def test_each_end_knows_the_other_ones_authenticated_id() -> None:
    seen: list[PeerId] = []

    async def note(stream: FrameStream) -> None:
        seen.append(stream.remote_id)
        await echo(stream)

    async with two(note) as (server, client):
        stream = await dial(client, server)
        assert stream.remote_id == server.peer_id
        await stream.write(Pages(block=0, offset=0, last=True))
        await stream.read()
        assert seen == [client.peer_id]


async def test_a_connected_peer_that_listens_nowhere_can_be_called_back() -> None:
    async with two() as (server, client):
        assert client.addresses == ()
        await client.serve(ECHO, echo, limit=LIMIT, decoder=FROM_CHAIN)
        await client.connect(server.peer_id, server.addresses)
        stream = await server.open_stream(client.peer_id, ECHO, limit=LIMIT, decoder=FROM_CHAIN)
        await stream.write(Pages(block=0, offset=0, last=True))
        assert (await stream.read()).message == Pages(block=0, offset=0, last=True)


async def test_bad_bytes_end_their_own_stream_with_a_structured_error() -> None:
    async with two() as (server, client):
        good = await dial(client, server)
        bad = await dial(client, server)
        bad._writer.write(b"\xff\xff\xff\xff never mind")
        message = (await bad.read()).message
        assert isinstance(message, SessionError)
        assert message.code == "bad_message"
        with pytest.raises(EndOfStream):
            await bad.read()
        await good.write(Pages(block=0, offset=0, last=True))
        await good.read()


async def test_junk_on_many_streams_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(7)
    async with two() as (server, client):
        good = await dial(client, server)
        for _ in range(60):
            bad = await dial(client, server)
            body = chance.randbytes(chance.randrange(5, 200))
            size = chance.choice([len(body), len(body) + 50, chance.randrange(2**32)])
            bad._writer.write(size.to_bytes(4, "big") + body)
            if chance.random() < 0.5:
                bad.close()
        await good.write(Pages(block=0, offset=0, last=True))
        await good.read()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_handler_that_fails_ends_its_own_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(stream: FrameStream) -> None:
        await stream.read()
        raise ZeroDivisionError("secret details")

    async with two(fail) as (server, client):
        stream = await dial(client, server)
        await stream.write(Pages(block=0, offset=0, last=True))
        message = (await stream.read()).message
        assert isinstance(message, SessionError)
        assert (message.code, message.message) == ("internal", "internal error")
        assert not (await dial(client, server)).is_closing
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == [
        "swarm.transport"
    ]


async def test_a_stream_too_many_is_refused_with_busy_and_others_go_on() -> None:
    async with two() as (server, client):
        streams = [await dial(client, server) for _ in range(MAX_STREAMS_PER_PEER)]
        for stream in streams:  # an answer shows that it was counted
            await stream.write(Pages(block=0, offset=0, last=True))
        for stream in streams:
            await stream.read()
        refused = await dial(client, server)
        message = (await refused.read()).message
        assert isinstance(message, SessionError)
        assert message.code == "busy"
        assert server.incoming.num_refused == 1
        streams[0].close()
        await streams[1].write(Pages(block=0, offset=0, last=True))
        await streams[1].read()


@pytest.mark.slow
async def test_who_opens_streams_whatever_it_is_told_is_cut_off_and_nobody_else() -> None:
    async with two() as (server, client), open_transport(client_only=True) as other:
        honest = await dial(other, server)
        first = await dial(client, server)
        with suppress(PeerUnreachable):
            _ = [await dial(client, server) for _ in range(4 * MAX_STREAMS_PER_PEER)]
        with pytest.raises(PeerUnreachable):
            await first.read()
        assert server.incoming.num_refused > MAX_REFUSALS
        await honest.write(Pages(block=0, offset=0, last=True))
        await honest.read()
        await _until(lambda: not server.incoming.is_full(client.peer_id))
        again = await dial(client, server)
        await again.write(Pages(block=0, offset=0, last=True))
        await again.read()


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nothing says when a debt is paid
        await asyncio.sleep(0.02)


async def test_streams_of_one_burst_are_all_taken() -> None:
    """p2pd connects for each at once: no more than a short line in front of us may be too short for them."""
    async with two() as (server, client):
        await client.connect(server.peer_id, server.addresses)
        async with asyncio.TaskGroup() as group:
            for _ in range(MAX_STREAMS_PER_PEER):
                group.create_task(_echoed(client, server))
    assert server.incoming.num_refused == 0


async def _echoed(client: Transport, server: Transport) -> None:
    stream = await dial(client, server)
    await stream.write(Pages(block=0, offset=0, last=True))
    await stream.read()


async def test_a_peer_that_cannot_be_dialled_is_unreachable() -> None:
    async with two() as (server, client):
        for peer_id, addresses in [
            (NOBODY, ()),
            (NOBODY, ("/ip4/127.0.0.1/tcp/1",)),
            (NOBODY, server.addresses),  # somebody else lives there
            (NOBODY, ("rubbish", "/ip4/300.1.1.1/tcp/5", "/dns4")),
            (client.peer_id, client.addresses),
        ]:
            with pytest.raises(PeerUnreachable):
                await client.open_stream(peer_id, ECHO, addresses, limit=LIMIT, decoder=FROM_SERVER)
        with pytest.raises(PeerUnreachable, match="no /murmur/other/1 stream"):
            await client.open_stream(
                server.peer_id, "/murmur/other/1", server.addresses, limit=LIMIT, decoder=FROM_SERVER
            )


async def test_closing_a_transport_ends_its_handlers_and_its_peers_streams() -> None:
    ended = asyncio.Event()

    async def wait(stream: FrameStream) -> None:
        await stream.write(Pages(block=0, offset=0, last=True))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with open_transport(client_only=True) as client:
        async with open_transport() as server:
            await server.serve(ECHO, wait, limit=LIMIT, decoder=FROM_CHAIN)
            stream = await dial(client, server)
            await stream.read()
        assert ended.is_set()
        async with asyncio.timeout(5):
            with pytest.raises(EndOfStream):
                await stream.read()


CHILD = """
import asyncio, sys
from swarm.transport import open_transport
async def main():
    async with open_transport() as transport:
        print(transport.addresses[0], transport.p2p._child.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@asynccontextmanager
async def child() -> AsyncIterator[tuple[asyncio.subprocess.Process, str, int]]:
    """Another process with a transport: its address, and the process id of its p2pd."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        address, p2pd = (await process.stdout.readline()).decode().split()
        yield process, address, int(p2pd)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_p2pd_ends_with_its_parent_however_that_ends(number: signal.Signals) -> None:
    async with child() as (process, _, p2pd):
        assert is_alive(p2pd)
        process.send_signal(number)
        async with asyncio.timeout(2):
            await process.wait()
            while is_alive(p2pd):  # noqa: ASYNC110 - another process tells us nothing
                await asyncio.sleep(0.01)


async def test_when_p2pd_ends_by_itself_so_do_we() -> None:
    async def live_on() -> None:
        async with open_transport() as transport:
            os.kill(transport.p2p._child.pid, signal.SIGKILL)
            await asyncio.Event().wait()

    async with asyncio.timeout(10):
        with pytest.raises(SwarmError, match="p2pd ended by itself"):
            await live_on()


def test_the_address_of_a_relay_is_written_as_p2pd_reads_it() -> None:
    address = dialable(f"/ip4/127.0.0.1/tcp/5/p2p/{NOBODY}/p2p-circuit/p2p/{OTHER}", OTHER)
    assert address is not None
    multihash = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20]) + bytes(32)
    ip4_tcp = bytes([0x04, 127, 0, 0, 1, 0x06, 0, 5])
    assert address.to_bytes() == ip4_tcp + b"\xa5\x03\x26" + multihash + b"\xa2\x02"


@pytest.mark.parametrize("ours", ["/ip4/127.0.0.1/tcp/5", "/ip4/127.8.8.8/tcp/5", "/ip6/::1/tcp/5"])
def test_loopback_is_an_address_only_if_there_is_no_other(ours: str) -> None:
    relay = f"/ip4/203.0.113.7/tcp/1/p2p/{OTHER}/p2p-circuit"
    others = ("/ip4/203.0.113.7/tcp/5", "/ip6/::1234/tcp/5", relay)
    assert dialable_by_others([ours, *others]) == others
    assert dialable_by_others([ours]) == (ours,)
    assert dialable_by_others([]) == ()


async def test_a_server_on_all_interfaces_does_not_say_that_others_reach_it_at_loopback() -> None:
    async with open_transport(host_maddrs=("/ip4/0.0.0.0/tcp/0",)) as server:
        are_loopback = {"/ip4/127." in address for address in server.addresses}
    assert len(are_loopback) == 1


async def test_without_p2pd_asking_for_our_addresses_is_one_of_our_errors() -> None:
    async def ask() -> None:
        async with open_transport() as transport:
            transport.p2p._child.kill()
            await transport.p2p._child.wait()
            await transport.refresh_addresses()

    with pytest.raises(SwarmError, match="p2pd"):
        await ask()


@needs_proc
async def test_a_start_that_is_cancelled_leaves_no_p2pd_behind() -> None:
    async def start() -> None:
        async with open_transport():
            raise AssertionError("it was cancelled before")

    before = children_of_this_process()
    task = asyncio.create_task(start())
    while not children_of_this_process() - before:  # noqa: ASYNC110 - the kernel tells us nothing
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children_of_this_process() <= before


def children_of_this_process() -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(stat.parent.name))
    return found


async def test_ctrl_c_reaches_us_before_p2pd_is_gone() -> None:
    async with child() as (process, _, p2pd):
        assert os.getpgid(p2pd) != os.getpgid(process.pid)


async def test_a_taken_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            async with open_transport(host_maddrs=(f"/ip4/127.0.0.1/tcp/{port}",)):
                pass


async def test_a_port_that_another_peer_uses_is_taken_although_libp2p_would_share_it() -> None:
    async with open_transport() as first:
        host = first.addresses[0].partition("/p2p/")[0]
        with pytest.raises(ConfigError, match="is in use"):
            async with open_transport(host_maddrs=(host,)):
                pass


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host_maddrs": ("/ip4/203.0.113.9/tcp/0",)}, "not an address of this machine"),
        ({"host_maddrs": ("rubbish",)}, "no address to listen at"),
        ({"host_maddrs": ("/ip4/127.0.0.1/tcp/99999",)}, "no address to listen at"),
        ({"announce_maddrs": ("rubbish",)}, "no multiaddress"),
        ({"announce_maddrs": ("/ip4/127.0.0.1/tcp/0",)}, "not 0"),
        ({"initial_peers": ("rubbish",)}, "no multiaddress"),
        ({"initial_peers": ("/ip4/127.0.0.1/tcp/1",)}, "names no peer"),
        ({"initial_peers": (f"/ip4/127.0.0.1/tcp/1/p2p/{NOBODY}",)}, "none of the initial peers answers"),
    ],
)
async def test_every_mistake_in_an_option_is_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        async with open_transport(**options):
            pass
    assert "\n" not in str(caught.value)


async def test_hivemind_says_nothing_on_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    async with two() as (_, client):
        with pytest.raises(PeerUnreachable):
            await client.connect(NOBODY, ("/ip4/127.0.0.1/tcp/1",))
    logging.getLogger("hivemind.p2p").error("trouble", exc_info=ValueError("inside"))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "") or "Traceback" not in out + err


@pytest.mark.parametrize(("name", "has_sockets"), [("a b", True), ("\xfc", False), (90 * "x", False)])
async def test_what_a_process_needs_in_a_temporary_folder_is_gone_with_it(
    name: str, has_sockets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix=name) as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        async with open_transport() as transport:
            assert transport.addresses
            assert any(Path(place).rglob("*.sock")) == has_sockets
        assert list(Path(place).iterdir()) == []
