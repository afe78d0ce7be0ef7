"""Tokens and passwords: found where the settings say, or where systemd puts them, and never shown.

A secret `x` of a section is where one of `x_file`, `x_env` and `x` says; if none of them does, it is the
credential `section_x` in CREDENTIALS_DIRECTORY, or else in the variable that `x_env` names by default.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from bot.config.fields import MAX_SECRET_LETTERS
from bot.config.files import NoFile, is_open_to_others, read_small
from bot.config.layers import SECRETS, SECTIONS, Given, Layer, Origin
from bot.config.mistakes import Key, Mistake, safe, written
from bot.config.models import Settings

CREDENTIALS = "CREDENTIALS_DIRECTORY"
# Containers get theirs here, readable by all who are in the container: nobody else is.
MOUNTED = Path("/run/secrets")
OPTIONAL: frozenset[Key] = frozenset({("matrix", "password")})
"""Only for logging in, and then the terminal can be asked."""


class NoSecret(Exception):
    """Why there is no secret that can be used; the message is a sentence, without the secret."""


def find_secrets(
    settings: Settings,
    given: Layer,
    environment: Mapping[str, str],
    wrong: frozenset[Key],
    platform: str = "",
) -> tuple[Layer, list[Mistake]]:
    """The secrets of the platforms that are enabled, or of the one `platform`, be it enabled or not.

    Those with a setting in `wrong` are not looked for.
    """
    found: Layer = {}
    mistakes: list[Mistake] = []
    for key in SECRETS:
        is_wanted = key[0] == platform if platform else getattr(settings, key[0]).enabled
        if not is_wanted or wrong & set(_ways(key)):
            continue
        try:
            secret = _find(key, settings, given, environment)
        except NoSecret as error:
            mistakes.append(Mistake(str(error), (key,)))
        else:
            found |= {key: secret} if secret is not None else {}
    return found, mistakes


def read_secret(path: Path, where: str, *, may_be_shared: bool = False) -> str:
    """The one line of a file that only its owner can read. `where` begins the sentence. Raises NoSecret."""
    try:
        raw, status = read_small(path, 4 * MAX_SECRET_LETTERS)
    except FileNotFoundError as error:
        reason = "names a file that is not there; relative paths start where ./murmur is called"
        raise NoSecret(f"{where} {reason}") from error
    except OSError as error:
        raise NoSecret(f"{where} names a file that cannot be read: {error.strerror}") from error
    except NoFile as error:
        raise NoSecret(f"{where} names something that is no file") from error
    if not may_be_shared and is_open_to_others(status):
        raise NoSecret(f"{where} names a file that others can read; run: chmod 600 {safe(str(path))}")
    try:
        return usable(raw.decode("utf-8").rstrip("\r\n"), where)
    except UnicodeDecodeError as error:
        raise NoSecret(f"{where} names a file that holds something else than text") from error


def usable(text: str, where: str) -> str:
    """The same text, if it can be a secret. `where` begins the sentence. Raises NoSecret."""
    if not text.strip():
        raise NoSecret(f"{where} leads to an empty secret")
    if len(text) > MAX_SECRET_LETTERS:
        raise NoSecret(f"{where} leads to more than {MAX_SECRET_LETTERS} letters, which is no secret")
    if not text.isprintable() or text != text.strip():
        raise NoSecret(f"{where} leads to a secret with line breaks, signs or spaces around it")
    return text


def is_mounted(path: Path) -> bool:
    """Whether a file is one that Docker and its like hand to a container."""
    return MOUNTED in path.parents and ".." not in path.parts


def _ways(key: Key) -> tuple[Key, Key, Key]:
    section, name = key
    return (section, name), (section, f"{name}_env"), (section, f"{name}_file")


def _find(key: Key, settings: Settings, given: Layer, environment: Mapping[str, str]) -> Given | None:
    """The secret, or None if there is none and none is needed. Raises NoSecret."""
    chosen = _chosen(key, given)
    if len(chosen) > 1:
        names = " and ".join(name for _, name in chosen)
        raise NoSecret(f"[{key[0]}] {names} exclude each other; keep one, best a file or a variable")
    if chosen:
        return _from_way(key, chosen[0], given, environment)
    variable = str(getattr(getattr(settings, key[0]), f"{key[1]}_env"))
    found = _credential(key, environment) or _by_default(variable, environment)
    if found is None and key not in OPTIONAL:
        raise NoSecret(_needed(key, variable))
    return found


def _chosen(key: Key, given: Layer) -> list[Key]:
    """The ways that somebody has named; what the environment overrides does not count any more.

    The name that a variable has by default is no choice: perhaps only a comment sign was removed.
    """
    named = [way for way in _ways(key) if way in given and given[way].value not in {"", _default(way)}]
    overriding = [way for way in named if given[way].origin.kind == "environment"]
    return overriding or named


def _default(way: Key) -> object:
    return SECTIONS[way[0]][way[1]].default


def _from_way(key: Key, way: Key, given: Layer, environment: Mapping[str, str]) -> Given:
    value, where = str(given[way].value), written(way)
    _, variable, file = _ways(key)
    if way == file:
        text = read_secret(Path(value), where, may_be_shared=is_mounted(Path(value)))
        return Given(SecretStr(text), Origin("file", safe(value)))
    if way == variable:
        if value not in environment:
            raise NoSecret(f"{where} names an environment variable that is not set")
        return Given(SecretStr(usable(environment[value], where)), Origin("environment", value))
    return Given(SecretStr(usable(value, where)), given[way].origin)


def _credential(key: Key, environment: Mapping[str, str]) -> Given | None:
    folder = environment.get(CREDENTIALS)
    path = Path(folder) / "_".join(key) if folder else None
    if path is None or not path.exists():
        return None
    # systemd guards the folder, and shows its access list as rights of a group.
    text = read_secret(path, f"{CREDENTIALS} has {path.name}, which", may_be_shared=True)
    return Given(SecretStr(text), Origin("file", safe(str(path))))


def _by_default(variable: str, environment: Mapping[str, str]) -> Given | None:
    text = environment.get(variable)
    if not text:
        return None
    secret = usable(text, f"the environment variable {variable}")
    return Given(SecretStr(secret), Origin("environment", variable))


def _needed(key: Key, variable: str) -> str:
    section, name = key
    or_set = f", or set {variable}" if variable else ""
    return f"[{section}] needs a {name}: write it to a file and name that in {name}_file{or_set}"
