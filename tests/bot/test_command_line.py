"""What the bot's command lines have in common: `--config`, how mistakes are told, help with examples."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bot.command import run_command_line
from bot.config.command import run_config
from bot.config.command_line import DEFAULT_PATH, MISTAKEN, load_or_tell, tell
from bot.on_matrix.command import run_matrix
from bot.operator.command import run_operator

LINES: list[tuple[str, Callable[[list[str]], int]]] = [
    ("bot", lambda more: run_command_line(more, {})),
    ("config", lambda more: run_config(["check", *more], {})),
    ("matrix", lambda more: run_matrix(["login", *more], {"MATRIX_STORE_SECRET": "s" * 16})),
    ("admin audit", lambda more: run_operator(["admin", "audit", *more], {})),
    ("quota show", lambda more: run_operator(["quota", "show", "@ada:example.org", *more], {})),
]


@pytest.mark.parametrize(("name", "run"), LINES)
def test_each_mistake_of_the_configuration_is_one_sentence_and_the_exit_code_2(
    name: str, run: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "other.toml"
    config.write_text("[limits]\nruning = 5\nqueued = -1\n")
    assert run(["--config", str(config)]) == MISTAKEN == 2
    output, errors = capsys.readouterr()
    assert output == ""
    first, second = errors.splitlines()
    assert first.startswith(f"murmur {name}: [limits] ")
    assert second.startswith(f"murmur {name}: [limits] ")
    assert "runing is not a setting; did you mean running?" in errors


@pytest.mark.parametrize(("name", "run"), LINES)
def test_without_a_name_config_toml_is_read(
    name: str,
    run: Callable[[list[str]], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    DEFAULT_PATH.write_text("[bot]\nname = \n")
    assert run([]) == MISTAKEN
    assert capsys.readouterr().err.startswith(f"murmur {name}: config.toml is not TOML: line 2, column 8")


@pytest.mark.parametrize(("name", "run"), LINES)
def test_help_shows_examples_as_they_are_written(
    name: str, run: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"\n  ./murmur {name.split()[0]}" in shown
    assert "--config FILE" in shown
    assert "default: config.toml" in shown


def test_a_configuration_that_is_right_is_loaded_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[bot]\nname = 'Ada'\n")
    loaded = load_or_tell("bot", config, {})
    assert loaded is not None
    assert loaded.settings.bot.name == "Ada"
    assert capsys.readouterr() == ("", "")


def test_sentences_are_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    tell("bot", ["one", "two"])
    assert capsys.readouterr().err == "murmur bot: one\nmurmur bot: two\n"
