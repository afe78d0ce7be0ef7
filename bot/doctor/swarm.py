"""The swarm: the model's files, the peers through which it is found, and who serves which blocks."""

import asyncio
import re
from collections.abc import Callable, Sequence

from bot.config.mistakes import safe
from bot.config.models import SwarmSettings
from bot.findings import Finding, failed, ok, warning
from swarm.checkpoint import Checkpoint, check_model, open_checkpoint
from swarm.errors import MurmurError, NoRouteError
from swarm.routing import check_coverage, usable_servers

DIALLED_WITHIN_S = 5.0
_TCP = re.compile(r"^/(?:ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/([0-9]{1,5})/p2p/[^/]+$")
Progress = Callable[[str, int, int], None]


class SwarmChecks:
    """Checks of one swarm; that of its servers needs what was read of the models."""

    def __init__(self, settings: SwarmSettings) -> None:
        self._settings = settings
        self._models: list[Checkpoint] = []

    async def check_models(self) -> list[Finding]:
        """Whether the files of the models are there and fit together; no weights are loaded."""
        return [await self._check_model(model) for model in self._settings.models]

    async def check_peers(self) -> list[Finding]:
        """Whether somebody listens at the addresses of the initial peers."""
        silent = [peer for peer in self._settings.initial_peers if not await _is_dialled(peer)]
        number = len(self._settings.initial_peers)
        if number and len(silent) == number:
            return [
                failed("peers", f"none of {number} initial peers listens: {silent[0]}; ask whoever runs them")
            ]
        if silent:
            return [warning("peers", f"{len(silent)} of {number} initial peers do not listen: {silent[0]}")]
        return [ok("peers", f"all {number} initial peers listen")]

    async def check_servers(self) -> list[Finding]:
        """Whether every block of the models has a server."""
        from swarm.dht import open_dht  # hivemind takes seconds
        from swarm.transport import open_transport

        peers = self._settings.initial_peers
        try:
            async with (
                open_transport(initial_peers=peers, client_only=True) as transport,
                open_dht(transport, peers, is_client=True) as dht,
            ):
                return [_coverage(model, await dht.find_servers(model.fingerprint)) for model in self._models]
        except MurmurError as error:
            return [failed("swarm", str(error))]

    async def _check_model(self, model: str) -> Finding:
        from swarm.text import load_tokenizer  # takes seconds

        def read() -> Checkpoint:
            check_model(model)
            checkpoint = open_checkpoint(model)
            load_tokenizer(checkpoint)
            checkpoint.find_fingerprint()
            return checkpoint

        try:
            checkpoint = await asyncio.to_thread(read)
        except MurmurError as error:
            return failed("model", str(error))
        self._models.append(checkpoint)
        return ok("model", f"{safe(model)} has {checkpoint.num_blocks} blocks, and its files fit together")


def _coverage(model: Checkpoint, records: Sequence[object]) -> Finding:
    servers = usable_servers(records, model.num_blocks, {})  # type: ignore[arg-type]
    try:
        check_coverage(servers, model.num_blocks)
    except NoRouteError as error:
        how = "start `./murmur serve` somewhere, or wait for whoever runs one"
        return failed("swarm", f"{error} of {safe(model.name)}: {how}")
    return ok("swarm", f"{len(servers)} servers host every block of {safe(model.name)}")


async def _is_dialled(peer: str) -> bool:
    """Whether a peer's port is open; what is no plain TCP address is taken for granted."""
    match = _TCP.match(peer)
    if match is None:
        return True
    try:
        async with asyncio.timeout(DIALLED_WITHIN_S):
            _, writer = await asyncio.open_connection(match[1], int(match[2]))
    except (OSError, TimeoutError, OverflowError):
        return False
    writer.close()
    return True
