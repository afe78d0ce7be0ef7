"""What `./murmur doctor` finds out about a real homeserver, beside a bot that runs there."""

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio

from bot.config.platforms import MatrixSettings
from bot.findings import Finding
from bot.on_matrix.account import log_in
from bot.on_matrix.checkup import check_matrix
from tests.bot.on_matrix.test_encrypted_rooms import SECRET, open_sealed_bot
from tests.matrix_peer.synapse import Account, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)


@pytest.fixture
def account(synapse: Synapse) -> Account:
    return synapse.register("murmur")


@pytest.fixture
def settings(synapse: Synapse, account: Account, tmp_path: Path) -> MatrixSettings:
    return settings_for(synapse.url, account, tmp_path / "matrix")


@pytest_asyncio.fixture
async def logged_in(synapse: Synapse, account: Account, settings: MatrixSettings) -> MatrixSettings:
    await log_in(synapse.url, account.user_id, account.password, settings.store)
    return settings


def settings_for(url: str, account: Account, store: Path, **more: object) -> MatrixSettings:
    return MatrixSettings.model_validate(
        {
            "enabled": True,
            "homeserver": url,
            "user": account.user_id,
            "store": store,
            "store_secret": SECRET,
            **more,
        }
    )


async def found(settings: MatrixSettings) -> dict[str, Finding]:
    return {finding.check: finding for finding in await check_matrix(settings)}


async def test_a_running_bot_is_well_and_not_disturbed(
    synapse: Synapse, account: Account, logged_in: MatrixSettings, store_path: Path
) -> None:
    async with open_sealed_bot(synapse, account, store_path) as bot:
        synced_s = bot.adapter.synced_s
        findings = await found(logged_in)
        assert {name: finding.level for name, finding in findings.items()} == {
            "matrix": "ok",
            "matrix token": "ok",
            "matrix device": "ok",
            "matrix limits": "warning",
        }
        assert bot.adapter.synced_s == synced_s
        assert bot.adapter.vitals().trouble() == ""


async def test_a_device_that_is_not_signed_is_a_warning(logged_in: MatrixSettings) -> None:
    device = (await found(logged_in))["matrix device"]
    assert device.level == "warning"
    assert "./murmur bot signs it when it starts" in device.sentence


async def test_stock_limits_are_a_warning_with_what_an_admin_can_do(
    synapse: Synapse, account: Account, logged_in: MatrixSettings
) -> None:
    limits = (await found(logged_in))["matrix limits"]
    assert limits.level == "warning"
    assert (
        f"/users/{account.user_id.replace('@', '%40').replace(':', '%3A')}/override_ratelimit"
        in limits.sentence
    )
    faster = settings_for(synapse.url, account, logged_in.store, sends_per_second=10.0)
    assert (await found(faster))["matrix limits"].level == "ok"


async def test_a_bot_that_is_an_admin_learns_that_its_limit_was_lifted(
    synapse: Synapse, tmp_path: Path
) -> None:
    admin = await asyncio.to_thread(synapse.register, "admin", is_admin=True)
    settings = settings_for(synapse.url, admin, tmp_path / "admin")
    await log_in(synapse.url, admin.user_id, admin.password, settings.store)
    limits = (await found(settings))["matrix limits"]
    assert limits.sentence == "the homeserver's limit was lifted: raise [matrix] sends_per_second"


async def test_an_account_that_is_not_logged_in_is_told(settings: MatrixSettings) -> None:
    findings = await found(settings)
    assert findings["matrix"].level == "ok"
    assert findings["matrix token"].level == "FAILED"
    assert "run ./murmur matrix login" in findings["matrix token"].sentence


async def test_a_token_that_the_homeserver_does_not_know_any_more_is_told(
    synapse: Synapse, logged_in: MatrixSettings
) -> None:
    session = logged_in.store / "session.json"
    text = session.read_text()
    token = text.partition('"access_token":"')[2].partition('"')[0]
    await asyncio.to_thread(synapse.ask, "POST", "/_matrix/client/v3/logout", {}, token)
    found_token = (await found(logged_in))["matrix token"]
    assert found_token.level == "FAILED"
    assert found_token.sentence.endswith("run ./murmur matrix login")
    assert token not in found_token.sentence


async def test_the_store_of_another_account_is_told(synapse: Synapse, logged_in: MatrixSettings) -> None:
    other = settings_for(synapse.url, Account("@other:localhost"), logged_in.store)
    assert (await found(other))["matrix token"].sentence.startswith("matrix.store belongs to another account")


async def test_a_homeserver_that_is_down_is_told_once(account: Account, tmp_path: Path) -> None:
    findings = await found(settings_for("http://127.0.0.1:9", account, tmp_path / "matrix"))
    assert list(findings) == ["matrix"]
    assert findings["matrix"].level == "FAILED"
    assert findings["matrix"].sentence.startswith("http://127.0.0.1:9 did not answer (ClientConnectorError)")
