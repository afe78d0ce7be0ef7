"""Which waiting works run in the next batch, and how many tokens of each. Pure: integers, no tensors.

Short works (decoding, a few drafted tokens) go first and all together. Long ones are prompts: they share a
fixed number of tokens per turn, so that a newcomer's prompt never holds up those who decode. Among peers
whoever was served longest ago goes first, and nobody gets a second place before everybody has had one. As
long as several peers want short works, what one of them may have in a batch is bounded: the others wait for
the whole batch, and whoever has a hundred sessions, fed without waiting for results, fills every one.

Example: A waits with 1 and 1000 tokens, B with 1 and 300. With 256 prompt tokens a turn the first batch is
A's 1, B's 1, and 256 of A's prompt; the next one has 256 of B's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from swarm.wire.blocks import PeerId

RECENT_TURNS = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes into one batch, in tokens."""

    short_tokens: int = 16
    """Works of at most this many tokens are not cut and go first."""
    batch_tokens: int = 512
    """Short works together."""
    shared_tokens: int = 32
    """Short works of one peer, while others have some as well. Seen on a CPU: a batch of 120 rows takes as
    long as 15 single ones, and one token beside such a flood 33 times as long as alone."""
    prompt_tokens: int = 256
    """Long works together: the time that everybody else waits."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A work that waits: which, whose, and how many of its tokens are left."""

    number: int
    peer: PeerId
    tokens: int


@dataclass(frozen=True, slots=True)
class Share:
    """What of a work runs in this batch."""

    number: int
    peer: PeerId
    tokens: int
    is_prompt: bool


def plan_turn(
    waiting: Sequence[Waiting],
    last_turns: Mapping[PeerId, int],
    last_prompt_turns: Mapping[PeerId, int],
    limits: Limits,
) -> tuple[Share, ...]:
    """Choose the next batch from `waiting`, in order of arrival; empty only if nothing waits.

    `last_turns` and `last_prompt_turns` say in which turn a peer's short and long works last ran.
    """
    short = [work for work in waiting if work.tokens <= limits.short_tokens]
    long = [work for work in waiting if work.tokens > limits.short_tokens]
    if _are_others(short, last_turns):
        short = _within_share(short, limits.shared_tokens)
    return (
        *_fill(_in_turn(short, last_turns), limits.batch_tokens, is_prompt=False),
        *_fill(_in_turn(long, last_prompt_turns), limits.prompt_tokens, is_prompt=True),
    )


def _are_others(short: Sequence[Waiting], last_turns: Mapping[PeerId, int]) -> bool:
    """Whether several peers have short works, now or within the last RECENT_TURNS: those come again."""
    since = max(last_turns.values(), default=0) - RECENT_TURNS
    return len({work.peer for work in short} | {p for p, turn in last_turns.items() if turn > since}) > 1


def _within_share(works: Iterable[Waiting], tokens: int) -> list[Waiting]:
    """Each peer's oldest works, up to so many tokens of each."""
    left: dict[PeerId, int] = {}
    within = []
    for work in sorted(works, key=lambda work: work.number):
        left[work.peer] = left.get(work.peer, tokens) - work.tokens
        if left[work.peer] >= 0:
            within.append(work)
    return within


def _in_turn(works: Iterable[Waiting], last_turns: Mapping[PeerId, int]) -> list[Waiting]:
    """Order works round robin by peer, the peer served longest ago first; each peer's in order of arrival."""
    by_peer = sorted(works, key=lambda work: work.peer)
    places = [
        (place, last_turns.get(peer, -1), work.number, work)
        for peer, of_peer in groupby(by_peer, key=lambda work: work.peer)
        for place, work in enumerate(sorted(of_peer, key=lambda work: work.number))
    ]
    return [work for *_, work in sorted(places, key=lambda entry: entry[:3])]


def _fill(works: Iterable[Waiting], tokens_left: int, *, is_prompt: bool) -> list[Share]:
    shares = []
    for work in works:
        tokens = min(work.tokens, tokens_left)
        if not tokens or (tokens < work.tokens and not is_prompt):
            break
        shares.append(Share(work.number, work.peer, tokens, is_prompt))
        tokens_left -= tokens
    return shares
