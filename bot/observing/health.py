"""Whether a bot is well, in sentences that an operator can act on."""

import asyncio
from dataclasses import dataclass
from typing import Literal

import msgspec

from bot.observing.watched import Watched
from storage.errors import StorageError
from storage.figures import try_writing

WRITTEN_WITHIN_S = 5.0
Status = Literal["ready", "degraded", "not ready"]


@dataclass(frozen=True, slots=True)
class Report:
    """How the bot is. With `degraded` people are heard and told why there is no answer."""

    status: Status
    problems: tuple[str, ...] = ()

    def as_json(self) -> bytes:
        """`status` and `problems`, sentences."""
        return msgspec.json.encode(self) + b"\n"


STARTING = Report("not ready", ("the bot is starting: it loads its model and connects",))


async def look(watched: Watched | None) -> Report:
    """How a bot is; None if it does not run yet."""
    if watched is None:
        return STARTING
    platforms = [watched.trouble_of(platform) for platform in watched.platforms]
    serious = [trouble for trouble in (*platforms, await _store_trouble(watched)) if trouble]
    swarm = watched.swarm_trouble()
    problems = (*serious, *([swarm] if swarm else []))
    return Report("not ready" if serious else "degraded" if swarm else "ready", problems)


async def _store_trouble(watched: Watched) -> str:
    try:
        async with asyncio.timeout(WRITTEN_WITHIN_S):
            await watched.store.write(try_writing, watched.clock.now_ms())
    except TimeoutError:
        return f"the store did not write within {WRITTEN_WITHIN_S:.0f} s: look at the disk"
    except StorageError as error:
        return f"the store cannot be written: {error}"
    return ""
