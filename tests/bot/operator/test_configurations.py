"""What the operator's commands need of a configuration, what they say if it leads nowhere, their examples."""

import shlex
from pathlib import Path

import pytest

from bot.operator.command import run_operator
from bot.operator.parsing import MORE, QUOTA, TWINS
from tests.bot.configs import DISCORD, MATRIX

BOB_ID = "@bob:example.org"
NEEDING_A_STORE = (
    ["quota", "show", BOB_ID],
    ["admin", "ban", BOB_ID],
    ["admin", "export", BOB_ID],
    ["admin", "backup", "copy"],
)


def complaint(line: list[str], config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a command that is not carried out."""
    assert run_operator([*line, "--config", str(config)], {}) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    return errors.rstrip("\n").partition(": ")[2]


def written(folder: Path, text: str) -> Path:
    config = folder / "config.toml"
    config.write_text(text, encoding="utf-8")
    config.chmod(0o600)
    return config


@pytest.mark.parametrize("line", NEEDING_A_STORE)
def test_where_a_relative_store_was_looked_for_is_told(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    config = written(tmp_path, '[storage]\npath = "murmur.db"\n[ops]\ncontrol_socket = "c.sock"\n')
    monkeypatch.chdir(elsewhere)
    assert complaint(line, config, capsys) == (
        f"there is no store {elsewhere / 'murmur.db'}: relative paths, as that of [storage], start where"
        " ./murmur is called; call it where the bot is started, or start the bot once"
    )


@pytest.mark.parametrize("line", NEEDING_A_STORE)
def test_a_store_that_is_named_in_full_and_not_there_is_told(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "murmur.db"
    config = written(tmp_path, f'[storage]\npath = "{store}"\n[ops]\ncontrol_socket = "{tmp_path / "c"}"\n')
    assert complaint(line, config, capsys) == (
        f"there is no store {store} yet: start the bot once, or name its configuration with --config"
    )


@pytest.mark.parametrize("text", ["", DISCORD, f"{MATRIX}[discord]\nenabled = true\n", MATRIX])
def test_an_invitation_needs_the_token_of_discord_and_no_other_secret(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = complaint(["admin", "invite-url"], written(tmp_path, text), capsys)
    assert sentence.startswith("[discord] needs a token: ")


def test_examples_can_be_pasted_into_a_shell_which_changes_nothing_of_them() -> None:
    examples = [it.example for it in (*TWINS, *MORE, *QUOTA)]
    assert [it for it in examples if shlex.join(it.split()) != it] == []
