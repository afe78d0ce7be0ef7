"""Which span of blocks to host: where it relieves the swarm's bottleneck most. Pure.

A swarm is as fast as its slowest block, so spans are compared by the sorted tokens/s of all blocks, smallest
first: first fewer blocks without any server, then a faster slowest block, then a faster second slowest.
Every server computes this from the same records and comes to the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from swarm.wire.blocks import PeerId, Span
from swarm.wire.records import ServerRecord

Load = npt.NDArray[np.float64]
Ranked = list[float]  # tokens/s of all blocks, smallest first: compares as swarms do

MOVE_GAIN = 1.3  # a move unloads a server for minutes: the bottleneck must become clearly faster
MAX_PLANNED_MOVES = 8
LEAST_THROUGHPUT = 1e-3  # a server that does not know its speed still serves its blocks


def plan_span(
    servers: Sequence[ServerRecord], num_blocks: int, capacity_blocks: int, my_throughput: float
) -> Span:
    """The span of `capacity_blocks` blocks that a joining server should host.

    `servers` are the others, joining and online ones alike. Equal spans: the first one, so that spans join
    without gaps; an empty swarm is filled from block 0.
    """
    length = min(capacity_blocks, num_blocks)
    start, _ = _best_start(load_of(servers, num_blocks), length, my_throughput)
    return Span(start, start + length)


def must_plan_again(mine: ServerRecord, servers: Sequence[ServerRecord]) -> bool:
    """Whether another server that joins at the same time chose blocks of ours and comes first by peer id.

    To be asked shortly after the announcement that we join: of two that saw the same swarm, one gives way.
    """
    return any(
        other.state == "joining"
        and other.peer < mine.peer
        and other.start < mine.end
        and mine.start < other.end
        for other in servers
    )


@dataclass(frozen=True)
class Move:
    """A server leaves its span for another one of the same length."""

    peer_id: PeerId
    span: Span


def plan_move(servers: Sequence[ServerRecord], num_blocks: int) -> Move | None:
    """The one move that the swarm should make now; None if none is clearly worth it.

    Moves are planned one after the other, always the best one, as long as they help. If in the end the
    bottleneck is MOVE_GAIN times as fast as today, or a block without a server gets one, the first of them is
    made, by the server that it names: all others wait, so that no two rush to one gap. A server never leaves
    blocks that nobody else serves. May take a second with 200 servers: call it in a thread.
    """
    movable = {server.peer_id: server for server in servers if server.state == "online"}
    load, first = load_of(servers, num_blocks), None
    (before,) = _ranked(load[None])
    spans = {peer: server.span for peer, server in movable.items()}
    for _ in range(MAX_PLANNED_MOVES):
        move = _best_move(load, spans, {peer: _weight(server) for peer, server in movable.items()})
        if move is None:
            break
        load = _moved(load, spans[move.peer_id], move.span, _weight(movable[move.peer_id]))
        spans[move.peer_id] = move.span
        first = first or move
    return first if _is_clear_gain(before, _ranked(load[None])[0]) else None


def load_of(servers: Sequence[ServerRecord], num_blocks: int) -> Load:
    """Tokens/s of each block [num_blocks], summed over joining and online servers."""
    load = np.zeros(num_blocks)
    for server in servers:
        if server.state in ("joining", "online"):
            load[server.start : server.end] += _weight(server)
    return load


def _weight(server: ServerRecord) -> float:
    return max(server.throughput, LEAST_THROUGHPUT)


def _is_clear_gain(before: Ranked, after: Ranked) -> bool:
    """A block that was served by nobody and is now is always worth a move."""
    if before[0] == 0:
        return after.count(0) < before.count(0)
    return after[0] >= MOVE_GAIN * before[0]


def _best_move(load: Load, spans: dict[PeerId, Span], weights: dict[PeerId, float]) -> Move | None:
    best, (best_load,) = None, _ranked(load[None])
    for peer_id in sorted(spans):
        span, weight = spans[peer_id], weights[peer_id]
        without = load.copy()
        without[span.start : span.end] -= weight
        if without[span.start : span.end].min() < LEAST_THROUGHPUT / 2:  # rounding: nobody else serves it
            continue
        start, after = _best_start(without, len(span), weight)
        if after > best_load:
            best, best_load = Move(peer_id, Span(start, start + len(span))), after
    return best


def _moved(load: Load, old: Span, new: Span, weight: float) -> Load:
    load = load.copy()
    load[old.start : old.end] -= weight
    load[new.start : new.end] += weight
    return load


def _best_start(load: Load, length: int, throughput: float) -> tuple[int, Ranked]:
    """Where `length` blocks help most, the first of equal places, and what results."""
    num_starts = len(load) - length + 1
    after = np.repeat(load[None, :], num_starts, axis=0)
    for start in range(num_starts):
        after[start, start : start + length] += max(throughput, LEAST_THROUGHPUT)
    ranked = _ranked(after)
    best = max(range(num_starts), key=lambda start: (ranked[start], -start))
    return best, ranked[best]


def _ranked(loads: Load) -> list[Ranked]:
    """Each row of `loads` [rows, blocks] sorted, without differences that come from rounding alone."""
    ranked: list[Ranked] = np.sort(loads.round(9), axis=1).tolist()
    return ranked
