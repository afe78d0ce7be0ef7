"""Chance drives a client's sessions through failing servers, and checks every output.

`run(seed)` returns what happened. A schedule that never ends is `stuck`; an output that the unsplit model
would not give is `diverged`. To see a failing one again: `python -m tests.protocol.simulator SEED`.

world.py   servers around the shipped table, and a hash for a model      client.py   the client's driver
faults.py  kills, freezes, lost links, caches, logs, control streams     user.py     the user's whims
"""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from server.session_table import Refused
from swarm.session import Phase
from swarm.wire.blocks import PeerId
from tests.protocol.client import Outcome, Talk
from tests.protocol.faults import Faults
from tests.protocol.world import CLIENT, Server, Stream

MAX_EVENTS = 6000
PRUNE_EVERY = 32
Event = tuple[Callable[[Any], None], Any]


class Simulator(Faults):
    """One schedule."""

    def run(self) -> Outcome:
        """Draw events until the users are content."""
        self._new_talk()
        if self.chance(0.3):
            self._new_talk()
        while not (self.outcome.stuck or self.outcome.diverged or self._is_over()):
            self.outcome.events += 1
            self.now += 0.001
            if self.outcome.events % PRUNE_EVERY == 0:
                self.streams = [stream for stream in self.streams if self._matters(stream)]
            self._happen()
        if not (self.outcome.stuck or self.outcome.diverged):
            self._check_books()
        return self.outcome

    def _happen(self) -> None:
        if self._is_struck():
            self._fault()
            return
        choices = self._choices()
        if choices:
            act, what = self.random.choice(choices)
            act(what)
        elif (frozen := self._suspect_frozen()) is not None:
            self._suspect(frozen)
        else:
            self.outcome.stuck = "nothing happens any more"
        if self.outcome.events > MAX_EVENTS:
            self.outcome.stuck = "no end in sight"

    def _is_over(self) -> bool:
        return all(talk.session.phase is Phase.CLOSED for talk in self.talks)

    def _choices(self) -> list[Event]:
        choices = self._network_events()
        for server in self.servers.values():
            if server.running and not server.is_frozen and not server.is_dead:
                choices.append((self._compute, server))
        for index, (kind, what) in enumerate(self.later):
            if self._is_possible(kind, what):
                choices.append((self._later, index))
        for talk in self.talks:
            if talk.num_operations and len(talk.session.outbox) < 4:
                choices.append((self._user_acts, talk))
            elif self._is_content(talk):
                choices.append((self._close, talk))
        return choices

    def _is_possible(self, kind: str, what: Any) -> bool:
        """A frozen server admits nothing and takes no pages."""
        if kind == "admit":
            return not self.servers[what.target].is_frozen
        if kind == "pages":
            return not self.servers[PeerId(what[1].to.peer)].is_frozen
        return True

    def _is_content(self, talk: Talk) -> bool:
        is_done = not talk.num_operations and not len(talk.session.outbox)
        return is_done and talk.session.phase is not Phase.CLOSED

    def _network_events(self) -> list[Event]:
        choices: list[Event] = [
            (self._deliver, stream) for stream in self.streams if stream.frames and self._can_deliver(stream)
        ]
        for there, back in self.controls.values():
            if there.frames and not self.servers[there.target].is_frozen:
                choices.append((self._to_server, there))
            if back.frames:
                choices.append((self._to_client, back))
        for there in self.old_controls:
            server = self.servers[there.target]
            if there.frames and not server.is_frozen and not server.is_dead:
                choices.append((self._to_server, there))
        return choices

    def _can_deliver(self, stream: Stream) -> bool:
        if stream.target == CLIENT:
            return not stream.is_closed
        server = self.servers[stream.target]
        return stream.session is not None and not server.is_frozen and not server.is_dead

    def _matters(self, stream: Stream) -> bool:
        """A closed stream goes on delivering to servers what was sent before, though never to the client."""
        return not stream.is_closed or bool(stream.frames and stream.target != CLIENT)

    def _compute(self, server: Server) -> None:
        firsts: dict[int, int] = {}
        for index, (session, _) in enumerate(server.running):
            firsts.setdefault(id(session), index)
        server.finish(self.random.choice(list(firsts.values())))

    def _later(self, index: int) -> None:
        kind, what = self.later.pop(index)
        getattr(self, f"_late_{kind}")(what)

    def _late_admit(self, stream: Stream) -> None:
        if not self.servers[stream.target].is_dead:
            self.servers[stream.target].admit(stream)

    def _deliver(self, stream: Stream) -> None:
        if stream.target == CLIENT:
            self._from_chain(stream)
        else:
            self.servers[stream.target].on_chain(stream, *stream.frames.popleft())

    def _to_server(self, stream: Stream) -> None:
        message, _ = stream.frames.popleft()
        self.servers[stream.target].on_control(message, stream)

    # --- books -------------------------------------------------------------------------------------

    def _check_books(self) -> None:
        """All is given back, and whoever survived computed nothing twice that the client held for final."""
        recomputed = sum(
            session.counters.recomputed_below_commit
            for server in self.servers.values()
            for session in server.ever
        )
        for server in self._living():
            for talk in self.talks:
                server.table.close(CLIENT, talk.session.session_id)
        left = sum(sum(server.rooms.granted.values()) for server in self._living())
        logged = sum(server.budget.used_bytes for server in self._living())
        if left or logged:
            self.outcome.stuck = f"{left} tokens and {logged} bytes of log were not given back"
        if (
            self.log_bytes > 1000
            and not self.counts["drop_cache"]
            and not self.counts["drop_log"]
            and not self.counts["drain"]
        ):
            self.counts["intact_replays"] += self.counts["log_replays"]
            if recomputed or self.counts["forgotten"]:
                self.outcome.diverged = "a survivor recomputed tokens below the commit"
        self.counts["recomputed"] += recomputed


def run(seed: int) -> Outcome:
    """Run one schedule."""
    try:
        return Simulator(seed).run()
    except (AssertionError, Refused) as error:
        raise AssertionError(f"seed {seed}: {error!r}") from error


if __name__ == "__main__":
    first, last = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(sys.argv[1]) + 1
    total: Counter[str] = Counter()
    bad = 0
    for number in range(first, last):
        outcome = run(number)
        total.update(outcome.counts)
        total["events"] += outcome.events
        if outcome.stuck or outcome.diverged:
            bad += 1
            if bad < 10:
                sys.stdout.write(f"{outcome}\n")
    sys.stdout.write(f"{last - first} schedules, {bad} bad, {dict(total)}\n")
