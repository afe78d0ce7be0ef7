"""A homeserver that knows people's devices and their keys and nothing else, where the network would be."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
from nio import Api, AsyncClient, AsyncClientConfig, MatrixRoom
from nio.crypto import OlmAccount

from tests.bot.on_matrix.test_deliveries import Answer

BOT, ROOM = "@murmur:localhost", "!room:localhost"


class Device:
    """Somebody's device, with keys of its own."""

    def __init__(self, user_id: str, device_id: str) -> None:
        self.user_id = user_id
        self.device_id = device_id
        self.account = OlmAccount()
        self._signed_by = f"ed25519:{device_id}"

    def published(self) -> dict[str, Any]:
        identity = self.account.identity_keys
        keys = {f"{name}:{self.device_id}": key for name, key in identity.items()}
        return self._signed(
            {"user_id": self.user_id, "device_id": self.device_id, "algorithms": [], "keys": keys}
        )

    def one_time_key(self) -> dict[str, Any]:
        self.account.generate_one_time_keys(1)
        ((name, key),) = self.account.one_time_keys["curve25519"].items()
        self.account.mark_keys_as_published()
        return {f"signed_curve25519:{name}": self._signed({"key": key})}

    def _signed(self, claimed: dict[str, Any]) -> dict[str, Any]:
        signature = self.account.sign(Api.to_canonical_json(claimed))
        return claimed | {"signatures": {self.user_id: {self._signed_by: signature}}}


class KeyServer:
    """Answers what is asked for keys."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices = {(each.user_id, each.device_id): each for each in devices}
        self.handed: list[tuple[str, str, Any]] = []
        """What was sent to devices: to whom, and the message."""

    async def send(self, method: str, path: str, body: bytes | None = None, *_: Any) -> Answer:
        await asyncio.sleep(0)  # as on a real network, others get their turn meanwhile
        asked = json.loads(body or b"{}")
        if path.endswith("/keys/query"):
            return _answer(
                device_keys={user_id: self._published(user_id) for user_id in asked["device_keys"]}
            )
        if path.endswith("/keys/claim"):
            return _answer(one_time_keys=self._claimed(asked["one_time_keys"]))
        assert "/sendToDevice/" in path
        for user_id, devices in asked["messages"].items():
            self.handed += [(user_id, device_id, message) for device_id, message in devices.items()]
        return _answer()

    def _published(self, user_id: str) -> dict[str, Any]:
        return {name: each.published() for (owner, name), each in self.devices.items() if owner == user_id}

    def _claimed(self, wanted: dict[str, dict[str, str]]) -> dict[str, Any]:
        return {
            user_id: {name: self.devices[user_id, name].one_time_key() for name in names}
            for user_id, names in wanted.items()
        }


def _answer(**content: Any) -> Answer:
    return Answer(200, msgspec.json.encode(content))


@contextlib.asynccontextmanager
async def open_client(folder: Path, server: KeyServer) -> AsyncIterator[AsyncClient]:
    """The bot's account on that server, in an encrypted room with all who have devices there."""
    config = AsyncClientConfig(
        encryption_enabled=True, store_sync_tokens=False, pickle_key="of tests", max_limit_exceeded=0
    )
    client = AsyncClient("http://127.0.0.1:9", BOT, "BOT", str(folder), config)
    client.restore_login(BOT, "BOT", "a token")
    client.send = server.send
    room = client.rooms[ROOM] = MatrixRoom(ROOM, BOT, encrypted=True)
    room.members_synced = True
    for user_id in sorted({user_id for user_id, _ in server.devices} | {BOT}):
        room.add_member(user_id, None, None)
    try:
        yield client
    finally:
        await client.close()
