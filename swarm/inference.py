"""An inference session as its users see it: feed, step, roll back, fork, leave and come back.

Whatever happens to servers meanwhile, a step returns what the unsplit model would return, or raises. How the
session gets along its servers is the business of session_driver.py.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch

from swarm.background import running
from swarm.epochs import SaveTicket
from swarm.errors import ContextTooLong
from swarm.history import History
from swarm.inputs import Inputs
from swarm.network import Network
from swarm.notices import Counters, Notice
from swarm.session import ClientSession, Phase, read_ticket, reattach
from swarm.session_driver import SessionDriver
from swarm.wire.blocks import Route, SessionId
from swarm.wire.tags import TagChain

PREFILL_CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a model says of the length of sequences, in tokens; None where it says nothing."""

    longest: int | None = None
    short: int | None = None
    """Where `longrope` changes over to its frequencies for long sequences."""


class InferenceSession:
    """One conversation's KV cache, along a chain of servers. See `open_session`."""

    def __init__(self, driver: SessionDriver, inputs: Inputs, lengths: Lengths) -> None:
        self.driver = driver
        """What carries it along its servers; for tests and the curious."""
        self._machine = driver.machine
        self._inputs = inputs
        self._lengths = lengths
        self._is_kept = False

    # --- what callers use ------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Tokens in the session."""
        return self._machine.position

    @property
    def num_done(self) -> int:
        """Of them, those whose outputs are here; the rest is on its way through the servers."""
        return self._machine.commit

    @property
    def is_recovering(self) -> bool:
        """A server was lost or has no room, and no other has taken its place yet."""
        return bool(self.driver.lost)

    @property
    def ids(self) -> list[int]:
        """Token ids in the session; -1 where hidden states were given."""
        return self._inputs.ids

    @property
    def route(self) -> Route:
        """Servers in use now."""
        return self._machine.route

    @property
    def counters(self) -> Counters:
        """Messages of this session so far."""
        return self.driver.counters

    @property
    def on_notice(self) -> Callable[[Notice], None]:
        """Told what a person who waits may want to know."""
        return self.driver.on_notice

    @on_notice.setter
    def on_notice(self, on_notice: Callable[[Notice], None]) -> None:
        self.driver.on_notice = on_notice

    async def feed(self, ids: Sequence[int], rows: int = 1) -> torch.Tensor:
        """Append token ids; returns the last block's output for the last `rows` of them, `[rows, hidden]`.

        Long inputs are cut into chunks that follow each other through the hops. Raises ContextTooLong,
        NoRouteError, PeerBusy, SessionLost or SwarmTimeout; the session is then as it was before, or lost.
        """
        return await self._run(len(ids), rows, lambda at, n: self._inputs.append_ids(ids[at : at + n]))

    async def step(self, hidden: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        """Append hidden states `[tokens, hidden]`; returns the last block's output for the last `rows`."""
        rows = len(hidden) if rows is None else rows
        return await self._run(
            len(hidden), rows, lambda at, n: self._inputs.append_hidden(hidden[at : at + n])
        )

    def rollback(self, position: int) -> None:
        """Forget everything from `position` on; costs nothing until the next step."""
        effects = self._machine.rollback(position)
        self._inputs.truncate(position)
        self.driver.carry_out(effects)

    def forkable(self, position: int) -> int:
        """The last position, not above `position`, up to which a fork costs its servers nothing."""
        return self._machine.history.boundary_below(position)

    @asynccontextmanager
    async def fork(
        self, position: int | None = None, *, save_ticket: SaveTicket | None = None
    ) -> AsyncIterator["InferenceSession"]:
        """A new session that shares our first `position` tokens (default: all) with us, copy-on-write.

        `save_ticket` is as for `open_session`.
        """
        at = self.position if position is None else position
        child = self._machine.fork(SessionId(secrets.token_bytes(16)), at)
        inputs = self._inputs.fork(at)
        driver = SessionDriver(child, self.driver.network, inputs, save_ticket)
        async with _running(driver, inputs, self._lengths, self) as session:
            yield session

    def ticket(self) -> bytes:
        """What `open_session` needs to re-attach to this session later, with the same identity."""
        return self.driver.ticket()

    def detach(self) -> bytes:
        """Have the servers keep the session when the block ends, for its lease; returns the ticket to it."""
        self._is_kept = True
        return self.ticket()

    # --- steps -----------------------------------------------------------------------------------------

    async def _run(self, num_tokens: int, rows: int, append: Callable[[int, int], list[int]]) -> torch.Tensor:
        self.driver.check()
        before = self.position
        longest = self._lengths.longest
        if longest is not None and before + num_tokens > longest:
            raise ContextTooLong(
                f"{before + num_tokens} tokens are more than the {longest} that this model takes"
            )
        self._choose_rope(before + num_tokens)
        try:
            outputs = [
                await future for future in self._start_steps(num_tokens, min(rows, num_tokens), append)
            ]
        except BaseException:
            self._undo(before)
            raise
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _choose_rope(self, num_tokens: int) -> None:
        """Begin anew if rope rotates a sequence of so many tokens otherwise than the one that we had."""
        is_long = self._lengths.short is not None and num_tokens > self._lengths.short
        if is_long != self._machine.is_long:
            old, history = self._machine.history, History(TagChain(secrets.token_bytes(16)))
            ids = self._inputs.ids
            history.append([old.tag(at + 1) if token < 0 else token for at, token in enumerate(ids)])
            self.driver.carry_out(self._machine.begin_anew(history, is_long=is_long))

    def _start_steps(
        self, num_tokens: int, rows: int, append: Callable[[int, int], list[int]]
    ) -> list[asyncio.Future[torch.Tensor]]:
        """Put all chunks in line, so that they follow each other through the hops without waiting for us."""
        futures = []
        for start in range(0, max(1, num_tokens), PREFILL_CHUNK_TOKENS):
            size = min(PREFILL_CHUNK_TOKENS, num_tokens - start)
            wanted = max(0, min(size, rows - (num_tokens - start - size)))
            futures.append(self.driver.start_step(append(start, size), wanted))
        return futures

    def _undo(self, position: int) -> None:
        """A step was given up: what it appended never happened."""
        self.driver.give_up_steps()
        if self._machine.phase is not Phase.CLOSED and self.position > position:
            self.rollback(position)

    def shut(self) -> None:
        """Say farewell to the servers."""
        self.driver.shut(is_kept=self._is_kept)


@asynccontextmanager
async def _running(
    driver: SessionDriver, inputs: Inputs, lengths: Lengths, parent: InferenceSession | None = None
) -> AsyncIterator[InferenceSession]:
    """The session of `driver`, bound to its parent's route or else to one that is still to be found."""
    session = InferenceSession(driver, inputs, lengths)
    await driver.write_down()
    async with running(driver.steer_forever(), driver.serve_chains_forever(), driver.keep_tickets_forever()):
        try:
            if parent is not None and parent.route:
                driver.bind(parent.route)
            else:
                driver.find_route()
            yield session
        finally:
            session.shut()


@asynccontextmanager
async def open_session(
    network: Network,
    inputs: Inputs,
    *,
    ticket: bytes | None = None,
    save_ticket: SaveTicket | None = None,
    lengths: Lengths | None = None,
    is_relayed: bool = False,
) -> AsyncIterator[InferenceSession]:
    """Open a session over the swarm, or re-attach to the one of `ticket`, whose history `inputs` holds.

    `save_ticket` keeps tickets, with which a later process goes on if this one dies: no epoch is used before
    it is in one. What it raises ends the block. The session is closed with the block. If `is_relayed`, every
    link goes through the client, and no server learns of another: slower, to measure.
    """
    client = network.transport.peer_id
    if ticket is None:
        history = History(TagChain(secrets.token_bytes(16)))
        machine = ClientSession(SessionId(secrets.token_bytes(16)), client, network.fingerprint, history)
    else:
        held = read_ticket(ticket)
        machine = reattach(held, inputs.ids, client, network.fingerprint)
        machine.route = held.route
        inputs.truncate(machine.position)
    machine.carries_all_links = is_relayed
    driver = SessionDriver(machine, network, inputs, save_ticket)
    async with _running(driver, inputs, lengths or Lengths()) as session:
        yield session
