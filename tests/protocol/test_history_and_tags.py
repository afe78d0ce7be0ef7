"""Rules 5 and 6: contents have names, and names alone say what two ends have in common."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.history import History
from swarm.wire.tags import Boundaries, TagChain, pack_boundaries, unpack_boundaries

KEY = b"k" * 16
LABELS = st.lists(st.integers(0, 2**64 - 1), max_size=12)


def chain_of(*labels: int, key: bytes = KEY) -> TagChain:
    chain = TagChain(key)
    chain.append(labels)
    return chain


def boundaries_of(chain: TagChain, *positions: int) -> Boundaries:
    boundaries = Boundaries()
    for position in positions:
        boundaries.push(position, chain.tag(position))
    return boundaries


def told(chain: TagChain, *positions: int) -> dict[int, int]:
    return {position: chain.tag(position) for position in (0, *positions)}


# --- tags ---------------------------------------------------------------------------------------


def test_the_empty_history_is_called_zero() -> None:
    assert chain_of().tag(0) == 0


def test_histories_of_equal_length_have_different_names() -> None:
    assert chain_of(1, 2, 3).tag(3) != chain_of(1, 5, 3).tag(3)


def test_a_name_depends_on_the_key() -> None:
    assert chain_of(1).tag(1) != chain_of(1, key=b"x" * 16).tag(1)


def test_a_name_does_not_depend_on_how_the_tokens_were_cut_into_steps() -> None:
    pieces = chain_of(1)
    pieces.append([2, 3])
    assert pieces.tag(3) == chain_of(1, 2, 3).tag(3)


def test_the_same_tokens_after_a_rollback_have_the_same_name() -> None:
    chain = chain_of(1, 2, 3)
    chain.truncate(1)
    chain.append([2, 3])
    assert chain.tag(3) == chain_of(1, 2, 3).tag(3)


def test_a_fork_names_what_it_shares_as_its_parent_does() -> None:
    parent = chain_of(1, 2, 3)
    child = parent.fork(2)
    parent.truncate(0)
    assert len(child) == 2
    assert child.tag(2) == chain_of(1, 2).tag(2)


@given(LABELS)
def test_every_tag_fits_the_wire(labels: list[int]) -> None:
    chain = chain_of(*labels)
    assert all(0 <= chain.tag(position) < 2**63 for position in range(len(labels) + 1))


# --- boundaries --------------------------------------------------------------------------------


def test_an_empty_cache_holds_the_empty_history() -> None:
    assert (Boundaries().length, Boundaries().tag) == (0, 0)


def test_the_longest_common_boundary_is_found() -> None:
    chain = chain_of(1, 2, 3, 4)
    assert boundaries_of(chain, 1, 3, 4).longest_match(told(chain, 1, 3)) == (3, chain.tag(3))


def test_old_contents_of_the_same_length_do_not_match() -> None:
    old, new = chain_of(1, 2, 3), chain_of(1, 7, 8)
    assert boundaries_of(old, 1, 3).longest_match(told(new, 1, 3)) == (1, new.tag(1))


def test_strangers_have_the_empty_history_in_common() -> None:
    assert boundaries_of(chain_of(1, 2), 2).longest_match({2: 99}) == (0, 0)


def test_a_step_may_continue_at_a_boundary_of_its_name_only() -> None:
    chain = chain_of(1, 2, 3)
    held = boundaries_of(chain, 3)
    assert held.allows(3, chain.tag(3))
    assert not held.allows(3, chain.tag(2))


def test_a_step_may_not_begin_above_what_is_held() -> None:
    assert not boundaries_of(chain_of(1, 2), 2).allows(3, 0)


def test_inside_a_step_the_order_of_the_stream_vouches() -> None:
    held = boundaries_of(chain_of(1, 2, 3), 3)
    assert held.allows(2, 12345)
    assert held.tag_at(2) is None


def test_a_rollback_into_a_step_makes_a_boundary_there() -> None:
    chain = chain_of(1, 2, 3)
    held = boundaries_of(chain, 3)
    held.truncate(2, chain.tag(2))
    assert (held.length, held.tag, held.tag_at(2)) == (2, chain.tag(2), chain.tag(2))


def test_a_copy_does_not_follow_its_original() -> None:
    chain = chain_of(1, 2)
    held = boundaries_of(chain, 1)
    copy = held.copy()
    held.push(2, chain.tag(2))
    assert copy.length == 1


@given(LABELS, LABELS, st.data())
def test_a_match_is_always_a_true_common_prefix(
    ours: list[int], theirs: list[int], data: st.DataObject
) -> None:
    mine, yours = chain_of(*ours), chain_of(*theirs)
    at = sorted(data.draw(st.sets(st.integers(0, len(ours)))))
    position, tag = boundaries_of(mine, *at).longest_match(told(yours, *range(len(theirs) + 1)))
    assert ours[:position] == theirs[:position]
    assert tag == mine.tag(position)


# --- on the wire ---------------------------------------------------------------------------------


def test_boundaries_survive_the_wire() -> None:
    chain = chain_of(1, 2, 3)
    assert unpack_boundaries(*pack_boundaries(chain, [0, 1, 3])) == told(chain, 1, 3)


def test_of_too_many_boundaries_the_last_are_sent() -> None:
    chain = chain_of(*range(70_000))
    sent = unpack_boundaries(*pack_boundaries(chain, list(range(70_001))))
    assert len(sent) == 65_536
    assert max(sent) == 70_000


@pytest.mark.parametrize(("positions", "tags"), [(b"\0" * 3, b""), (b"\0" * 4, b""), (b"\0" * 4, b"\0" * 7)])
def test_positions_without_their_tags_are_refused(positions: bytes, tags: bytes) -> None:
    with pytest.raises(ValueError, match="as many tags"):
        unpack_boundaries(positions, tags)


@given(positions=st.binary(max_size=64), tags=st.binary(max_size=128))
def test_any_bytes_give_boundaries_or_a_value_error(positions: bytes, tags: bytes) -> None:
    try:
        unpacked = unpack_boundaries(positions, tags)
    except ValueError:
        assert len(positions) % 4 or len(tags) != 2 * len(positions)
    else:
        assert len(unpacked) <= len(positions) // 4


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)), max_size=20))
def test_a_hop_finds_its_match_among_any_claims(claims: list[tuple[int, int]]) -> None:
    positions = struct.pack(f"<{len(claims)}I", *(position for position, _ in claims))
    tags = struct.pack(f"<{len(claims)}Q", *(tag for _, tag in claims))
    chain = chain_of(1, 2, 3)
    position, tag = boundaries_of(chain, 1, 3).longest_match(unpack_boundaries(positions, tags))
    assert (position, tag) in {(0, 0), (1, chain.tag(1)), (3, chain.tag(3))}


# --- the client's history -------------------------------------------------------------------------


def boundaries_sent(history: History) -> list[int]:
    return sorted(unpack_boundaries(*history.packed()))


def history_of(*steps: list[int]) -> History:
    history = History(TagChain(KEY))
    for labels in steps:
        history.append(labels)
    return history


def test_steps_end_at_boundaries() -> None:
    assert boundaries_sent(history_of([1, 2], [3], [])) == [0, 2, 3]


def test_a_rollback_into_a_step_is_a_boundary() -> None:
    history = history_of([1, 2], [3, 4, 5])
    history.truncate(4)
    assert boundaries_sent(history) == [0, 2, 4]


def test_the_end_of_a_replayed_part_is_a_boundary() -> None:
    history = history_of([1, 2, 3, 4], [5])
    history.mark(2)
    history.mark(4)
    assert boundaries_sent(history) == [0, 2, 4, 5]


def test_a_forked_history_has_its_parents_boundaries_and_its_own_end() -> None:
    history = history_of([1, 2], [3, 4])
    child = history.fork(3)
    assert boundaries_sent(child) == [0, 2, 3]
    assert child.tag(3) == history.tag(3)


def test_a_reloaded_history_has_the_boundaries_that_were_written_down() -> None:
    history = history_of([1, 2, 3], [4], [5, 6, 7], [8])
    again = History.of(KEY, [1, 2, 3, 4, 5, 6, 7, 8], history.inside())
    assert history.inside() == ((1, 3), (5, 7))
    assert boundaries_sent(again) == boundaries_sent(history) == [0, 3, 4, 7, 8]
    assert again.boundary_below(6) == 4
    nonsense = History.of(KEY, [1, 2], ((0, 0), (-5, 1), (1, 2**60), (9, 3)))
    assert boundaries_sent(nonsense) == [0, 2]


def test_a_reloaded_history_has_a_boundary_everywhere() -> None:
    # Where steps ended was not written down: whatever boundary a hop knows will be among them.
    assert boundaries_sent(History.of(KEY, [1, 2, 3])) == [0, 1, 2, 3]
    assert History.of(KEY, [1, 2, 3]).tag(3) == history_of([1, 2], [3]).tag(3)
