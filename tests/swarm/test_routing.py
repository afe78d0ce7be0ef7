"""Routes: every block once, in order, on the servers that answer soonest."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import NoRouteError
from swarm.routing import expected_token_s, find_route, name_blocks
from swarm.wire.blocks import Hop, PeerId, Route, Span
from swarm.wire.records import ServerRecord

A, B, C, D = (PeerId(letter) for letter in "ABCD")


def server(peer: str, start: int, end: int, **changes: Any) -> ServerRecord:
    fields: dict[str, Any] = {
        "sequence": 1, "issued_at": 0.0, "expires_at": 30.0, "fingerprint": "f" * 32, "state": "online",
        "inference_rps": 1000.0, "throughput": 100.0, "free_tokens": 1000,
    }  # fmt: skip
    return ServerRecord(peer=peer, start=start, end=end, **(fields | changes))


def route_of(*hops: tuple[str, int, int]) -> Route:
    return tuple(Hop(PeerId(peer), Span(start, end)) for peer, start, end in hops)


def test_one_server_for_everything_is_one_hop() -> None:
    assert find_route([server(A, 0, 8)], num_blocks=8, rtts_s={}) == route_of((A, 0, 8))


def test_a_hop_may_use_part_of_a_span_and_be_left_early() -> None:
    slow, fast = server(A, 0, 8, inference_rps=5.0), server(B, 2, 12, inference_rps=5000.0)
    assert find_route([slow, fast], num_blocks=12, rtts_s={}) == route_of((A, 0, 2), (B, 2, 12))


def test_the_nearer_server_is_used() -> None:
    servers = [server(A, 0, 8), server(B, 0, 8)]
    assert find_route(servers, num_blocks=8, rtts_s={A: 0.2, B: 0.1}) == route_of((B, 0, 8))


def test_few_slow_hops_beat_many_fast_ones_when_links_are_long() -> None:
    servers = [server(A, 0, 8, inference_rps=500.0), server(B, 0, 4), server(C, 4, 8)]
    assert find_route(servers, num_blocks=8, rtts_s={}) == route_of((A, 0, 8))
    near = [server(A, 0, 8, inference_rps=5.0), server(B, 0, 4, rtts_s={C: 0.001}), server(C, 4, 8)]
    assert find_route(near, num_blocks=8, rtts_s={}) == route_of((B, 0, 4), (C, 4, 8))


def test_round_trips_between_servers_count_and_the_longer_report_wins() -> None:
    first = server(A, 0, 4, rtts_s={B: 0.3, C: 0.01})
    last = [server(B, 4, 8, rtts_s={A: 0.001}), server(C, 4, 8)]
    assert find_route([first, *last], num_blocks=8, rtts_s={}) == route_of((A, 0, 4), (C, 4, 8))


def test_a_long_queue_is_avoided() -> None:
    servers = [server(A, 0, 8, queue_depth=5), server(B, 0, 8, inference_rps=600.0)]
    assert find_route(servers, num_blocks=8, rtts_s={}) == route_of((B, 0, 8))


def test_a_server_without_room_is_used_only_if_it_must_be() -> None:
    servers = [server(A, 0, 8, free_tokens=0), server(B, 0, 8, inference_rps=50.0)]
    assert find_route(servers, num_blocks=8, rtts_s={}) == route_of((B, 0, 8))
    assert find_route(servers[:1], num_blocks=8, rtts_s={}) == route_of((A, 0, 8))


def test_avoided_peers_are_left_out() -> None:
    servers = [server(A, 0, 8), server(B, 0, 8, inference_rps=10.0)]
    assert find_route(servers, num_blocks=8, rtts_s={}, avoiding={A}) == route_of((B, 0, 8))
    assert find_route(servers, num_blocks=8, rtts_s={}, avoiding=[A]) == route_of((B, 0, 8))
    with pytest.raises(NoRouteError):
        find_route(servers, num_blocks=8, rtts_s={}, avoiding={A, B})


def test_a_peer_on_probation_costs_its_penalty() -> None:
    servers = [server(A, 0, 8), server(B, 0, 8, inference_rps=500.0)]
    assert find_route(servers, num_blocks=8, rtts_s={}, avoiding={A: 0.001}) == route_of((A, 0, 8))
    assert find_route(servers, num_blocks=8, rtts_s={}, avoiding={A: 0.05}) == route_of((B, 0, 8))
    assert find_route(servers, num_blocks=8, rtts_s={}, avoiding={A: math.inf}) == route_of((B, 0, 8))


@pytest.mark.parametrize("state", ["joining", "draining", "offline"])
def test_only_online_servers_are_used(state: str) -> None:
    with pytest.raises(NoRouteError):
        find_route([server(A, 0, 8, state=state)], num_blocks=8, rtts_s={})


def test_servers_of_different_models_are_never_mixed() -> None:
    with pytest.raises(ValueError, match="different models"):
        find_route([server(A, 0, 4), server(B, 4, 8, fingerprint="e" * 32)], num_blocks=8, rtts_s={})


def test_missing_blocks_are_named() -> None:
    with pytest.raises(NoRouteError, match=r"^no server for blocks 3-5, 9$") as caught:
        find_route([server(A, 0, 3), server(B, 6, 9)], num_blocks=10, rtts_s={})
    assert caught.value.missing == (3, 4, 5, 9)
    assert name_blocks([7]) == "block 7"


def test_hops_that_hold_caches_are_kept() -> None:
    servers = [server(A, 0, 4), server(B, 4, 8), server(C, 4, 8, inference_rps=3000.0), server(D, 0, 8)]
    kept = route_of((A, 0, 4), (B, 4, 8))
    assert find_route(servers, num_blocks=8, rtts_s={}) == route_of((D, 0, 8))
    assert find_route(servers, num_blocks=8, rtts_s={}, keep=kept) == kept
    without_b = find_route(servers, num_blocks=8, rtts_s={}, keep=kept, avoiding=[B])
    assert without_b == route_of((A, 0, 4), (C, 4, 8))


@pytest.mark.parametrize(("far_s", "first"), [(0.3, A), (0.6, B)])
def test_a_cache_in_place_is_used_as_a_whole_or_not_at_all(far_s: float, first: PeerId) -> None:
    servers = [server("A", 0, 2, inference_rps=1e5), server("B", 0, 2), server("C", 2, 4)]
    route = find_route(servers, num_blocks=4, rtts_s={A: far_s, B: 0.001}, keep=route_of(("A", 0, 2)))
    assert route[0] == Hop(first, Span(0, 2))


def test_only_the_cached_part_of_a_span_is_worth_keeping() -> None:
    servers = [server(A, 0, 8), server(B, 4, 8)]
    kept = route_of((A, 0, 4), (B, 4, 8))
    assert find_route(servers, num_blocks=8, rtts_s={}, keep=kept) == kept


def test_equal_servers_are_chosen_by_peer_id_whatever_their_order() -> None:
    servers = [server(peer, 0, 8) for peer in (C, A, B)]
    assert find_route(servers, num_blocks=8, rtts_s={}) == route_of((A, 0, 8))
    assert find_route(servers[::-1], num_blocks=8, rtts_s={}) == route_of((A, 0, 8))


def test_a_route_does_not_come_back_to_a_server() -> None:
    slow_middle = server(A, 0, 9, inference_rps=1.0)
    quick = server(B, 3, 6, inference_rps=9000.0)
    assert find_route([slow_middle, quick], num_blocks=9, rtts_s={}) == route_of((A, 0, 9))


def test_throughput_spreads_over_servers_by_their_weight() -> None:
    servers = [server(A, 0, 8, throughput=300.0), server(B, 0, 8, throughput=100.0)]
    drawn = [find_route(servers, num_blocks=8, rtts_s={}, goal="throughput")[0].peer_id for _ in range(400)]
    assert 230 < drawn.count(A) < 370


def test_two_hundred_servers_take_less_than_fifty_milliseconds() -> None:
    servers = [server(f"P{n:03}", n % 65, n % 65 + 16, rtts_s={f"P{n + 1:03}": 0.01}) for n in range(200)]
    rtts_s = {PeerId(f"P{n:03}"): n / 1000 for n in range(200)}

    def seconds() -> float:
        started = time.thread_time()
        find_route(servers, num_blocks=80, rtts_s=rtts_s)
        return time.thread_time() - started

    assert min(seconds() for _ in range(3)) < 0.05


@st.composite
def swarms(draw: st.DrawFn) -> tuple[list[ServerRecord], int]:
    num_blocks = draw(st.integers(1, 12))
    rates = st.sampled_from([0.0, 1.0, 50.0, 1000.0])
    servers = []
    for number in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, num_blocks - 1))
        end = draw(st.integers(start + 1, num_blocks))
        rtts_s = {f"P{n}": draw(st.floats(0, 1)) for n in draw(st.sets(st.integers(0, 7), max_size=3))}
        servers.append(
            server(
                f"P{number}", start, end, inference_rps=draw(rates), queue_depth=draw(st.integers(0, 3)),
                rtts_s=rtts_s, free_tokens=draw(st.integers(0, 1)),
            )
        )  # fmt: skip
    return servers, num_blocks


@given(swarms(), st.sampled_from(["latency", "throughput"]), st.data())
def test_every_block_comes_once_in_order_on_a_server_that_has_it(
    swarm: tuple[list[ServerRecord], int], goal: Any, data: st.DataObject
) -> None:
    servers, num_blocks = swarm
    spans = {record.peer_id: record.span for record in servers}
    covered = {block for span in spans.values() for block in range(span.start, span.end)}
    keep = tuple(Hop(record.peer_id, record.span) for record in data.draw(st.lists(st.sampled_from(servers))))
    if covered != set(range(num_blocks)):
        with pytest.raises(NoRouteError):
            find_route(servers, num_blocks=num_blocks, rtts_s={}, goal=goal, keep=keep)
        return
    route = find_route(servers, num_blocks=num_blocks, rtts_s={}, goal=goal, keep=keep)
    assert [block for hop in route for block in range(hop.span.start, hop.span.end)] == list(
        range(num_blocks)
    )
    assert all(spans[hop.peer_id].contains(hop.span) for hop in route)
    assert len({hop.peer_id for hop in route}) == len(route)


def cost_s(route: Route, servers: list[ServerRecord]) -> float:
    """The cost of a route by its definition, without client round trips, penalties, queues and caches."""
    records = {record.peer_id: record for record in servers}
    total = 0.05  # unknown round trips to and from the client, half each
    for number, hop in enumerate(route):
        total += 0.001 + len(hop.span) / records[hop.peer_id].inference_rps
        if number:
            a, b = records[route[number - 1].peer_id], records[hop.peer_id]
            reports = [r for r in (a.rtts_s.get(b.peer), b.rtts_s.get(a.peer)) if r is not None]
            total += max(reports, default=0.05) / 2
    return total


def all_routes(servers: list[ServerRecord], num_blocks: int) -> list[Route]:
    def extend(route: Route, block: int) -> list[Route]:
        if block == num_blocks:
            return [route]
        found = []
        for record in servers:
            if record.start <= block < record.end and record.peer_id not in {hop.peer_id for hop in route}:
                for end in range(block + 1, record.end + 1):
                    found += extend((*route, Hop(record.peer_id, Span(block, end))), end)
        return found

    return extend((), 0)


@given(st.data())
def test_no_route_is_quicker_than_the_one_found(data: st.DataObject) -> None:
    servers = [server(A, 0, 5)]
    for peer in (B, C):
        start = data.draw(st.integers(0, 4))
        rtts_s = {A: data.draw(st.floats(0, 0.2))}
        rate = data.draw(st.sampled_from([300.0, 2000.0]))
        servers.append(
            server(peer, start, data.draw(st.integers(start + 1, 5)), rtts_s=rtts_s, inference_rps=rate)
        )
    best = min(cost_s(route, servers) for route in all_routes(servers, 5))
    found = cost_s(find_route(servers, num_blocks=5, rtts_s={}), servers)
    assert found <= best + 1e-9


def test_a_tokens_time_is_that_of_links_hops_queues_and_blocks() -> None:
    servers = [server(A, 0, 4, rtts_s={B: 0.02}, queue_depth=2), server(B, 4, 8, rtts_s={A: 0.04})]
    route = route_of((A, 0, 4), (B, 4, 8))
    computing_s, hops_s, waiting_s = 8 / 1000, 2 * 0.001, 2 * 4 / 1000
    links_s, ends_s = 0.04 / 2, (0.1 + 0.2) / 2
    taken_s = expected_token_s(route, servers, {A: 0.1, B: 0.2})
    assert taken_s == pytest.approx(computing_s + hops_s + waiting_s + links_s + ends_s)


def test_what_nobody_has_measured_of_links_takes_no_time_at_best() -> None:
    servers = [server(A, 0, 4), server(B, 4, 8, free_tokens=0)]
    assert expected_token_s(route_of((A, 0, 4), (B, 4, 8)), servers, {}) == pytest.approx(0.010)
