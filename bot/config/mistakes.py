"""One sentence for each mistake in a configuration: where it is, what is allowed, what was meant. Pure."""

import difflib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from bot.config.fields import Allowed

Key = tuple[str, str]
"""A section and a setting in it."""

EXAMPLE = "config.example.toml"
MAX_SHOWN_LETTERS = 60
MAX_NAME_LETTERS = 200
_PLAIN = re.compile(r"[A-Za-z0-9_./~-]+")
MAX_SHOWN_NUMBER = 10**20


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a configuration. `keys` are the settings that it is about."""

    sentence: str
    keys: tuple[Key, ...] = ()


def written(key: Key) -> str:
    """A setting as sentences name it: `[discord] token_env`."""
    return f"[{key[0]}] {key[1]}"


def unknown_section(name: str, content: object, keys: Collection[Key]) -> Mistake:
    """Something at the top of the file that is no section, or a setting that has lost its own."""
    sections = list(dict.fromkeys(section for section, _ in keys))
    if isinstance(content, Mapping):
        near = _nearest(name, sections)
        hint = (
            f"did you mean [{near}]?"
            if near
            else f"there are {_listed((f'[{it}]' for it in sections), 'and')}"
        )
        return Mistake(f"[{safe(name)}] is not a section; {hint}")
    homes = _homes(name, keys)
    hint = f"it belongs to {homes}" if homes else f"each setting stands in a section, as in {EXAMPLE}"
    return Mistake(f"{safe(name)} stands outside of a section; {hint}")


def no_section(name: str) -> Mistake:
    """The name of a section with something else behind it."""
    return Mistake(f"[{name}] must be a section: a line with [{name}], once, and its settings below")


def unknown_key(section: str, name: str, keys: Collection[Key]) -> Mistake:
    """A setting that the section does not have."""
    here = [key for of, key in keys if of == section]
    # Whoever mistypes the name of a secret is told of the ways that do not show it.
    offered = [key for key in here if not {f"{key}_env", f"{key}_file"} & set(here)]
    homes, near = _homes(name, keys), _nearest(name, offered)
    if homes:
        hint = f"it belongs to {homes}"
    else:
        hint = f"did you mean {near}?" if near else f"{EXAMPLE} names all that are"
    return Mistake(f"[{section}] {safe(name)} is not a setting{' here' if homes else ''}; {hint}")


def unknown_variable(name: str, prefix: str, known: Collection[str]) -> Mistake:
    """An environment variable that looks like a setting, for it begins with `prefix`, and is none."""
    # Without what all of them begin with, which would make any two look alike.
    near = _nearest(name.removeprefix(prefix).upper(), [each.removeprefix(prefix) for each in known])
    as_variable = f"{EXAMPLE} names all that are, as {prefix}SECTION__KEY"
    hint = f"did you mean {prefix}{near}?" if near else as_variable
    return Mistake(f"{safe(name)} is not a setting; {hint}")


def wrong_value(name: str, field: FieldInfo, error: Mapping[str, Any], *, is_shown: bool) -> str:
    """What is wrong with the value of `name`, from an error of pydantic about it or about an item of it."""
    kind, metadata, where = field.annotation, list(field.metadata), name
    if len(error["loc"]) > 1:
        kind, metadata = _parts(get_args(kind)[0])
        where = f"{name}: item {error['loc'][1] + 1}"
    not_that = f", not {shown(error['input'])}" if is_shown else ""
    return f"{where} must be {allowed(kind, metadata)}{not_that}"


def allowed(kind: Any, metadata: Iterable[Any]) -> str:
    """Words for what a setting may be: `a whole number from 1 to 100`."""
    metadata = list(_flat(metadata))
    said = [each.words for each in metadata if isinstance(each, Allowed)]
    if said:
        return said[-1]
    if get_origin(kind) is Literal:
        return _listed((f'"{choice}"' for choice in get_args(kind)), "or")
    if get_origin(kind) is tuple:
        most = _bound(metadata, MaxLen, "max_length")
        return f"a list of at most {most} items, each {allowed(*_parts(get_args(kind)[0]))}"
    if kind in {int, float}:
        number = "a whole number" if kind is int else "a number"
        return f"{number} from {_bound(metadata, Ge, 'ge')} to {_bound(metadata, Le, 'le')}"
    if kind is str:
        least, most = _bound(metadata, MinLen, "min_length"), _bound(metadata, MaxLen, "max_length")
        return f"text in quotes, of {f'{least} to' if least else 'at most'} {most} letters"
    return {bool: "true or false", Path: "a path in quotes"}[kind]


def shown(value: object) -> str:
    """A value that somebody has written, short and safe for a terminal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        cut = value if len(value) <= MAX_SHOWN_LETTERS else f"{value[:MAX_SHOWN_LETTERS]}..."
        return quoted(cut)
    if isinstance(value, int | float):
        return str(value) if abs(value) < MAX_SHOWN_NUMBER or value != value else "so large a number"
    if isinstance(value, tuple):
        return f"a list of {len(value)} items" if len(value) != 1 else "a list of one item"
    return "a section" if isinstance(value, Mapping) else "a date or time"


def quoted(text: str) -> str:
    """Text in quotes as TOML writes it, with all escaped that a terminal might obey."""
    letters = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else _escaped(each) for each in letters)


def safe(name: str) -> str:
    """A name or path that somebody has written, short, and in quotes if there are other signs in it."""
    name = name if len(name) <= MAX_NAME_LETTERS else f"{name[:MAX_NAME_LETTERS]}..."
    return name if _PLAIN.fullmatch(name) else quoted(name)


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"


def _parts(kind: Any) -> tuple[Any, list[Any]]:
    """The type and the metadata of an item of a list."""
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        return inner, metadata
    return kind, []


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for each in metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _bound(metadata: Iterable[Any], kind: type, name: str) -> Any:
    """A bound that a setting has, or None. Every number and text of ours has one; a test sees to it."""
    for each in metadata:
        value = getattr(each, name, None) if isinstance(each, kind | StringConstraints) else None
        if value is not None:
            return value
    return None


def _homes(name: str, keys: Iterable[Key]) -> str:
    return " or ".join(f"[{section}]" for section, key in keys if key == name)


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name[:MAX_SHOWN_LETTERS], known, n=1, cutoff=0.55)), None)


def _listed(names: Iterable[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}"
