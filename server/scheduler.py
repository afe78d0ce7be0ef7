"""Which waiting works run in the next batch, and how many tokens of each. Pure: integers, no tensors.

Short works (decoding, a few drafted tokens) go first and all together. Long ones are prompts, which share a
number of tokens per turn. Among peers whoever was served longest ago goes first, and nobody gets a second
place before everybody has had one.

Everybody waits for the whole batch, so it is bounded by what it costs (batch_cost.py). Beside sessions that
decode, prompts make it at most `slowdown` times as long; with 2, they have half of the machine. And whoever
has a hundred sessions would fill every batch: one that several peers share takes at most `slowdown` times as
long as with what all of them have, as many rows of each as of the one who wants fewest. Where a crowd and a
prompt come together, the crowd has half of that, and the prompt what is left. A first place is never refused:
a peer's oldest work may be all that it ever wants.

Example: A waits with 1 and 1000 tokens, B with 1 and 300. If 40 tokens of a prompt take as long as two rows,
the first batch is A's 1, B's 1, and 40 of A's prompt; the next one has 40 of B's.
"""

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.recent import Recent
from swarm.wire.blocks import PeerId

MIN_PROMPT_TOKENS = 4
"""Beside those who decode, whatever they cost."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes into one batch, in tokens."""

    short_tokens: int = 16
    """Works of at most this many tokens are not cut and go first; others are prompts."""
    batch_tokens: int = 512
    """Short works together."""
    prompt_tokens: int = 256
    """Long works together."""
    slowdown: float = 2.0
    """Of a batch, by prompts or by those who want more than the others; infinite for no bound."""


class Costs(Protocol):
    """What a batch takes: see `BatchCost`."""

    def fixed_rows(self) -> float:
        """How many rows take as long as what a batch costs however few it has."""

    def prompt_tokens(self, rows: float, spare: float) -> float:
        """How many tokens of prompts make a batch of `rows` longer by the share `spare`."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A work that waits: which, whose, and how many of its tokens are left.

    `rows` counts them by the share of the server's blocks that they pass. `since_s` is when it came.
    """

    number: int
    peer: PeerId
    tokens: int
    rows: float
    is_prompt: bool
    session: Hashable = None
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What of a work runs in this batch."""

    number: int
    peer: PeerId
    tokens: int
    is_prompt: bool


@dataclass(frozen=True, slots=True)
class Served:
    """Whose works have run: peers with short ones, peers with prompts, and sessions with short ones."""

    short: Recent[PeerId] = field(default_factory=Recent)
    prompts: Recent[PeerId] = field(default_factory=Recent)
    decoding: Recent[Hashable] = field(default_factory=Recent)

    def note(self, share: Share, session: Hashable, now_s: float) -> None:
        """Remember that `share`, a work of `session`, has run."""
        if share.is_prompt:
            self.prompts.note(share.peer, now_s)
        else:
            self.short.note(share.peer, now_s)
            self.decoding.note(session, now_s)

    def others_decode(self, sessions: Collection[Hashable], now_s: float) -> bool:
        """Whether another session than these is between two of its tokens."""
        return not set(sessions).issuperset(self.decoding.present(now_s))


def plan_turn(
    waiting: Sequence[Waiting], served: Served, limits: Limits, costs: Costs, now_s: float
) -> tuple[Share, ...]:
    """Choose the next batch from `waiting`, in order of arrival; empty only if nothing waits."""
    queues = _by_peer([work for work in waiting if not work.is_prompt], served.short)
    prompts = _by_peer([work for work in waiting if work.is_prompt], served.prompts)
    short, spare = _in_turn(queues), limits.slowdown - 1
    if (equal_rows := _equal_rows(queues, served.short.present(now_s))) is not None:
        blocks = max([work.rows / work.tokens for work in short], default=1.0)
        equal = equal_rows + costs.fixed_rows() * blocks
        short = _shared(short, len(queues), equal_rows + equal * (spare / 2 if prompts else spare))
        spare -= max(0.0, sum([work.rows for work in short]) - equal_rows) / equal
    shares = _fill(short, limits.batch_tokens, is_prompt=False)
    if not prompts:
        return tuple(shares)
    tokens = limits.prompt_tokens
    sessions = [work.session for queue in prompts for work in queue]
    if math.isfinite(spare) and (shares or served.others_decode(sessions, now_s)):
        rows = equal_rows or max(1.0, sum([work.rows for work in short[: len(shares)]]))
        bearable = int(costs.prompt_tokens(rows, max(0.0, spare)))
        tokens = min(tokens, max(MIN_PROMPT_TOKENS, bearable))
    return (*shares, *_fill(_in_turn(prompts), tokens, is_prompt=True))


def _by_peer(works: Iterable[Waiting], served: Recent[PeerId]) -> list[list[Waiting]]:
    """Each peer's works; the peer that was served longest ago goes first, newcomers where they came."""
    queues: dict[PeerId, list[Waiting]] = {}
    for work in works:
        queues.setdefault(work.peer, []).append(work)
    return sorted(queues.values(), key=lambda queue: served.last_s(queue[0].peer, queue[0].since_s))


def _in_turn(queues: list[list[Waiting]]) -> list[Waiting]:
    """Order works round robin: the first of each queue, the second of each, and so on."""
    if len(queues) == 1:
        return queues[0]
    works, place = [], 0
    while queues:
        for queue in queues:
            works.append(queue[place])
        place += 1
        queues = [queue for queue in queues if len(queue) > place]
    return works


def _equal_rows(queues: Sequence[Sequence[Waiting]], present: Collection[PeerId]) -> float | None:
    """Rows of a batch in which all have as many as whoever wants fewest; None if there is but one peer.

    Whoever is present and does not wait wants one. But it takes no place now, nor may others take one each
    for many of its kind: all who are away count as one.
    """
    if len(queues) == 1 and {queues[0][0].peer}.issuperset(present):
        return None
    wanted = {queue[0].peer: sum([work.rows for work in queue]) for queue in queues}
    is_away = not wanted.keys() >= set(present)
    if len(wanted) + is_away < 2:
        return None
    fewest = min(wanted.values(), default=1.0)
    return (len(wanted) + is_away) * (min(1.0, fewest) if is_away else fewest)


def _shared(works: Sequence[Waiting], num_first: int, rows: float) -> list[Waiting]:
    """The first so many works, and others up to so many rows in all."""
    within: list[Waiting] = []
    for work in works:
        rows -= work.rows
        if len(within) >= num_first and rows < 0:
            break
        within.append(work)
    return within


def _fill(works: Iterable[Waiting], tokens_left: int, *, is_prompt: bool) -> list[Share]:
    shares = []
    for work in works:
        tokens = min(work.tokens, tokens_left)
        if not tokens or (tokens < work.tokens and not is_prompt):
            break
        shares.append(Share(work.number, work.peer, tokens, is_prompt))
        tokens_left -= tokens
    return shares
