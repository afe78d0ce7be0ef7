"""Who was there a moment ago: as long as its own pauses let one expect, and of bounded number."""

from server.recent import MAX_PRESENT_S, MAX_REMEMBERED, PRESENT_S, Recent


def seen(*times_s: float) -> Recent[str]:
    recent: Recent[str] = Recent()
    for now_s in times_s:
        recent.note("a", now_s)
    return recent


def test_whoever_was_served_once_is_expected_for_a_second() -> None:
    assert seen(10.0).present(10.0 + PRESENT_S) == ["a"]
    assert seen(10.0).present(10.1 + PRESENT_S) == []


def test_whoever_takes_longer_between_two_tokens_is_expected_for_longer() -> None:
    assert seen(10.0, 11.5).present(14.5) == ["a"]
    assert seen(10.0, 11.5).present(14.6) == []


def test_nobody_is_expected_for_long() -> None:
    assert seen(10.0, 500.0).present(500.0 + MAX_PRESENT_S) == ["a"]
    assert seen(10.0, 500.0).present(500.1 + MAX_PRESENT_S) == []


def test_a_long_pause_is_remembered_although_several_were_served_at_once_and_fades() -> None:
    assert seen(10.0, 12.0, 12.0, 12.0).present(15.0) == ["a"]
    assert seen(10.0, 12.0, 12.01, 12.02).present(14.0) == ["a"]
    assert seen(10.0, 12.0, *(12.0 + 0.01 * number for number in range(1, 20))).present(14.0) == []


def test_the_last_time_is_that_of_the_last_note() -> None:
    assert seen(1.0, 2.0).last_s("a", 7.0) == 2.0
    assert seen(1.0, 2.0).last_s("b", 7.0) == 7.0


def test_of_too_many_those_are_forgotten_who_ran_longest_ago() -> None:
    recent: Recent[int] = Recent()
    for number in range(MAX_REMEMBERED + 10):
        recent.note(number, float(number))
    recent.note(11, 1e6)
    assert len(recent) == MAX_REMEMBERED
    assert recent.last_s(11, -1.0) == 1e6
    assert recent.last_s(9, -1.0) == -1.0
