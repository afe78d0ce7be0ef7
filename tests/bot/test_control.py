"""The control socket: its owner's alone, bounded, and in nobody's way."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.commands.naming import Mistaken
from bot.control import MOST_CALLERS, UNREADABLE, open_control
from bot.operator.calling import NobodyListens, call
from bot.operator.wire import MAX_REQUEST_BYTES
from storage.access import Deed, last_deeds
from swarm.errors import ConfigError
from tests.bot.test_access import BOB, BOSS, DIRECT, asks
from tests.bot.world import World, open_world


@pytest_asyncio.fixture
async def world(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path, admins=(BOSS.external_id,)) as world:
        yield world


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def wide_open() -> Iterator[None]:
    """A process that makes files for everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


async def write(path: Path, line: bytes) -> dict[str, Any]:
    """What a line is answered with."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(line)
        answer = json.loads(await reader.readline())
        writer.close()
    return dict(answer)


async def test_an_admins_command_is_carried_out_in_the_running_bot(world: World, path: Path) -> None:
    async with open_control(path, world.core.commands):
        done = await call(path, "admin ban", {"user": BOB.external_id, "hours": "2"})
        assert done.text == "`@bob:example.org` is ignored for 2 hours."
        assert not await asks(world)
        ((_, deed),) = await world.store.read(last_deeds, 1)
        assert deed == Deed("operator", "ban", f"matrix:{BOB.external_id}", "for 2 hours")
        rows = (await call(path, "admin audit", {})).rows
        assert rows is not None
        assert rows[0]["target"] == f"matrix:{BOB.external_id}"
        await call(path, "admin drain", {})
        assert world.core.must_leave.is_set()


async def test_forget_ends_what_is_being_written_and_deletes_it(world: World, path: Path) -> None:
    world.brain.answer = lambda prompt: "word " * 1000
    await world.say("my secret", author=BOB, where=DIRECT)
    await world.until(lambda: world.port.texts)
    async with open_control(path, world.core.commands):
        async with asyncio.TaskGroup() as group:
            forgetting = group.create_task(call(path, "admin forget", {"user": BOB.external_id}))
            await world.until(forgetting.done)
        assert "deleted" in forgetting.result().text
    assert await world.turns() == []
    assert world.brain.forgotten == [1]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"admin drain\n",
        b"[]\n",
        b'{"command": 7}\n',
        b'{"command": "admin drain", "arguments": {"a": 1}}\n',
        b'{"command": "admin drain", "more": true}\n',
        b'{"command": "admin drain", "arguments": {"a": "' + b"x" * 2000 + b'"}}\n',
        b"\xff\xfe\n",
        b"x" * (2 * MAX_REQUEST_BYTES) + b"\n",
    ],
)
async def test_what_is_no_command_is_refused_in_one_sentence(world: World, path: Path, line: bytes) -> None:
    async with open_control(path, world.core.commands):
        assert (await write(path, line))["mistake"] == UNREADABLE
    assert not world.core.must_leave.is_set()


async def test_mistakes_are_told_and_only_admins_commands_are_taken(world: World, path: Path) -> None:
    async with open_control(path, world.core.commands):
        for command, arguments, sentence in (
            ("admin ban", {"user": "bob"}, "names nobody"),
            ("admin ban", {}, "user is missing"),
            ("help", {}, "knows no such command"),
            ("admin kill", {"session": "9"}, "There is no session 9"),
        ):
            with pytest.raises(Mistaken, match=sentence):
                await call(path, command, arguments)


async def test_callers_that_say_nothing_keep_nobody_out_for_long(world: World, path: Path) -> None:
    async with open_control(path, world.core.commands):
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(MOST_CALLERS)]
        await asyncio.sleep(0.05)
        with pytest.raises(Mistaken, match="too many callers"):
            await call(path, "admin audit", {})
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.05)
        assert (await call(path, "admin audit", {})).rows == []


@pytest.mark.usefixtures("wide_open")
async def test_the_socket_is_its_owners_alone_and_gone_when_the_bot_is(world: World, path: Path) -> None:
    async with open_control(path, world.core.commands):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    with pytest.raises(NobodyListens):
        await call(path, "admin audit", {})


async def test_a_socket_that_nobody_listens_on_is_replaced(world: World, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NobodyListens):
        await call(path, "admin audit", {})
    async with open_control(path, world.core.commands):
        assert (await call(path, "admin audit", {})).text == "No admin has done anything yet."


async def test_a_socket_of_another_bot_is_left_alone(world: World, path: Path) -> None:
    async with open_control(path, world.core.commands):
        with pytest.raises(ConfigError, match="another bot listens"):
            async with open_control(path, world.core.commands):
                pass
        assert (await call(path, "admin audit", {})).rows == []


async def test_a_file_that_is_no_socket_is_left_alone(world: World, path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is no socket"):
        async with open_control(path, world.core.commands):
            pass
    assert path.read_text() == "mine"
    with pytest.raises(ConfigError, match="cannot be made"):
        async with open_control(path.parent / "nowhere" / "control.sock", world.core.commands):
            pass
    with pytest.raises(ConfigError, match="cannot be made: AF_UNIX path too long"):
        async with open_control(path.parent / ("x" * 120), world.core.commands):
            pass


async def test_what_answers_as_no_bot_does_is_told_in_one_sentence(path: Path) -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"hm\n")
        writer.close()

    server = await asyncio.start_unix_server(mumble, str(path))
    async with server:
        with pytest.raises(Mistaken, match="has not answered as a bot does"):
            await call(path, "admin audit", {})
