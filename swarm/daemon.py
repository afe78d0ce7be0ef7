"""libp2p's daemon (p2pd) as a child of ours: guarded, with its sockets in a folder that only we may enter."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from hivemind.p2p import P2P, P2PDaemonError, PeerID

from swarm.arrivals import listen, take_streams
from swarm.background import finish
from swarm.errors import SwarmError
from swarm.incoming import IncomingStreams
from swarm.listening import error_of_p2pd, first_line
from swarm.passing_folder import passing_folder
from swarm.quiet import quiet_hivemind
from swarm.wire.blocks import PeerId

MAX_P2PD_FILES = 16_384
START_S = 20.0
CUT_OFF_S = 5.0
MAX_SOCKET_FOLDER_LETTERS = 60
GUARD = Path(__file__).with_name("p2pd_guard.py")
NO_RELAY = '{"Relay": {"Enabled": false}}'


def native_id(peer_id: PeerId) -> PeerID:
    """`peer_id` as hivemind writes it."""
    return PeerID.from_base58(peer_id)


class GuardedP2P(P2P):  # type: ignore[misc]
    """P2P whose daemon is started through p2pd_guard.py, and whose streams are taken by arrivals.py."""

    incoming: IncomingStreams
    is_listening: asyncio.Event
    config: Path

    async def fail_with_daemon(self) -> None:
        """Wait until p2pd ends, and raise SwarmError: every peer seems gone, which is not their fault."""
        code = await self._child.wait()
        raise SwarmError(f"the network process p2pd ended by itself (exit code {code}): start again")

    async def fail_with_arrivals(self) -> None:
        """Wait until no stream is taken any more, and raise why: nobody could reach us."""
        await self.is_listening.wait()
        try:
            await asyncio.shield(self._listen_task)
        except OSError as error:
            raise SwarmError(f"streams cannot be taken from p2pd: {first_line(error)}") from error

    async def _cut_off(self, peer_id: PeerId) -> None:
        """End the connection to a peer, with all of its streams; it may dial again."""
        with suppress(P2PDaemonError, OSError, EOFError, ValueError):
            async with asyncio.timeout(CUT_OFF_S):
                await self._client.disconnect(native_id(peer_id))

    @classmethod
    def _make_process_args(cls, *args: Any, relay: bool, **kwargs: Any) -> list[str]:
        guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(MAX_P2PD_FILES)]
        if not relay:  # the option alone leaves on what is on by default
            cls.config.write_text(NO_RELAY)
            kwargs["f"] = cls.config
        return [*guard, *P2P._make_process_args(*args, relay=relay, **kwargs)]

    def _start_listening(self) -> None:
        """As hivemind does, but what a peer opens beyond its limits is refused before it costs others."""

        async def taking() -> None:
            control = self._client.control
            with listen(control.listen_maddr.value_for_protocol("unix")) as listener:
                await take_streams(listener, self.incoming, control._handler, self._cut_off)

        self._listen_task = asyncio.create_task(taking())  # noqa: TID251 - P2P ends it
        self.is_listening.set()


@contextmanager
def sockets_in_a_folder() -> Iterator[type[GuardedP2P]]:
    """Our P2P, with the sockets between it and p2pd in a folder that only we may enter and that ends with us.

    hivemind would put them into /tmp, where a process that is killed leaves them. The longest path of a
    socket has about 100 bytes, so not every temporary folder will do.
    """
    usual = tempfile.gettempdir()
    place = usual if usual.isascii() and len(usual) <= MAX_SOCKET_FOLDER_LETTERS else "/tmp"
    with passing_folder(Path(place)) as folder:
        ours: dict[str, Any] = {"incoming": IncomingStreams(), "is_listening": asyncio.Event()}
        ours["config"] = folder / "p2pd.json"
        ours["_UNIX_SOCKET_PREFIX"] = f"/unix{folder}/"
        yield cast(type[GuardedP2P], type("GuardedP2PInFolder", (GuardedP2P,), ours))


async def started(kind: type[GuardedP2P], arguments: dict[str, Any]) -> GuardedP2P:
    """Start p2pd. A cancellation waits for it, so that there is something to end."""
    quiet_hivemind()
    created: list[GuardedP2P] = []

    async def create() -> None:
        p2p = await kind.create(nat_port_map=False, check_if_identity_free=False, **arguments)
        created.append(p2p)

    try:
        await finish(create(), within_s=START_S)
    except (P2PDaemonError, TimeoutError, ValueError, OSError) as error:
        raise error_of_p2pd(str(error), arguments["initial_peers"]) from error
    except BaseException:  # a cancellation too: what was started must end
        for p2p in created:
            await p2p.shutdown()
        raise
    return created[0]
