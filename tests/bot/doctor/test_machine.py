"""What the doctor finds out about this machine."""

import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from bot.config.loading import Loaded
from bot.config.models import OpsSettings, Settings, StorageSettings
from bot.doctor.machine import check_clock, check_disk, check_files, check_port, compare_clocks
from bot.findings import Finding
from bot.observing.health import Report
from bot.observing.pages import Pages, open_pages
from tests.bot.configs import DISCORD, TOKEN, load, secret_file


def files_of(loaded: Loaded) -> list[str]:
    return [str(finding) for finding in check_files(loaded)]


def test_secrets_are_named_by_where_they_are_from_and_never_shown(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    lines = files_of(load(tmp_path, f"{DISCORD}token_file = '{path}'\n[bot]\nadmins = ['5']\n"))
    assert lines == [
        f"ok       config: {tmp_path / 'config.toml'} has no mistakes",
        f"ok       secrets: [discord] token comes from file {path}",
    ]


def test_what_is_unwise_in_the_configuration_is_a_warning(tmp_path: Path) -> None:
    lines = files_of(load(tmp_path, f"{DISCORD}token = '{TOKEN}'\n"))
    assert any(
        line.startswith("warning  config: [discord] token stands in the file itself") for line in lines
    )
    assert not any(TOKEN in line for line in lines)


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o644, True), (0o660, True)])
def test_keys_that_others_can_read_are_told_with_what_to_do(tmp_path: Path, mode: int, is_told: bool) -> None:
    key = tmp_path / "bot.key"
    key.touch()
    key.chmod(mode)
    lines = files_of(load(tmp_path, f"[swarm]\nidentity_file = '{key}'\n"))
    assert (f"warning  files: others can read {key}; run: chmod 600 {key}" in lines) is is_told


def test_free_disk_is_told(tmp_path: Path) -> None:
    settings = Settings(storage=StorageSettings(path=tmp_path / "murmur.sqlite3"))
    assert "GB are free in" in check_disk(settings).sentence
    gone = Settings(storage=StorageSettings(path=tmp_path / "gone" / "murmur.sqlite3"))
    assert check_disk(gone).level == "FAILED"
    assert check_disk(gone).sentence.endswith("make that folder")


@pytest.mark.parametrize(
    ("off_s", "level"), [(0, "ok"), (3, "ok"), (-3, "ok"), (10, "FAILED"), (-90_000, "FAILED")]
)
def test_a_clock_that_is_off_is_told(off_s: int, level: str) -> None:
    now_s = 1_700_000_000.0
    assert compare_clocks(formatdate(now_s - off_s, usegmt=True), now_s).level == level


@pytest.mark.parametrize("told", ["", "yesterday", "Thu, 99 Jan 2099 99:99:99 GMT", "x" * 10_000])
def test_a_server_that_tells_no_time_is_a_warning(told: str) -> None:
    assert compare_clocks(told, time.time()).level == "warning"


async def test_the_clock_is_compared_with_a_real_server() -> None:
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        assert (await check_clock(f"http://127.0.0.1:{port}/")).level == "ok"
    finally:
        await runner.cleanup()
    assert (await check_clock(f"http://127.0.0.1:{port}/")).level == "warning"


async def test_a_free_port_is_well_and_0_is_none() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert (await check_port(OpsSettings(metrics_port=port))).level == "ok"
    assert (await check_port(OpsSettings())).level == "ok"


async def test_a_port_that_somebody_else_uses_is_told() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        found = await check_port(OpsSettings(metrics_port=port))
        assert found == Finding(
            "metrics",
            "FAILED",
            f"[ops] metrics_port {port} at 127.0.0.1 is in use: choose another port, or 0 for none",
        )


async def test_a_port_that_a_bot_uses_is_well() -> None:
    async def metrics() -> bytes:
        return b""

    async def look() -> Report:
        return Report("ready")

    async with open_pages("127.0.0.1", 0, Pages(metrics, look)) as port:
        found = await check_port(OpsSettings(metrics_port=port))
    assert (found.level, found.sentence) == (
        "ok",
        f"a bot serves them already, on port {port} at 127.0.0.1",
    )


async def test_a_host_of_another_machine_is_told() -> None:
    found = await check_port(OpsSettings(metrics_host="192.0.2.1", metrics_port=1234))
    assert found.level == "FAILED"
