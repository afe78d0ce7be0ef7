"""What carries a session along its servers: streams, timers and tensors around the client's state machine.

The machine (session.py) decides; this carries out, in order, and gives it what comes in.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec
import torch

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
from swarm.inputs import Inputs
from swarm.network import Network
from swarm.notices import Counters, Notice
from swarm.patience import RECOVER_S, Patience, Verdict
from swarm.session import ClientSession, Phase
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
from swarm.wire.blocks import PeerId, Route
from swarm.wire.messages import (
    BindAck,
    Close,
    Credit,
    Message,
    Ready,
    SessionError,
    SessionProgress,
    StepResult,
)

logger = logging.getLogger(__name__)

TICK_S = 0.25
FIRST_ROUTE_S = 15.0
NO_ROOM = "it has no room"
LEAVING = TellHop | OpenChain | SendStep | SendState
"""What goes to servers under the epoch of a bind."""


class SessionDriver:
    """Drives `machine`, whose history `inputs` holds, over `network`. See swarm.inference."""

    def __init__(
        self, machine: ClientSession, network: Network, inputs: Inputs, save_ticket: SaveTicket | None
    ) -> None:
        self.machine = machine
        self.network = network
        self.counters = Counters()
        self.patience = Patience(progress_s=time.monotonic(), phase_s=time.monotonic())
        self.on_notice: Callable[[Notice], None] = lambda notice: None
        self.error: SwarmError | None = None
        """Why nothing can be had any more, now or later."""
        self.lost: set[PeerId] = set()
        """Servers that are gone or have no room, while no others have taken their place."""
        self._inputs = inputs
        self._epochs = Epochs(save_ticket, machine.epoch)
        self._waiting: dict[int, asyncio.Future[torch.Tensor]] = {}
        self._chains = Chains(network, self._on_frame, self._on_chain_broken, self.counters)
        self._left: set[PeerId] = set()
        self._must_route = asyncio.Event()
        self._has_no_route = False
        self._needs_epochs = False
        self._last_error: SessionError | None = None
        self._told_busy_s = 0.0
        self._width = 0

    # --- what the session asks for -----------------------------------------------------------------------

    def check(self) -> None:
        """See to it that a step can be taken. Raises what the session has ended with; LocalProtocolError."""
        if self.error is not None:
            raise self.error
        if self._has_no_route:
            self._has_no_route = False
            self.find_route()
        if self._waiting:
            raise LocalProtocolError("a session takes one step after the other; fork it to go two ways")

    def start_step(self, labels: list[int], rows: int) -> asyncio.Future[torch.Tensor]:
        """Send a step on its way: the inputs that were appended last, and their `labels`."""
        if not len(self._waiting):
            self.patience.begin(time.monotonic())
        number, effects = self.machine.step(labels, rows)
        future: asyncio.Future[torch.Tensor] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.carry_out(effects)
        return future

    def give_up_steps(self) -> None:
        """Nobody waits for the steps that are under way."""
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    def ticket(self) -> bytes:
        """What attaches to the session as it is now."""
        return self._ticket(self._epochs.claimed(self.machine.epoch))

    def find_route(self) -> None:
        """Bind another route, some time soon."""
        self._must_route.set()

    # --- effects ---------------------------------------------------------------------------------------

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what the machine asks for; nothing leaves under an epoch that is not written down."""
        if self.machine.phase is Phase.CLOSED or self._epochs.may_use(self.machine.epoch):
            self._do(effects)
        else:
            self._do([effect for effect in effects if not isinstance(effect, LEAVING)])
            self._must_route.set()  # bound anew once more epochs are

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
                self._chains.begin(self.machine, effect)
                self.patience.bind(time.monotonic())
                self._epochs.ask()
                self.counters.rebinds += 1
            elif isinstance(effect, NeedRoute):
                self._need_route(effect)
            elif isinstance(effect, RetryLater):
                loop = asyncio.get_running_loop()
                loop.call_later(effect.after_ms / 1000, self._retry, self.machine.epoch, effect.attempt)
            elif isinstance(effect, Broken):
                self._fail(_broken(effect))

    async def write_down(self) -> None:
        """Save a ticket, and with it the epochs that may be used next. Raises what saving raises."""
        await self._epochs.write_down(self.machine.epoch, self._ticket)

    def _ticket(self, epoch: int) -> bytes:
        return msgspec.msgpack.encode(self.machine.ticket(epoch))

    def _send(self, effect: SendStep | SendState) -> None:
        step = effect.step
        start, end = step.position, step.position + step.num_tokens
        if isinstance(effect, SendState):
            make = self._inputs.later(start, end)
            self._chains.send(step, lambda: (make(),))
            return
        self.counters.steps_out += 1
        hidden = self._inputs.read(start, end)
        self._width = hidden.shape[-1]
        self._chains.send(step, (hidden,))

    def _deliver(self, effect: Deliver) -> None:
        pause_s = self.patience.deliver(time.monotonic())
        self._last_error = None
        self.counters.results_in += 1
        for hop in self.machine.route:
            self.network.health.succeeded(hop.peer_id)
        self.counters.direct_links += max(0, effect.links - 1)
        if pause_s is not None:
            self.lost.clear()
            self.on_notice(Notice("recovered", pause_s=pause_s))
        self._leave()
        future = self._waiting.pop(effect.number, None)
        if future is not None and not future.done():
            assert isinstance(effect.payload, torch.Tensor)
            future.set_result(effect.payload)

    def _tell(self, effect: TellHop) -> None:
        peer_id = self.machine.route[effect.stage].peer_id
        connection = self.network.connection(peer_id)
        if connection is not None:
            connection.send(self.machine.session_id, self, effect.message)
        elif self.machine.phase is not Phase.CLOSED:
            asyncio.get_running_loop().call_soon(self.on_lost, peer_id, "the connection ended")

    def _tell_peer(self, peer_id: PeerId, message: Message) -> None:
        """Say something to a server that we are leaving."""
        connection = self.network.connection(peer_id)
        if connection is None:
            self.carry_out(self.machine.copy_failed(frozenset([peer_id])))
            return
        connection.send(self.machine.session_id, self, message)
        if isinstance(message, Close):
            connection.forget(self.machine.session_id)

    def _need_route(self, effect: NeedRoute) -> None:
        self.patience.lose(time.monotonic())
        self.lost |= effect.lost
        for peer_id in effect.lost if effect.is_blamed else ():
            self.network.health.failed(peer_id)
        logger.info("re-routing: %s", effect.reason)
        kind = "full" if effect.reason == NO_ROOM else "lost"
        self.on_notice(Notice(kind, effect.reason, effect.lost))
        self._must_route.set()

    def _retry(self, epoch: int, attempt: int) -> None:
        if epoch == self.machine.epoch and self.machine.phase is not Phase.CLOSED:
            self.carry_out(self.machine.retry(attempt))

    def _fail(self, error: SwarmError) -> None:
        """Nothing can be had any more, now or later."""
        self.error = error
        self._give_up(error)

    def _give_up(self, error: SwarmError) -> None:
        """Every waiting step learns why it comes to nothing; a later one may fare better."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    # --- what comes in ---------------------------------------------------------------------------------

    def on_message(self, peer_id: PeerId, message: Message) -> None:
        """A server said something about this session on its control stream."""
        if not self.machine.is_at(peer_id, getattr(message, "stage", -1)):
            if isinstance(message, SessionError):
                self.carry_out(self.machine.copy_failed(frozenset([peer_id])))
            return
        if isinstance(message, SessionError):
            self._on_error(peer_id, message)
        elif isinstance(message, BindAck):
            self.carry_out(self.machine.on_ack(message))
        elif isinstance(message, Ready):
            if self.machine.awaits(message):
                self.patience.progress(time.monotonic())
            self.carry_out(self.machine.on_ready(message))
        elif isinstance(message, Credit):
            self.carry_out(self.machine.on_credit(message))

    def _on_error(self, peer_id: PeerId, error: SessionError) -> None:
        logger.info("%s says %s: %s", peer_id, error.code, error.message)
        self._last_error = error
        self.carry_out(self.machine.on_error(error))
        if error.code == "busy":
            self.patience.refuse(time.monotonic())
            self._move_on(peer_id)

    def _move_on(self, busy: PeerId) -> None:
        """Go where there is room, if a server has had none for a while. It is not to blame."""
        if not self.patience.may_move(time.monotonic()):
            return
        if self.network.has_room_elsewhere(busy, self.machine.route, self.machine.position):
            self.carry_out(self.machine.on_lost(frozenset([busy]), NO_ROOM, is_blamed=False))
        elif self._told_busy_s != self.patience.busy_s:
            self._told_busy_s = self.patience.busy_s
            self.on_notice(Notice("busy", "no server has room now", frozenset([busy])))

    def on_progress(self, peer_id: PeerId, progress: SessionProgress) -> None:
        """A heartbeat tells how far the session is on a server."""
        if not self.machine.is_at(peer_id, progress.stage):
            return
        if self.machine.has_come_further(progress):
            self.patience.progress(time.monotonic())
        elif self.machine.has_in_hand(progress):
            self.patience.in_hand(time.monotonic())

    def on_lost(self, peer_id: PeerId, reason: str) -> None:
        """A server is gone, or must be taken for gone."""
        if self.machine.phase is Phase.CLOSED:
            return
        self.network.health.failed(peer_id)
        peers = frozenset([peer_id])
        self.carry_out(self.machine.copy_failed(peers))
        self.carry_out(self.machine.on_lost(peers, reason))

    def on_draining(self, peer_id: PeerId) -> None:
        """A server is about to stop: it hands our cache over to another."""
        if self.machine.phase is not Phase.CLOSED:
            self.carry_out(self.machine.retire(peer_id))

    def _on_frame(self, peer_id: PeerId, message: StepResult, rows: torch.Tensor) -> None:
        is_output = rows.dim() == 2 and rows.shape[1] == self._width and rows.is_floating_point()
        if not is_output or not bool(torch.isfinite(rows).all()):
            self.carry_out(self.machine.on_lost(frozenset([peer_id]), "what it sent is no output"))
            return
        self.carry_out(self.machine.on_result(message, rows))

    def _on_chain_broken(self, peer_id: PeerId, epoch: int, reason: str) -> None:
        if epoch == self.machine.epoch:
            self.on_lost(peer_id, reason)

    # --- steering ----------------------------------------------------------------------------------------

    async def steer_forever(self) -> None:
        """Find routes when they are needed, and lose patience when nothing moves."""
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._must_route.wait()
            except TimeoutError:
                self._check_patience()
                continue
            self._must_route.clear()
            self._check_patience()  # who loses every route at once must come to an end as well
            if self._epochs.may_use(self.machine.epoch + 1):
                await self._find_route()
            else:
                self._needs_epochs = True
                self._epochs.ask()

    async def _find_route(self) -> None:
        within_s = RECOVER_S if self.machine.epoch else FIRST_ROUTE_S
        while True:
            lost = frozenset(self.lost)
            keep = tuple(hop for hop in self.machine.route if hop.peer_id not in lost)
            try:
                route = await self.network.reach_route(lost, keep, within_s, self.machine.position)
            except NoRouteError as error:
                self._has_no_route = True
                self._give_up(error)
                return
            if not (self.lost - lost).intersection(hop.peer_id for hop in route):
                break
        # A loss is told by several streams. What came meanwhile is about servers that this route avoids:
        # to bind once more would compute once more what is under way.
        self._must_route.clear()
        self.bind(route)

    def bind(self, route: Route) -> None:
        """Bind a route."""
        if self.machine.phase is Phase.CLOSED:
            return
        self._left |= {hop.peer_id for hop in self.machine.route}
        self._left -= {hop.peer_id for hop in route}
        self.carry_out(self.machine.bind(route, self.network.addresses(route)))

    def _leave(self) -> None:
        """Free the session where we went away; a server out of reach does it when the lease ends."""
        for peer_id in self._left:
            connection = self.network.connection(peer_id)
            if connection is not None:
                connection.send(self.machine.session_id, self, Close(session=self.machine.session_id))
                connection.forget(self.machine.session_id)
        self._left.clear()

    def _check_patience(self) -> None:
        now = time.monotonic()
        machine = self.machine
        silent = frozenset(machine.missing_acks)
        if silent and self.patience.is_silent(now):
            self.carry_out(machine.on_lost(silent, "it does not answer a bind"))
        if not self._waiting or self.error is not None:
            return
        verdict = self.patience.judge(now)
        if verdict is Verdict.GIVE_UP:
            self._give_up(self._why_stuck())
        elif verdict is Verdict.REBIND and machine.is_bound:
            logger.warning("no progress for %d s: looking for another route", self.patience.stall_s)
            self.carry_out(machine.on_stall())

    def _why_stuck(self) -> SwarmError:
        error = self._last_error
        if error is not None and error.code == "busy" and error.stage < len(self.machine.route):
            peer_id = self.machine.route[error.stage].peer_id
            return PeerBusy("the servers have no room now; try again later", peer_id, 5.0)
        waited_s = time.monotonic() - self.patience.progress_s
        return SwarmTimeout(f"the swarm did not answer within {waited_s:.0f} s")

    def shut(self, *, is_kept: bool) -> None:
        """Say farewell to the servers; with `is_kept` they hold the session for its lease."""
        self._leave()
        self.carry_out(self.machine.close(is_kept=is_kept))
        self._fail(LocalProtocolError("the session is closed"))
        for hop in self.machine.route:
            connection = self.network.connection(hop.peer_id)
            if connection is not None:
                connection.forget(self.machine.session_id)

    async def keep_tickets_forever(self) -> None:
        """Write down which route is bound, and more epochs. Raises what saving raises once none is left."""
        await self._epochs.keep_forever(lambda: self.machine.epoch, self._ticket, self._on_written)

    def _on_written(self) -> None:
        if self._needs_epochs:
            self._needs_epochs = False
            self._must_route.set()

    async def serve_chains_forever(self) -> None:
        """Keep the chain's streams open and read what comes back."""
        await self._chains.run_forever()


def _broken(effect: Broken) -> SwarmError:
    if effect.code == "too_long":
        return ContextTooLong(effect.message or "the conversation is longer than a server can take")
    return SessionLost("this session goes on elsewhere: a newer holder has taken it over")
