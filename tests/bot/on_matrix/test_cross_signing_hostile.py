"""What a homeserver may answer when our device is to be signed: nothing of it signs what is not ours."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bot.on_matrix.cross_signing import IdentityRefused, sign_own_device
from bot.on_matrix.cross_signing_keys import Keys
from bot.on_matrix.signing_seeds import new_seeds
from bot.words import Limited, Unreachable

SECRET = "an operator's secret"
QUERY, PUBLISH, SIGN = "keys/query", "keys/device_signing/upload", "keys/signatures/upload"


@pytest.fixture
def seeds_file(tmp_path: Path) -> Path:
    return tmp_path / "seeds"


class Answer:
    """An HTTP answer as aiohttp gives it."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.content = asyncio.StreamReader()
        self.content.feed_data(body)
        self.content.feed_eof()

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class ForgedServer:
    """A client whose server answers `body` to requests of `path`, and sensibly to others."""

    user_id, device_id, access_token = "@bot:example.org", "DEVICE", "token"

    def __init__(self, path: str, status: int, body: bytes) -> None:
        self._forged, self._path = (status, body), path
        self._device = Keys(self.user_id, new_seeds())
        own = {
            "user_id": self.user_id,
            "device_id": self.device_id,
            "keys": {f"ed25519:{self.device_id}": self._device.self_signing},
        }
        (signature,) = self._device.sign_device(own)["signatures"][self.user_id].values()
        signatures = {self.user_id: {f"ed25519:{self.device_id}": signature}}
        self._shown = {"device_keys": {self.user_id: {self.device_id: own | {"signatures": signatures}}}}
        keys = {"ed25519": self._device.self_signing}
        self.olm = SimpleNamespace(account=SimpleNamespace(identity_keys=keys))

    async def send(self, method: str, path: str, *_: object) -> Answer:
        if path.endswith(self._path):
            return Answer(*self._forged)
        return Answer(200, json.dumps(self._shown if path.endswith(QUERY) else {}).encode())


@pytest.mark.parametrize("path", [QUERY, PUBLISH, SIGN])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"<html>"),
        (502, b'{"errcode": 7}'),
        (400, b'{"errcode": "M_UNKNOWN"}'),
        (503, b"{" * 100_000),
    ],
)
async def test_trouble_of_the_server_may_pass(seeds_file: Path, path: str, status: int, body: bytes) -> None:
    with pytest.raises(Unreachable):
        await sign_own_device(ForgedServer(path, status, body), seeds_file, SECRET)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b'"\xff"',
        b'{"device_keys": []}',
        b'{"device_keys": {"@bot:example.org": {"DEVICE": 1}}}',
        b'{"master_keys": {"@bot:example.org": {}}}',
        b"[" * 500_000,
        b'{"x": "' + b"x" * (1 << 20) + b'"}',
    ],
)
async def test_an_answer_that_is_none_may_pass(seeds_file: Path, body: bytes) -> None:
    with pytest.raises(Unreachable):
        await sign_own_device(ForgedServer(QUERY, 200, body), seeds_file, SECRET)


@pytest.mark.parametrize("signature", ["1", '"x"', '"\\ud800"', "null", '"\xff"'])
async def test_a_device_with_a_signature_that_is_none_is_not_signed(seeds_file: Path, signature: str) -> None:
    device = (
        '{"user_id": "@bot:example.org", "device_id": "DEVICE",'
        f'"signatures": {{"@bot:example.org": {{"ed25519:DEVICE": {signature}}}}}}}'
    )
    body = f'{{"device_keys": {{"@bot:example.org": {{"DEVICE": {device}}}}}}}'.encode()
    with pytest.raises((IdentityRefused, Unreachable)):
        await sign_own_device(ForgedServer(QUERY, 200, body), seeds_file, SECRET)
    assert not seeds_file.exists()


async def test_a_signature_that_was_not_taken_is_noticed_whatever_the_server_says(seeds_file: Path) -> None:
    failures = b'{"failures": {"@bot:example.org": {"DEVICE": {"errcode": "M_INVALID_SIGNATURE"}}}}'
    for body in (failures, b"{}"):
        with pytest.raises(Unreachable, match="did not take the signature"):
            await sign_own_device(ForgedServer(SIGN, 200, body), seeds_file, SECRET)


@pytest.mark.parametrize(("said", "waits_s"), [(2500, 2.5), (-1, 0.0), (10**12, 3600.0)])
async def test_a_server_that_limits_us_says_for_how_long(seeds_file: Path, said: int, waits_s: float) -> None:
    body = json.dumps({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": said}).encode()
    with pytest.raises(Limited) as caught:
        await sign_own_device(ForgedServer(PUBLISH, 429, body), seeds_file, SECRET)
    assert caught.value.retry_after_s == waits_s
