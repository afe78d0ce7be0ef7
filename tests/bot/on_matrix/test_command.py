"""`./murmur matrix`: it needs what Matrix needs, and nothing else of the configuration."""

import io
from pathlib import Path

import pytest

from bot.on_matrix.command import run_matrix
from tests.bot.configs import DISCORD, MATRIX, SWARM

SECRET = {"MATRIX_STORE_SECRET": "s" * 16}
BOTH = f"{MATRIX}[discord]\nenabled = true\n"
OFF = MATRIX.replace("enabled = true", "enabled = false")
COMMANDS = ("login", "reset-identity")


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())


class Run:
    """Runs the command with a configuration, as far as it gets without a password."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys

    def __call__(self, command: str, text: str, environment: dict[str, str]) -> list[str]:
        """The sentences on standard error, without the command's name."""
        self._config.write_text(text, encoding="utf-8")
        self._config.chmod(0o600)
        assert run_matrix([command, "--config", str(self._config)], environment) == 2
        return [line.partition(": ")[2] for line in self._capsys.readouterr().err.splitlines()]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path / "config.toml", capsys)


ASKS_FOR_THE_PASSWORD = ["there is no password: set MATRIX_PASSWORD, or run this in a terminal"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", [BOTH, OFF, MATRIX.removeprefix(SWARM)], ids=["both", "off", "no swarm"])
def test_with_all_that_matrix_needs_only_the_password_is_asked_for(run: Run, command: str, text: str) -> None:
    assert run(command, text, SECRET) == ASKS_FOR_THE_PASSWORD


@pytest.mark.parametrize("text", [BOTH, OFF, DISCORD], ids=["both", "off", "another platform"])
def test_without_the_secret_of_the_store_that_alone_is_told(run: Run, text: str) -> None:
    (sentence,) = run("login", text, {})
    assert sentence.startswith("[matrix] needs a store_secret: ")


def test_an_account_that_is_not_named_is_told_although_matrix_is_off(run: Run) -> None:
    assert run("login", "", SECRET) == ["[matrix] needs homeserver and user first"]


def test_what_is_wrong_elsewhere_in_the_file_is_still_told(run: Run) -> None:
    (sentence,) = run("login", f"{BOTH}[limits]\nruning = 5\n", SECRET)
    assert "runing is not a setting" in sentence
