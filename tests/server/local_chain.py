"""A model cut into spans inside this process, without network or threads, beside the unsplit model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from server.attention import Chunk
from server.block_loader import load_span
from server.kv_cache import ROLLBACK_TOKENS, KVPool, SessionCache
from server.span import SpanModel
from swarm.checkpoint import open_checkpoint
from swarm.model_ends import load_ends
from swarm.wire.blocks import Span
from tests.devices import blocks_device

MAX_LOGIT_DIFFERENCE = 1e-4


@dataclass(eq=False)
class Session:
    """One cache per span of the chain, and the token ids that they hold."""

    caches: list[SessionCache]
    ids: list[int] = field(default_factory=list)
    is_long: bool = False


class LocalChain:
    """Spans of a checkpoint that cover it, run one after the other on ragged batches."""

    def __init__(
        self,
        path: Path,
        cuts: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        rollback_tokens: int = ROLLBACK_TOKENS,
        min_gap: float = 0.0,
    ) -> None:
        """Cut at `cuts`: (0, 2, 6) makes the spans 0:2 and 2:6.

        With `min_gap`, `difference` wants the unsplit model's best token to lead by so much.
        """
        self.min_gap = min_gap
        checkpoint = open_checkpoint(str(path))
        self.spans = [Span(first, last) for first, last in pairwise(cuts)]
        self.models = [
            SpanModel(load_span(checkpoint, span, dtype=dtype, device=blocks_device()), span)
            for span in self.spans
        ]
        self.windows = {block: window for model in self.models for block, window in model.windows.items()}
        self.pool = KVPool(1_000_000, windows=self.windows, rollback_tokens=rollback_tokens)
        self.ends = load_ends(checkpoint)
        self.reference: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def open(self) -> Session:
        return Session([self.pool.open(span) for span in self.spans])

    def fork(self, parent: Session, position: int) -> Session:
        caches = [self.pool.fork(cache, position) for cache in parent.caches]
        assert None not in caches
        return Session([cache for cache in caches if cache is not None], parent.ids[:position])

    def close(self, session: Session) -> None:
        for cache in session.caches:
            self.pool.close(cache)

    def step(self, *works: tuple[Session, Sequence[int]]) -> list[Tensor]:
        """Run new ids of several sessions as one batch per span; return logits [tokens, vocabulary]."""
        hidden = [self.ends.embed(list(ids), len(session.ids)) for session, ids in works]
        for place, model in enumerate(self.models):
            chunks = []
            for (session, ids), states in zip(works, hidden, strict=True):
                cache, position = session.caches[place], len(session.ids)
                self.pool.begin_write(cache, position, position + len(ids))
                chunks.append(Chunk(cache, model.span, position, states, session.is_long))
            hidden = model.run(chunks)
        for session, ids in works:
            session.ids += ids
        return [self.ends.logits(states) for states in hidden]

    def expected(self, ids: Sequence[int], last: int) -> Tensor:
        """Return the unsplit model's logits for the `last` of `ids`, computed in one go."""
        with torch.inference_mode():
            logits: Tensor = self.reference(torch.tensor([list(ids)]), use_cache=False).logits
        return logits[0, len(ids) - last :]

    def difference(self, session: Session, logits: Tensor) -> float:
        """Compare a step's logits with the unsplit model's; tokens must be equal too, and no close call."""
        expected = self.expected(session.ids, len(logits))
        best = expected.topk(2).values
        assert (best[:, 0] - best[:, 1]).min() >= self.min_gap, "choose another seed for this model"
        assert logits.argmax(-1).tolist() == expected.argmax(-1).tolist()
        return float((logits - expected).abs().max())


def some_ids(count: int, seed: int) -> list[int]:
    """Return token ids that look like nothing in particular."""
    return torch.randint(3, 200, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


torch.set_num_threads(1)  # models this small are six times slower where threads wait for one another
