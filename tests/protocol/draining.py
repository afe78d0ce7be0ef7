"""Servers that stop politely: they hand their caches over, if nothing goes wrong meanwhile, and are gone."""

from typing import Any

from server.session_effects import SessionKey
from server.session_table import Refused
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.messages import CopyPages, Hello, Message, SessionError
from tests.protocol.client import Talk
from tests.protocol.user import Users
from tests.protocol.world import CLIENT, Server

Pages = dict[int, list[int]]


class Draining(Users):
    """What the client and the servers do when one of them drains."""

    def _drain(self, victim: Server) -> None:
        victim.table.is_draining = True
        for talk in self.talks:
            self.later.append(("draining", (talk, victim.peer)))
        self.later.append(("drained", (victim, self.random.randint(0, 20))))

    def _late_draining(self, what: tuple[Talk, PeerId]) -> None:
        talk, peer = what
        self.carry_out(talk, talk.session.retire(peer))

    def _late_drained(self, what: tuple[Server, int]) -> None:
        """Its time is over some time, whether or not everybody has left."""
        victim, patience = what
        if patience:
            self.later.append(("drained", (victim, patience - 1)))
        else:
            self._kill(victim)

    def _kill(self, victim: Server) -> None:
        raise NotImplementedError

    def _tell_peer(self, talk: Talk, peer: PeerId, message: Message) -> None:
        control = self._control(peer)
        if control is None:
            self.carry_out(talk, talk.session.copy_failed(frozenset([peer])))
        else:
            control[0].frames.append((message, None))

    # --- servers -----------------------------------------------------------------------------------

    def copy_pages(self, server: Server, order: CopyPages) -> None:
        """The draining server's part. Raises Refused."""
        session = server.table.find(SessionKey(CLIENT, SessionId(order.session), order.slot), self.now)
        wanted = Span(order.start, order.end)
        if not session.span.contains(wanted) or not session.can_fork(order.position, order.tag):
            raise Refused("gap", "not held")
        kv = server.rooms.kv[session.key]
        pages = {block: kv[block][: order.position] for block in range(order.start, order.end)}
        self.later.append(("pages", (server, order, pages)))

    def _late_pages(self, what: tuple[Server, CopyPages, Pages]) -> None:
        """The pages arrive, or do not; then the draining server says so, if it still can."""
        source, order, pages = what
        target = self.servers[PeerId(order.to.peer)]
        try:
            self._adopt(source, target, order, pages)
        except Refused as refusal:
            error = SessionError(
                session=order.session, epoch=order.epoch, code=refusal.code, stage=order.stage
            )
            if not source.is_dead:
                self.tell_client(source, error)

    def _adopt(self, source: Server, target: Server, order: CopyPages, pages: Pages) -> None:
        if target.is_dead or self.chance(0.1):
            raise Refused("internal", "cannot be reached")
        hello = Hello(client=CLIENT, session=order.session, epoch=order.epoch, stage=order.stage)
        session = target.table.admit(source.peer, hello, self.now, is_copy=True)
        if session is None:
            raise Refused("unknown_session", "no bind came")
        if not session.can_adopt(order.epoch):
            raise Refused("gap", "not now")
        if session.room(order.position) < order.position:
            raise Refused("busy", "no room")
        target.rooms.kv[session.key] = pages
        self.counts["adopted"] += 1
        target.carry_out(session, session.adopt(order.epoch))

    def _from_stranger(self, talk: Talk, peer: PeerId, message: Any) -> bool:
        """A server that is not part of the route says that it cannot hand over."""
        is_in_route = any(hop.peer_id == peer for hop in talk.session.route)
        if is_in_route or not isinstance(message, SessionError):
            return False
        self.carry_out(talk, talk.session.copy_failed(frozenset([peer])))
        return True
