"""An inference session: the streams, timers and tensors around the client's state machine.

The machine (session.py) decides; this file carries out, in order, and gives it what comes in. Whatever
happens to servers meanwhile, a step returns what the unsplit model would return, or raises.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import torch

from swarm.background import running
from swarm.chains import Chains
from swarm.epochs import Epochs, SaveTicket
from swarm.errors import (
    ContextTooLong,
    LocalProtocolError,
    NoRouteError,
    PeerBusy,
    SessionLost,
    SwarmError,
    SwarmTimeout,
)
from swarm.history import History
from swarm.inputs import Inputs
from swarm.network import Network
from swarm.patience import RECOVER_S, Patience, Verdict
from swarm.session import ClientSession, Phase, read_ticket, reattach
from swarm.session_effects import (
    Broken,
    Deliver,
    Effect,
    NeedRoute,
    OpenChain,
    RetryLater,
    SendState,
    SendStep,
    TellHop,
    TellPeer,
)
from swarm.wire.blocks import PeerId, Route, SessionId
from swarm.wire.messages import BindAck, Close, Credit, Message, Ready, SessionError, StepResult
from swarm.wire.tags import TagChain

logger = logging.getLogger(__name__)

TICK_S = 0.25
FIRST_ROUTE_S = 15.0
NO_ROOM = "it has no room"
PREFILL_CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person who waits may want to know."""

    kind: str
    """`lost`: a server is gone. `full`: one has no room, another is taken. `busy`: none has room now.
    `recovered`: the answer goes on after `pause_s`; it follows `lost` and `full`."""
    reason: str = ""
    peers: frozenset[PeerId] = frozenset()
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a model says of the length of sequences, in tokens; None where it says nothing."""

    longest: int | None = None
    short: int | None = None
    """Where `longrope` changes over to its frequencies for long sequences."""


@dataclass(slots=True)
class Counters:
    """Messages of this session, for the tests and the curious."""

    steps_out: int = 0
    results_in: int = 0
    direct_links: int = 0
    relayed_frames: int = 0
    rebinds: int = 0


class InferenceSession:
    """One conversation's KV cache, along a chain of servers. See `open_session`."""

    def __init__(
        self,
        machine: ClientSession,
        network: Network,
        inputs: Inputs,
        save_ticket: SaveTicket | None = None,
        lengths: "Lengths | None" = None,
    ) -> None:
        self.counters = Counters()
        self.on_notice: Callable[[Notice], None] = lambda notice: None
        self._machine = machine
        self._network = network
        self._inputs = inputs
        self._epochs = Epochs(save_ticket, machine.epoch)
        self._lengths = lengths or Lengths()
        self._waiting: dict[int, asyncio.Future[torch.Tensor]] = {}
        self._chains = Chains(network, self._on_frame, self._on_chain_broken, self.counters)
        self._lost: set[PeerId] = set()
        self._left: set[PeerId] = set()
        self._must_route = asyncio.Event()
        self._error: SwarmError | None = None
        self._has_no_route = False
        self._is_kept = False
        self._last_error: SessionError | None = None
        self._patience = Patience(progress_s=time.monotonic(), phase_s=time.monotonic())
        self._told_busy_s = 0.0
        self._width = 0

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
        return bool(self._lost)

    @property
    def ids(self) -> list[int]:
        """Token ids in the session; -1 where hidden states were given."""
        return self._inputs.ids

    @property
    def route(self) -> Route:
        """Servers in use now."""
        return self._machine.route

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
        self._carry_out(effects)

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
        session = InferenceSession(child, self._network, inputs, save_ticket, self._lengths)
        async with _running_session(session, self._machine.route):
            yield session

    def ticket(self) -> bytes:
        """What `open_session` needs to re-attach to this session later, with the same identity."""
        return self._ticket(self._epochs.claimed(self._machine.epoch))

    def detach(self) -> bytes:
        """Have the servers keep the session when the block ends, for its lease; returns the ticket to it."""
        self._is_kept = True
        return self.ticket()

    # --- steps -----------------------------------------------------------------------------------------

    async def _run(self, num_tokens: int, rows: int, append: Callable[[int, int], list[int]]) -> torch.Tensor:
        if self._error is not None:
            raise self._error
        if self._has_no_route:
            self._has_no_route = False
            self._must_route.set()
        if self._waiting:
            raise LocalProtocolError("a session takes one step after the other; fork it to go two ways")
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
            self._carry_out(self._machine.begin_anew(history, is_long=is_long))

    def _start_steps(
        self, num_tokens: int, rows: int, append: Callable[[int, int], list[int]]
    ) -> list[asyncio.Future[torch.Tensor]]:
        """Put all chunks in line, so that they follow each other through the hops without waiting for us."""
        futures = []
        for start in range(0, max(1, num_tokens), PREFILL_CHUNK_TOKENS):
            size = min(PREFILL_CHUNK_TOKENS, num_tokens - start)
            wanted = max(0, min(size, rows - (num_tokens - start - size)))
            futures.append(self._start_step(append(start, size), wanted))
        return futures

    def _start_step(self, labels: list[int], rows: int) -> asyncio.Future[torch.Tensor]:
        if not len(self._waiting):
            self._patience.begin(time.monotonic())
        number, effects = self._machine.step(labels, rows)
        future: asyncio.Future[torch.Tensor] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._carry_out(effects)
        return future

    def _undo(self, position: int) -> None:
        """A step was given up: what it appended never happened."""
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        if self._machine.phase is not Phase.CLOSED and self.position > position:
            self.rollback(position)

    # --- effects ---------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        if self._machine.phase is Phase.CLOSED or self._epochs.may_use(self._machine.epoch):
            self._do(effects)
        else:
            self._must_route.set()  # bound anew once more epochs are written down

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendStep | SendState):
                self._send(effect)
            elif isinstance(effect, Deliver):
                self._deliver(effect)
            elif isinstance(effect, TellHop):
                self._tell(effect)
            elif isinstance(effect, TellPeer):
                self._tell_peer(effect.peer_id, effect.message)
            elif isinstance(effect, OpenChain):
                self._chains.begin(self._machine, effect)
                self._patience.bind(time.monotonic())
                self._epochs.note_bound()
                self.counters.rebinds += 1
            elif isinstance(effect, NeedRoute):
                self._need_route(effect)
            elif isinstance(effect, RetryLater):
                loop = asyncio.get_running_loop()
                loop.call_later(effect.after_ms / 1000, self._retry, self._machine.epoch, effect.attempt)
            elif isinstance(effect, Broken):
                self._fail(_broken(effect))

    async def write_down(self) -> None:
        """Save a ticket, and with it the epochs that may be used next. Raises what saving raises."""
        await self._epochs.write_down(lambda: self._machine.epoch, self._ticket)

    def _ticket(self, epoch: int) -> bytes:
        return msgspec.msgpack.encode(self._machine.ticket(epoch))

    def _send(self, effect: SendStep | SendState) -> None:
        step = effect.step
        start, end = step.position, step.position + step.num_tokens
        if isinstance(effect, SendState):
            inputs = self._inputs.fork(end)
            self._chains.send(step, lambda: (inputs.read(start, end),))
            return
        self.counters.steps_out += 1
        hidden = self._inputs.read(start, end)
        self._width = hidden.shape[-1]
        self._chains.send(step, (hidden,))

    def _deliver(self, effect: Deliver) -> None:
        pause_s = self._patience.deliver(time.monotonic())
        self.counters.results_in += 1
        for hop in self._machine.route:
            self._network.health.succeeded(hop.peer_id)
        self.counters.direct_links += max(0, effect.links - 1)
        if pause_s is not None:
            self._lost.clear()
            self.on_notice(Notice("recovered", pause_s=pause_s))
        self._leave()
        future = self._waiting.pop(effect.number, None)
        if future is not None and not future.done():
            assert isinstance(effect.payload, torch.Tensor)
            future.set_result(effect.payload)

    def _tell(self, effect: TellHop) -> None:
        peer_id = self._machine.route[effect.stage].peer_id
        connection = self._network.connection(peer_id)
        if connection is not None:
            connection.send(self._machine.session_id, self, effect.message)
        elif self._machine.phase is not Phase.CLOSED:
            asyncio.get_running_loop().call_soon(self.on_lost, peer_id, "the connection ended")

    def _tell_peer(self, peer_id: PeerId, message: Message) -> None:
        """Say something to a server that we are leaving."""
        connection = self._network.connection(peer_id)
        if connection is None:
            self._carry_out(self._machine.copy_failed(frozenset([peer_id])))
            return
        connection.send(self._machine.session_id, self, message)
        if isinstance(message, Close):
            connection.forget(self._machine.session_id)

    def _need_route(self, effect: NeedRoute) -> None:
        self._patience.lose(time.monotonic())
        self._lost |= effect.lost
        for peer_id in effect.lost if effect.is_blamed else ():
            self._network.health.failed(peer_id)
        logger.info("re-routing: %s", effect.reason)
        kind = "full" if effect.reason == NO_ROOM else "lost"
        self.on_notice(Notice(kind, effect.reason, effect.lost))
        self._must_route.set()

    def _retry(self, epoch: int, attempt: int) -> None:
        if epoch == self._machine.epoch and self._machine.phase is not Phase.CLOSED:
            self._carry_out(self._machine.retry(attempt))

    def _fail(self, error: SwarmError) -> None:
        """Nothing can be had any more, now or later."""
        self._error = error
        self._give_up(error)

    def _give_up(self, error: SwarmError) -> None:
        """Every waiting step learns why it comes to nothing; a later one may fare better."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    # --- what comes in ---------------------------------------------------------------------------------

    def on_message(self, peer_id: PeerId, message: Message) -> None:
        """A server said something about this session on its control stream."""
        stage = getattr(message, "stage", -1)
        route = self._machine.route
        if not 0 <= stage < len(route) or route[stage].peer_id != peer_id:
            if isinstance(message, SessionError):
                self._carry_out(self._machine.copy_failed(frozenset([peer_id])))
            return
        if isinstance(message, SessionError):
            self._on_error(peer_id, message)
        elif isinstance(message, BindAck):
            self._carry_out(self._machine.on_ack(message))
        elif isinstance(message, Ready):
            self._patience.progress(time.monotonic())
            self._carry_out(self._machine.on_ready(message))
        elif isinstance(message, Credit):
            self._carry_out(self._machine.on_credit(message))

    def _on_error(self, peer_id: PeerId, error: SessionError) -> None:
        logger.info("%s says %s: %s", peer_id, error.code, error.message)
        self._last_error = error
        self._carry_out(self._machine.on_error(error))
        if error.code == "busy":
            self._patience.refuse(time.monotonic())
            self._move_on(peer_id)

    def _move_on(self, busy: PeerId) -> None:
        """Go where there is room, if a server has had none for a while. It is not to blame."""
        if not self._patience.may_move(time.monotonic()):
            return
        if self._network.has_room_elsewhere(busy, self.route, self.position):
            self._carry_out(self._machine.on_lost(frozenset([busy]), NO_ROOM, is_blamed=False))
        elif self._told_busy_s != self._patience.busy_s:
            self._told_busy_s = self._patience.busy_s
            self.on_notice(Notice("busy", "no server has room now", frozenset([busy])))

    def on_lost(self, peer_id: PeerId, reason: str) -> None:
        """A server is gone, or must be taken for gone."""
        if self._machine.phase is Phase.CLOSED:
            return
        self._network.health.failed(peer_id)
        peers = frozenset([peer_id])
        self._carry_out(self._machine.copy_failed(peers))
        self._carry_out(self._machine.on_lost(peers, reason))

    def on_draining(self, peer_id: PeerId) -> None:
        """A server is about to stop: it hands our cache over to another."""
        if self._machine.phase is not Phase.CLOSED:
            self._carry_out(self._machine.retire(peer_id))

    def _on_frame(self, peer_id: PeerId, message: StepResult, rows: torch.Tensor) -> None:
        is_output = rows.dim() == 2 and rows.shape[1] == self._width and rows.is_floating_point()
        if not is_output or not bool(torch.isfinite(rows).all()):
            self._carry_out(self._machine.on_lost(frozenset([peer_id]), "what it sent is no output"))
            return
        self._carry_out(self._machine.on_result(message, rows))

    def _on_chain_broken(self, peer_id: PeerId, epoch: int, reason: str) -> None:
        if epoch == self._machine.epoch:
            self.on_lost(peer_id, reason)

    # --- steering ----------------------------------------------------------------------------------------

    async def steer_forever(self) -> None:
        """Find routes when they are needed, and lose patience when nothing moves.

        Raises what saving a ticket raises, as `keep_tickets_forever` does.
        """
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._must_route.wait()
            except TimeoutError:
                self._check_patience()
                continue
            self._must_route.clear()
            self._check_patience()  # who loses every route at once must come to an end as well
            if not self._epochs.may_use(self._machine.epoch + 1):
                await self.write_down()
            await self._find_route()

    async def _find_route(self) -> None:
        within_s = RECOVER_S if self._machine.epoch else FIRST_ROUTE_S
        while True:
            lost = frozenset(self._lost)
            keep = tuple(hop for hop in self._machine.route if hop.peer_id not in lost)
            try:
                route = await self._network.reach_route(lost, keep, within_s, self.position)
            except NoRouteError as error:
                self._has_no_route = True
                self._give_up(error)
                return
            if not (self._lost - lost).intersection(hop.peer_id for hop in route):
                break
        # A loss is told by several streams. What came meanwhile is about servers that this route avoids:
        # to bind once more would compute once more what is under way.
        self._must_route.clear()
        self.bind(route)

    def bind(self, route: Route) -> None:
        """Bind a route."""
        if self._machine.phase is Phase.CLOSED:
            return
        self._left |= {hop.peer_id for hop in self._machine.route}
        self._left -= {hop.peer_id for hop in route}
        self._carry_out(self._machine.bind(route, self._network.addresses(route)))

    def _leave(self) -> None:
        """Free the session where we went away; a server out of reach does it when the lease ends."""
        for peer_id in self._left:
            connection = self._network.connection(peer_id)
            if connection is not None:
                connection.send(self._machine.session_id, self, Close(session=self._machine.session_id))
                connection.forget(self._machine.session_id)
        self._left.clear()

    def _check_patience(self) -> None:
        now = time.monotonic()
        machine = self._machine
        silent = frozenset(machine.missing_acks)
        if silent and self._patience.is_silent(now):
            self._carry_out(machine.on_lost(silent, "it does not answer a bind"))
        if not self._waiting or self._error is not None:
            return
        verdict = self._patience.judge(now)
        if verdict is Verdict.GIVE_UP:
            self._give_up(self._why_stuck())
        elif verdict is Verdict.REBIND and machine.is_bound:
            logger.warning("no progress for %d s: looking for another route", self._patience.stall_s)
            self._carry_out(machine.on_stall())

    def _why_stuck(self) -> SwarmError:
        error = self._last_error
        if error is not None and error.code == "busy" and error.stage < len(self.route):
            peer_id = self.route[error.stage].peer_id
            return PeerBusy("the servers have no room now; try again later", peer_id, 5.0)
        return SwarmTimeout(f"the swarm did not answer within {self._patience.recover_s:.0f} s")

    def shut(self) -> None:
        """Say farewell to the servers."""
        self._leave()
        self._carry_out(self._machine.close(is_kept=self._is_kept))
        self._fail(LocalProtocolError("the session is closed"))
        for hop in self._machine.route:
            connection = self._network.connection(hop.peer_id)
            if connection is not None:
                connection.forget(self._machine.session_id)

    async def keep_tickets_forever(self) -> None:
        """Write down which route is bound. A slow disk delays this and nothing else."""
        while True:
            await self._epochs.due()
            await self.write_down()

    async def serve_chains_forever(self) -> None:
        """Keep the chain's streams open and read what comes back."""
        await self._chains.run_forever()


def _broken(effect: Broken) -> SwarmError:
    if effect.code == "too_long":
        return ContextTooLong(effect.message or "the conversation is longer than a server can take")
    return SessionLost("this session goes on elsewhere: a newer holder has taken it over")


@asynccontextmanager
async def _running_session(session: InferenceSession, route: Route = ()) -> AsyncIterator[None]:
    await session.write_down()
    async with running(
        session.steer_forever(), session.serve_chains_forever(), session.keep_tickets_forever()
    ):
        try:
            if route:
                session.bind(route)
            else:
                session._must_route.set()
            yield
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
    session = InferenceSession(machine, network, inputs, save_ticket, lengths)
    async with _running_session(session):
        yield session
