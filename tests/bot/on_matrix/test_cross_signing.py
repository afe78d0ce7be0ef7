"""Our device is signed in the account's name, on a real homeserver: at every start, after every crash."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bot.on_matrix.cross_signing import IdentityRefused, reset_identity, sign_own_device
from bot.on_matrix.cross_signing_keys import Keys, is_signed
from bot.on_matrix.signing_seeds import SeedsUnusable, load_seeds, new_seeds, save_seeds
from bot.words import Unreachable
from tests.matrix_peer.human import Human, NewHuman, open_human
from tests.matrix_peer.synapse import PASSWORD, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)

SECRET = "an operator's secret"
QUERY, PUBLISH, SIGN = "keys/query", "keys/device_signing/upload", "keys/signatures/upload"


@pytest.fixture
def seeds_file(tmp_path: Path) -> Path:
    return tmp_path / "seeds"


async def published(human: Human) -> Any:
    """What others see of the account."""
    client = human.client
    headers = {"Authorization": f"Bearer {client.access_token}", "Content-Type": "application/json"}
    body = json.dumps({"device_keys": {human.user_id: []}})
    answer = await client.send("POST", "/_matrix/client/v3/keys/query", body, headers)
    return json.loads(await answer.text())


async def master_of(human: Human) -> str:
    """The public master key that others see, or nothing."""
    key = (await published(human))["master_keys"].get(human.user_id, {"keys": {"": ""}})
    return str(next(iter(key["keys"].values())))


async def is_signed_by_owner(human: Human) -> bool:
    """Whether the chain from master key to device holds, as others check it."""
    seen, user = await published(human), human.user_id
    if user not in seen["master_keys"]:
        return False
    (master,) = seen["master_keys"][user]["keys"].values()
    (signer,) = seen["self_signing_keys"][user]["keys"].values()
    device = seen["device_keys"][user][human.client.device_id]
    return is_signed(seen["self_signing_keys"][user], user, f"ed25519:{master}", master) and is_signed(
        device, user, f"ed25519:{signer}", signer
    )


class Wire:
    """Sees every request of a client, and loses the answer or the request where it is told to."""

    def __init__(self, human: Human) -> None:
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda path: None
        self.after: Callable[[str], None] = lambda path: None
        self._send: Callable[..., Awaitable[Any]] = human.client.send
        human.client.send = self._watched

    async def _watched(self, method: str, path: str, *rest: Any) -> Any:
        short = path.removeprefix("/_matrix/client/v3/")
        self.asked.append(short)
        self.before(short)
        answer = await self._send(method, path, *rest)
        self.after(short)
        return answer


async def test_the_first_start_publishes_and_signs_and_later_ones_only_look(
    new_human: NewHuman, seeds_file: Path
) -> None:
    bot = await new_human("bot", encrypted=True)
    assert not await is_signed_by_owner(bot)
    await sign_own_device(bot.client, seeds_file, SECRET)
    assert await is_signed_by_owner(bot)
    seeds, master = seeds_file.read_bytes(), await master_of(bot)
    wire = Wire(bot)
    await sign_own_device(bot.client, seeds_file, SECRET)
    assert wire.asked == [QUERY]
    assert (seeds_file.read_bytes(), await master_of(bot)) == (seeds, master)


async def test_a_new_device_of_the_account_is_signed_with_the_same_keys(
    synapse: Synapse, new_human: NewHuman, seeds_file: Path, tmp_path: Path
) -> None:
    bot = await new_human("bot", encrypted=True)
    await sign_own_device(bot.client, seeds_file, SECRET)
    async with open_human(synapse.url, bot.account, tmp_path / "second") as second:
        await sign_own_device(second.client, seeds_file, SECRET)
        assert second.client.device_id != bot.client.device_id
        assert await is_signed_by_owner(second)
        assert await is_signed_by_owner(bot)


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize("path", [PUBLISH, SIGN])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_crash_at_any_request_is_mended_by_the_next_start(
    new_human: NewHuman, seeds_file: Path, path: str, moment: str
) -> None:
    bot = await new_human("bot", encrypted=True)
    wire = Wire(bot)

    def die(asked: str) -> None:
        if asked == path:
            assert load_seeds(seeds_file, bot.user_id, SECRET) is not None, "published before it was safe"
            raise Killed

    setattr(wire, moment, die)
    with pytest.raises(Killed):
        await sign_own_device(bot.client, seeds_file, SECRET)
    setattr(wire, moment, lambda asked: None)
    before, seeds = await master_of(bot), load_seeds(seeds_file, bot.user_id, SECRET)
    await sign_own_device(bot.client, seeds_file, SECRET)
    assert await is_signed_by_owner(bot)
    assert seeds is not None
    assert await master_of(bot) == Keys(bot.user_id, seeds).master
    assert before in ("", await master_of(bot))


@pytest.mark.parametrize("has_seeds", [False, True])
async def test_an_identity_that_is_not_ours_is_left_alone(
    new_human: NewHuman, seeds_file: Path, tmp_path: Path, has_seeds: bool
) -> None:
    bot = await new_human("bot", encrypted=True)
    await sign_own_device(bot.client, tmp_path / "others", SECRET)
    master = await master_of(bot)
    if has_seeds:
        save_seeds(seeds_file, bot.user_id, SECRET, new_seeds())
    with pytest.raises(IdentityRefused, match="murmur matrix reset-identity") as caught:
        await sign_own_device(bot.client, seeds_file, SECRET)
    assert "\n" not in str(caught.value)
    assert seeds_file.exists() == has_seeds
    assert await master_of(bot) == master


async def test_an_identity_that_another_published_meanwhile_is_left_alone(
    new_human: NewHuman, seeds_file: Path, tmp_path: Path
) -> None:
    bot = await new_human("bot", encrypted=True)
    wire, send = Wire(bot), bot.client.send

    async def other_first(method: str, path: str, *rest: Any) -> Any:
        if path.endswith(PUBLISH):
            bot.client.send = send
            await sign_own_device(bot.client, tmp_path / "others", SECRET)
        return await send(method, path, *rest)

    bot.client.send = other_first
    with pytest.raises(IdentityRefused, match="murmur matrix reset-identity"):
        await sign_own_device(bot.client, seeds_file, SECRET)
    assert wire.asked.count(PUBLISH) == 2


async def test_seeds_of_another_secret_stop_the_start(new_human: NewHuman, seeds_file: Path) -> None:
    bot = await new_human("bot", encrypted=True)
    await sign_own_device(bot.client, seeds_file, SECRET)
    with pytest.raises(SeedsUnusable, match="another secret"):
        await sign_own_device(bot.client, seeds_file, "not the secret")


async def test_a_device_whose_keys_the_server_does_not_have_is_not_signed(
    new_human: NewHuman, seeds_file: Path
) -> None:
    bot = await new_human("bot", encrypted=True)
    bot.client.device_id = "ANOTHER"
    with pytest.raises(IdentityRefused, match="murmur matrix login"):
        await sign_own_device(bot.client, seeds_file, SECRET)
    assert not seeds_file.exists()


async def test_a_token_that_is_no_longer_valid_asks_for_a_new_login(
    new_human: NewHuman, seeds_file: Path
) -> None:
    bot = await new_human("bot", encrypted=True)
    token, bot.client.access_token = bot.client.access_token, "syt_forged"
    with pytest.raises(IdentityRefused, match="murmur matrix login"):
        await sign_own_device(bot.client, seeds_file, SECRET)
    bot.client.access_token = token


async def test_the_operator_can_replace_a_foreign_identity(
    new_human: NewHuman, seeds_file: Path, tmp_path: Path
) -> None:
    bot = await new_human("bot", encrypted=True)
    await sign_own_device(bot.client, tmp_path / "others", SECRET)
    master = await master_of(bot)
    save_seeds(seeds_file, bot.user_id, SECRET, new_seeds())
    seeds = seeds_file.read_bytes()
    with pytest.raises(IdentityRefused, match="password"):
        await reset_identity(bot.client, seeds_file, SECRET, "not the password")
    assert (seeds_file.read_bytes(), await master_of(bot)) == (seeds, master)
    await reset_identity(bot.client, seeds_file, SECRET, PASSWORD)
    assert await master_of(bot) != master
    assert await is_signed_by_owner(bot)
    await sign_own_device(bot.client, seeds_file, SECRET)
    assert {path.name for path in tmp_path.iterdir() if "seeds" in path.name} == {"seeds"}


async def test_a_server_that_is_gone_may_come_back(own_synapse: Synapse, seeds_file: Path) -> None:
    account = await asyncio.to_thread(own_synapse.register, "bot")
    async with open_human(own_synapse.url, account, seeds_file.with_name("store")) as bot:
        await asyncio.to_thread(own_synapse.stop)
        with pytest.raises(Unreachable):
            await sign_own_device(bot.client, seeds_file, SECRET)
