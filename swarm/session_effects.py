"""What a client's session asks of whoever drives it."""

from dataclasses import dataclass

from swarm.wire.blocks import PeerId
from swarm.wire.messages import Message, StateStep, Step


@dataclass(frozen=True, slots=True)
class TellHop:
    """Send to the hop of `stage` on its control stream."""

    stage: int
    message: Message


@dataclass(frozen=True, slots=True)
class TellPeer:
    """Send to a server that is no longer part of the route, if it can still be reached."""

    peer_id: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class OpenChain:
    """Open the chain streams of `epoch`: in to hop 0, out of the last one, and around broken links."""

    epoch: int
    relays: frozenset[int]


@dataclass(frozen=True, slots=True)
class SendStep:
    """Send the step with the inputs `[position, position + num_tokens)` to hop 0."""

    step: Step


@dataclass(frozen=True, slots=True)
class SendState:
    """Send a part of the history to hop 0; the inputs come from token ids."""

    step: StateStep


@dataclass(frozen=True, slots=True)
class Deliver:
    """The outputs of the oldest outstanding step have come, `[rows, ...]`."""

    number: int
    payload: object
    links: int


@dataclass(frozen=True, slots=True)
class NeedRoute:
    """Find a route without `lost`, then call `bind` with it. `is_blamed` says that they failed us."""

    lost: frozenset[PeerId]
    reason: str
    is_blamed: bool = True


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Call `retry(attempt)` in `after_ms`: hop `stage` has no room now."""

    attempt: int
    after_ms: int
    stage: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The session cannot go on."""

    code: str
    message: str


Effect = TellHop | TellPeer | OpenChain | SendStep | SendState | Deliver | NeedRoute | RetryLater | Broken
