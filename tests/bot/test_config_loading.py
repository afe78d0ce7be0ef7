"""Files and variables become settings, or say why they cannot."""

import os
import tracemalloc
from pathlib import Path

import pytest

from bot.config.layers import SECTIONS
from bot.config.loading import MAX_FILE_BYTES, BadConfig, load_config
from bot.config.models import Settings
from tests.bot.configs import DISCORD, ENVIRONMENT, MATRIX, PEER, SWARM, load, mistake, mistakes


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[bot\n", "line 1, column 5: expected ']' at the end of a table declaration"),
        ("[bot]\nname murmur", "line 2, column 6: expected '=' after a key in a key/value pair"),
        ("[bot]\nname = murmur", "line 2, column 8: invalid value"),
        ("[bot]\nadmins = [\n'x'", "line 3, column 4: unclosed array"),
        ("[bot]\nname = 'a'\nname = 'b'", "line 3, column 11: cannot overwrite a value"),
        ("[bot]\n[bot]", "line 2, column 5: cannot declare ('bot',) twice"),
        ("a = 'x\x1b[2J'", "line 1, column 7: found invalid character '\\x1b'"),
    ],
)
def test_what_is_not_toml_is_told_with_line_and_column(tmp_path: Path, text: str, where: str) -> None:
    assert mistake(tmp_path, text) == f"{tmp_path}/config.toml is not TOML: {where}"


@pytest.mark.parametrize("text", [f"a = {'1' * 5000}", f"a = {'[' * 50_000}"], ids=["digits", "brackets"])
def test_toml_that_no_parser_takes_is_one_sentence(tmp_path: Path, text: str) -> None:
    assert "is not TOML" in mistake(tmp_path, text)


def sentence_about(path: Path) -> str:
    with pytest.raises(BadConfig) as raised:
        load_config(path, {})
    return str(raised.value)


def test_a_missing_file_is_told_with_the_example_to_copy(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert sentence_about(path) == (
        f"there is no {path}: copy config.example.toml to it and change what you need, "
        "or name a file with --config"
    )


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert sentence_about(tmp_path) == f"{tmp_path} is no file: name one with --config"
    assert sentence_about(pipe) == f"{pipe} is no file: name one with --config"
    assert "cannot be read: Not a directory" in sentence_about(Path(__file__) / "config.toml")


def test_a_file_that_is_too_large_or_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    assert "that is no configuration" in sentence_about(path)
    path.write_bytes(b"[bot]\n# \xff\n")
    assert sentence_about(path) == f"{path} is not text in UTF-8: line 2 has other bytes"


def test_of_a_large_file_little_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.touch()
    os.truncate(path, 64 * MAX_FILE_BYTES)
    tracemalloc.start()
    try:
        assert "that is no configuration" in sentence_about(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_FILE_BYTES
    finally:
        tracemalloc.stop()


def test_a_byte_order_mark_and_line_ends_of_windows_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[limits]\r\nrunning = 7\r\n")
    assert load_config(path, {}).settings.limits.running == 7


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "[dicsord]\n[bot]\nnam = 1\n[limits]\nrunning = 0\nqueued = -1\n[quota]\nbalance_cap = 5\n"
    text += "[matrix]\nenabled = true"
    found = mistakes(tmp_path, text, {"MURMUR__OPS__PORT": "1"})
    about = [
        "[dicsord]",
        "[bot] nam",
        "MURMUR__OPS__PORT",
        "[limits] running",
        "[limits] queued",
        "[matrix] needs",
    ]
    about += [
        "[matrix] homeserver",
        "[matrix] user",
        "[swarm] models",
        "[swarm] initial_peers",
        "[quota] balance_cap",
    ]
    assert [sentence.startswith(start) for sentence, start in zip(found, about, strict=True)] == [True] * len(
        about
    )


def test_what_follows_from_a_mistake_is_not_told(tmp_path: Path) -> None:
    """The cap is below the default of the grant, which is not what was meant."""
    text = "[quota]\nbalance_cap = 5\ndaily_grant = 'three'"
    assert "daily_grant must be" in mistake(tmp_path, text)


def test_a_file_says_what_is_set(tmp_path: Path) -> None:
    loaded = load(tmp_path, f"{SWARM}[bot]\ntemperature = 1\nadmins = ['@ada:example.org', '5']")
    assert loaded.settings.bot.temperature == 1.0
    assert loaded.settings.bot.admins == ("@ada:example.org", "5")
    assert loaded.settings.swarm.initial_peers == (PEER,)
    assert str(loaded.origins["bot", "admins"]) == f"file {tmp_path}/config.toml"
    assert str(loaded.origins["bot", "name"]) == "default"
    assert set(loaded.origins) == {(section, key) for section, keys in SECTIONS.items() for key in keys}


OVERRIDES = {
    "MURMUR__LIMITS__RUNNING": ("9", "running", 9),
    "MURMUR__BOT__STREAMING": ("false", "streaming", False),
    "MURMUR__BOT__TEMPERATURE": ("1e-1", "temperature", 0.1),
    "MURMUR__BOT__NAME": ("12", "name", "12"),
    "MURMUR__BOT__PERSONA": ("", "persona", ""),
    "MURMUR__PRIVACY__CONSENT": ("ask", "consent", "ask"),
    "MURMUR__STORAGE__PATH": ("/var/lib/murmur/db", "path", Path("/var/lib/murmur/db")),
    "MURMUR__SWARM__MODELS": ("owner/one, owner/two", "models", ("owner/one", "owner/two")),
    "MURMUR__DISCORD__DENIED_USERS": ("5, 6", "denied_users", (5, 6)),
    "MURMUR__DISCORD__ALLOWED_USERS": ("[5, 6]", "allowed_users", (5, 6)),
    "MURMUR__DISCORD__ALLOWED_ROLES": ("", "allowed_roles", ()),
}


@pytest.mark.parametrize(("name", "override"), OVERRIDES.items(), ids=OVERRIDES)
def test_variables_override_the_file(tmp_path: Path, name: str, override: tuple[str, str, object]) -> None:
    text, key, value = override
    section = name.split("__")[1].lower()
    file = "[limits]\nrunning = 2\n[discord]\nallowed_users = [1]\n[bot]\nstreaming = true\n"
    loaded = load(tmp_path, file, {name: text, "MURMUR_PYTHON": "python3", "HOME": "/"})
    assert getattr(getattr(loaded.settings, section), key) == value
    assert str(loaded.origins[section, key]) == f"environment {name}"


@pytest.mark.parametrize("text", ["", "lots", "1\nqueued = 2", "[1", "nan", "0x", "[" * 5000], ids=repr)
def test_a_variable_with_a_wrong_value_is_named(tmp_path: Path, text: str) -> None:
    sentence = mistake(tmp_path, "", {"MURMUR__LIMITS__RUNNING": text})
    assert sentence.startswith("MURMUR__LIMITS__RUNNING must be a whole number from 1 to 10000, not ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MURMUR__DISCORD__TOKN", "did you mean MURMUR__DISCORD__TOKEN?"),
        ("MURMUR__limits__running", "did you mean MURMUR__LIMITS__RUNNING?"),
        ("MURMUR__", "config.example.toml names all that are, as MURMUR__SECTION__KEY"),
    ],
)
def test_a_variable_that_is_no_setting_is_told(tmp_path: Path, name: str, hint: str) -> None:
    assert mistake(tmp_path, "", {name: "x"}).startswith(f"{name} is not a setting; {hint}")


WARNINGS = {
    "nobody to answer": ("", "neither [discord] nor [matrix] is enabled"),
    "no admin": (DISCORD, "[bot] admins is empty"),
    "metrics for all": (
        "[ops]\nmetrics_host = '0.0.0.0'\nmetrics_port = 9100",
        "[ops] metrics_host is no loopback address",
    ),
    "an open way": (MATRIX.replace("localhost:8008", "example.org"), "[matrix] homeserver is not https"),
}


@pytest.mark.parametrize(("text", "warning"), WARNINGS.values(), ids=WARNINGS)
def test_what_is_unwise_is_told(tmp_path: Path, text: str, warning: str) -> None:
    assert any(each.startswith(warning) for each in load(tmp_path, text, ENVIRONMENT).warnings)


def test_a_good_configuration_has_no_warnings(tmp_path: Path) -> None:
    text = f"{MATRIX}[ops]\nmetrics_port = 9100\nmetrics_host = '::1'\n[bot]\nadmins = ['@ada:example.org']"
    assert load(tmp_path, text, ENVIRONMENT).warnings == ()


def test_settings_without_a_file_are_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "").settings == Settings()
