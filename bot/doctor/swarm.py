"""The swarm: the model's files, the peers through which it is found, and who serves which blocks."""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bot.config.mistakes import safe
from bot.config.models import IDENTITY_OPTION, SwarmSettings
from bot.findings import Finding, failed, ok, warning
from swarm.checkpoint import Checkpoint, check_model, open_checkpoint
from swarm.errors import MurmurError, NoRouteError
from swarm.identity import load_identity
from swarm.routing import check_coverage, usable_servers

DIALLED_WITHIN_S = 5.0
_TCP = re.compile(r"^/(?:ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/([0-9]{1,5})/p2p/[^/]+$")
Progress = Callable[[str, int, int], None]


class SwarmChecks:
    """Checks of one swarm; that of its servers needs what was read of the models."""

    def __init__(self, settings: SwarmSettings) -> None:
        self._settings = settings
        self._models: list[Checkpoint] = []

    def check_identity(self) -> Finding:
        """Whether the bot's key in the swarm can be used; it is made at the first start."""
        path, another = self._settings.identity_file, f"name another one with {IDENTITY_OPTION}"
        shown = safe(str(path))
        try:
            if not path.exists():
                return _to_be_made(path, shown, another)
            if not path.is_file():
                return failed("identity", f"{shown} is no file: {another}")
            identity = load_identity(path, IDENTITY_OPTION)
        except OSError as error:
            return failed("identity", f"{shown} cannot be looked at: {error.strerror}; {another}")
        except MurmurError as error:
            return failed("identity", str(error))
        return ok("identity", f"{shown} is the bot's key in the swarm, {identity.peer_id}")

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


def _to_be_made(path: Path, shown: str, another: str) -> Finding:
    """Whether a key, and folders on the way to it, could be made; none of them is there."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ok("identity", f"{shown} is made at the first start")
    return failed("identity", f"{shown} cannot be made: check who owns {safe(str(there))}, or {another}")


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
