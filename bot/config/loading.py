"""From a file and an environment to settings, or to a sentence for each mistake in them."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bot.config.checks import find_contradictions, find_warnings
from bot.config.fields import Section
from bot.config.files import NoFile, is_open_to_others, read_small
from bot.config.layers import (
    KEYS,
    SECRETS,
    SECTIONS,
    Layer,
    Origin,
    from_document,
    from_environment,
    nested,
)
from bot.config.mistakes import EXAMPLE, Key, Mistake, safe, written, wrong_value
from bot.config.models import Settings
from bot.config.secrets import find_secrets
from swarm.errors import ConfigError

MAX_FILE_BYTES = 1_048_576
_POSITION = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class BadConfig(ConfigError):
    """A configuration that cannot be used; `sentences` has one for each mistake."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, where each of them came from, and what is unwise about them."""

    path: Path
    settings: Settings
    origins: Mapping[Key, Origin]
    warnings: tuple[str, ...]


def load_config(
    path: Path, environment: Mapping[str, str], *, needs_secrets: bool = True, platform: str = ""
) -> Loaded:
    """Read `path`, and what `environment` overrides; without `needs_secrets` some may be missing.

    With a `platform`, its secrets alone are looked for, be it enabled or not, and what else keeps the bot
    from running does not matter. Raises BadConfig.
    """
    text, is_private = _read(path)
    in_file, mistakes = from_document(_parsed(text, path), safe(str(path)))
    in_environment, more = from_environment(environment)
    given = in_file | in_environment
    settings, wrong_values = _checked(given)
    wrong = frozenset(key for mistake in wrong_values for key in mistake.keys)
    secrets, missing = find_secrets(settings, given, environment, wrong, platform)
    settings, wrong_secrets = _checked(given | secrets, without=wrong)
    mistakes += [*more, *wrong_values, *(missing if needs_secrets else ()), *wrong_secrets]
    mistakes += [
        each
        for each in find_contradictions(settings)
        if not wrong & set(each.keys) and (not platform or platform in {section for section, _ in each.keys})
    ]
    if mistakes:
        raise BadConfig(*(mistake.sentence for mistake in mistakes))
    origins = {
        key: (given | secrets)[key].origin if key in given | secrets else Origin("default") for key in KEYS
    }
    warnings = (*_inline_secrets(in_file, path, is_private=is_private), *find_warnings(settings))
    return Loaded(path, settings, origins, warnings)


def _checked(given: Layer, without: frozenset[Key] = frozenset()) -> tuple[Settings, list[Mistake]]:
    """Settings in which defaults stand for what is wrong, and a mistake for each of those."""
    sections: dict[str, Section] = {}
    mistakes: list[Mistake] = []
    for section, field in Settings.model_fields.items():
        model: Any = field.annotation
        try:
            sections[section] = model.model_validate(nested(given, section, without))
        except ValidationError as error:
            found = [_mistake(section, each, given) for each in error.errors(include_url=False)]
            wrong = {key for mistake in found for key in mistake.keys}
            sections[section] = model.model_validate(nested(given, section, wrong | without))
            mistakes += found
    return Settings(**sections), mistakes  # type: ignore[arg-type]


def _mistake(section: str, error: Any, given: Layer) -> Mistake:
    key = (section, str(error["loc"][0]))
    origin = given[key].origin
    name = origin.name if origin.kind == "environment" else written(key)
    # Neither a secret, nor what was written where the way to one should stand, which may be the secret.
    is_shown = not any(key[1].startswith(secret) for of, secret in SECRETS if of == section)
    return Mistake(wrong_value(name, SECTIONS[section][key[1]], error, is_shown=is_shown), (key,))


def _inline_secrets(in_file: Layer, path: Path, *, is_private: bool) -> list[str]:
    inline = [key for key in SECRETS if key in in_file and in_file[key].value]
    warnings = [
        f"{written(key)} stands in the file itself: better name a file in {key[1]}_file, or a variable in "
        f"{key[1]}_env"
        for key in inline
    ]
    if inline and not is_private:
        warnings.append(f"others can read {safe(str(path))}, which holds a secret; run chmod 600 on it")
    return warnings


def _read(path: Path) -> tuple[str, bool]:
    """What the file says, and whether its owner alone can read it. Raises BadConfig."""
    name = safe(str(path))
    try:
        raw, status = read_small(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise BadConfig(
            f"there is no {name}: copy {EXAMPLE} to it and change what you need, or name a file with --config"
        ) from error
    except OSError as error:
        raise BadConfig(f"{name} cannot be read: {error.strerror}") from error
    except NoFile as error:
        raise BadConfig(f"{name} is no file: name one with --config") from error
    if len(raw) > MAX_FILE_BYTES:
        raise BadConfig(f"{name} has more than {MAX_FILE_BYTES} bytes: that is no configuration")
    try:
        return raw.decode("utf-8-sig"), not is_open_to_others(status)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadConfig(f"{name} is not text in UTF-8: line {line} has other bytes") from error


def _parsed(text: str, path: Path) -> dict[str, object]:
    """The file as TOML. Raises BadConfig with line and column."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _POSITION.match(str(error))
        reason = match[1] if match else str(error)
        lines = text.split("\n")
        line, column = (match[2], match[3]) if match and match[2] else (len(lines), len(lines[-1]) + 1)
        raise BadConfig(
            f"{safe(str(path))} is not TOML: line {line}, column {column}: {_plain(reason)}"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets
        raise BadConfig(f"{safe(str(path))} is not TOML: a number or a list in it is too large") from error


def _plain(reason: str) -> str:
    """The parser's words as the end of a sentence; they may quote a letter or a key of the file."""
    letters = "".join(each if each.isprintable() else "?" for each in reason)[:150]
    return letters[:1].lower() + letters[1:]
