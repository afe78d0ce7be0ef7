"""Placement: every server goes where the bottleneck is, and a swarm of them covers the model."""

import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.placement import Move, load_of, must_plan_again, plan_move, plan_span
from swarm.checkpoint.fitting import BlockSize, plan_num_blocks
from swarm.wire.blocks import PeerId, Span
from swarm.wire.records import ServerRecord

Place = Callable[[list[ServerRecord], int, int, float], Span]
Rebalance = Callable[[list[ServerRecord], int, random.Random], Move | None]


def server(number: int, span: Span, throughput: float = 1.0, **changes: Any) -> ServerRecord:
    fields: dict[str, Any] = {
        "sequence": 1, "issued_at": 0.0, "expires_at": 30.0, "fingerprint": "f" * 32, "state": "online",
    }  # fmt: skip
    return ServerRecord(
        peer=f"P{number:03}", start=span.start, end=span.end, throughput=throughput, **(fields | changes)
    )


def test_an_empty_swarm_is_filled_from_block_zero_without_gaps() -> None:
    servers: list[ServerRecord] = []
    for number in range(3):
        servers.append(server(number, plan_span(servers, 12, 4, 1.0)))
    assert [str(record.span) for record in servers] == ["0:4", "4:8", "8:12"]


def test_a_server_with_room_for_more_hosts_the_whole_model() -> None:
    assert plan_span([], 12, 40, 1.0) == Span(0, 12)


def test_joining_servers_count_and_leaving_ones_do_not() -> None:
    joining = server(0, Span(0, 4), state="joining")
    draining = server(1, Span(4, 8), state="draining")
    assert plan_span([joining, draining], 8, 4, 1.0) == Span(4, 8)


def test_the_slowest_blocks_are_relieved() -> None:
    servers = [server(0, Span(0, 4), 10.0), server(1, Span(4, 8), 3.0), server(2, Span(8, 12), 10.0)]
    assert plan_span(servers, 12, 4, 5.0) == Span(4, 8)
    assert plan_span(servers, 12, 6, 5.0) == Span(2, 8)


def test_a_server_of_unknown_speed_still_counts_as_a_server() -> None:
    assert plan_span([server(0, Span(0, 4), 0.0)], 8, 4, 0.0) == Span(4, 8)


def test_of_two_that_join_at_once_one_gives_way() -> None:
    first, second = (server(n, Span(0, 4), state="joining") for n in (1, 2))
    elsewhere = server(0, Span(4, 8), state="joining")
    assert not must_plan_again(first, [second, elsewhere])
    assert must_plan_again(second, [first])
    assert not must_plan_again(second, [server(1, Span(0, 4))])  # it was there before


@pytest.mark.parametrize(
    ("free", "expected"), [(0, 0), (400 << 20, 0), (520 << 20, 1), (8 << 30, 15), (200 << 30, 80)]
)
def test_the_number_of_blocks_follows_free_memory(free: int, expected: int) -> None:
    assert plan_num_blocks(free, BlockSize(400 << 20, 4096), 16_384, 80) == expected


capacities = st.lists(st.tuples(st.integers(1, 10), st.floats(0.1, 100)), min_size=1, max_size=15)


@given(capacities, st.integers(1, 24))
def test_the_bottleneck_never_gets_worse_and_enough_servers_cover_the_model(
    joining: list[tuple[int, float]], num_blocks: int
) -> None:
    servers: list[ServerRecord] = []
    for number, (capacity, throughput) in enumerate(joining):
        before = load_of(servers, num_blocks)
        span = plan_span(servers, num_blocks, capacity, throughput)
        servers.append(server(number, span, throughput))
        after = load_of(servers, num_blocks)
        assert len(span) == min(capacity, num_blocks)
        assert after.min() >= before.min()
        assert (after == 0).sum() < (before == 0).sum() or before.min() > 0
    if sum(capacity for capacity, _ in joining) >= num_blocks * 10:
        assert after.min() > 0


@given(capacities.filter(lambda c: len(c) > 1), st.integers(1, 16), st.randoms())
@settings(max_examples=40)
def test_moves_never_open_a_gap_never_slow_the_swarm_and_come_to_an_end(
    joined: list[tuple[int, float]], num_blocks: int, chance: random.Random
) -> None:
    servers = []
    for number, (capacity, throughput) in enumerate(joined):
        length = min(capacity, num_blocks)
        start = chance.randrange(num_blocks - length + 1)
        servers.append(server(number, Span(start, start + length), throughput))
    for _ in range(60):
        move = plan_move(servers, num_blocks)
        if move is None:
            return
        before = load_of(servers, num_blocks)
        servers = moved(servers, move)
        after = load_of(servers, num_blocks)
        assert sorted(after)[0] >= sorted(before)[0] - 1e-9
        assert (after < 1e-9).sum() <= (before < 1e-9).sum()
    raise AssertionError("servers move forever")


def moved(servers: list[ServerRecord], move: Move) -> list[ServerRecord]:
    by_peer = {record.peer_id: record for record in servers}
    old = by_peer[move.peer_id]
    by_peer[move.peer_id] = server(int(old.peer[1:]), move.span, old.throughput)
    return list(by_peer.values())


def test_a_gap_is_filled_by_a_server_that_can_be_spared() -> None:
    servers = [server(0, Span(0, 4)), server(1, Span(0, 4)), server(2, Span(4, 8))]
    assert plan_move(servers, 12) == Move(PeerId("P000"), Span(8, 12))
    assert plan_move(servers[1:], 12) is None  # nobody can be spared


def test_a_small_gain_is_not_worth_a_move() -> None:
    servers = [server(0, Span(0, 4), 10.0), server(1, Span(0, 4), 1.0), server(2, Span(4, 8), 10.0)]
    assert plan_move(servers, 8) is None
    servers = [server(0, Span(0, 4), 10.0), server(1, Span(0, 4), 6.0), server(2, Span(4, 8), 5.0)]
    assert plan_move(servers, 8) == Move(PeerId("P001"), Span(4, 8))


def test_gains_that_take_two_moves_are_found() -> None:
    slow = [server(0, Span(0, 4), 1.0), server(1, Span(4, 8), 1.0)]
    spare = [server(n, Span(8, 12), 5.0) for n in (2, 3, 4)]
    move = plan_move([*slow, *spare], 12)
    assert move is not None
    again = plan_move(moved([*slow, *spare], move), 12)
    assert again is not None
    assert load_of(moved(moved([*slow, *spare], move), again), 12).min() == 5.0


# --- simulation against Petals -----------------------------------------------------------------------


def petals_place(servers: list[ServerRecord], num_blocks: int, capacity: int, throughput: float) -> Span:
    """Petals' rule: the window whose sorted loads are the least."""
    load, length = list(load_of(servers, num_blocks)), min(capacity, num_blocks)
    start = min(range(num_blocks - length + 1), key=lambda s: sorted(load[s : s + length]))
    return Span(start, start + length)


def petals_rebalance(servers: list[ServerRecord], num_blocks: int, chance: random.Random) -> Move | None:
    """Petals' rule for one server: simulate everybody's moves, go if the swarm is below 0.75 of that."""
    me = chance.choice(servers)
    others = [record for record in servers if record is not me]
    if load_of(others, num_blocks).min() == 0 < load_of(servers, num_blocks).min():
        return None
    target = petals_place(others, num_blocks, len(me.span), me.throughput)
    if target == me.span:
        return None
    simulated = moved(servers, Move(me.peer_id, target))
    for _ in range(3):
        for record in chance.sample(simulated, len(simulated)):
            rest = [other for other in simulated if other.peer != record.peer]
            to = petals_place(rest, num_blocks, len(record.span), record.throughput)
            simulated = moved(simulated, Move(record.peer_id, to))
    now, then = load_of(servers, num_blocks).min(), load_of(simulated, num_blocks).min()
    return Move(me.peer_id, target) if then and now / then < 0.75 else None


def our_rebalance(servers: list[ServerRecord], num_blocks: int, _: random.Random) -> Move | None:
    return plan_move(servers, num_blocks)


def simulate(seed: int, place: Place, rebalance: Rebalance) -> float:
    """Mean tokens/s of a swarm's slowest block while servers come, go and move, which takes a while."""
    chance, moves = random.Random(seed), random.Random(seed)
    servers: list[ServerRecord] = []
    away: list[tuple[int, ServerRecord]] = []
    num_blocks = chance.choice([12, 16, 24])
    total, num_rounds = 0.0, 40
    for now in range(num_rounds):
        servers += [record for back_at, record in away if back_at == now]
        away = [(back_at, record) for back_at, record in away if back_at > now]
        if now < 12 or chance.random() < 0.2:
            capacity, throughput = chance.choice([3, 4, 6, 8]), chance.lognormvariate(0, 0.7)
            everybody = servers + [record for _, record in away]
            servers.append(server(now, place(everybody, num_blocks, capacity, throughput), throughput))
        leaving, rank = chance.random() < 0.2, chance.random()
        if leaving and len(servers) > 6:
            number = sorted(record.peer for record in servers)[int(rank * len(servers))]
            servers = [record for record in servers if record.peer != number]
        move = rebalance(servers, num_blocks, moves)
        if move is not None:
            (record,) = (r for r in moved(servers, move) if r.peer == move.peer_id)
            servers = [r for r in servers if r.peer != move.peer_id]
            away.append((now + 2, record))
        total += float(load_of(servers, num_blocks).min())
    return total / num_rounds


def test_simulated_swarms_are_at_least_as_fast_as_with_petals_rule() -> None:
    ratios = []
    for seed in range(12):
        ours, theirs = (
            simulate(seed, plan_span, our_rebalance),
            simulate(seed, petals_place, petals_rebalance),
        )
        ratios.append(ours / theirs if theirs else 1.0)
    print("placement: ours / Petals", [round(ratio, 2) for ratio in sorted(ratios)])  # noqa: T201
    assert statistics.median(ratios) >= 1.0
