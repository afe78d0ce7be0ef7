"""What `./murmur status` knows about a swarm at one moment, and its JSON. Pure."""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby
from typing import Any

import msgspec

from swarm.routing import usable_servers
from swarm.wire.blocks import Span
from swarm.wire.records import ModelRecord, ServerRecord


@dataclass(frozen=True)
class Report:
    """Records of one model's servers, checked by whoever looked them up at `now` (seconds since 1970).

    `hosted` is the index of models, looked up only if `servers` is empty.
    `num_peers` counts the nodes of the swarm that we knew then: with none, `servers` says nothing.
    """

    model: str
    fingerprint: str
    num_blocks: int
    servers: tuple[ServerRecord, ...]
    now: float
    num_peers: int = 1
    hosted: tuple[ModelRecord, ...] = ()

    @cached_property
    def usable(self) -> tuple[ServerRecord, ...]:
        """Servers that a route may use now."""
        return tuple(usable_servers(self.servers, self.num_blocks, {}))

    @cached_property
    def _usable_peers(self) -> frozenset[str]:
        return frozenset(server.peer for server in self.usable)

    def is_usable(self, server: ServerRecord) -> bool:
        """Tell whether a route may use `server` now: it is online, and its blocks are the model's."""
        return server.peer in self._usable_peers

    @cached_property
    def num_servers_by_block(self) -> tuple[int, ...]:
        """How many usable servers each block has."""
        changes = [0] * (self.num_blocks + 1)
        for server in self.usable:
            changes[server.start] += 1
            changes[server.end] -= 1
        return tuple(accumulate(changes[:-1]))

    @property
    def missing(self) -> tuple[int, ...]:
        """Blocks without a usable server."""
        return tuple(block for block, count in enumerate(self.num_servers_by_block) if not count)

    @property
    def missing_spans(self) -> tuple[Span, ...]:
        """The same as spans: without blocks 3, 4 and 7 of 8, `(3:5, 7:8)`."""
        runs = (list(run) for _, run in groupby(enumerate(self.missing), key=lambda pair: pair[1] - pair[0]))
        return tuple(Span(run[0][1], run[-1][1] + 1) for run in runs)

    @property
    def is_complete(self) -> bool:
        """Tell whether every block has a usable server, so that the swarm can answer."""
        return not self.missing

    def age_s(self, server: ServerRecord) -> float:
        """Seconds since `server` said so; its clock may be ahead of ours by a little."""
        return max(0.0, self.now - server.issued_at)

    def as_json(self) -> str:
        """One object on one line, in ASCII. Spans are half-open: `[3, 6]` is blocks 3, 4 and 5."""
        return json.dumps(
            {
                "model": self.model,
                "fingerprint": self.fingerprint,
                "num_blocks": self.num_blocks,
                "complete": self.is_complete,
                "missing": [[span.start, span.end] for span in self.missing_spans],
                "hosted_instead": self._hosted_instead(),
                "servers": [self._server_as_json(server) for server in self.servers],
            }
        )

    def _hosted_instead(self) -> list[dict[str, Any]]:
        others = {
            (model.name, model.fingerprint, model.num_blocks)
            for model in self.hosted
            if model.fingerprint != self.fingerprint
        }
        keys = ("name", "fingerprint", "num_blocks")
        return [dict(zip(keys, other, strict=True)) for other in sorted(others)]

    def _server_as_json(self, server: ServerRecord) -> dict[str, Any]:
        computed = {"age_s": round(self.age_s(server), 3), "usable": self.is_usable(server)}
        return msgspec.structs.asdict(server) | computed
