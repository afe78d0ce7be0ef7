"""A user full of whims: steps, rollbacks, rewrites, forks, and restarts of the client's process."""

import msgspec

from swarm.history import History
from swarm.outbox import Window
from swarm.session import ClientSession, reattach
from swarm.wire.blocks import Route, SessionId
from swarm.wire.tags import TagChain
from tests.protocol.client import ClientSide, Talk
from tests.protocol.world import CLIENT, FINGERPRINT, REPLAY_CHUNK_TOKENS


class Users(ClientSide):
    """Whoever talks: draws what to do next, whatever is still under way."""

    def _new_talk(self) -> Talk:
        session_id = SessionId(self.random.randbytes(16))
        history = History(TagChain(self.random.randbytes(16)))
        session = ClientSession(session_id, CLIENT, FINGERPRINT, history)
        session.outbox.window = Window(steps=self.random.choice([1, 4, 8]), tokens=64)
        return self._begin(session, [], self.random.randint(4, 18), self._route(frozenset(), ()))

    def _begin(self, session: ClientSession, labels: list[int], num_operations: int, route: Route) -> Talk:
        session.replay_chunk_tokens = REPLAY_CHUNK_TOKENS
        talk = Talk(session, labels, num_operations=num_operations)
        self.talks.append(talk)
        self.carry_out(talk, session.bind(route))
        return talk

    def _user_acts(self, talk: Talk) -> None:
        talk.num_operations -= 1
        session, kind = talk.session, self.random.random()
        if kind < 0.15 and session.position:
            self._roll_back(talk, max(0, session.position - self.random.choice([1, 1, 2, 3, 8])))
        elif kind < 0.30 and session.position:
            self._rewrite(talk)
        elif 0.30 < kind < 0.37 and session.commit and len(self.talks) < 4:
            self._fork(talk)
        elif 0.37 < kind < 0.41:
            self._restart(talk)
        else:
            self._step(talk, self.random.choice([0, 1, 1, 1, 3, 7]))

    def _step(self, talk: Talk, num_tokens: int) -> None:
        labels = [self.random.getrandbits(40) for _ in range(num_tokens)]
        rows = self.random.choice([0, min(1, num_tokens), num_tokens])
        position = talk.session.position
        talk.labels += labels
        number, effects = talk.session.step(labels, rows)
        talk.expected[number] = (position, num_tokens, rows)
        self.carry_out(talk, effects)

    def _roll_back(self, talk: Talk, position: int) -> None:
        inside = [at for at, n, _ in talk.expected.values() if at < position < at + n]
        position = inside[0] if inside else position
        self.counts["rollbacks"] += 1
        if position < talk.session.position:
            talk.is_rollback_pending = True
        effects = talk.session.rollback(position)
        del talk.labels[position:]
        talk.expected = {k: v for k, v in talk.expected.items() if v[0] + v[1] <= position}
        self.carry_out(talk, effects)

    def _rewrite(self, talk: Talk) -> None:
        """Other tokens in the place of the last ones: afterwards every length is what it was."""
        for _ in range(self.random.choice([1, 1, 2])):
            before = talk.session.position
            self._roll_back(talk, max(0, before - self.random.choice([1, 1, 2, 4, 8])))
            left = before - talk.session.position
            while left:
                num_tokens = self.random.randint(1, left)
                self._step(talk, num_tokens)
                left -= num_tokens

    def _fork(self, talk: Talk) -> None:
        """A child, often inside a step, and often while the parent goes back below it."""
        position = self.random.randint(0, talk.session.commit)
        child = talk.session.fork(SessionId(self.random.randbytes(16)), position)
        self.counts["forks"] += 1
        route = talk.session.route if self.chance(0.9) else self._route(frozenset(), ())
        labels, truth = talk.labels[:position], [kv[:position] for kv in talk.truth]
        is_late = self.chance(0.3)
        if is_late:
            self._rewrite(talk)
        other = self._begin(child, labels, self.random.randint(2, 5), route)
        other.truth = truth
        if not is_late and self.chance(0.4):
            self._rewrite(talk)

    def _restart(self, talk: Talk) -> None:
        """The client dies with frames under way, and comes back with its ticket, perhaps an old one."""
        self.counts["restarts"] += 1
        old = talk.session
        ticket = old.ticket(old.epoch + self.random.choice([0, 0, 1, 16]))  # some written down ahead
        if self.chance(0.3):
            commit = self.random.randint(0, old.commit)
            ticket = msgspec.structs.replace(ticket, commit=commit, tag=old.history.tag(commit))
        if ticket.commit < old.position:
            talk.is_rollback_pending = True
        del talk.labels[ticket.commit :]
        talk.session = reattach(ticket, talk.labels, CLIENT, FINGERPRINT)
        talk.session.replay_chunk_tokens = REPLAY_CHUNK_TOKENS
        for stream in talk.streams.values():
            stream.is_closed = True
        talk.streams, talk.expected = {}, {}
        self.carry_out(talk, talk.session.bind(self._route(frozenset(), old.route)))

    def _close(self, talk: Talk) -> None:
        """The user is content; the farewell races with everything that is still under way."""
        self.carry_out(talk, talk.session.close())
