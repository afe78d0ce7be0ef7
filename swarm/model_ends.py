"""What a client computes itself: tokens to hidden states, and the last block's hidden states to logits.

Both run through the family's own forward, with a seam where the blocks would be: whatever a family applies
before the first block (a scale, a norm, learned positions) or after the last one (a norm, a cap on logits)
is applied here too. Where that turns out to be a plain look-up, or norm and head alone, the short way is
taken, after a check that it gives the same bits.
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from swarm.checkpoint import Checkpoint
from swarm.checkpoint.conversion import Conversion, assign
from swarm.checkpoint.digests import Progress
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.checkpoint.skeleton import MALFORMED, PassThrough, build_skeleton, on_meta, restore_buffers
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

EMBED_CHUNK_TOKENS = 512
"""Some families build a mask of tokens × tokens even without blocks."""

HEAD_CHUNK_ELEMENTS = 1 << 20
"""Weights of the head that are cast to fp32 at a time: 4 MB, so that they stay in the processor's cache."""


def load_ends(
    checkpoint: Checkpoint, *, dtype: str | torch.dtype = "auto", progress: Progress | None = None
) -> "ModelEnds":
    """Read the tensors that belong to no block, and only those; `dtype` is that of the hidden states.

    Raises ConfigError if a tensor is missing or of the wrong shape, or if the family cannot be split.
    """
    resolved = resolve_dtype(checkpoint, dtype)
    skeleton = build_skeleton(checkpoint.config, resolved)
    model = skeleton.model
    conversion = Conversion(skeleton, checkpoint.tensor_names())
    seam = _Seam(skeleton.layers[0])
    model.set_submodule(skeleton.layers_name, nn.ModuleList([seam]))
    for name in conversion.unknown_names():
        logger.info("skipped %s: this model has no place for it", name)
    tensors = checkpoint.read(conversion.end_names(), progress)
    tied = model.all_tied_weights_keys
    expected = conversion.end_parameters()
    parameters = conversion.convert(tensors, expected, may_miss={*tied, *tied.values()})
    assign(model, parameters)
    model.tie_weights(missing_keys=set(expected) - set(parameters), recompute_mapping=False)
    restore_buffers(model)
    empty = next(on_meta(model), None)
    if empty is not None:
        raise ConfigError(f"{checkpoint.name} has no tensor for {empty}; it is not complete, get it again")
    return ModelEnds(model, seam, resolved)


class ModelEnds:
    """The two ends of one model. Methods may be called from several threads."""

    def __init__(self, model: PreTrainedModel, seam: "_Seam", dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.hidden_size: int = model.config.hidden_size
        self._model = model
        self._embedding = model.get_input_embeddings()
        assert isinstance(self._embedding.weight, Tensor)
        self.num_ids = len(self._embedding.weight)
        self._seam = seam
        self._lock = threading.Lock()
        self._takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
        after = self._settle()
        self._is_lookup = self._is_plain_lookup()
        self._short_way = self._find_short_way(after)

    @property
    def memory_bytes(self) -> int:
        """What the weights take; tied weights count once."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self._model.parameters())

    @torch.no_grad()
    def embed(self, ids: list[int] | Tensor, position: int = 0) -> Tensor:
        """Turn token ids [n], the first of them at `position`, into what the first block gets, [n, hidden].

        Raises ValueError if an id is outside of the vocabulary.
        """
        ids = torch.as_tensor(ids, dtype=torch.long)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_ids:
            raise ValueError(f"token ids must be below {self.num_ids}")
        if self._is_lookup:
            return self._embedding(ids)  # type: ignore[no-any-return]
        chunks = [
            self._embed_by_family(ids[start : start + EMBED_CHUNK_TOKENS], position + start)
            for start in range(0, len(ids), EMBED_CHUNK_TOKENS)
        ]
        return torch.cat(chunks) if chunks else torch.empty(0, self.hidden_size, dtype=self.dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Turn what the last block returned, [n, hidden], into logits [n, vocabulary], computed in fp32.

        Gradients flow back to `hidden` if it asks for them; the weights never do.
        """
        if self._short_way is not None:
            return self._short_way(hidden.float())
        return self._logits_by_family(hidden)

    def describe(self) -> str:
        """Say in one sentence what the ends cost on this machine, measured now."""
        return (
            f"embeddings and head take {self.memory_bytes / 1e6:,.1f} MB"
            f" and {self.token_s * 1000:.2f} ms per token"
        )

    @cached_property
    def token_s(self) -> float:
        """Seconds that one token costs here: embedding, norm and head. Measured once."""
        return min(self._time_token_s() for _ in range(3))

    def _time_token_s(self) -> float:
        started = time.perf_counter()
        self.logits(self.embed([0]))
        return time.perf_counter() - started

    def _embed_by_family(self, ids: Tensor, position: int) -> Tensor:
        """Run the forward of the model without its head, and take what reaches the seam."""
        arguments = {}
        if self._takes_positions:
            arguments["position_ids"] = torch.arange(position, position + len(ids)).unsqueeze(0)
        with self._lock, self._seam.used():
            self._model.base_model(input_ids=ids.unsqueeze(0), use_cache=False, **arguments)
            assert self._seam.seen is not None
            return self._seam.seen.squeeze(0)

    def _logits_by_family(self, hidden: Tensor) -> Tensor:
        """Run the whole forward on any tokens, with `hidden` slipped in where the blocks would have been."""
        with self._lock, self._seam.used(hidden.float().unsqueeze(0)):
            logits: Tensor = self._model(
                input_ids=torch.zeros(1, len(hidden), dtype=torch.long), use_cache=False
            ).logits
        return logits.squeeze(0).float()

    def _settle(self) -> list[nn.Module]:
        """Make everything after the seam compute in fp32; return the modules with weights there, in order."""
        before, after = self._find_order()
        for module in after:
            module.float()
        self._seam.in_fp32 = True
        head = self._model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if head is None:
            raise ConfigError(
                f"{type(self._model).__name__} has no head that gives logits; choose a causal model"
            )
        fp32_head = _Fp32Head(head.weight, getattr(head, "bias", None))
        self._model.set_output_embeddings(fp32_head)  # type: ignore[no-untyped-call]
        logger.debug("%d modules before the blocks, %d after them", len(before), len(after))
        return [*after, fp32_head]

    @torch.no_grad()
    def _find_order(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Find out what blocks must return, and which modules with weights run before and after the seam."""
        ids = torch.zeros(1, 3, dtype=torch.long)
        for returns_tuple in (False, True):
            self._seam.returns_tuple = returns_tuple
            order: list[nn.Module] = []
            try:
                with _recorded(self._model.base_model, order), self._seam.used():
                    output = self._model.base_model(input_ids=ids, use_cache=False)[0]
            except MALFORMED as error:
                logger.debug("the family's forward fails around the seam: %s", error)
                continue
            if output.shape[:2] == ids.shape:
                seam = order.index(self._seam)
                return order[:seam], order[seam + 1 :]
        raise ConfigError(
            f"{type(self._model).__name__} does not run its blocks in one row; Murmur cannot split it"
        )

    @torch.no_grad()
    def _is_plain_lookup(self) -> bool:
        """Tell whether embedding gives the same bits without the family's forward, at any position."""
        ids = torch.arange(min(5, self.num_ids))
        found = self._embedding(ids)
        return all(torch.equal(found, self._embed_by_family(ids, position)) for position in (0, 7))

    @torch.no_grad()
    def _find_short_way(self, after: list[nn.Module]) -> Callable[[Tensor], Tensor] | None:
        """Return norm and head as one function if that gives the same bits as the family's forward."""
        short_way = nn.Sequential(*after)
        noise = torch.randn(3, self.hidden_size, generator=torch.Generator().manual_seed(0))
        hidden = noise * torch.tensor([[0.1], [1.0], [30.0]])
        try:
            is_same = torch.equal(short_way(hidden), self._logits_by_family(hidden))
        except MALFORMED as error:
            logger.debug("norm and head alone do not run: %s", error)
            return None
        return short_way if is_same else None


class _Seam(PassThrough):
    """Stands where all blocks would be: remembers what comes in, and may let something else out."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block, returns_tuple=False)
        self.seen: Tensor | None = None
        self.in_fp32 = False
        self._replacement: Tensor | None = None

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor | tuple[Tensor, None]:
        self.seen = hidden_states
        output = hidden_states if self._replacement is None else self._replacement
        return super().forward(output.float() if self.in_fp32 else output)

    @contextmanager
    def used(self, replacement: Tensor | None = None) -> Iterator[None]:
        """Let `replacement` [1, n, hidden] out, if given; forget everything afterwards."""
        self._replacement = replacement
        try:
            yield
        finally:
            self.seen = self._replacement = None


class _Fp32Head(nn.Module):
    """A linear layer that computes in fp32 whatever its weights are stored in.

    Weights in bf16 (often tied to the embeddings) are cast a chunk at a time: a copy in fp32 would be twice
    their size.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias

    def forward(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        if self.weight.dtype == torch.float32:
            return F.linear(hidden.float(), self.weight, bias)
        rows = max(1, HEAD_CHUNK_ELEMENTS // self.weight.shape[1])
        logits = torch.cat(
            [F.linear(hidden.float(), chunk.float()) for chunk in torch.split(self.weight, rows)], dim=-1
        )
        return logits if bias is None else logits + bias


@contextmanager
def _recorded(model: nn.Module, order: list[nn.Module]) -> Iterator[None]:
    """Append every module of `model` that has weights of its own, and the seam, to `order` when it runs."""

    def record(module: nn.Module, *_: Any) -> None:
        order.append(module)

    handles = [
        module.register_forward_hook(record)
        for module in model.modules()
        if isinstance(module, _Seam) or next(module.parameters(recurse=False), None) is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
