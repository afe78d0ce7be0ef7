"""A whole bot as operators see it: its pages, what systemd hears, the doctor beside it, and how it stops."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.bot.observing.test_pages import free_port
from tests.bot.test_operating import GONE_S, QUESTION, ROOT, command, write_config
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.processes import open_forge, open_process_swarm
from tests.matrix_peer.human import NewHuman
from tests.matrix_peer.synapse import Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)
pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

READY_S = 60.0


@contextmanager
def supervised(config: Path, folder: Path) -> "Iterator[tuple[subprocess.Popen[str], socket.socket]]":
    """`./murmur bot` as systemd starts it: with a socket for what it has to say. Logs go to a file."""
    address = folder / "notify"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        (folder / "bot.log").open("w") as log,
    ):
        systemd.bind(str(address))
        environment = os.environ | {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "600000"}
        process = subprocess.Popen(
            command("--config", str(config)), cwd=ROOT, env=environment, stderr=log, stdout=log, text=True
        )
        try:
            yield process, systemd
        finally:
            process.kill()
            process.wait()


def hear(systemd: socket.socket, message: str, within_s: float) -> None:
    """Wait until the bot says `message`."""
    systemd.settimeout(within_s)
    deadline = time.monotonic() + within_s
    while systemd.recv(4096).decode() != message:
        assert time.monotonic() < deadline, message


def forget(systemd: socket.socket) -> None:
    """Take what was said so far: the bot says nothing to a socket that is full, as systemd's never is."""
    systemd.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            systemd.recv(4096)


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        subprocess.run, command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=90
    )


async def test_behaviour_30_a_bot_is_watched_from_its_start_to_its_end(
    synapse: Synapse, new_human: NewHuman, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = make_talking_model(tmp_path_factory.mktemp("talking"))
    account = await asyncio.to_thread(synapse.register, "murmur")
    with open_forge(tmp_path_factory.mktemp("forge")) as forge, open_process_swarm(forge, model) as swarm:
        await asyncio.to_thread(swarm.start, "0:6")
        config = write_config(tmp_path, account, synapse, swarm, model)
        port = free_port()
        config.write_text(
            config.read_text().replace("[ops]\n", f'[ops]\nmetrics_port = {port}\nlog_format = "json"\n')
        )
        assert (await run("matrix", "login", "--config", str(config))).returncode == 0
        with supervised(config, tmp_path) as (process, systemd):
            await asyncio.to_thread(hear, systemd, "READY=1", READY_S)
            await asyncio.to_thread(hear, systemd, "WATCHDOG=1", 5.0)
            assert (await ask(port, "/readyz"))[0] == 200
            doctor = await run("doctor", "--config", str(config), "--json")
            levels = {each["check"]: each["level"] for each in json.loads(doctor.stdout)["findings"]}
            assert (doctor.returncode, levels["instance"], levels["metrics"]) == (0, "warning", "ok"), levels
            assert (levels["swarm"], levels["matrix device"]) == ("ok", "ok")
            second = await run("--config", str(config))
            assert (second.returncode, f"metrics_port {port} at 127.0.0.1 is in use" in second.stderr) == (
                2,
                True,
            )
            anna = await new_human("anna")
            room = await anna.create_direct(account.user_id)
            await anna.wait_for_member(room, account.user_id)
            await anna.say(room, QUESTION)
            while not anna.visible_text(room, by=account.user_id):
                await anna.sync(200)
            forget(systemd)
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(hear, systemd, "STOPPING=1", 5.0)
            began_s = time.monotonic()
            assert await asyncio.to_thread(process.wait, GONE_S) == 0
            assert time.monotonic() - began_s < 10 + 15  # drain_seconds, and closing
        await anna.sync(500)
        (answer,) = anna.visible_text(room, by=account.user_id)[:1]
        assert not answer.endswith("...")
        written = (tmp_path / "bot.log").read_text()
        lines = [line for line in written.splitlines() if not line.startswith("murmur bot: ")]
        assert all({"event", "level", "logger", "timestamp"} <= set(json.loads(line)) for line in lines)
        assert len(lines) > 2
        assert QUESTION not in written


async def test_behaviour_30_a_second_bot_says_that_there_is_a_first(
    synapse: Synapse, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = make_talking_model(tmp_path_factory.mktemp("talking"))
    account = await asyncio.to_thread(synapse.register, "murmur")
    with open_forge(tmp_path_factory.mktemp("forge")) as forge, open_process_swarm(forge, model) as swarm:
        config = write_config(tmp_path, account, synapse, swarm, model)
        assert (await run("matrix", "login", "--config", str(config))).returncode == 0
        with supervised(config, tmp_path) as (process, systemd):
            await asyncio.to_thread(hear, systemd, "READY=1", READY_S)
            second = await run("--config", str(config))
            assert second.returncode == 2
            assert f"is in use by another bot, process {process.pid}" in second.stderr
            assert "Traceback" not in second.stderr
