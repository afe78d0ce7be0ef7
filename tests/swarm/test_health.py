"""Failing peers are left alone for a while, longer each time, and forgiven."""

import math

from swarm.health import MAX_PEERS, RESULTS_TO_FORGIVE, Health
from swarm.wire.blocks import PeerId

A, B = PeerId("1a"), PeerId("1b")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_in_a_row_doubles_the_pause_up_to_two_minutes() -> None:
    clock = Clock()
    health = Health(clock)
    pauses = []
    for _ in range(8):
        health.failed(A)
        pauses.append(health.retry_at(A) - clock.now)
        assert health.is_paused(A)
        clock.now = health.retry_at(A)
        assert not health.is_paused(A)
    assert pauses == [2, 4, 8, 16, 32, 64, 120, 120]


def test_several_reports_of_one_failure_count_once() -> None:
    health = Health(Clock())
    for _ in range(5):
        health.failed(A)
    assert health.retry_at(A) == 1002


def test_many_good_results_in_a_row_forgive_and_a_failure_begins_the_count_anew() -> None:
    clock = Clock()
    health = Health(clock)
    health.failed(A)
    for _ in range(RESULTS_TO_FORGIVE - 1):
        health.succeeded(A)
    clock.now += 2
    health.failed(A)
    for _ in range(RESULTS_TO_FORGIVE - 1):
        health.succeeded(A)
    assert health.is_paused(A)
    health.succeeded(A)
    assert not health.is_paused(A)
    assert health.avoiding() == {}


def test_a_failure_is_forgotten_after_ten_minutes() -> None:
    clock = Clock()
    health = Health(clock)
    health.failed(A)
    clock.now += 601
    assert health.avoiding() == {}
    health.failed(A)
    assert health.retry_at(A) - clock.now == 2


def test_routes_avoid_a_paused_peer_and_penalise_one_on_probation() -> None:
    clock = Clock()
    health = Health(clock)
    health.failed(A)
    assert health.avoiding() == {A: math.inf}
    clock.now += 3
    health.failed(B)
    assert health.avoiding() == {A: 0.05, B: math.inf}


def test_peers_that_were_never_reported_are_healthy() -> None:
    health = Health(Clock())
    assert (health.retry_at(A), health.is_paused(A)) == (0.0, False)


def test_memory_is_bounded() -> None:
    health = Health(Clock())
    for number in range(MAX_PEERS + 5):
        health.failed(PeerId(f"1{number}"))
    assert len(health.avoiding()) == MAX_PEERS
    assert health.is_paused(PeerId(f"1{MAX_PEERS + 4}"))
