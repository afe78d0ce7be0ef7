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
    caches and are preferred. For throughput servers are drawn at random by their weight, so that many
    clients spread. Raises NoRouteError if a block has no server.
    """
    penalties = avoiding if isinstance(avoiding, Mapping) else dict.fromkeys(avoiding, math.inf)
    usable = usable_servers(servers, num_blocks, penalties)
    check_coverage(usable, num_blocks)
    if goal == "throughput":
        return _draw(usable, num_blocks, random.Random())
    while True:
        route = _shortest(usable, num_blocks, _Costs(usable, num_blocks, rtts_s, penalties, keep))
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


class _Costs:
    """Seconds, by index of server: `home` [servers] to or from the client, `link` [from, to] between two,
    `enter` [servers] for a hop's own overhead, `block` [servers, blocks], infinite outside the span.
    """

    def __init__(
        self,
        servers: Sequence[ServerRecord],
        num_blocks: int,
        rtts_s: Mapping[PeerId, float],
        penalties: Mapping[PeerId, float],
        keep: Route,
    ) -> None:
        kept = {hop.peer_id: hop.span for hop in keep}
        self.home = np.array([_rtt_s(rtts_s.get(server.peer_id)) / 2 for server in servers])
        self.link = _links(servers)
        self.enter = np.array(
            [_enter_s(s, penalties.get(s.peer_id, 0.0), s.peer_id in kept) for s in servers]
        )
        self.block = np.full((len(servers), num_blocks), math.inf)
        for row, server in zip(self.block, servers, strict=True):
            row[server.start : server.end] = _block_s(server)
            if span := kept.get(server.peer_id):
                row[max(span.start, server.start) : min(span.end, server.end)] -= KEPT_BLOCK_S


def _links(servers: Sequence[ServerRecord]) -> Costs:
    index = {server.peer_id: number for number, server in enumerate(servers)}
    link = np.full((len(servers), len(servers)), UNKNOWN_RTT_S / 2)
    for number, server in enumerate(servers):
        for peer, rtt_s in server.rtts_s.items():
            other = index.get(PeerId(peer))
            if other is not None:  # both ends may have measured: the longer one counts
                known = servers[other].rtts_s.get(server.peer, 0.0)
                link[number, other] = link[other, number] = max(rtt_s, known) / 2
    np.fill_diagonal(link, math.inf)  # a server's neighbour in a route is another server
    return link


def _rtt_s(measured_s: float | None) -> float:
    return UNKNOWN_RTT_S if measured_s is None else measured_s


def _block_s(server: ServerRecord) -> float:
    return 1 / server.inference_rps if server.inference_rps > 0 else UNKNOWN_BLOCK_S


def _enter_s(server: ServerRecord, penalty_s: float, is_kept: bool) -> float:
    waiting_s = server.queue_depth * _block_s(server) * len(server.span)
    no_room_s = 0.0 if server.free_tokens or is_kept else NO_ROOM_S
    return HOP_OVERHEAD_S + waiting_s + penalty_s + no_room_s


def _shortest(servers: Sequence[ServerRecord], num_blocks: int, costs: _Costs) -> Route:
    """Least cost block by block. Equal costs: fewer hops, then the server whose peer id comes first."""
    everyone = np.arange(len(servers))
    reached = costs.home + costs.enter + costs.block[:, 0]
    came_from = np.empty((num_blocks, len(servers)), dtype=np.int64)
    for block in range(1, num_blocks):
        via = reached[:, None] + costs.link
        best = np.argmin(via, axis=0)
        entered = via[best, everyone] + costs.enter
        stays = reached <= entered
        came_from[block] = np.where(stays, everyone, best)
        reached = np.where(stays, reached, entered) + costs.block[:, block]
    path = [int(np.argmin(reached + costs.home))]
    for block in range(num_blocks - 1, 0, -1):
        path.append(int(came_from[block, path[-1]]))
    return _joined([servers[number].peer_id for number in reversed(path)])


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
