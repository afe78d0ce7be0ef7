"""However many devices there are, a few of them are dealt with at a time: the loop is everybody's."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nio import AsyncClient

from bot.on_matrix.room_keys import AT_ONCE, RoomKeys
from bot.on_matrix.sealing import Sealer
from swarm.background import running
from tests.bot.on_matrix.key_server import BOT, ROOM, Device, KeyServer, open_client

ANNA = "@anna:localhost"
MESSAGE = {"msgtype": "m.text", "body": "hello"}


class Holds:
    """Counts what is done before anybody else may use the loop."""

    def __init__(self) -> None:
        self.nums: list[int] = []
        self._num = 0

    def note(self, num: int = 1) -> None:
        if not self._num and num:
            asyncio.get_running_loop().call_soon(self._end)
        self._num += num

    def _end(self) -> None:
        self.nums.append(self._num)
        self._num = 0


def watch(owner: Any, name: str, holds: Holds, count: Callable[..., int] = lambda *_: 1) -> None:
    """Have each call of one of the library's functions counted."""
    work = getattr(owner, name)

    def watched(*arguments: Any) -> Any:
        holds.note(count(*arguments))
        return work(*arguments)

    setattr(owner, name, watched)


def num_devices(changed: dict[str, dict[str, Any]]) -> int:
    return sum(map(len, changed.values()))


def people_with(num_people: int, num_each: int) -> KeyServer:
    return KeyServer(
        Device(f"@person{person}:localhost", f"DEVICE{number}")
        for person in range(num_people)
        for number in range(num_each)
    )


@pytest.mark.parametrize(("num_people", "num_each"), [(30, 1), (1, 30), (6, 5)])
async def test_thirty_devices_get_a_rooms_key_and_at_no_time_more_than_a_few_are_dealt_with(
    tmp_path: Path, num_people: int, num_each: int
) -> None:
    server, learned, channels = people_with(num_people, num_each), Holds(), Holds()
    async with open_client(tmp_path, server) as client:
        watch(client.store, "save_device_keys", learned, num_devices)
        watch(client.store, "save_session", channels)  # when one is opened, and when it is used
        sealed = await Sealer(client).seal(ROOM, "m.room.message", MESSAGE)
        assert sealed["algorithm"] == "m.megolm.v1.aes-sha2"
        assert {(user_id, device_id) for user_id, device_id, _ in server.handed} == set(server.devices)
        assert len(server.handed) == 30
        await asyncio.sleep(0)
    assert (sum(learned.nums), max(learned.nums)) == (30, min(num_each, AT_ONCE))
    assert (sum(channels.nums), max(channels.nums)) == (60, AT_ONCE)


async def test_what_a_device_is_handed_opens_what_is_said(tmp_path: Path) -> None:
    device = Device(ANNA, "PHONE")
    server = KeyServer([device])
    async with open_client(tmp_path, server) as client:
        sealed = await Sealer(client).seal(ROOM, "m.room.message", MESSAGE)
        ((_, _, message),) = server.handed
        (addressed,) = message["ciphertext"]
        assert addressed == device.account.identity_keys["curve25519"]
        assert sealed["session_id"] == client.olm.outbound_group_sessions[ROOM].id
        again = await Sealer(client).seal(ROOM, "m.room.message", MESSAGE)
    assert again["session_id"] == sealed["session_id"]
    assert len(server.handed) == 1, "it has the key"


async def ask_again(client: AsyncClient, user_id: str) -> list[str]:
    """Which devices the library knows of somebody when it has asked for them anew."""
    client.olm.users_for_key_query.add(user_id)
    await RoomKeys(client).ask_for_devices()
    return sorted(device.id for device in client.device_store.active_user_devices(user_id))


@pytest.mark.parametrize("num", [1, AT_ONCE, 3 * AT_ONCE - 1])
async def test_devices_of_a_person_are_known_until_they_are_gone(tmp_path: Path, num: int) -> None:
    server = KeyServer(Device(ANNA, f"DEVICE{number:02}") for number in range(num))
    names = sorted(name for _, name in server.devices)
    async with open_client(tmp_path, server) as client:
        assert await ask_again(client, ANNA) == names
        for gone in (names[0], names[-1]):
            server.devices.pop((ANNA, gone), None)
        assert await ask_again(client, ANNA) == names[1:-1]
        server.devices.clear()
        assert await ask_again(client, ANNA) == []
        assert not client.users_for_key_query


async def test_who_seals_while_a_persons_devices_are_being_learned_waits_for_all_of_them(
    tmp_path: Path,
) -> None:
    server = KeyServer(Device(ANNA, f"DEVICE{number}") for number in range(4 * AT_ONCE))
    async with open_client(tmp_path, server) as client:
        await ask_again(client, BOT)  # so that there is no other reason to ask
        async with running(ask_again(client, ANNA)):
            while not client.device_store[ANNA]:  # noqa: ASYNC110 - the library tells it nowhere else
                await asyncio.sleep(0)
            assert len(client.device_store[ANNA]) < len(server.devices)
            await Sealer(client).seal(ROOM, "m.room.message", MESSAGE)
        assert {(user_id, device_id) for user_id, device_id, _ in server.handed} == set(server.devices)
        assert not client.users_for_key_query


async def test_keys_that_come_with_a_sync_are_taken_in_portions_and_once(tmp_path: Path) -> None:
    sent = [
        {"type": "m.room.encrypted", "sender": ANNA, "content": {"number": number}}
        for number in range(4 * AT_ONCE + 3)
    ]
    answer = {"next_batch": "s1", "to_device": {"events": sent}}
    holds = Holds()
    async with open_client(tmp_path, KeyServer([])) as client:
        watch(client.olm, "handle_to_device_event", holds)
        sealer = Sealer(client)
        for _ in range(2):
            await sealer.take_in(answer)
        await asyncio.sleep(0)
        assert holds.nums == [AT_ONCE] * 4 + [3]
        assert client.next_batch == "s1"
        await sealer.take_in(answer | {"next_batch": "s2"})
        await asyncio.sleep(0)
        assert sum(holds.nums) == 2 * len(sent)
