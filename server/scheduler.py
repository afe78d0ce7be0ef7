"""Which waiting works run in the next batch, and how many tokens of each. Pure: integers, no tensors.

Short works (decoding, a few drafted tokens) go first and all together. Long ones are prompts: they share a
fixed number of tokens per turn, so that a newcomer's prompt never holds up those who decode. Among peers
whoever was served longest ago goes first, and nobody gets a second place before everybody has had one.

Everybody waits for the whole batch, and whoever has a hundred sessions would fill every one. So a batch that
several peers share takes at most `slowdown` times as long as it would with what all of them have: as many
rows of each as of the one who wants fewest. With 2, one session beside a crowd has half of the machine.

Example: A waits with 1 and 1000 tokens, B with 1 and 300. With 256 prompt tokens a turn the first batch is
A's 1, B's 1, and 256 of A's prompt; the next one has 256 of B's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.wire.blocks import PeerId

PRESENT_S = 1.0
"""Whoever was served so short a time ago comes again."""
MAX_REMEMBERED_PEERS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes into one batch, in tokens."""

    short_tokens: int = 16
    """Works of at most this many tokens are not cut and go first."""
    batch_tokens: int = 512
    """Short works together."""
    prompt_tokens: int = 256
    """Long works together: the time that everybody else waits."""
    slowdown: float = 2.0
    """Of a batch that several peers share, by those who want more than the others."""


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


@dataclass(frozen=True, slots=True)
class Served:
    """When, in seconds of some clock, each peer's short works and its prompts last ran."""

    short_s: dict[PeerId, float] = field(default_factory=dict)
    prompt_s: dict[PeerId, float] = field(default_factory=dict)

    def note(self, share: Share, now_s: float) -> None:
        """Remember that `share` has run; of too many peers those are forgotten who ran longest ago."""
        served_s = self.prompt_s if share.is_prompt else self.short_s
        served_s.pop(share.peer, None)
        served_s[share.peer] = now_s
        if len(served_s) > MAX_REMEMBERED_PEERS:
            del served_s[next(iter(served_s))]

    def present(self, now_s: float) -> list[PeerId]:
        """Peers whose short works ran a moment ago."""
        peers = []
        for peer in reversed(self.short_s):
            if now_s - self.short_s[peer] > PRESENT_S:
                break
            peers.append(peer)
        return peers


def plan_turn(
    waiting: Sequence[Waiting],
    served: Served,
    limits: Limits,
    fixed_rows: Callable[[float], float],
    now_s: float,
) -> tuple[Share, ...]:
    """Choose the next batch from `waiting`, in order of arrival; empty only if nothing waits.

    So many rows as `fixed_rows(now_s)` take as long as what a batch costs however few it has.
    """
    short = _by_peer([work for work in waiting if work.tokens <= limits.short_tokens], served.short_s)
    long = _by_peer([work for work in waiting if work.tokens > limits.short_tokens], served.prompt_s)
    in_turn, equal = _in_turn(short), _equal_tokens(short, served.present(now_s))
    if equal is not None:
        most = limits.slowdown * equal + (limits.slowdown - 1) * fixed_rows(now_s)
        in_turn = _shared(in_turn, len(short), most)
    return (
        *_fill(in_turn, limits.batch_tokens, is_prompt=False),
        *_fill(_in_turn(long), limits.prompt_tokens, is_prompt=True),
    )


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
