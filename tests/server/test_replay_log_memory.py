"""The replay logs hold no more memory than their budget knows of."""

import torch

from server.replay_log import LogBudget, ReplayLog
from server.tensor_payloads import TensorOperations

HIDDEN = 16


def held_bytes(log: ReplayLog) -> int:
    """Memory under all that a log can read."""
    storages = {
        payload.untyped_storage().data_ptr(): payload.untyped_storage().nbytes()
        for _, _, payload in log.read(0, log.end)
    }
    return sum(storages.values())


def test_what_a_rollback_cut_off_is_not_held_by_what_is_left() -> None:
    """Steps of 512 tokens, each of which takes back all but one of the one before."""
    budget = LogBudget(1 << 20, TensorOperations())
    log = ReplayLog(budget)
    for position in range(50):
        log.append(position, 512, torch.zeros(512, HIDDEN))
    log.truncate(50)
    assert held_bytes(log) == budget.used_bytes == 50 * HIDDEN * 4


def test_a_step_that_outlives_its_session_leaves_nothing_in_the_log() -> None:
    budget = LogBudget(1 << 20, TensorOperations())
    log = ReplayLog(budget)
    log.append(0, 4, torch.zeros(4, HIDDEN))
    log.close()
    log.append(4, 4, torch.zeros(4, HIDDEN))
    assert (held_bytes(log), budget.used_bytes, budget._logs) == (0, 0, {})
