"""Broken rules: each mutant leaves out one thing that docs/protocol.md demands, and chance has to notice.

`python -m tests.protocol.mutants [NAME] [MAX_SEEDS]` prints how many schedules each mutant survives.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import swarm.session
from server.session_table import SessionTable
from server.sessions import HopSession
from swarm.outbox import Outbox
from swarm.replays import CLIENT, plan_replays
from swarm.wire.tags import Boundaries
from tests.protocol.simulator import run

Patch = tuple[Any, str, Callable[..., Any]]


def _longest_match_by_length(self: Boundaries, theirs: dict[int, int]) -> tuple[int, int]:
    for position, tag in zip(reversed(self._positions), reversed(self._tags), strict=True):
        if position in theirs:
            return position, theirs.get(position, tag)
    return 0, 0


def _no_match(self: Boundaries, theirs: dict[int, int]) -> tuple[int, int]:
    return 0, 0


def _allows_by_length(self: Boundaries, position: int, tag: int) -> bool:
    return position <= self.length


def _any_epoch(method: Callable[..., Any]) -> Callable[..., Any]:
    def obey(self: HopSession, message: Any, *rest: Any, **options: Any) -> Any:
        return method(self, msgspec.structs.replace(message, epoch=self.epoch), *rest, **options)

    return obey


def _forgets_refusals(self: HopSession, *arguments: Any, **options: Any) -> Any:
    self._refused_attempt = -1
    return _ON_STEP(self, *arguments, **options)


def _counts_stale_work(self: HopSession, output: Any) -> Any:
    work = self._running
    assert work is not None
    work.message = msgspec.structs.replace(work.message, epoch=self.epoch)
    return _EXECUTED(self, output)


def _takes_by_position(self: Outbox, result: Any, num_rows: int, history: Any) -> Any:
    if not self._steps or not self._steps[0].is_sent:
        return None
    head = self._steps[0]
    is_it = (result.position, result.num_tokens) == (head.position, head.num_tokens)
    return self._steps.popleft() if is_it and num_rows == min(head.rows, head.num_tokens) else None


def _can_fork_anywhere(self: HopSession, position: int, tag: int) -> bool:
    return self._done.allows(position, tag)


def _no_seq_check(self: HopSession, step: Any, payload: Any, **options: Any) -> Any:
    if step.epoch == self.epoch:
        self._last_seq = step.seq - 1
    return _ON_STEP(self, step, payload, **options)


def _fences_nobody(self: SessionTable, client: Any, bind: Any, connection: Any, now_s: float) -> Any:
    for key, session in self._sessions.items():
        if key.session == bind.session and bind.epoch < session.epoch:
            session.epoch = bind.epoch - 1
    return _BIND(self, client, bind, connection, now_s)


def _replays_from_ids(holdings: Any, commit: int) -> Any:
    return [dataclasses.replace(replay, source=CLIENT) for replay in plan_replays(holdings, commit)]


_ON_STEP, _EXECUTED = HopSession.on_step, HopSession.executed
_BIND = SessionTable.bind

MUTANTS: dict[str, list[Patch]] = {
    "longest_match compares lengths only": [(Boundaries, "longest_match", _longest_match_by_length)],
    "longest_match finds nothing": [(Boundaries, "longest_match", _no_match)],
    "allows ignores tags": [(Boundaries, "allows", _allows_by_length)],
    "a hop ignores the epoch of steps": [
        (HopSession, "on_step", _any_epoch(HopSession.on_step)),
        (HopSession, "on_state_step", _any_epoch(HopSession.on_state_step)),
    ],
    "refused attempts are forgotten": [(HopSession, "on_step", _forgets_refusals)],
    "stale computations count": [(HopSession, "executed", _counts_stale_work)],
    "nothing is replayed": [(swarm.session, "plan_replays", lambda holdings, commit: [])],
    "every replay comes from token ids": [(swarm.session, "plan_replays", _replays_from_ids)],
    "results are known by position": [(Outbox, "take", _takes_by_position)],
    "a fork needs no known tag": [(HopSession, "can_fork", _can_fork_anywhere)],
    "seq is not checked": [(HopSession, "on_step", _no_seq_check)],
    "late binds of lower epochs are obeyed": [(SessionTable, "bind", _fences_nobody)],
}


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Shipped code with one rule broken."""
    saved = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in MUTANTS[name]]
    for owner, attribute, replacement in MUTANTS[name]:
        setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        for owner, attribute, original in saved:
            setattr(owner, attribute, original)


def first_failure(name: str, max_seeds: int) -> tuple[int, str] | None:
    """The first seed at which the mutant is caught, and how; None if it survives them all."""
    with broken(name):
        for seed in range(max_seeds):
            try:
                outcome = run(seed)
            except Exception as error:  # noqa: BLE001 - a broken rule may break anything
                return seed, repr(error)
            if outcome.stuck or outcome.diverged:
                return seed, outcome.stuck or outcome.diverged
    return None


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    for mutant in MUTANTS:
        if wanted in mutant:
            sys.stdout.write(f"{mutant}: {first_failure(mutant, limit)}\n")
            sys.stdout.flush()
