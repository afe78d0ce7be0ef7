"""Which checks a configuration asks for, and running them one after the other, each with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from bot.config.loading import Loaded
from bot.config.models import Settings
from bot.doctor.machine import check_clock, check_disk, check_files, check_port
from bot.doctor.store import check_store
from bot.doctor.swarm import SwarmChecks
from bot.findings import Finding, failed
from swarm.background import running

TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """Something to look at; `doing` is said while that takes."""

    name: str
    doing: str
    look: Callable[[], Awaitable[Sequence[Finding]]]
    within_s: float = 30.0


async def run_checks(
    checks: Iterator[Check], tell: Callable[[Finding], None], show: Callable[[str], None]
) -> None:
    """Carry out all checks; `tell` gets what they find at once, `show` what goes on meanwhile."""
    for check in checks:
        async with running(_tick_forever(check.doing, show)):
            findings = await _carried_out(check)
        for finding in findings:
            tell(finding)


def checks_of(loaded: Loaded) -> Iterator[Check]:
    """The checks that a configuration asks for, the quick ones first."""
    settings = loaded.settings
    yield _at_once("config", lambda: list(check_files(loaded)))
    yield Check("store", "writing to the store", lambda: check_store(settings.storage.path))
    yield _at_once("disk", lambda: [check_disk(settings)])
    yield Check("metrics", "trying the port of the pages", lambda: _alone(check_port(settings.ops)))
    yield from _platforms(settings)
    if settings.swarm.models:
        yield from _swarm(SwarmChecks(settings.swarm))


def _platforms(settings: Settings) -> Iterator[Check]:
    """The libraries of platforms that are not enabled are not imported."""
    if settings.matrix.enabled:
        from bot.on_matrix.checkup import address, check_matrix
        from bot.on_matrix.key_checkup import check_matrix_keys

        url = address(settings.matrix)
        yield Check("matrix", "asking the homeserver", lambda: check_matrix(settings.matrix))
        yield Check("matrix keys", "opening the keys", lambda: check_matrix_keys(settings.matrix))
        yield Check("clock", "comparing the clock", lambda: _alone(check_clock(url)))
    if settings.discord.enabled:
        from bot.on_discord import checkup

        yield Check("discord", "asking Discord", lambda: checkup.check_discord(settings.discord))
        if not settings.matrix.enabled:
            yield Check("clock", "comparing the clock", lambda: _alone(check_clock(checkup.address())))


def _swarm(swarm: SwarmChecks) -> Iterator[Check]:
    yield _at_once("identity", lambda: [swarm.check_identity()])
    yield Check("model", "reading the model's files", swarm.check_models, within_s=3600.0)
    yield Check("peers", "dialling the initial peers", swarm.check_peers, within_s=60.0)
    yield Check("swarm", "asking the swarm who serves", swarm.check_servers, within_s=90.0)


def _at_once(name: str, look: Callable[[], Sequence[Finding]]) -> Check:
    async def looked() -> Sequence[Finding]:
        return look()

    return Check(name, f"looking at the {name}", looked)


async def _alone(finding: Awaitable[Finding]) -> Sequence[Finding]:
    return [await finding]


async def _carried_out(check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(check.within_s):
            return await check.look()
    except TimeoutError:
        return [failed(check.name, f"no answer within {check.within_s:.0f} s: is the network slow or gone?")]
    except Exception as error:  # noqa: BLE001 - a check that fails must not hide what the others find
        return [failed(check.name, f"it could not be looked at: {type(error).__name__}; please report that")]


async def _tick_forever(doing: str, show: Callable[[str], None]) -> None:
    began_s = time.monotonic()
    while True:
        show(f"{doing} ... {time.monotonic() - began_s:.0f} s")
        await asyncio.sleep(TICK_S)
