"""Which servers to use: servers, round trips and history -> a route. Pure.

A route is a path through (server, block). Time is spent on

    links     half a round trip into each hop and back to the client at the end
    hops      a fixed overhead, the steps that wait in the server's queue, a penalty for past failures
    blocks    1 / inference_rps each

A hop may start anywhere in a server's span and may be left before its end. Blocks come one after the other,
so the shortest path is found block by block, for all servers at once: what Dijkstra would find, in
blocks * servers² additions (200 servers, 80 blocks: a few milliseconds).
"""

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from swarm.errors import NoRouteError
from swarm.wire.blocks import Hop, PeerId, Route, Span
from swarm.wire.records import ServerRecord

Costs = npt.NDArray[np.float64]

UNKNOWN_RTT_S = 0.05
HOP_OVERHEAD_S = 0.001
UNKNOWN_BLOCK_S = 0.1
LONGEST_BLOCK_S = 1e6  # of a speed near zero the inverse is infinite, and times an empty queue no number
NO_ROOM_S = 1.0  # a server without free KV tokens answers `busy` after a while
KEPT_BLOCK_S = 0.1  # what a cache in place is worth: a replay takes longer than many steps


def find_route(
    servers: Sequence[ServerRecord],
    *,
    num_blocks: int,
    rtts_s: Mapping[PeerId, float],
    avoiding: Collection[PeerId] | Mapping[PeerId, float] = (),
    keep: Route = (),
    goal: Literal["latency", "throughput"] = "latency",
) -> Route:
    """Choose servers for blocks `[0, num_blocks)`, each block once, in order.

    `servers` are records of one model; `rtts_s` is what we measured ourselves. Peers in `avoiding` are left
    out; where it is a mapping, its seconds are added to a hop through that peer instead. Hops of `keep` hold
    caches, which serve the very same blocks again, and are preferred. For throughput servers are drawn at
    random by their weight, so that many clients spread. Raises NoRouteError if a block has no server.
    """
    penalties = avoiding if isinstance(avoiding, Mapping) else dict.fromkeys(avoiding, math.inf)
    usable = usable_servers(servers, num_blocks, penalties)
    check_coverage(usable, num_blocks)
    if goal == "throughput":
        return _draw(usable, num_blocks, random.Random())
    while True:
        rows = _rows(usable, keep)
        route = _shortest(rows, num_blocks, _Costs(rows, num_blocks, rtts_s, penalties))
        between = _peers_between_visits(route)
        if not between:
            return route
        # Coming back to a server costs it a second cache; its span covers what lies between as well.
        usable = [server for server in usable if server.peer_id not in between]


def usable_servers(
    servers: Iterable[ServerRecord], num_blocks: int, penalties: Mapping[PeerId, float]
) -> list[ServerRecord]:
    """Online servers of the model that are not avoided, by peer id."""
    usable = [
        server
        for server in servers
        if server.state == "online"
        and server.end <= num_blocks
        and penalties.get(server.peer_id, 0.0) < math.inf
    ]
    if len({server.fingerprint for server in usable}) > 1:
        raise ValueError("servers of different models cannot share a route")
    return sorted(usable, key=lambda server: server.peer)


def check_coverage(servers: Sequence[ServerRecord], num_blocks: int) -> None:
    """Raise NoRouteError, naming them, if blocks have no server."""
    covered = {block for server in servers for block in range(server.start, server.end)}
    missing = tuple(block for block in range(num_blocks) if block not in covered)
    if missing:
        raise NoRouteError(f"no server for {name_blocks(missing)}", missing)


def expected_token_s(route: Route, servers: Sequence[ServerRecord], rtts_s: Mapping[PeerId, float]) -> float:
    """Seconds that one token takes along `route`, at best: links that nobody has measured count nothing."""
    records = {server.peer_id: server for server in servers}
    hops = [records[hop.peer_id] for hop in route]
    ends_s = (rtts_s.get(route[0].peer_id, 0.0) + rtts_s.get(route[-1].peer_id, 0.0)) / 2
    links_s = sum(
        max(one.rtts_s.get(other.peer, 0.0), other.rtts_s.get(one.peer, 0.0)) / 2
        for one, other in pairwise(hops)
    )
    blocks_s = sum(len(hop.span) * _block_s(record) for hop, record in zip(route, hops, strict=True))
    return ends_s + links_s + blocks_s + sum(_enter_s(record, 0.0, is_kept=True) for record in hops)


def name_blocks(blocks: Sequence[int]) -> str:
    """Words for sorted block indices: `(3, 4, 5, 9)` is `blocks 3-5, 9`."""
    ranges: list[list[int]] = []
    for block in blocks:
        if ranges and block == ranges[-1][1] + 1:
            ranges[-1][1] = block
        else:
            ranges.append([block, block])
    words = ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)
    return f"{'block' if len(blocks) == 1 else 'blocks'} {words}"


@dataclass(frozen=True, slots=True)
class _Row:
    """A way to use a server: from any block to any other, or exactly the blocks of a cache in place."""

    server: ServerRecord
    span: Span
    is_kept: bool = False


def _rows(servers: Sequence[ServerRecord], keep: Route) -> list[_Row]:
    known = {server.peer_id: server for server in servers}
    kept = ((known[hop.peer_id], hop.span) for hop in keep if hop.peer_id in known)
    return [
        *(_Row(server, server.span) for server in servers),
        *(_Row(server, span, is_kept=True) for server, span in kept if server.span.contains(span)),
    ]


class _Costs:
    """Seconds, by index of row: `home` [rows] to or from the client, `link` [from, to] between two,
    `enter` [rows] for a hop's own overhead, `block` [rows, blocks], infinite outside the span.
    """

    def __init__(
        self,
        rows: Sequence[_Row],
        num_blocks: int,
        rtts_s: Mapping[PeerId, float],
        penalties: Mapping[PeerId, float],
    ) -> None:
        servers = [row.server for row in rows]
        self.home = np.array([_rtt_s(rtts_s.get(server.peer_id)) / 2 for server in servers])
        self.link = _links(servers)
        self.enter = np.array(
            [_enter_s(row.server, penalties.get(row.server.peer_id, 0.0), row.is_kept) for row in rows]
        )
        self.block = np.full((len(rows), num_blocks), math.inf)
        self._firsts = np.array([row.span.start if row.is_kept else -1 for row in rows])
        self._ends = np.array([row.span.end if row.is_kept else -1 for row in rows])
        for costs, row in zip(self.block, rows, strict=True):
            costs[row.span.start : row.span.end] = _block_s(row.server) - KEPT_BLOCK_S * row.is_kept

    def may_enter(self, block: int) -> npt.NDArray[np.bool_]:
        """Which rows a route may come to at `block`: a cache in place is used from its first block on."""
        may: npt.NDArray[np.bool_] = (self._firsts < 0) | (self._firsts == block)
        return may

    def may_leave(self, block: int) -> npt.NDArray[np.bool_]:
        """Which rows a route may leave before `block`: a cache in place is used to its last block."""
        may: npt.NDArray[np.bool_] = (self._ends < 0) | (self._ends == block)
        return may


def _links(servers: Sequence[ServerRecord]) -> Costs:
    """Half a round trip between any two of them; infinite from a server to itself, in whatever row."""
    unique = list({server.peer_id: server for server in servers}.values())
    peers = {server.peer_id: number for number, server in enumerate(unique)}
    link = np.full((len(unique), len(unique)), UNKNOWN_RTT_S / 2)
    for number, server in enumerate(unique):
        for peer, rtt_s in server.rtts_s.items():
            other = peers.get(PeerId(peer))
            if other is not None:  # both ends may have measured: the longer one counts
                known = unique[other].rtts_s.get(server.peer, 0.0)
                link[number, other] = link[other, number] = max(rtt_s, known) / 2
    np.fill_diagonal(link, math.inf)  # a server's neighbour in a route is another server
    places = [peers[server.peer_id] for server in servers]
    return link[np.ix_(places, places)]


def _rtt_s(measured_s: float | None) -> float:
    return UNKNOWN_RTT_S if measured_s is None else measured_s


def _block_s(server: ServerRecord) -> float:
    known_s = 1 / server.inference_rps if server.inference_rps > 0 else UNKNOWN_BLOCK_S
    return min(known_s, LONGEST_BLOCK_S)


def _enter_s(server: ServerRecord, penalty_s: float, is_kept: bool) -> float:
    waiting_s = server.queue_depth * _block_s(server) * len(server.span)
    no_room_s = 0.0 if server.free_tokens or is_kept else NO_ROOM_S
    return HOP_OVERHEAD_S + waiting_s + penalty_s + no_room_s


def _shortest(rows: Sequence[_Row], num_blocks: int, costs: _Costs) -> Route:
    """Least cost block by block. Equal costs: fewer hops, then the server whose peer id comes first."""
    everyone = np.arange(len(rows))
    reached = costs.home + costs.enter + costs.block[:, 0]
    came_from = np.empty((num_blocks, len(rows)), dtype=np.int64)
    for block in range(1, num_blocks):
        via = np.where(costs.may_leave(block), reached, math.inf)[:, None] + costs.link
        best = np.argmin(via, axis=0)
        entered = np.where(costs.may_enter(block), via[best, everyone] + costs.enter, math.inf)
        stays = reached <= entered
        came_from[block] = np.where(stays, everyone, best)
        reached = np.where(stays, reached, entered) + costs.block[:, block]
    path = [int(np.argmin(reached + costs.home))]
    for block in range(num_blocks - 1, 0, -1):
        path.append(int(came_from[block, path[-1]]))
    return _joined([rows[number].server.peer_id for number in reversed(path)])


def _joined(peers: Sequence[PeerId]) -> Route:
    """The route that runs block i on `peers[i]`."""
    starts = [block for block, peer in enumerate(peers) if block == 0 or peer != peers[block - 1]]
    ends = [*starts[1:], len(peers)]
    return tuple(Hop(peers[start], Span(start, end)) for start, end in zip(starts, ends, strict=True))


def _peers_between_visits(route: Route) -> set[PeerId]:
    """Peers between the first pair of hops on one peer; empty if every peer comes once."""
    seen: dict[PeerId, int] = {}
    for number, hop in enumerate(route):
        if hop.peer_id in seen:
            return {other.peer_id for other in route[seen[hop.peer_id] + 1 : number]}
        seen[hop.peer_id] = number
    return set()


def _draw(servers: Sequence[ServerRecord], num_blocks: int, chance: random.Random) -> Route:
    """At each block a server by chance, weighted by throughput and by how far it takes us."""
    peers: list[PeerId] = []
    while (block := len(peers)) < num_blocks:
        here = [s for s in servers if s.start <= block < s.end and (not peers or s.peer_id != peers[-1])]
        weights = [max(server.throughput, 1e-3) * (server.end - block) for server in here]
        chosen = chance.choices(here, weights)[0]
        peers += [chosen.peer_id] * (chosen.end - block)
    return _joined(peers)
