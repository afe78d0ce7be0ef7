"""Epochs are written down ahead, and whatever is saved meanwhile never claims less than may be used."""

import asyncio

import pytest

from swarm.epochs import AHEAD, Epochs


class DiskFull(Exception):
    """Nothing can be written down now."""


class Disk:
    """Writes one ticket after the other, each when it is let; the tickets are the epochs that they claim."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.num_failures = 0
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def save(self, ticket: bytes) -> None:
        """Raises DiskFull as often as it was told to."""
        await self.may_write.wait()
        if self.num_failures:
            self.num_failures -= 1
            raise DiskFull
        self.written.append(int(ticket))


def as_ticket(epoch: int) -> bytes:
    return b"%d" % epoch


async def test_one_ticket_lets_the_next_epochs_be_used_and_no_more() -> None:
    epochs = Epochs(Disk().save, 0)
    assert not epochs.may_use(1)
    await epochs.write_down(0, as_ticket)
    assert epochs.may_use(AHEAD)
    assert not epochs.may_use(AHEAD + 1)


async def test_who_writes_nothing_down_may_use_all() -> None:
    epochs = Epochs(None, 0)
    await epochs.write_down(0, as_ticket)
    assert epochs.may_use(10**6)
    assert epochs.claimed(7) == 7


async def test_a_ticket_that_is_saved_meanwhile_claims_no_less() -> None:
    disk = Disk()
    epochs = Epochs(disk.save, 0)
    disk.may_write.clear()
    writing = asyncio.create_task(epochs.write_down(0, as_ticket))
    await asyncio.sleep(0)
    later = epochs.claimed(1)
    disk.may_write.set()
    await writing
    await disk.save(as_ticket(later))
    assert epochs.may_use(disk.written[-1])
    assert not epochs.may_use(disk.written[-1] + 1), "else a client that comes back is behind its own past"


async def test_what_cannot_be_saved_is_tried_again_while_epochs_are_left() -> None:
    disk = Disk()
    epochs = Epochs(disk.save, 0, again_s=0.0)
    await epochs.write_down(0, as_ticket)
    disk.num_failures = 3
    written = asyncio.Event()
    epochs.ask()
    keeping = asyncio.create_task(epochs.keep_forever(lambda: 1, as_ticket, written.set))
    async with asyncio.timeout(5):
        await written.wait()
    assert disk.written == [AHEAD, AHEAD + 1]
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_what_cannot_be_saved_ends_the_session_when_no_epoch_is_left() -> None:
    disk = Disk()
    epochs = Epochs(disk.save, 0, again_s=0.0)
    disk.num_failures = 1
    epochs.ask()
    with pytest.raises(DiskFull):
        await epochs.keep_forever(lambda: 0, as_ticket, lambda: None)
