"""Checks are carried out one after the other; one that hangs or breaks hides nothing of the others."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from bot.doctor.checkup import Check, checks_of, run_checks
from bot.findings import Finding, ok
from tests.bot.configs import DISCORD, ENVIRONMENT, MATRIX, load


async def well() -> Sequence[Finding]:
    return [ok("well", "it is")]


async def hanging() -> Sequence[Finding]:
    await asyncio.Event().wait()
    return []


async def broken() -> Sequence[Finding]:
    raise KeyError("a secret")


async def run(*checks: Check) -> tuple[list[str], list[str]]:
    """What was found, and what was shown meanwhile."""
    found: list[str] = []
    shown: list[str] = []
    await run_checks(iter(checks), lambda finding: found.append(str(finding)), shown.append)
    return found, shown


async def test_what_hangs_and_what_breaks_is_told_and_the_rest_goes_on() -> None:
    found, _ = await run(
        Check("first", "asking", hanging, within_s=0.02),
        Check("second", "looking", broken),
        Check("third", "looking", well),
    )
    assert found == [
        "FAILED   first: no answer within 0 s: is the network slow or gone?",
        "FAILED   second: it could not be looked at: KeyError; please report that",
        "ok       well: it is",
    ]


async def test_what_goes_on_is_shown_while_it_takes() -> None:
    _, shown = await run(Check("first", "asking the homeserver", hanging, within_s=0.02))
    assert shown == ["asking the homeserver ... 0 s"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["config", "store", "disk", "metrics"]),
        (
            DISCORD,
            ["config", "store", "disk", "metrics", "discord", "clock", "identity", "model", "peers", "swarm"],
        ),
        (
            MATRIX,
            [
                "config",
                "store",
                "disk",
                "metrics",
                "matrix",
                "matrix keys",
                "clock",
                "identity",
                "model",
                "peers",
                "swarm",
            ],
        ),
    ],
)
def test_only_what_is_enabled_is_looked_at(tmp_path: Path, text: str, names: list[str]) -> None:
    assert [check.name for check in checks_of(load(tmp_path, text, ENVIRONMENT))] == names
