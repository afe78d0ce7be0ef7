"""The directory of servers: the newest record wins, wherever it comes from, and listeners hear of changes."""

import time
from collections.abc import Iterator

import pytest

from swarm.directory import ServerDirectory
from swarm.identity import Identity, temporary_identity
from swarm.wire.records import BadRecord, ServerRecord
from tests.swarm.peers import FINGERPRINT, sealed, server_record


@pytest.fixture
def ours() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


class FakeDht:
    """Answers with what it is told, for one model."""

    def __init__(self, *records: ServerRecord) -> None:
        self.records = records

    async def find_servers(self, fingerprint: str) -> tuple[ServerRecord, ...]:
        assert fingerprint == FINGERPRINT
        return self.records


async def test_servers_come_from_the_dht_and_leave_when_their_records_expire(ours: Identity) -> None:
    now = time.time()
    record = server_record(ours)
    directory = ServerDirectory(FINGERPRINT, FakeDht(record).find_servers, clock=lambda: now)
    await directory.refresh()
    assert list(directory.servers) == [record]
    assert directory.find(ours.peer_id) == record
    now += 31
    assert list(directory.servers) == []
    assert directory.find(ours.peer_id) is None


async def test_a_pushed_record_is_used_at_once_and_an_older_one_does_not_undo_it(ours: Identity) -> None:
    old = server_record(ours)
    directory = ServerDirectory(FINGERPRINT, FakeDht(old).find_servers)
    await directory.refresh()
    assert directory.apply(sealed(ours, sequence=2, state="draining"), ours.peer_id)
    await directory.refresh()
    assert [record.state for record in directory.servers] == ["draining"]
    assert not directory.apply(sealed(ours, sequence=2), ours.peer_id)


async def test_a_goodbye_removes_a_server_also_against_an_older_answer_of_the_dht(ours: Identity) -> None:
    directory = ServerDirectory(FINGERPRINT, FakeDht(server_record(ours)).find_servers)
    await directory.refresh()
    directory.apply(sealed(ours, sequence=2, state="offline"), ours.peer_id)
    await directory.refresh()
    assert directory.servers == ()


def test_a_push_that_does_not_prove_itself_is_refused(ours: Identity) -> None:
    directory = ServerDirectory(FINGERPRINT, FakeDht().find_servers)
    with temporary_identity() as stranger, pytest.raises(BadRecord):
        directory.apply(sealed(stranger), ours.peer_id)
    with pytest.raises(BadRecord, match="another model"):
        directory.apply(sealed(ours, fingerprint="e" * 32), ours.peer_id)
    assert directory.servers == ()


async def test_listeners_hear_of_changes_and_only_of_changes(ours: Identity) -> None:
    dht = FakeDht(server_record(ours))
    directory = ServerDirectory(FINGERPRINT, dht.find_servers)
    heard: list[int] = []
    stop = directory.listen(lambda: heard.append(len(directory.servers)))
    await directory.refresh()
    await directory.refresh()
    assert heard == [1]
    directory.apply(sealed(ours, sequence=2, state="offline"), ours.peer_id)
    assert heard == [1, 0]
    stop()
    directory.apply(sealed(ours, sequence=3), ours.peer_id)
    assert heard == [1, 0]
