"""A chat room in the terminal. Standard output has the answers, standard error everything else."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from demo.frozen import end_if_frozen
from demo.private_swarm import PrivateSwarm, Service
from swarm.background import RunningGroup, running_group
from swarm.client import SwarmModel
from swarm.errors import ContextTooLong, MurmurError
from swarm.generate import Generation
from swarm.inference import InferenceSession, Notice
from swarm.loop import forgive_input
from swarm.sampling import SamplingParams
from swarm.say import say
from swarm.text import Message
from swarm.wire.blocks import PeerId

HELP = """  /new      forget this conversation
  /retry    ask for the last answer again, with some chance in it
  /status   who answers
  /quit     leave (or Ctrl-D); Ctrl-C stops an answer
You may also end a server yourself, for example with `kill -9`, and go on."""
FAIL_AT_TOKEN = 6
MAX_LINE_CHARACTERS = 4000
FIRST_TRY = SamplingParams(temperature=0.0, max_new_tokens=200)
RETRY = SamplingParams(temperature=0.7, max_new_tokens=200)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, and what was answered when `num_before` turns before it were not forgotten yet."""

    question: str
    answer: Generation
    num_before: int


class Room:
    """One conversation with the demo's model."""

    def __init__(self, swarm: PrivateSwarm, model: SwarmModel, *, fail_server: bool) -> None:
        self._swarm = swarm
        self._model = model
        self._must_fail = fail_server
        self._is_terminal = sys.stdin.isatty()
        self._turns: list[Turn] = []
        self._is_looking = False
        self._watched: set[str] = set()
        self._answer: asyncio.Task[MurmurError | None] | None = None

    async def run(self) -> None:
        """Talk until the input ends."""
        async with running_group() as group, self._model.session() as session:
            session.on_notice = lambda notice: self._note(notice, group)
            if self._is_terminal:
                self.say("Say something, or /help.")
            async for line in read_lines("you> " if self._is_terminal else ""):
                if line.strip() == "/quit":
                    break
                await self._take(session, line.strip())

    def say(self, sentence: str) -> None:
        """Tell the person something that is no answer."""
        say(f"[{sentence}]")

    def stop_answer(self) -> bool:
        """End the answer that is being written; False if there is none."""
        if self._answer is None:
            return False
        self._answer.cancel()
        return True

    async def _take(self, session: InferenceSession, line: str) -> None:
        if not line:
            return
        if line.startswith("/"):
            if line == "/retry" and self._turns:
                *before, last = self._turns
                await self._answer_to(session, before, last.question, RETRY)
            else:
                self._obey(line)
            return
        if len(line) > MAX_LINE_CHARACTERS:
            self.say(f"that is too long: {len(line)} characters, at most {MAX_LINE_CHARACTERS}")
            return
        await self._answer_to(session, self._turns, line, FIRST_TRY)

    def _obey(self, line: str) -> None:
        if line == "/help":
            say(HELP)
        elif line == "/new":
            self._turns = []
            self.say("a new conversation")
        elif line == "/status":
            for server in self._swarm.servers:
                self.say(f"{server.title}: process {server.pid}, peer {server.peer_id}")
        elif line == "/retry":
            self.say("there is no answer yet")
        else:
            self.say(f"there is no command {line.split()[0]}; /help names them")

    async def _answer_to(
        self, session: InferenceSession, before: list[Turn], question: str, params: SamplingParams
    ) -> None:
        """Answer `question` after the turns `before`; if that fails, the conversation is as it was."""
        try:
            turns, generation = self._begin(session, before, question, params)
        except MurmurError as error:
            self.say(str(error))
            return
        async with running_group() as group:
            self._answer = group.create_task(self._write(generation))
            await asyncio.wait({self._answer})
        failure, self._answer = self._answer.result(), None
        if failure is not None:
            self.say(str(failure))
            return
        self._turns = [*turns, Turn(question, generation, len(turns))]
        self._sum_up(session, generation)

    def _begin(
        self, session: InferenceSession, before: list[Turn], question: str, params: SamplingParams
    ) -> tuple[list[Turn], Generation]:
        """The turns to go on from and the answer to come; whole turns are forgotten if the model is full.

        Raises ContextTooLong if the question alone is too long.
        """
        max_tokens = self._model.checkpoint.max_positions or sys.maxsize
        for num_forgotten in range(len(before) + 1):
            turns = before[num_forgotten:]
            generation = self._ask(session, turns, question, params)
            room = max_tokens - len(generation.prompt_ids)
            if room >= params.max_new_tokens:
                break
        if room < 1:
            raise ContextTooLong(
                f"that is too long: {max_tokens - room} tokens; the model takes {max_tokens}"
            )
        if num_forgotten:
            what = "turn is" if num_forgotten == 1 else f"{num_forgotten} turns are"
            self.say(f"the conversation is full: its oldest {what} forgotten; /new forgets all of it")
        if room < params.max_new_tokens:
            generation = self._ask(session, turns, question, replace(params, max_new_tokens=room))
        return turns, generation

    def _ask(
        self, session: InferenceSession, turns: list[Turn], question: str, params: SamplingParams
    ) -> Generation:
        return self._model.answer(session, _messages(turns, question), _previous(turns), params)

    async def _write(self, generation: Generation) -> MurmurError | None:
        """Stream the answer; a cancellation stops it and keeps what there is. Returns what went wrong."""
        failure: MurmurError | None = None
        try:
            async for piece in generation:
                sys.stdout.write(piece)
                sys.stdout.flush()
                if self._must_fail and len(generation.ids) >= FAIL_AT_TOKEN:
                    self._fail_server(generation.session)
        except asyncio.CancelledError:
            sys.stdout.write(" [stopped]")
        except MurmurError as error:
            failure = error
        if generation.text or failure is None:
            sys.stdout.write("\n")
            sys.stdout.flush()
        return failure

    def _fail_server(self, session: InferenceSession) -> None:
        victim = self._swarm.find(session.route[len(session.route) // 2].peer_id)
        if victim is None:  # lost this very moment: another piece, another hop
            return
        self._must_fail = False
        say("")
        self.say(f"ending {victim.title} in the middle of this answer, as --fail-server asks")
        self._swarm.kill(victim)

    def _note(self, notice: Notice, group: RunningGroup) -> None:
        if notice.kind == "lost":
            self._watch(notice.peers, group)
        names = ", ".join(self._swarm.name_of(peer) for peer in notice.peers)
        if notice.kind in ("lost", "full") and not self._is_looking:
            self._is_looking = True
            what = f"lost {names}" if notice.kind == "lost" else f"{names} has no room"
            say("")
            self.say(f"{what}: looking for another way")
        elif notice.kind == "busy":
            self.say("all servers are full: waiting for room")
        elif notice.kind == "recovered":
            self._is_looking = False
            self.say(f"the answer goes on after {notice.pause_s:.1f} s, as if nothing had happened")

    def _watch(self, peers: frozenset[PeerId], group: RunningGroup) -> None:
        """See to it that those of the lost servers that still run are replaced as well."""
        for server in filter(None, map(self._swarm.find, peers)):
            if server.name not in self._watched:
                self._watched.add(server.name)
                group.create_task(self._end_if_frozen(server))

    async def _end_if_frozen(self, server: Service) -> None:
        try:
            await end_if_frozen(self._swarm, self._model.network.connections, server)
        finally:
            self._watched.discard(server.name)

    def _sum_up(self, session: InferenceSession, generation: Generation) -> None:
        hops = " → ".join(
            f"{self._swarm.name_of(hop.peer_id)} (blocks {hop.span.start}-{hop.span.end - 1})"
            for hop in session.route
        )
        first_ms = (generation.first_token_s or 0.0) * 1000
        self.say(
            f"{hops} · {len(generation.ids)} tokens, {generation.tokens_per_second:.0f} tokens/s,"
            f" first after {first_ms:.0f} ms"
        )


def _previous(turns: list[Turn]) -> Generation | None:
    """The answer to go on from, unless the model then knew turns that are forgotten now."""
    if not turns or turns[-1].num_before != len(turns) - 1:
        return None
    return turns[-1].answer


def _messages(turns: list[Turn], question: str) -> list[Message]:
    messages: list[Message] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer.text})
    return [*messages, {"role": "user", "content": question}]


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
