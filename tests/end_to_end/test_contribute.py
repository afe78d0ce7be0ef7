"""What `contribute` says is true: the very command that it gives, run as it stands, makes the swarm whole."""

import os
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from bot.clock import RealClock
from bot.commands.joining import PROCESS_BYTES
from bot.core import Core, open_core, open_desk
from bot.sessions.brain import open_brain
from bot.words import Author, Call, Inbound, Where
from storage.database import open_database
from storage.inbox import Event
from swarm.client import join
from tests.bot.platform import FakePort
from tests.bot.world import KEY, RULES
from tests.end_to_end.processes import Forge, open_process_swarm
from tests.models import make_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ROOM = Where("fake", "dm", "direct")
PERSON = Author("ada", "Ada")
QUESTION = "What is a block server?"
ONLINE_S = 120.0
LOST_S = 60.0
GONE_S = 30.0


class Room:
    """A room with a bot whose model runs in a real swarm."""

    def __init__(self, core: Core, port: FakePort, clock: RealClock) -> None:
        self._core = core
        self._port = port
        self._clock = clock
        self._number = 0

    async def ask(self, text: str) -> str:
        """Say something; returns the answer."""
        before = len(self._port.messages)
        await self._take(text, None)
        return "".join(shown.post.text for shown in self._port.messages[before:] if not shown.is_gone)

    async def command(self, name: str, **arguments: str) -> str:
        """Give a command; returns what one is told."""
        before = len(self._port.told)
        await self._take("", Call(name, arguments))
        return "\n".join(text for _, text in self._port.told[before:])

    async def wait_for(self, words: str, within_s: float) -> str:
        """Until `/status` says so; returns all that it says."""
        deadline_s = self._clock.now_s() + within_s
        while words not in (seen := await self.command("status")):
            assert self._clock.now_s() < deadline_s, f"{words} is not in {seen}"
            await self._clock.sleep(1.0)
        return seen

    async def _take(self, text: str, call: Call | None) -> None:
        self._number += 1
        inbound = Inbound(f"e{self._number}", ROOM, PERSON, text, self._clock.now_ms(), call=call)
        await self._core.receive(
            "fake", [Event(inbound.event_id, PERSON.external_id, msgspec.json.encode(inbound))]
        )
        await self._core.settle()


@asynccontextmanager
async def open_room(peers: tuple[str, ...], models: tuple[str, ...], folder: Path) -> AsyncIterator[Room]:
    """A bot, as ./murmur bot has it, but for the platform."""
    clock = RealClock()
    port = FakePort(clock)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_database(folder / "murmur.db"))
        swarm = await stack.enter_async_context(join(peers))
        loaded = await swarm.load(models[0], dtype="float32")
        brain = await stack.enter_async_context(open_brain(loaded, store, clock, others=models[1:]))
        desk = open_desk(store, clock, KEY, RULES)
        core = await stack.enter_async_context(
            open_core(desk, brain, {"fake": port}, boot="test", rules=RULES)
        )
        yield Room(core, port, clock)


@contextmanager
def running(words: list[str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A command of the launcher, as somebody types it in a copy of Murmur; it ends with the block."""
    with (folder / "server.log").open("wb") as log:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    except BaseException as error:
        error.add_note((folder / "server.log").read_text(errors="replace")[-3000:])
        raise
    finally:
        process.kill()
        process.wait()


def resident_bytes(pid: int) -> int:
    """Memory that a process has now."""
    _, _, rest = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")
    return int(rest.split()[0]) << 10


async def test_the_command_that_contribute_gives_adds_a_server_that_carries_the_swarm(
    tmp_path: Path, forge: Forge, talking_model: Path
) -> None:
    other = make_model(tmp_path / "other", "qwen3")
    with open_process_swarm(forge, talking_model) as swarm:
        first, second = swarm.start("0:3", "3:6")
        models = (str(talking_model), str(other), "./missing")
        async with open_room(swarm.initial_peers, models, tmp_path) as room:
            await room.wait_for("all 6 blocks served, by 2 servers", LOST_S)
            whole = await room.ask(QUESTION)
            assert len(whole) > 20
            assert "Your session: live (" in await room.command("status")
            here, idle, missing = (await room.command("model list")).splitlines()
            assert here.endswith("tokens/s. This one answers.")
            assert idle == f"`{other.name}`: nobody serves it."
            assert missing.startswith(
                "`./missing`: nothing is known of it: './missing' is neither a directory"
            )
            swarm.end(second)
            await room.wait_for("nobody serves blocks 3-5 of 6", LOST_S)
            told = await room.command("contribute", memory="1GB")
            assert "Most needed: blocks 3-5 of 6, which nobody serves." in told
            command = shlex.split(told.split("```")[1])
            assert command[command.index("--num-blocks") + 1] == "6"
            with running(command, tmp_path) as process:
                status = await room.wait_for("all 6 blocks served, by 2 servers", ONLINE_S)
                assert "0-5 " in status, "the new server is listed with its blocks"
                assert resident_bytes(process.pid) < PROCESS_BYTES
                swarm.end(first)
                await room.wait_for("all 6 blocks served, by 1 server", LOST_S)
                await room.command("new")
                assert await room.ask(QUESTION) == whole
                process.send_signal(signal.SIGTERM)
                assert process.wait(GONE_S) == 0
            await room.wait_for("no server is there", LOST_S)
