"""When a session that waits moves on, binds anew or gives up."""

from swarm.patience import ACK_S, BUSY_S, IN_HAND_S, RECOVER_S, STALL_S, Patience, Verdict


def waiting() -> Patience:
    """Bound at 0, asked at 0."""
    patience = Patience(progress_s=0.0, phase_s=0.0)
    patience.begin(0.0)
    return patience


def test_a_step_that_makes_progress_is_waited_for() -> None:
    patience = waiting()
    for now_s in range(0, 300, 20):
        assert patience.judge(now_s) is Verdict.WAIT
        patience.progress(now_s)


def test_a_route_on_which_nothing_moves_is_bound_anew_and_then_given_up() -> None:
    patience = waiting()
    assert patience.judge(STALL_S) is Verdict.WAIT
    assert patience.judge(STALL_S + 1) is Verdict.REBIND
    patience.bind(STALL_S + 1)
    assert patience.judge(STALL_S + 2) is Verdict.WAIT
    assert patience.judge(RECOVER_S + 1) is Verdict.GIVE_UP


def told_until(end_s: float) -> Patience:
    """Servers have said until then that they have the step in hand."""
    patience = waiting()
    patience.in_hand(end_s)
    return patience


def test_a_step_that_a_server_has_in_hand_is_waited_for_although_nothing_comes() -> None:
    patience = told_until(100)
    assert patience.judge(100 + STALL_S) is Verdict.WAIT
    assert patience.judge(101 + STALL_S) is Verdict.REBIND
    assert patience.judge(101 + RECOVER_S) is Verdict.GIVE_UP


def test_a_server_that_says_for_ever_that_it_has_a_step_in_hand_is_left() -> None:
    patience = told_until(10_000)
    assert patience.judge(IN_HAND_S + STALL_S) is Verdict.WAIT
    assert patience.judge(IN_HAND_S + STALL_S + 1) is Verdict.REBIND


def test_the_next_server_is_believed_as_long_but_all_of_them_only_twice_as_long_as_one() -> None:
    patience = told_until(10_000)
    bound_s = IN_HAND_S + STALL_S + 1
    patience.bind(bound_s)
    assert patience.judge(bound_s + IN_HAND_S) is Verdict.WAIT
    assert patience.judge(2 * IN_HAND_S + RECOVER_S) is Verdict.WAIT
    assert patience.judge(2 * IN_HAND_S + RECOVER_S + 1) is Verdict.GIVE_UP


def test_what_was_in_hand_before_a_result_says_nothing_about_the_next_step() -> None:
    patience = told_until(100)
    patience.deliver(100.0)
    assert patience.judge(100 + STALL_S) is Verdict.WAIT
    assert patience.judge(101 + STALL_S) is Verdict.REBIND


def test_a_step_that_is_taken_after_a_refusal_is_waited_for_as_any_other() -> None:
    patience = waiting()
    patience.refuse(1.0)
    for now_s in range(2, 100):
        patience.in_hand(now_s)
        assert patience.judge(now_s) is Verdict.WAIT
    assert patience.judge(100 + RECOVER_S) is Verdict.GIVE_UP


def test_what_was_in_hand_before_a_refusal_does_not_prolong_the_wait_for_room() -> None:
    patience = waiting()
    patience.refuse(1.0)
    patience.in_hand(RECOVER_S)
    patience.refuse(RECOVER_S + 1)
    assert patience.judge(RECOVER_S + 2) is Verdict.GIVE_UP


def test_sessions_that_compute_and_are_refused_in_turn_do_not_go_on_for_ever() -> None:
    patience = waiting()
    for now_s in range(1, 10_000):
        patience.refuse(now_s)
        patience.in_hand(now_s)
        patience.progress(now_s)
    assert patience.judge(10_000) is Verdict.GIVE_UP


def test_replays_do_not_prolong_the_wait_for_room() -> None:
    patience = waiting()
    patience.refuse(1.0)
    for now_s in range(2, 60, 5):
        patience.progress(now_s)
        patience.refuse(now_s)
        assert patience.judge(now_s) is Verdict.WAIT
    patience.progress(RECOVER_S + 2)
    assert patience.judge(RECOVER_S + 2) is Verdict.GIVE_UP


def test_a_result_ends_the_wait_for_room_and_the_pause() -> None:
    patience = waiting()
    patience.refuse(1.0)
    patience.lose(2.0)
    patience.lose(3.0)
    assert patience.deliver(7.0) == 5.0
    assert patience.deliver(8.0) is None
    assert patience.judge(8.0 + STALL_S) is Verdict.WAIT
    assert not patience.may_move(100.0)


def test_a_refusal_must_last_before_another_server_is_taken() -> None:
    patience = waiting()
    assert not patience.may_move(100.0)
    patience.refuse(100.0)
    assert not patience.may_move(100.0)
    patience.refuse(100.0 + BUSY_S)
    assert patience.may_move(100.0 + BUSY_S)


def test_the_next_server_is_given_as_long() -> None:
    patience = waiting()
    patience.refuse(0.0)
    patience.bind(5.0)
    assert not patience.may_move(5.0 + BUSY_S / 2)
    assert patience.may_move(5.0 + BUSY_S)


def test_a_pause_in_which_nobody_waited_does_not_count() -> None:
    patience = waiting()
    patience.lose(1.0)
    patience.begin(50.0)
    assert patience.deliver(51.0) == 1.0


def test_a_bind_that_is_not_acknowledged_in_time_is_a_loss() -> None:
    patience = waiting()
    patience.bind(10.0)
    assert not patience.is_silent(10.0 + ACK_S)
    assert patience.is_silent(10.1 + ACK_S)
