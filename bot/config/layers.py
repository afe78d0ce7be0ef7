"""What a file and the environment give, key by key, and where it came from. Pure: both are passed in."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bot.config.mistakes import (
    Key,
    Mistake,
    no_section,
    unknown_key,
    unknown_section,
    unknown_variable,
)
from bot.config.models import Settings

PREFIX = "MURMUR__"
SECTIONS: dict[str, Mapping[str, FieldInfo]] = {
    name: field.annotation.model_fields  # type: ignore[union-attr]
    for name, field in Settings.model_fields.items()
}
KEYS: tuple[Key, ...] = tuple((section, key) for section, fields in SECTIONS.items() for key in fields)
SECRETS: tuple[Key, ...] = tuple(
    (section, key) for section, key in KEYS if SECTIONS[section][key].annotation is SecretStr
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: `default`, `file NAME` or `environment NAME`."""

    kind: Literal["default", "file", "environment"]
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody has written it, not checked yet."""

    value: object
    origin: Origin


Layer = dict[Key, Given]


def from_document(document: Mapping[str, object], name: str) -> tuple[Layer, list[Mistake]]:
    """The settings of a parsed file called `name`, and what in it is none."""
    layer: Layer = {}
    mistakes: list[Mistake] = []
    for section, content in document.items():
        if section not in SECTIONS:
            mistakes.append(unknown_section(section, content, KEYS))
        elif not isinstance(content, Mapping):
            mistakes.append(no_section(section))
        else:
            mistakes += [unknown_key(section, key, KEYS) for key in content if key not in SECTIONS[section]]
            layer |= {
                (section, key): Given(_frozen(value), Origin("file", name))
                for key, value in content.items()
                if key in SECTIONS[section]
            }
    return layer, mistakes


def from_environment(environment: Mapping[str, str]) -> tuple[Layer, list[Mistake]]:
    """The settings that variables override, and variables that look as if they did."""
    by_variable = {variable_of(key): key for key in KEYS}
    layer: Layer = {}
    mistakes: list[Mistake] = []
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        key = by_variable.get(variable)
        if key is None:
            mistakes.append(unknown_variable(variable, PREFIX, by_variable))
        else:
            value = _converted(environment[variable], SECTIONS[key[0]][key[1]].annotation)
            layer[key] = Given(value, Origin("environment", variable))
    return layer, mistakes


def variable_of(key: Key) -> str:
    """The environment variable that overrides a setting: `MURMUR__LIMITS__RUNNING`."""
    return PREFIX + "__".join(key).upper()


def nested(layer: Mapping[Key, Given], section: str, without: Iterable[Key] = ()) -> dict[str, object]:
    """The values of a section as its model takes them."""
    skipped = set(without)
    return {key[1]: given.value for key, given in layer.items() if key[0] == section and key not in skipped}


def _converted(text: str, kind: Any) -> object:
    """What a variable says, as a value of TOML; the text itself where that is wanted, or where it is none.

    A list may be written as one of TOML, or with commas alone: `1, 2`.
    """
    if get_origin(kind) is tuple:
        if text.lstrip().startswith("["):
            return _toml_value(text)
        item = get_args(kind)[0]
        return tuple(_converted(part.strip(), get_args(item)[0]) for part in text.split(",") if part.strip())
    return _toml_value(text) if kind in {bool, int, float} else text


def _toml_value(text: str) -> object:
    try:
        document = tomllib.loads(f"value = {text.strip()}")
    except (ValueError, RecursionError):
        return text
    return _frozen(document["value"]) if len(document) == 1 else text


def _frozen(value: object) -> object:
    """Lists as tuples: the models are strict, and frozen."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
