"""Sign our own device in the account's name, so that people's clients encrypt for it and believe it.

matrix-nio knows no cross-signing, and clients that trust only devices signed by their owner neither read such
a device nor let it read. What is missing are three Ed25519 keys of the account and one signature, published
with raw requests (https://spec.matrix.org/v1.16/client-server-api/#cross-signing). Nothing here is ever reset
by itself: an identity that is not ours is left alone, and the operator is told.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from nio import Api, AsyncClient

from bot.on_matrix.cross_signing_keys import Keys, Object, is_signed
from bot.on_matrix.signing_seeds import load_seeds, new_seeds, save_seeds
from bot.words import Limited, Unreachable

WITHIN_S = 60.0
MAX_ANSWER_BYTES = 1 << 20
MAX_RETRY_AFTER_MS = 3_600_000
RESET = "./murmur matrix reset-identity"


class IdentityRefused(Exception):
    """The account's identity is not ours to use; the text says in one sentence what the operator can do."""


class _Key(msgspec.Struct):
    keys: dict[str, str]


class _Published(msgspec.Struct):
    """What the server tells about devices and keys, as far as we ask."""

    device_keys: dict[str, dict[str, Object]] = {}
    master_keys: dict[str, _Key] = {}
    self_signing_keys: dict[str, _Key] = {}


class _Failed(msgspec.Struct):
    failures: Object = {}


class _Refusal(msgspec.Struct):
    errcode: str = ""
    retry_after_ms: int = 1000
    session: str = ""


T = TypeVar("T", _Published, _Failed, _Refusal)


async def sign_own_device(client: AsyncClient, seeds_file: Path, secret: str) -> None:
    """Publish the account's cross-signing keys if there are none, and sign this device; harmless if done.

    `client` is logged in and has uploaded its device keys. The seeds of the keys are kept in `seeds_file`,
    encrypted with `secret`. Raises IdentityRefused if the account has keys of somebody else or the server
    shows a device that is not ours, SeedsUnusable if the file cannot be used, and Unreachable, Limited or
    TimeoutError if trying again later may help.
    """
    async with asyncio.timeout(WITHIN_S):
        account = _Account(client)
        published = await account.query()
        account.check_device(published)
        seeds = await asyncio.to_thread(load_seeds, seeds_file, client.user_id, secret)
        if seeds is None:
            account.refuse_foreign(published, ours=None)
            seeds = new_seeds()
            await asyncio.to_thread(save_seeds, seeds_file, client.user_id, secret, seeds)
        await account.publish(published, Keys(client.user_id, seeds))


async def reset_identity(client: AsyncClient, seeds_file: Path, secret: str, password: str) -> None:
    """Replace the account's cross-signing keys, whoever made them, by new ones, and sign this device.

    People who had verified the old identity are warned by their clients. Raises what `sign_own_device` does,
    and IdentityRefused if the password is wrong; then all is as it was. After a crash it is to be run again.
    """
    async with asyncio.timeout(WITHIN_S):
        account = _Account(client)
        account.check_device(await account.query())
        seeds, next_file = new_seeds(), seeds_file.with_name(f"{seeds_file.name}.next")
        await asyncio.to_thread(save_seeds, next_file, client.user_id, secret, seeds)
        keys = Keys(client.user_id, seeds)
        await account.upload(keys, password)
        next_file.replace(seeds_file)
        await account.publish(await account.query(), keys)


@dataclass
class _Account:
    """Our account, and our device of it, on the server."""

    client: AsyncClient

    async def query(self) -> _Published:
        asked: Object = {"device_keys": {self.client.user_id: []}}
        return _read(await self._post("keys/query", asked), _Published)

    def check_device(self, published: _Published) -> Object:
        """Our device as the server shows it. Raises IdentityRefused if it is not what we uploaded."""
        user_id, device_id = self.client.user_id, self.client.device_id
        device = published.device_keys.get(user_id, {}).get(device_id, {})
        own = self.client.olm.account.identity_keys["ed25519"]
        named = f"ed25519:{device_id}"
        is_own = device.get("user_id") == user_id and device.get("device_id") == device_id
        if not is_own or not is_signed(device, user_id, named, own):
            raise IdentityRefused(
                f"the homeserver does not show the keys of our device {device_id}: log in anew with "
                "./murmur matrix login"
            )
        return device

    def refuse_foreign(self, published: _Published, ours: str | None) -> None:
        """Raises IdentityRefused if the server has a master key other than `ours`."""
        key = published.master_keys.get(self.client.user_id)
        if key is not None and ours not in key.keys.values():
            raise self._foreign()

    async def publish(self, published: _Published, keys: Keys) -> None:
        """Bring keys and signature to the server as far as they are not there yet."""
        self.refuse_foreign(published, keys.master)
        user_id = self.client.user_id
        key = published.self_signing_keys.get(user_id)
        if user_id not in published.master_keys or key is None or keys.self_signing not in key.keys.values():
            await self.upload(keys)
        device = self.check_device(published)
        if self._is_signed_by(keys, device):
            return
        asked = {user_id: {self.client.device_id: keys.sign_device(device)}}
        answer = _read(await self._post("keys/signatures/upload", asked), _Failed)
        # A signature that the server does not like is answered with 200 as well.
        if answer.failures or not self._is_signed_by(keys, self.check_device(await self.query())):
            raise Unreachable("the homeserver did not take the signature of our device")

    def _is_signed_by(self, keys: Keys, device: Object) -> bool:
        key = keys.self_signing
        return is_signed(device, self.client.user_id, f"ed25519:{key}", key)

    async def upload(self, keys: Keys, password: str = "") -> None:
        """Publish all three keys; the same ones again are taken, the first ones need no password."""
        path, asked = "keys/device_signing/upload", keys.to_upload()
        status, body = await self._send(path, asked)
        session = _read(body, _Refusal).session if status == 401 else ""
        if session and not password:
            raise self._foreign()  # other keys than those that are there ask for a password
        if session:
            user = {"type": "m.id.user", "user": self.client.user_id}
            proof = {"type": "m.login.password", "identifier": user, "password": password, "session": session}
            status, body = await self._send(path, asked | {"auth": proof})
            if status in (401, 403):
                raise IdentityRefused("the homeserver refused the password of the bot's account")
        _check(status, body)

    def _foreign(self) -> IdentityRefused:
        return IdentityRefused(
            f"the account {self.client.user_id} has a cross-signing identity that is not ours: restore the "
            f"file of ours, or replace the identity with {RESET}"
        )

    async def _post(self, path: str, asked: Object) -> bytes:
        status, body = await self._send(path, asked)
        _check(status, body)
        return body

    async def _send(self, path: str, asked: Object) -> tuple[int, bytes]:
        """Status and body. Raises Unreachable if there is no answer or a body that is far too long."""
        headers = {"Authorization": f"Bearer {self.client.access_token}", "Content-Type": "application/json"}
        try:
            answer = await self.client.send(
                "POST", f"/_matrix/client/v3/{path}", Api.to_canonical_json(asked), headers
            )
            async with answer:
                body = bytearray()
                while chunk := await answer.content.read(1 << 16):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise Unreachable("the homeserver's answer is too long")
                return answer.status, bytes(body)
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"the homeserver did not answer: {type(error).__name__}") from error


def _check(status: int, body: bytes) -> None:
    """Raises IdentityRefused, Limited or Unreachable unless a request was taken."""
    if status == 200:
        return
    refusal = _read(body, _Refusal)
    if status in (401, 403):
        raise IdentityRefused(
            f"the homeserver refuses us with {refusal.errcode[:60]!r}: log in anew with ./murmur matrix login"
        )
    if status == 429:
        raise Limited(min(max(refusal.retry_after_ms, 0), MAX_RETRY_AFTER_MS) / 1000)
    raise Unreachable(f"the homeserver answered {status} {refusal.errcode[:60]!r}")


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreachable("the homeserver's answer is not what the specification says") from error
