"""Hops that lie to the client's machine: whatever they say, they are left and blamed, and end no session."""

import pytest

from swarm.session import MAX_FAILURES, MAX_GAPS, Phase
from swarm.session_effects import Effect, NeedRoute
from swarm.wire.bounds import ErrorCode
from tests.protocol.test_client_session import Client, bound, steps


def needs(effects: list[Effect]) -> list[NeedRoute]:
    return [effect for effect in effects if isinstance(effect, NeedRoute)]


def rebound(client: Client) -> None:
    """Acknowledge the bind that a refusal has led to."""
    assert client.session.phase is Phase.BINDING
    for stage in range(len(client.session.route)):
        client.ack(stage, client.session.commit)


def test_a_session_without_a_ticket_cannot_be_fenced_so_whoever_says_so_lies() -> None:
    client = bound()
    (need,) = needs(client.refuse("fenced", stage=1))
    assert need.lost == {"b"}
    assert need.is_blamed
    assert client.session.phase is Phase.ROUTELESS


def test_a_hop_that_finds_a_gap_in_everything_is_left() -> None:
    client = bound()
    client.deliver(1, 2)
    client.step(3)
    for _ in range(MAX_GAPS):
        assert steps(client.refuse("gap", stage=2, attempt=client.session.outbox.attempt, position=2))
    (need,) = needs(client.refuse("gap", stage=2, attempt=client.session.outbox.attempt, position=2))
    assert need.lost == {"b", "c"}, "or the one before it changes what it passes on"
    assert need.is_blamed


def test_a_hop_that_loses_its_cache_again_and_again_is_left() -> None:
    client = bound("a")
    client.deliver(1, 2)
    client.step(3)
    for _ in range(MAX_GAPS):
        client.refuse("gap", position=0)
        rebound(client)
    (need,) = needs(client.refuse("gap", position=0))
    assert need.lost == {"a"}


def test_gaps_that_a_result_ends_are_forgotten() -> None:
    client = bound()
    for label in range(2 * MAX_GAPS):
        client.step(label)
        (step,) = steps(client.refuse("gap", attempt=client.session.outbox.attempt))
        client.answer(step)
    assert client.session.phase is Phase.READY


@pytest.mark.parametrize(
    ("code", "stage", "lost"),
    [
        ("bad_message", 2, {"b", "c"}),
        ("bad_message", 0, {"a"}),
        ("internal", 0, {"a", "b"}),
        ("internal", 2, {"c"}),
    ],
)
def test_a_hop_whose_neighbour_may_be_the_reason_is_left_together_with_it(
    code: ErrorCode, stage: int, lost: set[str]
) -> None:
    client = bound()
    needed = needs(client.refuse(code, stage=stage))
    for _ in range(MAX_FAILURES if code == "internal" else 0):
        rebound(client)
        needed = needs(client.refuse(code, stage=stage))
    assert [need.lost for need in needed] == [lost]


@pytest.mark.parametrize("code", ["busy", "draining"])
def test_a_hop_that_is_busy_or_stops_is_left_without_blame(code: ErrorCode) -> None:
    client = Client()
    client.bind("a", "b")
    (need,) = needs(client.refuse(code))
    assert not need.is_blamed


def test_where_nothing_moves_every_hop_is_suspected_and_who_was_to_hand_over_is_not_waited_for() -> None:
    client = bound()
    client.deliver(1, 2)
    client.session.retire(client.session.route[1].peer_id)
    client.bind("a", "x", "c")
    client.ack(0, 2)
    client.ack(1, 0)
    client.ack(2, 2)
    assert client.session._handover.receiving
    (need,) = needs(client.session.on_stall())
    assert need.lost == {"a", "x", "c"}
    client.bind("d", "y", "f")
    for stage in range(3):
        client.ack(stage)
    assert not client.session._handover.receiving


def test_a_hop_that_goes_on_complaining_after_it_was_left_is_not_heard() -> None:
    client = bound()
    assert needs(client.refuse("wrong_model", stage=1))
    assert client.refuse("wrong_model", stage=1) == []
    assert needs(client.refuse("wrong_model", stage=2)), "another hop is another matter"
