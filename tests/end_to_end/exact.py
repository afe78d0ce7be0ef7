"""What an answer must be: what the unsplit model says, token by token. The tie rule lives here alone.

Random models repeat themselves, and may pick the right token from a wrong cache: so the last block's outputs
behind every token are compared as well, once an answer is complete.

A differing token passes only where the reference itself hardly knows: its two best logits lie closer than
TIE of the spread of all. The answer then goes on from the reference's token, and the tie is counted;
more than one in a thousand positions, and the run fails.
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from server.block_loader import load_span
from server.span import SpanModel, find_blocks
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.inference import InferenceSession
from swarm.model_ends import ModelEnds, load_ends
from swarm.wire.blocks import Span
from tests.devices import blocks_device
from tests.models import EVERY_FAMILY, VOCABULARY, make_model

FAMILIES = ("llama", "bloom", "qwen3")
LOST_HOPS = {"first": 0, "middle": 1, "last": 2}
TIE = 1e-4
HIDDEN_TOLERANCE = 1e-4
LOGITS_TOLERANCE = 1e-3
FIRST_TOKEN = 3  # those below are special


def prompt(number: int, length: int = 7) -> list[int]:
    """Return token ids, others for every `number`."""
    chance = torch.Generator().manual_seed(number)
    return torch.randint(FIRST_TOKEN, VOCABULARY, (length,), generator=chance).tolist()


def each_family(quick: Collection[str], families: Collection[str] = EVERY_FAMILY) -> pytest.MarkDecorator:
    """Run a test of `family` for each of `families`; by default for the `quick` ones alone."""
    assert set(quick) <= set(families), "a family that there is not"
    return pytest.mark.parametrize(
        "family",
        [pytest.param(family, marks=() if family in quick else pytest.mark.slow) for family in families],
    )


def every_family(
    argument: str, cases: Mapping[str, Any], turn: int = 0, quick: Collection[str] = FAMILIES
) -> pytest.MarkDecorator:
    """Run a test of `family` and `argument` for all of both; by default `quick` families with one case each.

    `turn` says which: 0 with LOST_HOPS is llama's first hop, bloom's middle one and qwen3's last.
    """
    chosen = {
        (family, (turn + place) % len(cases)) for place, family in enumerate(FAMILIES) if family in quick
    }
    return pytest.mark.parametrize(
        ("family", argument),
        [
            pytest.param(
                family,
                case,
                id=f"{family}-{name}",
                marks=() if (family, place) in chosen else pytest.mark.slow,
            )
            for family in FAMILIES
            for place, (name, case) in enumerate(cases.items())
        ],
    )


@dataclass
class SmallModel:
    """One random model: its checkpoint, the client's ends, and the same model unsplit, as reference."""

    path: Path
    checkpoint: Checkpoint
    ends: ModelEnds
    reference: PreTrainedModel
    dtype: str
    num_positions: int = 0
    num_ties: int = 0
    _folder: Any = field(default=None, repr=False)
    _answers: dict[tuple[tuple[int, ...], int], list[int]] = field(default_factory=dict, repr=False)
    _spans: dict[Span, SpanModel] = field(default_factory=dict, repr=False)

    def span(self, span: Span) -> SpanModel:
        """The blocks of `span`, ready to run; their weights may serve several servers at once."""
        if span not in self._spans:
            loaded = load_span(self.checkpoint, span, dtype=self.dtype, device=blocks_device())
            self._spans[span] = SpanModel(loaded, span)
        return self._spans[span]

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """What transformers' `generate` says after `ids`; never stops early."""
        key = (tuple(ids), num_tokens)
        if key not in self._answers:
            self._answers[key] = self.generate(ids, max_new_tokens=num_tokens, do_sample=False)
        return self._answers[key]

    def generate(self, ids: Sequence[int], **settings: Any) -> list[int]:
        """New tokens of transformers' `generate`, with no end of answer unless `settings` name one."""
        given = torch.tensor([list(ids)])
        # Without a mask it would take every token 0 that a model has said for padding.
        settings = {
            "eos_token_id": None,
            "pad_token_id": 0,
            "attention_mask": torch.ones_like(given),
        } | settings
        whole: Any = self.reference.generate(given, **settings)  # type: ignore[operator]
        return list(map(int, whole[0, len(ids) :]))

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """The reference's logits `[tokens, vocabulary]`."""
        output: Any = self.reference(torch.tensor([list(ids)]))
        logits: torch.Tensor = output.logits[0].float()
        return logits

    @torch.inference_mode()
    def outputs(self, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the reference's last block gives out `[tokens, hidden]`, and its logits."""
        found: list[torch.Tensor] = []
        base = self.reference.base_model
        assert isinstance(base, PreTrainedModel)
        hook = find_blocks(base)[-1].register_forward_hook(
            lambda block, inputs, output: found.append(output[0] if isinstance(output, tuple) else output)
        )
        logits = self.logits(ids)
        hook.remove()
        return found[0].reshape(len(ids), -1), logits

    def judge(self, before: Sequence[int], chosen: int, wanted: int) -> None:
        """Apply the tie rule to one position behind the tokens `before`."""
        self.num_positions += 1
        if chosen == wanted:
            return
        logits = self.logits(before)[-1]
        first, second = logits.topk(2).values.tolist()
        spread = float(logits.max() - logits.min())
        assert first - second < TIE * spread, f"token {len(before)} is {chosen}, not {wanted}"
        assert int(logits.topk(2).indices[1]) == chosen
        self.num_ties += 1
        assert self.num_ties <= max(1, self.num_positions // 1000), "too many ties to be chance"

    def check_hidden(self, ids: Sequence[int], hidden: torch.Tensor) -> None:
        """Compare the last block's outputs for the last `len(hidden)` of `ids` with the reference's."""
        wanted_hidden, wanted_logits = (output[-len(hidden) :] for output in self.outputs(ids))
        torch.testing.assert_close(hidden, wanted_hidden, rtol=0, atol=HIDDEN_TOLERANCE)
        torch.testing.assert_close(self.ends.logits(hidden), wanted_logits, rtol=0, atol=LOGITS_TOLERANCE)


@cache
def small_model(family: str, dtype: str = "float32") -> SmallModel:
    """The model of a family of tests/models.py, made once a run."""
    folder = tempfile.TemporaryDirectory(prefix="murmur-model-")
    return load_small_model(make_model(Path(folder.name), family), dtype, folder)


def load_small_model(path: Path, dtype: str = "float32", folder: object = None) -> SmallModel:
    """The model of a checkpoint directory; `folder` lives as long as it does."""
    checkpoint = open_checkpoint(str(path))
    reference = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    assert isinstance(reference, PreTrainedModel)
    reference.eval()  # type: ignore[no-untyped-call]
    ends = load_ends(checkpoint, dtype=dtype)
    return SmallModel(path, checkpoint, ends, reference, dtype, _folder=folder)


class Answer:
    """A greedy answer to `ids` on a session, compared with the reference's token after token."""

    def __init__(self, model: SmallModel, session: InferenceSession, ids: Sequence[int], length: int) -> None:
        self.ids: list[int] = []
        self.wanted = model.greedy(ids, length)
        self._model = model
        self._session = session
        self._prompt = list(ids)
        self._hidden: list[torch.Tensor] = []

    async def advance(self, num_tokens: int | None = None) -> None:
        """Feed what the session lacks and pick, `num_tokens` times (default: to the end)."""
        left = len(self.wanted) - len(self.ids)
        for _ in range(left if num_tokens is None else min(left, num_tokens)):
            held = [*self._prompt, *self.ids]
            hidden = await self._session.feed(held[self._session.position :])
            token = int(self._model.ends.logits(hidden)[-1].argmax())
            self._model.judge(held, token, self.wanted[len(self.ids)])
            self.ids.append(self.wanted[len(self.ids)])
            self._hidden.append(hidden[-1])
        if left and len(self.ids) == len(self.wanted):
            self._model.check_hidden([*self._prompt, *self.ids[:-1]], torch.stack(self._hidden))


async def check_answer(
    model: SmallModel, session: InferenceSession, ids: Sequence[int], length: int = 32
) -> list[int]:
    """Let the session answer `ids`, of which it may hold a part already; returns the whole conversation."""
    answer = Answer(model, session, ids, length)
    await answer.advance()
    return [*ids, *answer.ids]
