"""The example names every setting with its default, which is that of the part that obeys it."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot import words
from bot.config.fields import MAX_MESSAGE_LETTERS
from bot.config.layers import KEYS, SECRETS, SECTIONS
from bot.config.loading import load_config
from bot.config.mistakes import Key, allowed
from bot.config.models import Settings
from bot.turns.queue import Bounds
from storage.amounts import Rates
from swarm.sampling_params import SamplingParams
from tests.bot.configs import load

EXAMPLE = Path(__file__).resolve().parents[2] / "config.example.toml"
_SECTION = re.compile(r"\[([a-z]+)\]")
_SETTING = re.compile(r"#([a-z_]+) = (.+)")


def documented() -> dict[Key, object]:
    """Every setting that a comment of the example shows, with its value."""
    found: dict[Key, object] = {}
    section = ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if match := _SECTION.fullmatch(line):
            section = match[1]
        elif match := _SETTING.fullmatch(line):
            assert (section, match[1]) not in found
            found[section, match[1]] = tomllib.loads(f"value = {match[2]}")["value"]
    return found


def default_of(key: Key) -> object:
    """A default as the file would hold it."""
    value = SECTIONS[key[0]][key[1]].default
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def test_behaviour_30_the_example_loads_and_leaves_everything_as_it_is() -> None:
    assert load_config(EXAMPLE, {}).settings == Settings()


def test_the_example_without_comment_signs_loads_too(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(_SETTING.sub(r"\1 = \2", EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
    assert load_config(path, {}).settings == Settings()


def test_the_example_shows_every_setting_and_no_other() -> None:
    assert set(documented()) == set(KEYS)


def test_the_example_keeps_the_order_of_the_models() -> None:
    assert list(documented()) == list(KEYS)


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_the_example_shows_the_default(key: Key) -> None:
    shown = documented()[key]
    assert (shown, type(shown)) == (default_of(key), type(default_of(key)))


def test_every_setting_of_the_example_is_explained_in_the_line_above() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    settings = [number for number, line in enumerate(lines) if _SETTING.fullmatch(line)]
    assert all(
        re.fullmatch(r"# \S.{5,}[.:]", lines[number - 1]) or "..." in lines[number - 1] for number in settings
    )


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_every_setting_has_bounds_that_can_be_told(key: Key) -> None:
    field = SECTIONS[key[0]][key[1]]
    assert "None" not in allowed(field.annotation, field.metadata)


@pytest.mark.parametrize("key", SECRETS, ids=".".join)
def test_every_secret_can_be_named_by_a_variable_or_a_file(key: Key) -> None:
    section, name = key
    assert {f"{name}_env", f"{name}_file"} <= set(SECTIONS[section])


def test_defaults_are_those_of_the_parts_that_obey_them() -> None:
    limits, quota = Settings().limits, Settings().quota
    assert Rates() == Rates(
        quota.daily_grant, quota.balance_cap, quota.prefill_percent, quota.least_new_tokens
    )
    assert Bounds() == Bounds(
        limits.running,
        limits.queued,
        limits.queued_per_conversation,
        limits.running_per_user,
        limits.queued_per_user,
    )
    assert MAX_MESSAGE_LETTERS == words.MAX_TEXT_LETTERS


@pytest.mark.parametrize(
    "text",
    [
        "temperature = 0\ntop_p = 0.01\ntop_k = 0\nrepetition_penalty = 0.1",
        "temperature = 2\ntop_p = 1\ntop_k = 1_000_000\nrepetition_penalty = 10",
    ],
)
def test_what_may_be_set_can_be_sampled_with(tmp_path: Path, text: str) -> None:
    bot = load(tmp_path, f"[bot]\n{text}").settings.bot
    SamplingParams(
        temperature=bot.temperature,
        top_p=bot.top_p,
        top_k=bot.top_k,
        repetition_penalty=bot.repetition_penalty,
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().limits.running = 5  # type: ignore[misc]
