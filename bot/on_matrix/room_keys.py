"""Keys of rooms on their way to the devices in them, for some devices at a time.

matrix-nio does the same, but counts a room's key as handed out even if the homeserver did not take it, saves
each device in a transaction of its own, on our loop, and fails for all over a key of one that is none.
"""

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from nio import AsyncClient, KeysClaimResponse, KeysQueryResponse, MatrixRoom

from bot.on_matrix.cross_signing_keys import is_signed
from bot.on_matrix.fields import Object, object_of, text_of
from bot.on_matrix.wire import Wire
from bot.words import Refused, Unreachable

logger = logging.getLogger(__name__)
T = TypeVar("T")

AT_ONCE = 10
"""Devices for which keys are made before others may use the loop, at 1 to 2 ms each."""
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
        for some in _portions(people):
            answer = await self._ask("POST", "/keys/query", {"device_keys": {each: [] for each in some}})
            known = object_of(answer.get("device_keys"))
            for user_id in known:
                devices = dict(_signed(user_id, object_of(known[user_id])))
                await self._take(KeysQueryResponse({user_id: devices}, {}), user_id)

    async def open_channels(self, missing: Mapping[str, Sequence[str]]) -> None:
        """Begin to talk with devices, by person, with which we do not yet."""
        named = [(user_id, device_id) for user_id, devices in missing.items() for device_id in devices]
        for some in _portions(named):
            wanted: dict[str, dict[str, str]] = defaultdict(dict)
            for user_id, device_id in some:
                wanted[user_id][device_id] = "signed_curve25519"
            asked = {"one_time_keys": wanted, "timeout": CLAIM_WITHIN_MS}
            claimed = object_of((await self._ask("POST", "/keys/claim", asked)).get("one_time_keys"))
            with self._client.store.database.atomic():
                for user_id, device_id in some:
                    key = object_of(object_of(claimed.get(user_id)).get(device_id))
                    if key:
                        response = KeysClaimResponse({user_id: {device_id: key}}, {})
                        await self._take(response, user_id)  # waits for nothing

    async def hand_out(self, room: MatrixRoom) -> None:
        """Give a room's key to all devices in it; a new one, if people come or go meanwhile."""
        olm, room_id = self._client.olm, room.room_id
        for _ in range(MOST_ROUNDS):
            await self.open_channels(self._client.get_missing_sessions(room_id))
            people = list(room.users)
            portions = olm.share_group_session_parallel(room_id, people, ignore_unverified_devices=True)
            while (portion := self._next(portions)) is not None:
                devices, messages = portion
                path = f"/sendToDevice/m.room.encrypted/{secrets.token_hex(16)}"
                await self._ask("PUT", path, messages)
                olm.outbound_group_sessions[room_id].users_shared_with.update(devices)
            if set(people) == set(room.users):
                break
            olm.create_outbound_group_session(room_id)
        olm.outbound_group_sessions[room_id].shared = True

    def _next(
        self, portions: Iterator[tuple[set[tuple[str, str]], Object]]
    ) -> tuple[set[tuple[str, str]], Object] | None:
        with self._client.store.database.atomic():
            return next(portions, None)

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


def _signed(user_id: str, devices: Object) -> Iterator[tuple[str, Object]]:
    """Those of somebody's devices that are what they say; the library fails on others."""
    for device_id, each in devices.items():
        device, name = object_of(each), f"ed25519:{device_id}"
        if is_signed(device, user_id, name, text_of(object_of(device.get("keys")).get(name))):
            yield device_id, device


def _portions(named: Sequence[T]) -> Iterator[list[T]]:
    left = iter(named)
    while some := list(islice(left, AT_ONCE)):
        yield some
