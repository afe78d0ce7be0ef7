"""Everything that can go wrong in a swarm, by whose fault it is.

MurmurError                     has a sentence for the person who sees it
|- ConfigError                  a mistake in a command, a file or the machine: exit code 2
|  `- NobodyAnswers             none of the initial peers: a mistake, or they are not there yet
`- SwarmError
   |- NoRouteError              some blocks have no server; names them
   |- ContextTooLong            the model's or the server's limit on positions
   |- SessionLost               fenced by a newer holder, or the lease ended
   |- LocalProtocolError        our own caller asked for something illegal
   |- SwarmTimeout              nothing answered before the deadline
   `- PeerError                 has `peer_id`: blame, then re-route
      |- PeerUnreachable        cannot be dialled, or its stream ended
      |- PeerBusy               has `retry_after_s`; never blamed
      `- RemoteProtocolError    broke the rules; has a code
"""

from swarm.wire.blocks import PeerId


class MurmurError(Exception):
    """Base of all errors that carry a sentence for a person."""


class ConfigError(MurmurError):
    """A mistake of the person who started the command. The command prints it and exits with 2."""


class NobodyAnswers(ConfigError):
    """None of the initial peers: their addresses are wrong, or they cannot be reached now."""


class SwarmError(MurmurError):
    """Something in the swarm prevented the answer."""


class NoRouteError(SwarmError):
    """Some blocks are served by nobody; `missing` holds their indices."""

    def __init__(self, message: str, missing: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class ContextTooLong(SwarmError):
    """The session would exceed the positions that the model was made for."""


class SessionLost(SwarmError):
    """The session cannot be continued under this ticket: a newer holder fenced it."""


class LocalProtocolError(SwarmError):
    """Our own caller broke the rules, for example by forking above the commit."""


class SwarmTimeout(SwarmError):
    """A deadline passed without the swarm having answered."""


class PeerError(SwarmError):
    """A peer failed us; routes should avoid it for a while."""

    def __init__(self, message: str, peer_id: PeerId) -> None:
        super().__init__(message)
        self.peer_id = peer_id


class PeerUnreachable(PeerError):
    """The peer cannot be dialled, or its stream ended without a farewell."""


class PeerBusy(PeerError):
    """The peer has no room now. Not its fault: come back after `retry_after_s` seconds."""

    def __init__(self, message: str, peer_id: PeerId, retry_after_s: float) -> None:
        super().__init__(message, peer_id)
        self.retry_after_s = retry_after_s


class RemoteProtocolError(PeerError):
    """The peer sent what the protocol forbids, or refused us with a code that no retry mends."""

    def __init__(self, message: str, peer_id: PeerId, code: str = "bad_message") -> None:
        super().__init__(message, peer_id)
        self.code = code
