"""The demo's chat room: the bot's core with a terminal for its platform, and news of the swarm beside it.

Standard output has the answers, standard error everything else.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from bot.brain import Event
from bot.clock import RealClock
from bot.commands.catalogue import COMMANDS
from bot.commands.handlers import HANDLERS
from bot.core import Core, Rules, open_core, open_desk
from bot.on_terminal import PLATFORM, Terminal
from bot.sessions.brain import open_brain
from bot.turns.bookkeeping import Wishes
from demo.frozen import end_if_frozen
from demo.private_swarm import PrivateSwarm, Service
from demo.watched_brain import WatchedBrain
from storage.amounts import Rates
from storage.database import open_database
from storage.hash_key import load_hash_key
from storage.rate import Rate
from swarm.background import RunningGroup, running_group
from swarm.client import SwarmModel
from swarm.generate import Generation
from swarm.inference import InferenceSession
from swarm.loop import forgive_input
from swarm.sampling_params import SamplingParams
from swarm.say import say
from swarm.wire.blocks import PeerId

FAIL_AT_TOKEN = 6
RULES = Rules(
    rates=Rates(daily_grant=100_000, balance_cap=100_000),
    rate=Rate(burst=1000, interval_ms=1),  # it is the person's own machine
    wishes=Wishes(SamplingParams(temperature=0.0, max_new_tokens=200)),
)
OWN_COMMANDS = {"servers": "Who answers, and how to end one of them", "quit": "Leave (or Ctrl-D)"}
HINT = "Ctrl-C stops an answer. You may also end a server yourself, for example with `kill -9`, and go on."


class Room:
    """A line for each thing that a person says, and the core that answers."""

    def __init__(self) -> None:
        self.terminal = Terminal(RealClock())
        self._is_terminal = sys.stdin.isatty()
        self._core: Core | None = None

    async def run(self, core: Core, news: "News") -> None:
        """Talk until the input ends."""
        self._core = core
        if self._is_terminal:
            self.terminal.notice("Say something, or /help.")
        async for line in read_lines("you> " if self._is_terminal else ""):
            if line.strip() in ("/quit", "/exit"):  # people try the one or the other
                break
            await self._take(core, news, line.strip())

    def stop_answer(self) -> bool:
        """End the answer that is being written; False if there is none."""
        return self._core is not None and self._core.stop_all()

    async def _take(self, core: Core, news: "News", line: str) -> None:
        if not line:
            return
        if line == "/help":
            self._help()
        elif line == "/servers":
            news.tell_servers()
        else:
            event = self.terminal.event(line)
            if isinstance(event, str):
                self.terminal.notice(event)
                return
            await core.receive(PLATFORM, [event])
            await core.settle()
            news.sum_up()

    def _help(self) -> None:
        known = {command.usage: command.summary for command in COMMANDS if command.name in HANDLERS}
        for usage, summary in (known | OWN_COMMANDS).items():
            say(f"  /{usage:<22} {summary}")
        say(HINT)


class News:
    """What happens in the swarm meanwhile, told by the names that the demo's servers have."""

    def __init__(
        self, swarm: PrivateSwarm, model: SwarmModel, group: RunningGroup, *, fail_server: bool
    ) -> None:
        self.brain: WatchedBrain | None = None
        self._swarm = swarm
        self._model = model
        self._group = group
        self._must_fail = fail_server
        self._is_looking = False
        self._watched: set[str] = set()

    def on_piece(self, answer: Generation) -> None:
        """An answer has grown."""
        if self._must_fail and len(answer.ids) >= FAIL_AT_TOKEN:
            self._fail_server(answer.session)

    def on_event(self, event: Event) -> None:
        """Something has happened to the session of an answer."""
        if event.kind == "lost":
            self._watch(event.peers)
        names = ", ".join(self._swarm.name_of(PeerId(peer)) for peer in event.peers)
        if event.kind in ("lost", "full") and not self._is_looking:
            self._is_looking = True
            what = f"lost {names}" if event.kind == "lost" else f"{names} has no room"
            say("")
            say(f"[{what}: looking for another way]")
        elif event.kind == "recovered":
            self._is_looking = False
            say(f"[the answer goes on after {event.pause_s:.1f} s, as if nothing had happened]")

    def sum_up(self) -> None:
        """Who has written the last answer, and how fast; once for each."""
        answer = self.brain.last if self.brain is not None else None
        if answer is None or not answer.ids:
            return
        assert self.brain is not None
        self.brain.last = None
        hops = " → ".join(
            f"{self._swarm.name_of(hop.peer_id)} (blocks {hop.span.start}-{hop.span.end - 1})"
            for hop in answer.session.route
        )
        first_ms = (answer.first_token_s or 0.0) * 1000
        say(
            f"[{hops} · {len(answer.ids)} tokens, {answer.tokens_per_second:.0f} tokens/s,"
            f" first after {first_ms:.0f} ms]"
        )

    def tell_servers(self) -> None:
        """Name the servers and their processes."""
        for server in self._swarm.servers:
            say(f"[{server.title}: process {server.pid}, peer {server.peer_id}]")

    def _fail_server(self, session: InferenceSession) -> None:
        victim = self._swarm.find(session.route[len(session.route) // 2].peer_id)
        if victim is None:  # lost this very moment: another piece, another hop
            return
        self._must_fail = False
        say("")
        say(f"[ending {victim.title} in the middle of this answer, as --fail-server asks]")
        self._swarm.kill(victim)

    def _watch(self, peers: frozenset[str]) -> None:
        """See to it that those of the lost servers that still run are replaced as well."""
        for server in filter(None, (self._swarm.find(PeerId(peer)) for peer in peers)):
            if server.name not in self._watched:
                self._watched.add(server.name)
                self._group.create_task(self._end_if_frozen(server))

    async def _end_if_frozen(self, server: Service) -> None:
        try:
            await end_if_frozen(self._swarm, self._model.network.connections, server)
        finally:
            self._watched.discard(server.name)


async def talk(swarm: PrivateSwarm, model: SwarmModel, room: Room, store: Path, *, fail_server: bool) -> None:
    """Run the bot of the demo until the person leaves."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(store))
        group = await stack.enter_async_context(running_group())
        sessions = await stack.enter_async_context(open_brain(model, database, RealClock()))
        news = News(swarm, model, group, fail_server=fail_server)
        news.brain = WatchedBrain(sessions, news.on_piece, news.on_event)
        desk = open_desk(database, RealClock(), load_hash_key(store), RULES)
        ports = {PLATFORM: room.terminal}
        core = await stack.enter_async_context(open_core(desk, news.brain, ports, boot="demo", rules=RULES))
        await room.run(core, news)


async def read_lines(prompt: str) -> AsyncIterator[str]:
    """Lines of standard input, read by a thread of their own: nothing else can wait for a terminal."""
    forgive_input()
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    wanted = threading.Semaphore(0)

    def read_forever() -> None:
        line: str | None = ""
        while line is not None:
            wanted.acquire()
            line = _read_line(prompt)
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=read_forever, daemon=True, name="murmur-input").start()
    while True:
        wanted.release()
        line = await lines.get()
        if line is None:
            return
        yield line


def _read_line(prompt: str) -> str | None:
    try:
        return input(prompt) if prompt else (sys.stdin.readline() or None)
    except (EOFError, ValueError, OSError):
        return None
