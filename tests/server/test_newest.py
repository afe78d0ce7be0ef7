"""The newest tokens of all sessions attend in one launch, to what each would have attended to alone."""

from dataclasses import replace

import pytest
import torch

from server.kv_cache import KVPool
from server.newest import Newest, can_attend_together
from swarm.wire.blocks import Span
from tests.server.newest_cases import CASES, Case, compare


def test_on_a_cpu_each_session_attends_alone() -> None:
    rows = torch.zeros(2, 3, 16)
    assert not can_attend_together(rows, rows, rows)


def test_the_kernel_is_told_where_a_sessions_own_keys_lie_and_where_those_that_it_shares() -> None:
    pool = KVPool(1000)
    parent, past = pool.open(Span(0, 1)), torch.randn(2, 20, 8)
    pool.begin_write(parent, 0, 20)
    of_parent = parent.write(0, 0, past, past[..., :4])
    parent.used = 20
    child = pool.fork(parent, 20)
    assert child is not None
    pool.begin_write(child, 20, 21)
    own = child.room(0, 20, torch.zeros(2, 1, 8), torch.zeros(2, 1, 4))
    assert Newest(3, 20, 5, own).numbers == (
        *(3, 20, 5, 0, 16),
        *(own.keys.data_ptr(), own.keys.stride(0), own.values.data_ptr(), own.values.stride(0)),
        *(of_parent.keys.data_ptr(), of_parent.keys.stride(0)),
        *(of_parent.values.data_ptr(), of_parent.values.stride(0)),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_gives_what_sessions_alone_give_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    difference = compare(replace(CASES[name], dtype=dtype), torch.device("cuda"))
    assert difference < {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}[dtype]


@pytest.mark.gpu
def test_no_kernel_is_compiled_anew_while_sessions_become_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    triton, compiled = pytest.importorskip("triton"), []
    compare(Case(positions=(50, 60)), torch.device("cuda"))
    monkeypatch.setattr(
        triton.knobs.runtime, "jit_post_compile_hook", lambda *, repr, **_: compiled.append(repr)
    )
    for position in (1023, 1024, 2050, 5000, 16_000):
        compare(Case(positions=(50, position)), torch.device("cuda"))
    compare(Case(positions=(50,), layer=1), torch.device("cuda"))  # its table lies at no multiple of 16 bytes
    assert not compiled
    compare(Case(positions=(50, 60), dim=32), torch.device("cuda"))
    assert compiled, "nobody told what is compiled"
