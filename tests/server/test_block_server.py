"""A block server joins although the DHT stumbles, and leaves in time although its peers are silent."""

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar, cast

import pytest
import torch

from server.announcer import Announced, Announcer
from server.block_server import DRAIN_S, GOODBYE_S, Options, _join, _online, is_hidden
from server.host import Host
from server.serving import Serving
from swarm.background import running
from swarm.dht import Dht
from swarm.errors import SwarmError
from swarm.identity import Identity, temporary_identity
from swarm.transport import Transport
from swarm.wire.blocks import Span
from swarm.wire.records import ServerRecord, open_any_record
from tests.swarm.peers import FINGERPRINT

HASTE = 100  # seconds of the loop in one of ours
T = TypeVar("T")


class _HastySelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout and timeout / HASTE)


class HastyLoop(asyncio.SelectorEventLoop):
    """A loop whose seconds are hundredths of seconds."""

    def __init__(self) -> None:
        super().__init__(_HastySelector())

    def time(self) -> float:
        return super().time() * HASTE


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        return runner.run(work)


@pytest.fixture
def identity() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


class FakeTransport:
    """A place in a network that is not there."""

    addresses: tuple[str, ...] = ()

    def __init__(self, identity: Identity) -> None:
        self.identity, self.peer_id = identity, identity.peer_id

    async def refresh_addresses(self) -> tuple[str, ...]:
        return self.addresses


class FakeDht:
    """A DHT of others who know nobody, and who may fall silent; its first look-ups fail."""

    num_peers = 0

    def __init__(self, identity: Identity, num_failures: int = 0) -> None:
        self.is_silent = False
        self.heard: list[ServerRecord] = []
        self._peer_id = identity.peer_id
        self._num_failures = num_failures

    async def announce(self, raw: bytes) -> bool:
        if self.is_silent:
            await asyncio.Event().wait()
        record = open_any_record(raw, self._peer_id, time.time())
        if isinstance(record, ServerRecord):
            self.heard.append(record)
        return True

    async def find_servers(self, fingerprint: str) -> tuple[ServerRecord, ...]:
        self._num_failures -= 1
        if self._num_failures >= 0:
            raise SwarmError("could not look up records in the DHT: it stumbled")
        return ()


def parts(identity: Identity, **options: Any) -> tuple[Transport, FakeDht, Announced]:
    announced = Announced(FINGERPRINT, Span(0, 2), torch.float32)
    return cast(Transport, FakeTransport(identity)), FakeDht(identity, **options), announced


# --- joining --------------------------------------------------------------------------------------


def test_a_look_up_that_fails_is_made_again(identity: Identity) -> None:
    transport, dht, announced = parts(identity, num_failures=2)
    announcer = run(_join(transport, cast(Dht, dht), announced, 6, 4))
    assert [(record.start, record.end) for record in dht.heard] == [(0, 4)]
    assert announcer.span == Span(0, 4)


def test_look_ups_that_fail_for_good_end_the_start(identity: Identity) -> None:
    transport, dht, announced = parts(identity, num_failures=99)
    with pytest.raises(SwarmError, match="it stumbled"):
        run(_join(transport, cast(Dht, dht), announced, 6, 4))
    assert dht.heard == []


def test_who_is_told_which_blocks_to_host_asks_nobody(identity: Identity) -> None:
    transport, dht, announced = parts(identity, num_failures=99)
    assert run(_join(transport, cast(Dht, dht), announced, 6, Span(3, 5))).span == Span(3, 5)


# --- leaving --------------------------------------------------------------------------------------


class FakeTable:
    """A server's sessions, as far as their number goes."""

    is_draining = False

    def __init__(self, num_sessions: int) -> None:
        self._num_sessions = num_sessions

    def __len__(self) -> int:
        return self._num_sessions


class FakeHost:
    """Sessions that do not leave."""

    def __init__(self, num_sessions: int) -> None:
        self.table = FakeTable(num_sessions)

    async def wait_until_left(self, within_s: float) -> None:
        await asyncio.sleep(within_s)


class FakeServing:
    """Clients who listen."""

    def __init__(self) -> None:
        self.told_ms: list[int] = []

    def push_draining(self, within_ms: int) -> None:
        self.told_ms.append(within_ms)


async def stop_one(dht: FakeDht, announcer: Announcer, host: FakeHost, serving: FakeServing) -> list[str]:
    """Bring a server online, let its peers fall silent, and stop it; returns what it said."""
    said: list[str] = []
    options = Options(model="a model")
    async with running(announcer.announce_forever()):
        online = asyncio.create_task(
            _online(announcer, cast(Host, host), cast(Serving, serving), options, said.append)
        )
        while not said:  # noqa: ASYNC110 - it says so when it is online
            await asyncio.sleep(0.1)
        dht.is_silent = True
        online.cancel()
        async with asyncio.timeout(DRAIN_S + 2 * GOODBYE_S + 5):
            with pytest.raises(asyncio.CancelledError):
                await online
    return said


@pytest.mark.parametrize("num_sessions", [0, 3])
def test_a_server_whose_peers_are_silent_leaves_in_time_and_without_an_error(
    identity: Identity, num_sessions: int
) -> None:
    transport, dht, announced = parts(identity)
    announcer = Announcer(transport, cast(Dht, dht), announced)
    host, serving = FakeHost(num_sessions), FakeServing()
    said = run(stop_one(dht, announcer, host, serving))
    assert said[-1] == "gone"
    assert host.table.is_draining
    assert serving.told_ms == ([int(DRAIN_S * 1000)] if num_sessions else [])


PUBLIC, PRIVATE = "/ip4/1.2.3.4/tcp/31337", "/ip4/192.168.1.20/tcp/31337"


@pytest.mark.parametrize(
    ("use_relay", "of_others", "own", "hidden"),
    [
        (False, (PUBLIC,), (PRIVATE,), True),
        (False, (PRIVATE, PUBLIC), (PRIVATE,), True),
        (False, (PUBLIC,), (PRIVATE, PUBLIC), False),
        (False, (PRIVATE,), (PRIVATE,), False),
        (False, (), (PRIVATE,), False),
        (True, (PUBLIC,), (PRIVATE,), False),
    ],
)
def test_a_server_without_relays_is_hidden_from_the_internet_if_it_has_no_public_address(
    use_relay: bool, of_others: tuple[str, ...], own: tuple[str, ...], hidden: bool
) -> None:
    options = Options(model="tiny", initial_peers=of_others, use_relay=use_relay)
    assert is_hidden(options, own) == hidden
