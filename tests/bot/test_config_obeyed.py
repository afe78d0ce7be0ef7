"""Every setting is read by somebody who obeys it: one that nobody reads is a promise that is not kept."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.config.layers import KEYS, SECRETS
from bot.config.mistakes import Key

BOT = Path(__file__).parents[2] / "bot"
NOT_OBEYING = ("config", "doctor")
"""Those who only check what is set."""
HOMES = {"discord": ("on_discord",), "matrix": ("on_matrix",), "ops": ("observing",)}
"""Where `settings` is a section alone."""
BEING_BUILT = {("quota", "credit")}
READ_WITH_CONFIG = {(section, f"{name}_{source}") for section, name in SECRETS for source in ("env", "file")}
"""They tell where a secret is, and are of no use to anybody once it is read."""


def readers() -> Iterator[Path]:
    """Files that may obey a setting."""
    for path in BOT.rglob("*.py"):
        if path.relative_to(BOT).parts[0] not in NOT_OBEYING:
            yield path


def reads_of(source: str, home: str) -> Iterator[Key]:
    """Settings that a file reads: `limits.queued`, `settings.limits.queued`; `settings.queued` in a home."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        base = node.value
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        yield name.lstrip("_"), node.attr
        if name.lstrip("_") == "settings":
            yield from ((section, node.attr) for section, homes in HOMES.items() if home in homes)


def all_reads() -> set[Key]:
    return {
        key
        for path in readers()
        for key in reads_of(path.read_text(encoding="utf-8"), path.relative_to(BOT).parts[0])
    }


def test_every_setting_is_read_by_somebody_who_obeys_it() -> None:
    unread = set(KEYS) - READ_WITH_CONFIG - all_reads()
    assert unread - BEING_BUILT == set()
    assert BEING_BUILT - unread == set(), "these are obeyed now: take them off the list"


@pytest.mark.parametrize(
    ("source", "home", "keys"),
    [
        ("limits = settings.limits\nf(limits.queued)", "", {("limits", "queued")}),
        ("f(settings.limits.queued)", "", {("limits", "queued")}),
        ("f(self._settings.threads)", "on_matrix", {("matrix", "threads")}),
        ("f(settings.threads)", "on_discord", {("discord", "threads")}),
        ("queued = 3\nf(queued, limits['queued'])", "", set()),
        ("f(other.queued)", "", set()),
    ],
)
def test_what_counts_as_reading_a_setting(source: str, home: str, keys: set[Key]) -> None:
    assert {key for key in reads_of(source, home) if key in KEYS} == keys
