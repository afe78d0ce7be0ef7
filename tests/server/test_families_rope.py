"""Rope scalings: each session is rotated as if it were alone, and what cannot be exact is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from server.executor import Executor
from server.kv_cache import KVPool
from server.span import SpanModel
from server.work import Work
from swarm.checkpoint.skeleton import cache_keyword
from swarm.errors import ContextTooLong
from swarm.wire.blocks import PeerId, Span
from tests.models import make_config, make_model, random_base
from tests.server.local_chain import MAX_LOGIT_DIFFERENCE, LocalChain, Session, some_ids

ORIGINAL = 64
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
LONG: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "short_factor": [1.0, 1.2, 1.4, 1.6],
        "long_factor": [1.0, 4.0, 8.0, 16.0],
    },
    "original_max_position_embeddings": ORIGINAL,
    "max_position_embeddings": 4 * ORIGINAL,
}
STEADY: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
}


@torch.inference_mode()
def token_by_token(chain: LocalChain, ids: list[int]) -> torch.Tensor:
    """Logits of unsplit transformers for a session that goes on by one token at a time, with its cache."""
    chain.expected([3], 1)  # a sequence this short makes the reference forget longer ones
    cache: dict[str, Any] = {cache_keyword(chain.reference): DynamicCache()}
    rows = [chain.reference(torch.tensor([[token]]), use_cache=True, **cache).logits[0, 0] for token in ids]
    return torch.stack(rows)


@pytest.fixture(scope="module", params=["llama", pytest.param("qwen3", marks=pytest.mark.slow)])
def dynamic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalChain:
    path = make_model(
        tmp_path_factory.mktemp("models"),
        request.param,
        rope_parameters=DYNAMIC,
        max_position_embeddings=ORIGINAL,
    )
    return LocalChain(path, (0, 2, 6))


def check(chain: LocalChain, session: Session, logits: torch.Tensor) -> None:
    wanted = token_by_token(chain, session.ids)[-len(logits) :]
    assert logits.argmax(-1).tolist() == wanted.argmax(-1).tolist()
    assert (logits - wanted).abs().max() <= MAX_LOGIT_DIFFERENCE


def test_dynamic_rope_is_each_sessions_own_beyond_the_original_length(dynamic: LocalChain) -> None:
    long, short = dynamic.open(), dynamic.open()
    for counts in ((50, 9), (40, 1), (1, 20), (1, 1), (70, 3), (1, 40), (1, 1)):
        works = [
            (session, some_ids(count, seed=count))
            for session, count in zip((long, short), counts, strict=True)
        ]
        for session, logits in zip((long, short), dynamic.step(*works), strict=True):
            check(dynamic, session, logits)
    assert len(long.ids) > 2 * ORIGINAL


def test_rollbacks_and_forks_across_the_original_length_are_exact(dynamic: LocalChain) -> None:
    parent = dynamic.open()
    dynamic.step((parent, some_ids(100, seed=1)))
    child = dynamic.fork(parent, 80)
    del parent.ids[40:]
    works = [(parent, some_ids(50, seed=2)), (child, some_ids(7, seed=3))]
    for (session, _), logits in zip(works, dynamic.step(*works), strict=True):
        check(dynamic, session, logits)


def test_a_greedy_answer_across_the_original_length_is_that_of_generate(dynamic: LocalChain) -> None:
    session, ids = dynamic.open(), some_ids(40, seed=4)
    (logits,) = dynamic.step((session, ids))
    answer: list[int] = []
    for _ in range(60):
        answer.append(int(logits[-1].argmax()))
        (logits,) = dynamic.step((session, answer[-1:]))
    dynamic.expected([3], 1)
    whole = dynamic.reference.generate(  # type: ignore[operator]
        torch.tensor([ids]), max_new_tokens=60, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert answer == whole[0, 40:].tolist()


def test_transformers_itself_answers_by_how_a_long_prompt_is_cut(dynamic: LocalChain) -> None:
    ids = some_ids(100, seed=5)
    at_once = dynamic.expected(ids, 1)[0]
    assert (at_once - token_by_token(dynamic, ids)[-1]).abs().max() > 0.01


@pytest.mark.parametrize("rope", STEADY)
def test_scalings_that_know_no_length_are_exact_beyond_the_original_one(rope: str, tmp_path: Path) -> None:
    path = make_model(tmp_path, "llama", rope_parameters=STEADY[rope], max_position_embeddings=4 * ORIGINAL)
    chain = LocalChain(path, (0, 2, 6))
    sessions = [chain.open(), chain.open()]
    for counts in ((90, 9), (30, 1), (1, 80)):
        works = [(s, some_ids(count, seed=count)) for s, count in zip(sessions, counts, strict=True)]
        for session, logits in zip(sessions, chain.step(*works), strict=True):
            assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE


def test_longrope_is_exact_up_to_the_original_length(tmp_path: Path) -> None:
    path = make_model(tmp_path, "phi3", **LONG)
    chain = LocalChain(path, (0, 2, 6))
    sessions = [chain.open(), chain.open()]
    for counts in ((50, 9), (13, 1), (1, 54)):
        works = [(s, some_ids(count, seed=count)) for s, count in zip(sessions, counts, strict=True)]
        for session, logits in zip(sessions, chain.step(*works), strict=True):
            assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE
    assert [len(session.ids) for session in sessions] == [ORIGINAL, ORIGINAL]


def test_longrope_of_long_sessions_is_exact_beside_short_ones(tmp_path: Path) -> None:
    path = make_model(tmp_path, "phi3", **LONG)
    chain = LocalChain(path, (0, 2, 6))
    long, short = chain.open(), chain.open()
    long.is_long = True
    chain.step((long, some_ids(40, seed=1)))
    for counts in ((60, 30), (1, 1), (5, 20)):
        works = [(s, some_ids(count, seed=count)) for s, count in zip((long, short), counts, strict=True)]
        for session, logits in zip((long, short), chain.step(*works), strict=True):
            assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE
    assert len(long.ids) > ORIGINAL > len(short.ids)


async def test_longrope_beyond_the_original_length_is_refused_to_a_session_that_did_not_say_so() -> None:
    base = random_base(make_config("phi3", **LONG))
    model, pool = SpanModel(base, Span(0, 6)), KVPool(10_000)
    cache = pool.open(model.span)
    async with Executor(model, pool) as executor:
        await executor.run(Work(cache, model.span, 0, torch.randn(ORIGINAL, 64), PeerId("a")))
        with pytest.raises(ContextTooLong, match=f"rope is exact here for at most {ORIGINAL} tokens"):
            await executor.run(Work(cache, model.span, ORIGINAL, torch.randn(1, 64), PeerId("a")))


def test_rope_that_needs_no_care_is_left_alone() -> None:
    llama = SpanModel(random_base(make_config("llama")), Span(0, 6))
    assert llama.max_positions is None
    assert type(llama.model.rotary_emb).__module__.startswith("transformers.")
