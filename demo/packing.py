"""Turns conversations into training batches: token ids, which of them to learn, several samples a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demo.corpus.conversations import Conversation
from demo.tokenizer import ASSISTANT, END, SPECIAL_TOKENS, SYSTEM, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NOT_LEARNT = -100


@dataclass(frozen=True)
class Sample:
    """One conversation: ids, and for each id itself if it is to be predicted or NOT_LEARNT."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Batch:
    """Rows of samples: `ids`, `labels` and `positions` [rows, tokens], `mask` [rows, 1, tokens, tokens].

    labels[r, t] is what position t must predict, that is the id at t + 1. mask is True where a token may
    look: back, and only within its own sample. Positions begin at 0 in each sample.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    mask: Tensor


class Encoder:
    """Encodes conversations as the chat template renders them."""

    def __init__(self, tokenizer: "PreTrainedTokenizerFast") -> None:
        self._backend = tokenizer.backend_tokenizer
        self._special = {text: tokenizer.get_vocab()[text] for text in SPECIAL_TOKENS}
        self._known: dict[str, list[int]] = {}

    def encode(self, conversation: Conversation, max_answer_tokens: int | None = None) -> Sample:
        """Encode; with `max_answer_tokens` the sample ends there, in the middle of the last answer."""
        ids: list[int] = []
        labels: list[int] = []
        if conversation.system:
            ids += self._message(SYSTEM, self._cached(conversation.system))
        labels += [NOT_LEARNT] * len(ids)
        for turn in conversation.turns:
            prompt = [*self._message(USER, self._text(turn.question)), self._special[ASSISTANT]]
            answer = [*self._cached(turn.answer), self._special[END]]
            if turn is conversation.turns[-1]:
                answer = answer[:max_answer_tokens]
            ids += prompt + answer
            labels += [NOT_LEARNT] * len(prompt) + answer
        return Sample(ids, labels)

    def _message(self, role: str, text: list[int]) -> list[int]:
        return [self._special[role], *text, self._special[END]]

    def _text(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def _cached(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._text(text)
        return self._known[text]


def pack(samples: Iterator[Sample], num_rows: int, row_tokens: int) -> Batch:
    """Fill `num_rows` rows of `row_tokens` with whole samples; one that does not fit ends its row, dropped.

    With rows of 8 tokens and samples of 4, 3, 6, 7 the first row holds 4 + 3 tokens and one of padding, the
    sample of 6 is dropped, and the second row begins with the sample of 7.
    """
    rows = [_fill_row(samples, row_tokens) for _ in range(num_rows)]
    ids, labels, positions, owners = (torch.tensor(column) for column in zip(*rows, strict=True))
    same = owners[:, :, None] == owners[:, None, :]
    mask = same & torch.ones(row_tokens, row_tokens, dtype=torch.bool).tril()
    return Batch(ids, labels, positions, mask[:, None])


def _fill_row(samples: Iterator[Sample], row_tokens: int) -> Sequence[list[int]]:
    """Return the row's ids, shifted labels, positions, and the number of the sample that owns each token."""
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    for number, sample in enumerate(samples):
        if len(ids) + len(sample.ids) > row_tokens:
            break
        ids += sample.ids
        labels += [*sample.labels[1:], NOT_LEARNT]
        positions += range(len(sample.ids))
        owners += [number] * len(sample.ids)
    rest = row_tokens - len(ids)
    return ids + [0] * rest, labels + [NOT_LEARNT] * rest, positions + [0] * rest, owners + [-1] * rest
