"""What the tests' model says of a swarm that is not there."""

import asyncio
from collections.abc import Mapping
from typing import Any

from bot.survey import SessionState, Survey, Surveys
from swarm.checkpoint.fitting import BlockSize
from swarm.commands.status_report import Report
from swarm.wire.records import ServerRecord

FINGERPRINT = "f" * 32
BOOTSTRAP = "/dns4/swarm.example.org/tcp/31337/p2p/12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"
SIZES = {
    "none": BlockSize(400 << 20, 4096),
    "int8": BlockSize(210 << 20, 4096),
    "nf4": BlockSize(115 << 20, 4096),
}


def server(number: int, start: int, end: int, **changes: Any) -> ServerRecord:
    """A server's word."""
    fields: dict[str, Any] = {
        "sequence": 1, "issued_at": 0.0, "expires_at": 30.0, "fingerprint": FINGERPRINT, "state": "online",
        "throughput": 100.0, "inference_rps": 400.0, "free_tokens": 8192, "public_name": f"server {number}",
    }  # fmt: skip
    return ServerRecord(peer=f"P{number:03}", start=start, end=end, **(fields | changes))


def survey(*servers: ServerRecord, num_blocks: int = 8, num_peers: int = 1, **changes: Any) -> Survey:
    """A swarm of these servers."""
    report = Report("owner/model", FINGERPRINT, num_blocks, servers, 10.0, num_peers)
    fields: dict[str, Any] = {"model": "owner/model", "peers": (BOOTSTRAP,)}
    return Survey(report, **(fields | changes))


THREE = (server(1, 0, 3), server(2, 3, 6), server(3, 6, 8))


class FakeSurveys:
    """The part of a brain that looks at the swarm. Tests set what it says, or what goes wrong."""

    swarm: Survey = survey(*THREE, tokens_per_s=42.0, is_measured=True)
    others: Surveys = ()
    sizes: Mapping[str, BlockSize] = SIZES
    states: Mapping[int, SessionState] = {}
    survey_error: Exception | None = None
    sizes_error: Exception | None = None
    is_silent = False
    """Nobody ever says how the swarm is."""

    async def survey(self) -> Survey:
        if self.is_silent:
            await asyncio.Event().wait()
        if self.survey_error is not None:
            raise self.survey_error
        return self.swarm

    async def surveys(self) -> Surveys:
        return [await self.survey(), *self.others]

    async def block_sizes(self) -> Mapping[str, BlockSize]:
        if self.sizes_error is not None:
            raise self.sizes_error
        return self.sizes

    async def session_state(self, conversation_id: int) -> SessionState:
        return self.states.get(conversation_id, SessionState("none"))
