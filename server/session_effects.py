"""What a hop's session asks of whoever drives it, its name, and its counters."""

from dataclasses import dataclass
from typing import Protocol

from server.replay_log import Payload
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.messages import Message, NextHop


class Room(Protocol):
    """Where a session's tokens find room."""

    def __call__(self, position: int, *, is_ahead: bool = False) -> int:
        """Grant room for `[0, position)` if there is some; return the highest position granted so far.

        `is_ahead` says that it is not needed yet: nobody has to give way for it.
        """


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Name of one session on one hop: the authenticated client, its session, and which visit of the path."""

    client: PeerId
    session: SessionId
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """Effect: connect to the successor (None: the client fetches the output), then call `linked`."""

    epoch: int
    next: NextHop | None


@dataclass(frozen=True, slots=True)
class Execute:
    """Effect: run `payload` `[num_tokens, ...]` at `position`, then call `executed` or `failed`."""

    position: int
    num_tokens: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class SendNext:
    """Effect: send along the outgoing chain stream of `epoch`.

    What `is_logged` lies in the replay log's memory: its payload is made by a call, when its turn comes.
    """

    epoch: int
    message: Message
    payload: Payload
    is_logged: bool = False


@dataclass(frozen=True, slots=True)
class Tell:
    """Effect: send to the client on its control stream."""

    message: Message


Effect = Link | Execute | SendNext | Tell


@dataclass(slots=True)
class Counters:
    """What happened, for status, metrics and the proofs in the tests."""

    executed_tokens: int = 0
    new_steps: int = 0
    """Executed steps that had not been executed before."""
    stale_frames: int = 0
    refused_steps: int = 0
    recomputed_below_commit: int = 0

    @property
    def num_useless(self) -> int:
        """Steps that came and were not accepted."""
        return self.stale_frames + self.refused_steps
