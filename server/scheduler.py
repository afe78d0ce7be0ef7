"""Which waiting works run in the next batch, and how many tokens of each. Pure: integers, no tensors.

Short works (decoding, a few drafted tokens) go first and all together. Long ones are prompts, which share a
number of tokens per turn. Among peers whoever was served longest ago goes first, and nobody gets a second
place before everybody has had one.

Everybody waits for the whole batch, so it is bounded by what it costs (batch_cost.py). Beside sessions that
decode, prompts make it at most `slowdown` times as long; with 2, they have half of the machine. And whoever
has a hundred sessions would fill every batch: one that several peers share takes at most `slowdown` times as
long as with what all of them have, as many rows of each as of the one who wants fewest.

Example: A waits with 1 and 1000 tokens, B with 1 and 300. If 40 tokens of a prompt take as long as two rows,
the first batch is A's 1, B's 1, and 40 of A's prompt; the next one has 40 of B's.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from swarm.wire.blocks import PeerId

PRESENT_S = 1.0
"""Whoever was served so short a time ago comes again."""
MAX_REMEMBERED = 4096

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes into one batch, in tokens."""

    short_tokens: int = 16
    """Works of at most this many tokens are not cut and go first."""
    batch_tokens: int = 512
    """Short works together."""
    prompt_tokens: int = 256
    """Long works together."""
    slowdown: float = 2.0
    """Of a batch, by prompts or by those who want more than the others."""


class Costs(Protocol):
    """What a batch takes: see `BatchCost`."""

    def fixed_rows(self, now_s: float) -> float:
        """How many rows take as long as what a batch costs however few it has."""

    def prompt_tokens(self, rows: int, now_s: float) -> float:
        """How many tokens of prompts take as long as a batch of `rows` without them."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A work that waits: which, whose, how many of its tokens are left, and in which session."""

    number: int
    peer: PeerId
    tokens: int
    session: Hashable = None


@dataclass(frozen=True, slots=True)
class Share:
    """What of a work runs in this batch."""

    number: int
    peer: PeerId
    tokens: int
    is_prompt: bool


@dataclass(frozen=True, slots=True)
class Served:
    """When, in seconds of some clock, each peer's short works and its prompts last ran.

    `decoded_s` says the same of each session's short works. All are in order of time.
    """

    short_s: dict[PeerId, float] = field(default_factory=dict)
    prompt_s: dict[PeerId, float] = field(default_factory=dict)
    decoded_s: dict[Hashable, float] = field(default_factory=dict)

    def note(self, share: Share, session: Hashable, now_s: float) -> None:
        """Remember that `share` has run, a work of `session`."""
        if share.is_prompt:
            _put_last(self.prompt_s, share.peer, now_s)
        else:
            _put_last(self.short_s, share.peer, now_s)
            _put_last(self.decoded_s, session, now_s)

    def present(self, now_s: float) -> list[PeerId]:
        """Peers whose short works ran a moment ago."""
        return _late(self.short_s, now_s)

    def others_decode(self, sessions: Collection[Hashable], now_s: float) -> bool:
        """Whether a short work of another session than these ran a moment ago."""
        return not set(sessions).issuperset(_late(self.decoded_s, now_s))


def _put_last(times_s: dict[K, float], key: K, now_s: float) -> None:
    """Of too many those are forgotten who ran longest ago."""
    times_s.pop(key, None)
    times_s[key] = now_s
    if len(times_s) > MAX_REMEMBERED:
        del times_s[next(iter(times_s))]


def _late(times_s: dict[K, float], now_s: float) -> list[K]:
    late: list[K] = []
    for key in reversed(times_s):
        if now_s - times_s[key] > PRESENT_S:
            break
        late.append(key)
    return late


def plan_turn(
    waiting: Sequence[Waiting], served: Served, limits: Limits, costs: Costs, now_s: float
) -> tuple[Share, ...]:
    """Choose the next batch from `waiting`, in order of arrival; empty only if nothing waits."""
    short = [work for work in waiting if work.tokens <= limits.short_tokens]
    long = [work for work in waiting if work.tokens > limits.short_tokens]
    rows = _plan_short(short, served, limits, costs, now_s) if short else []
    return (*rows, *_plan_prompts(long, rows, served, limits, costs, now_s)) if long else tuple(rows)


def _plan_short(
    works: Sequence[Waiting], served: Served, limits: Limits, costs: Costs, now_s: float
) -> list[Share]:
    queues = _by_peer(works, served.short_s)
    in_turn, equal = _in_turn(queues), _equal_tokens(queues, served.present(now_s))
    if equal is not None:
        most = limits.slowdown * equal + (limits.slowdown - 1) * costs.fixed_rows(now_s)
        in_turn = _shared(in_turn, len(queues), most)
    return _fill(in_turn, limits.batch_tokens, is_prompt=False)


def _plan_prompts(
    works: Sequence[Waiting],
    rows: Sequence[Share],
    served: Served,
    limits: Limits,
    costs: Costs,
    now_s: float,
) -> list[Share]:
    """Prompts beside `rows`, or beside those that are away for a moment."""
    tokens = limits.prompt_tokens
    if rows or served.others_decode([work.session for work in works], now_s):
        num_rows = max(1, sum([share.tokens for share in rows]))
        bearable = int((limits.slowdown - 1) * costs.prompt_tokens(num_rows, now_s))
        tokens = min(tokens, max(limits.short_tokens, bearable))
    return _fill(_in_turn(_by_peer(works, served.prompt_s)), tokens, is_prompt=True)


def _by_peer(works: Iterable[Waiting], served_s: Mapping[PeerId, float]) -> list[list[Waiting]]:
    """Each peer's works; the peer that was served longest ago, or else came first, goes first."""
    queues: dict[PeerId, list[Waiting]] = {}
    for work in works:
        queues.setdefault(work.peer, []).append(work)
    return sorted(queues.values(), key=lambda queue: served_s.get(queue[0].peer, float("-inf")))


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


def _equal_tokens(queues: Sequence[Sequence[Waiting]], present: Iterable[PeerId]) -> int | None:
    """Tokens of a batch in which all have as many as whoever wants fewest; None if there is but one peer.

    Those who are away for a moment want one.
    """
    wanted = dict.fromkeys(present, 1)
    for queue in queues:
        wanted[queue[0].peer] = sum([work.tokens for work in queue])
    return len(wanted) * min(wanted.values()) if len(wanted) > 1 else None


def _shared(works: Sequence[Waiting], num_first: int, tokens: float) -> list[Waiting]:
    """The first so many works, and others up to so many tokens in all."""
    within: list[Waiting] = []
    for work in works:
        tokens -= work.tokens
        if len(within) >= num_first and tokens < 0:
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
