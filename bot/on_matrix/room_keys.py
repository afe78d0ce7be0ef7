"""Keys of rooms on their way to the devices in them, for some devices at a time.

matrix-nio does the same, but for all devices at once, on our loop, counts a room's key as handed out even if
the homeserver did not take it, and fails for all over a key of one that is none. It notes in files, written
anew for each room's key, that devices are used unverified; here no device is verified or shut out, so nothing
is noted.
"""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Iterator, KeysView, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from nio import AsyncClient, KeysClaimResponse, KeysQueryResponse, MatrixRoom
from nio.crypto import OlmDevice

from bot.on_matrix.cross_signing_keys import is_signed
from bot.on_matrix.fields import Object, object_of, text_of
from bot.on_matrix.wire import Wire
from bot.words import Refused, Unreachable

logger = logging.getLogger(__name__)
T = TypeVar("T")

AT_ONCE = 5
"""Devices that are dealt with before others may use the loop, at 2 to 4 ms each, and what the disk takes."""
OF_A_REQUEST = 20
"""People or devices that the homeserver is asked for, or sent something for, at once."""
CLAIM_WITHIN_MS = 5000
"""So long the homeserver waits for others that do not answer."""
MOST_ROUNDS = 5


class RoomKeys:
    """Asks for people's devices and gives them our keys. Raises Limited or Unreachable."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._wire = Wire(client)

    async def ask_for_devices(self) -> None:
        """Learn which devices people have, as far as that may have changed."""
        people = sorted(self._client.users_for_key_query)
        for some in portions(people, OF_A_REQUEST):
            answer = await self._ask("POST", "/keys/query", {"device_keys": {each: [] for each in some}})
            known = object_of(answer.get("device_keys"))
            for user_id in known:
                await self._learn(user_id, object_of(known[user_id]))

    async def open_channels(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Begin to talk with devices, by person, with which we do not yet."""
        named = [(user_id, device_id) for user_id, devices in missing.items() for device_id in devices]
        for some in portions(named, OF_A_REQUEST):
            wanted: dict[str, dict[str, str]] = defaultdict(dict)
            for user_id, device_id in some:
                wanted[user_id][device_id] = "signed_curve25519"
            asked = {"one_time_keys": wanted, "timeout": CLAIM_WITHIN_MS}
            claimed = object_of((await self._ask("POST", "/keys/claim", asked)).get("one_time_keys"))
            for few in portions(some):
                await self._open(few, claimed)
                await asyncio.sleep(0)

    async def hand_out(self, room: MatrixRoom) -> None:
        """Give a room's key to all devices in it; a new one, if people come or go meanwhile."""
        olm, room_id = self._client.olm, room.room_id
        if room_id not in olm.outbound_group_sessions or olm.outbound_group_sessions[room_id].shared:
            olm.create_outbound_group_session(room_id)
        for _ in range(MOST_ROUNDS):
            await self.open_channels(self._client.get_missing_sessions(room_id))
            people = list(room.users)
            for some in portions(self._without_key(room_id, people), OF_A_REQUEST):
                await self._hand_to(room_id, some)
            if set(people) == set(room.users):
                break
            olm.create_outbound_group_session(room_id)
        olm.outbound_group_sessions[room_id].shared = True

    def _without_key(self, room_id: str, people: Sequence[str]) -> list[OlmDevice]:
        """People's devices with which we talk, and which do not have a room's key yet."""
        olm = self._client.olm
        has_it = olm.outbound_group_sessions[room_id].users_shared_with
        devices = (each for user_id in people for each in olm.device_store.active_user_devices(user_id))
        lacking = (each for each in devices if (each.user_id, each.id) not in has_it)
        return [each for each in lacking if olm.session_store.get(each.curve25519) is not None]

    async def _hand_to(self, room_id: str, devices: Sequence[OlmDevice]) -> None:
        olm = self._client.olm
        key = olm.outbound_group_sessions[room_id]
        content = {
            "algorithm": "m.megolm.v1.aes-sha2",
            "room_id": room_id,
            "session_id": key.id,
            "session_key": key.session_key,
        }
        messages: dict[str, Object] = defaultdict(dict)
        for few in portions(devices):
            with self._client.store.database.atomic():
                for device in few:
                    channel = olm.session_store.get(device.curve25519)
                    # The library offers this for all devices of people at once alone.
                    sealed = olm._olm_encrypt(channel, device, "m.room_key", content)
                    messages[device.user_id][device.id] = sealed
            await asyncio.sleep(0)
        path = f"/sendToDevice/m.room.encrypted/{secrets.token_hex(16)}"
        await self._ask("PUT", path, {"messages": messages})
        key.users_shared_with.update((device.user_id, device.id) for device in devices)

    async def _open(self, named: Sequence[tuple[str, str]], claimed: Object) -> None:
        """Begin to talk with devices, as far as their keys are there; waits for nothing."""
        with self._client.store.database.atomic():
            for user_id, device_id in named:
                key = object_of(object_of(claimed.get(user_id)).get(device_id))
                if key:
                    await self._take(KeysClaimResponse({user_id: {device_id: key}}, {}), user_id)

    async def _learn(self, user_id: str, devices: Object) -> None:
        """Let the library know somebody's devices; it fails on those that are not what they say."""
        signed: Object = {}
        for some in portions(list(devices)):
            signed |= _signed(user_id, {device_id: devices[device_id] for device_id in some})
            await asyncio.sleep(0)
        left = len(signed)
        for some in list(portions(list(signed))) or [[]]:
            await self._take(KeysQueryResponse({user_id: _Portion(signed, some)}, {}), user_id)
            left -= len(some)
            if left:  # the library believes that these were all, and others may seal meanwhile
                self._client.olm.users_for_key_query.add(user_id)
            await asyncio.sleep(0)

    async def _take(self, response: KeysQueryResponse | KeysClaimResponse, user_id: str) -> None:
        """Let the library have what one person's devices say; it fails on keys that are none."""
        try:
            with self._client.store.database.atomic():
                await self._client.receive_response(response)
        except Exception:  # a stranger's keys raise what they like in the libraries below
            logger.exception("matrix-nio did not take keys of %s", user_id[:255])

    async def _ask(self, method: str, path: str, asked: Object) -> Object:
        try:
            return await self._wire.ask(method, path, asked)
        except Refused as error:
            raise Unreachable(f"keys cannot be shared: {error}") from error


class _Portion(dict[str, Object]):
    """Some of somebody's devices, with the names of all: the library takes whom `keys` lacks for deleted."""

    def __init__(self, devices: Object, some: Sequence[str]) -> None:
        super().__init__((device_id, devices[device_id]) for device_id in some)
        self._names = devices.keys()

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        return self._names


def _signed(user_id: str, devices: Object) -> Object:
    """Those of somebody's devices that are what they say."""
    found = {}
    for device_id, each in devices.items():
        device, name = object_of(each), f"ed25519:{device_id}"
        if is_signed(device, user_id, name, text_of(object_of(device.get("keys")).get(name))):
            found[device_id] = device
    return found


def portions(named: Sequence[T], most: int = AT_ONCE) -> Iterator[list[T]]:
    """Some of them at a time: as many as are dealt with before others may use the loop, or `most`."""
    left = iter(named)
    while some := list(islice(left, most)):
        yield some
