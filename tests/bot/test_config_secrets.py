"""Secrets come from where the settings say, are guarded, and are never shown."""

import os
from pathlib import Path

import pytest

from bot.config.files import is_open_to_others
from bot.config.loading import load_config
from bot.config.report import MASK, as_json, as_text
from bot.config.secrets import is_mounted
from tests.bot.configs import DISCORD, MATRIX, TOKEN, load, mistake, mistakes, secret_file


def token_of(folder: Path, text: str, environment: dict[str, str]) -> tuple[str, str]:
    """The token and where it is from; fails if a report shows it."""
    loaded = load(folder, text, environment)
    for report in (as_text(loaded), as_json(loaded), repr(loaded)):
        assert TOKEN not in report
    assert f'token = "{MASK}"' in as_text(loaded)
    return loaded.settings.discord.token.get_secret_value(), str(loaded.origins["discord", "token"])


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    path = secret_file(tmp_path, f"{TOKEN}\n")
    assert token_of(tmp_path, f"{DISCORD}token_file = '{path}'", {}) == (TOKEN, f"file {path}")


def test_a_secret_comes_from_the_variable_that_is_named(tmp_path: Path) -> None:
    text = f"{DISCORD}token_env = 'MY_BOT'"
    assert token_of(tmp_path, text, {"MY_BOT": TOKEN}) == (TOKEN, "environment MY_BOT")


def test_a_secret_comes_from_the_variable_that_is_looked_for_anyway(tmp_path: Path) -> None:
    assert token_of(tmp_path, DISCORD, {"DISCORD_TOKEN": TOKEN}) == (TOKEN, "environment DISCORD_TOKEN")


def test_a_secret_comes_from_a_variable_that_overrides(tmp_path: Path) -> None:
    name = "MURMUR__DISCORD__TOKEN"
    text = f"{DISCORD}token_file = '/nowhere'"
    assert token_of(tmp_path, text, {name: TOKEN}) == (TOKEN, f"environment {name}")


def test_a_secret_comes_from_systemd(tmp_path: Path) -> None:
    credential = tmp_path / "discord_token"
    credential.write_text(TOKEN, encoding="utf-8")
    credential.chmod(0o440)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "DISCORD_TOKEN": "another"}
    assert token_of(tmp_path, DISCORD, environment) == (TOKEN, f"file {credential}")


def test_a_secret_in_the_file_itself_works_and_is_warned_of(tmp_path: Path) -> None:
    text = f"{DISCORD}token = '{TOKEN}'"
    assert token_of(tmp_path, text, {}) == (TOKEN, f"file {tmp_path}/config.toml")
    assert load(tmp_path, text).warnings[0] == (
        "[discord] token stands in the file itself: better name a file in token_file, or a variable in "
        "token_env"
    )


def test_a_file_with_a_secret_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    load(tmp_path, f"{DISCORD}token = '{TOKEN}'")
    path = tmp_path / "config.toml"
    path.chmod(0o644)
    warning = f"others can read {path}, which holds a secret; run chmod 600 on it"
    assert warning in load_config(path, {}).warnings


def test_a_name_that_is_the_default_excludes_nothing(tmp_path: Path) -> None:
    text = f"{DISCORD}token_env = 'DISCORD_TOKEN'\ntoken_file = '{secret_file(tmp_path)}'"
    assert token_of(tmp_path, text, {})[0] == TOKEN


REASONS = {
    "nothing": (
        "",
        "[discord] needs a token: write it to a file and name that in token_file, or set DISCORD_TOKEN",
    ),
    "no variable to look for": (
        "token_env = ''",
        "[discord] needs a token: write it to a file and name that in token_file",
    ),
    "a variable that is not set": (
        "token_env = 'MY_BOT'",
        "[discord] token_env names an environment variable that is not set",
    ),
    "a variable that is empty": ("token_env = 'EMPTY'", "[discord] token_env leads to an empty secret"),
    "a variable with two lines": (
        "token_env = 'LINES'",
        "[discord] token_env leads to a secret with line breaks, signs or spaces around it",
    ),
    "a file that is not there": (
        "token_file = '/nowhere/secret'",
        "[discord] token_file names a file that is not there; relative paths start where ./murmur is called",
    ),
    "two ways": (
        "token_file = 'a'\ntoken_env = 'B'",
        "[discord] token_env and token_file exclude each other; keep one, best a file or a variable",
    ),
    "a number": ("token = 5", "[discord] token must be text of at most 4096 letters"),
    "a secret where its variable is named": (
        f"token_env = '{TOKEN}'",
        "[discord] token_env must be the name of an environment variable, in upper case, that holds the "
        "secret",
    ),
    "a secret of many lines where its file is named": (
        f"token_file = '''{TOKEN}\n'''",
        "[discord] token_file must be the path of a file that holds the secret",
    ),
    "a long one": (f"token = '{TOKEN * 200}'", "[discord] token must be text of at most 4096 letters"),
}


@pytest.mark.parametrize(("text", "sentence"), REASONS.values(), ids=REASONS)
def test_each_way_to_no_secret_has_its_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    environment = {"EMPTY": "", "LINES": f"{TOKEN}\n{TOKEN}"}
    assert mistake(tmp_path, DISCORD + text, environment) == sentence


def sentence_about(folder: Path, path: Path) -> str:
    sentence = mistake(folder, f"{DISCORD}token_file = '{path}'")
    assert TOKEN not in sentence
    return sentence.removeprefix("[discord] token_file ")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o660])
def test_a_secret_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, mode=mode)
    assert sentence_about(tmp_path, path) == f"names a file that others can read; run: chmod 600 {path}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "leads to an empty secret"),
        (" \n", "leads to an empty secret"),
        (f"{TOKEN}\n{TOKEN}", "leads to a secret with line breaks, signs or spaces around it"),
        (f"{TOKEN}\x00", "leads to a secret with line breaks, signs or spaces around it"),
        (f" {TOKEN}", "leads to a secret with line breaks, signs or spaces around it"),
        (TOKEN * 200, "leads to more than 4096 letters, which is no secret"),
        (TOKEN * 20_000, "leads to more than 4096 letters, which is no secret"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert sentence_about(tmp_path, secret_file(tmp_path, text)) == reason


@pytest.mark.parametrize(("of", "mode", "is_open"), [(0, 0o640, True), (1, 0o640, False), (1, 0o660, True)])
def test_a_group_may_read_what_belongs_to_somebody_else(of: int, mode: int, is_open: bool) -> None:
    owner = os.geteuid() + of
    status = os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    assert is_open_to_others(status) == is_open


def test_files_that_containers_are_given_may_be_readable() -> None:
    assert is_mounted(Path("/run/secrets/discord_token"))
    assert not is_mounted(Path("/run/secrets/../../tmp/discord_token"))
    assert not is_mounted(Path("/run/other/discord_token"))


def test_an_empty_variable_that_nobody_has_named_is_none(tmp_path: Path) -> None:
    assert mistake(tmp_path, DISCORD, {"DISCORD_TOKEN": ""}).startswith("[discord] needs a token")


def test_what_is_no_file_of_text_is_refused(tmp_path: Path) -> None:
    pipe, binary = tmp_path / "pipe", tmp_path / "binary"
    os.mkfifo(pipe)
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    assert sentence_about(tmp_path, pipe) == "names something that is no file"
    assert sentence_about(tmp_path, tmp_path) == "names something that is no file"
    assert sentence_about(tmp_path, binary) == "names a file that holds something else than text"
    assert "Not a directory" in sentence_about(tmp_path, binary / "secret")


def test_secrets_of_a_platform_that_is_off_are_not_looked_for(tmp_path: Path) -> None:
    loaded = load(tmp_path, "[discord]\ntoken_file = '/nowhere'", {"DISCORD_TOKEN": TOKEN})
    assert not loaded.settings.discord.token


def test_a_password_is_optional_and_the_secret_of_the_store_is_not(tmp_path: Path) -> None:
    (sentence,) = mistakes(tmp_path, MATRIX)
    assert sentence.startswith("[matrix] needs a store_secret")
    loaded = load(tmp_path, MATRIX, {"MATRIX_STORE_SECRET": "short", "MATRIX_PASSWORD": "two words"})
    assert loaded.settings.matrix.password.get_secret_value() == "two words"
    assert any(warning.startswith("[matrix] store_secret is short") for warning in loaded.warnings)
    assert not load(tmp_path, MATRIX, {"MATRIX_STORE_SECRET": "s" * 16}).settings.matrix.password


def test_a_wrong_value_of_a_secret_is_not_shown_nor_looked_for(tmp_path: Path) -> None:
    sentences = mistakes(tmp_path, f"{DISCORD}token = ['{TOKEN}']\n[matrix]\nstore_secret_env = '{TOKEN}'")
    assert len(sentences) == 2
    assert not any(TOKEN in sentence or "needs a token" in sentence for sentence in sentences)


def test_a_wrong_variable_of_a_secret_is_not_shown(tmp_path: Path) -> None:
    sentence = mistake(tmp_path, DISCORD, {"MURMUR__DISCORD__TOKEN": TOKEN * 200})
    assert sentence == "MURMUR__DISCORD__TOKEN must be text of at most 4096 letters"
