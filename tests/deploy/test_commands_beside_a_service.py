"""The functions of docs/operate.md that run a command beside a service, with stand-ins for what they call."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
OPERATE = ROOT / "docs/operate.md"
UNIT = ROOT / "deploy/murmur.service"
COMPOSE = ROOT / "deploy/compose.yaml"
CONFIG = "/etc/murmur/config.toml"
FAKE = """#!/usr/bin/env bash
[[ $(basename "$0") != systemctl ]] || { [[ "$*" == "cat murmur.service" ]] && exec cat "$UNIT"; exit 1; }
printf '%s\\n' "$(basename "$0")" "$@"
"""


@dataclass(frozen=True)
class Shell:
    """A bash in which one of the functions is defined, and neither systemd nor Docker can be reached."""

    programs: Path
    function: str

    def run(self, *arguments: str, unit: Path = UNIT) -> list[str]:
        """The program that the function calls with these arguments in the end, and what it is given."""
        done = subprocess.run(
            ["bash", "-c", f'{self.function}\nmurmur "$@"', "bash", *arguments],
            env={"PATH": f"{self.programs}:/usr/bin:/bin", "UNIT": str(unit)},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return done.stdout.splitlines()


@pytest.fixture
def shells(tmp_path: Path) -> dict[str, Shell]:
    """A shell for each function, by the program that the function calls."""
    for name in ("systemctl", "systemd-run", "docker"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    functions = re.findall(r"^murmur\(\) \{\n.*?^\}$", OPERATE.read_text(), re.MULTILINE | re.DOTALL)
    systemd, compose = (Shell(tmp_path, function) for function in functions)
    return {"systemd-run": systemd, "docker": compose}


def properties(called: list[str]) -> list[str]:
    return [each.removeprefix("--property=") for each in called if each.startswith("--property=")]


def test_a_command_beside_the_unit_has_its_user_folders_and_secrets(shells: dict[str, Shell]) -> None:
    given = properties(shells["systemd-run"].run("doctor"))
    assert set(given) <= set(UNIT.read_text().splitlines())
    assert {
        "DynamicUser=yes",
        "User=murmur",
        "StateDirectory=murmur",
        "StateDirectoryMode=0700",
        "WorkingDirectory=/var/lib/murmur",
        "CacheDirectory=murmur",
        "Environment=HOME=/var/cache/murmur",
        "UMask=0077",
    } <= set(given)
    credentials = [line for line in given if line.startswith("LoadCredential=")]
    assert credentials == re.findall(r"^LoadCredential=.*$", UNIT.read_text(), re.MULTILINE)


def test_a_credential_that_was_deleted_from_the_installed_unit_is_not_asked_for(
    shells: dict[str, Shell], tmp_path: Path
) -> None:
    installed = tmp_path / "murmur.service"
    installed.write_text(re.sub(r"^LoadCredential=discord.*\n", "", UNIT.read_text(), flags=re.MULTILINE))
    given = properties(shells["systemd-run"].run("doctor", unit=installed))
    assert [line for line in given if "discord" in line] == []


def test_the_command_and_its_words_arrive_as_they_were_given(shells: dict[str, Shell]) -> None:
    words = ["admin", "allow", "<#123456789012345678>"]
    called = shells["systemd-run"].run(*words)
    assert called[-6:] == ["/opt/murmur/murmur", *words, "--config", CONFIG]
    assert {"--pty", "--pipe", "--collect"} <= set(called)


def test_a_command_beside_the_container_runs_in_its_service(shells: dict[str, Shell]) -> None:
    called = shells["docker"].run("quota", "show", "@ada:example.org")
    file = called[called.index("-f") + 1]
    service = called[called.index("--rm") + 1]
    assert (ROOT / Path(file).relative_to("/opt/murmur")) == COMPOSE
    assert service in yaml.safe_load(COMPOSE.read_text())["services"]
    assert called[-5:] == ["quota", "show", "@ada:example.org", "--config", CONFIG]
