"""Settings as people and programs read them: every value, where it came from, no secrets. Pure."""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from bot.config.layers import SECTIONS
from bot.config.loading import Loaded
from bot.config.mistakes import quoted, safe

MASK = "********"
ORIGIN_COLUMN = 44


def as_text(loaded: Loaded) -> str:
    """Like the file itself, with the origin of each value behind it, and warnings at the end."""
    lines: list[str] = []
    for section in SECTIONS:
        lines += [f"[{section}]", *_lines(loaded, section), ""]
    lines += [f"warning: {warning}" for warning in loaded.warnings]
    lines.append(f"{safe(str(loaded.path))}: no mistakes found")
    return "\n".join(lines) + "\n"


def as_json(loaded: Loaded) -> str:
    """One JSON object: file, settings (a value and where it is from), warnings."""
    settings = {
        section: {
            key: {"value": _plain(_value(loaded, section, key)), "from": str(loaded.origins[section, key])}
            for key in fields
        }
        for section, fields in SECTIONS.items()
    }
    return json.dumps({"file": str(loaded.path), "settings": settings, "warnings": loaded.warnings}) + "\n"


def as_toml(value: object) -> str:
    """A value as the file would hold it."""
    plain = _plain(value)
    if isinstance(plain, list):
        return f"[{', '.join(as_toml(item) for item in plain)}]"
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return quoted(plain) if isinstance(plain, str) else str(plain)


def _lines(loaded: Loaded, section: str) -> Iterator[str]:
    for key in SECTIONS[section]:
        setting = f"{key} = {as_toml(_value(loaded, section, key))}"
        yield f"{setting:<{ORIGIN_COLUMN}} # {loaded.origins[section, key]}"


def _value(loaded: Loaded, section: str, key: str) -> object:
    return getattr(getattr(loaded.settings, section), key)


def _plain(value: object) -> object:
    """A value as JSON has it; secrets masked."""
    if isinstance(value, SecretStr):
        return MASK if value else ""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
