"""The files for systemd and Docker: what they name exists, and obeys the settings that they set."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from bot.config.layers import SECRETS, from_environment
from bot.config.models import OpsSettings
from bot.operating import SPARE_S
from tests.architecture import launcher_commands

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/murmur.service"
DOCKERFILE = ROOT / "deploy/Dockerfile"
COMPOSE = ROOT / "deploy/compose.yaml"
CREDENTIALS = {"_".join(key) for key in SECRETS}


def unit_lines(name: str) -> list[str]:
    """What a setting of the unit is given, line by line."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def service() -> Any:
    return yaml.safe_load(COMPOSE.read_text())["services"]["murmur"]


def instructions(name: str) -> list[str]:
    """The instructions of that name in the Dockerfile, each in one line."""
    whole = DOCKERFILE.read_text().replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", whole, re.MULTILINE)


def test_the_unit_starts_a_command_of_the_launcher() -> None:
    (line,) = unit_lines("ExecStart")
    program, command, *_ = shlex.split(line)
    assert program == "/opt/murmur/murmur"
    assert (ROOT / "murmur").exists()
    assert command in launcher_commands(ROOT)


def test_credentials_of_the_unit_are_secrets_of_the_configuration() -> None:
    names = {line.partition(":")[0] for line in unit_lines("LoadCredential")}
    assert names == {"discord_token", "matrix_store_secret"}
    assert names <= CREDENTIALS


def test_systemd_hears_from_the_bot_and_gives_it_time_to_drain() -> None:
    assert unit_lines("Type") == ["notify"]
    assert int(unit_lines("TimeoutStopSec")[0]) > OpsSettings().drain_seconds + SPARE_S
    assert int(unit_lines("WatchdogSec")[0]) > 90


def test_the_unit_is_confined() -> None:
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome"):
        assert unit_lines(name) == ["yes"]
    assert unit_lines("ProtectSystem") == ["strict"]
    assert unit_lines("CapabilityBoundingSet") == [""]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / "murmur.service"
    copy.write_text(UNIT.read_text().replace("/opt/murmur/murmur bot", f"{ROOT / 'murmur'} bot"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if "murmur" in line]
    assert said == []


def test_the_image_is_built_from_what_is_there() -> None:
    sources = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from")]
    names = [name for line in sources for name in line]
    assert {"bot", "storage", "swarm", "pyproject.toml"} <= set(names)
    assert all((ROOT / name).exists() for name in names)
    kept = {
        line[1:] for line in Path(f"{DOCKERFILE}.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert kept == set(names)


def test_the_image_has_all_packages_that_the_bot_imports() -> None:
    names = {name for line in instructions("COPY") for name in line.split()}
    imported = {
        match[1]
        for package in ("bot", "storage", "swarm")
        for path in (ROOT / package).rglob("*.py")
        if (match := re.search(r"^ *(?:from|import) (bench|demo|server)\b", path.read_text(), re.MULTILINE))
    }
    assert imported <= names


def test_the_image_runs_as_nobody_special_and_is_asked_how_it_is() -> None:
    assert instructions("USER") == ["murmur"]
    assert len(instructions("FROM")) == 2
    (check,) = instructions("HEALTHCHECK")
    port = service()["environment"]["MURMUR__OPS__METRICS_PORT"]
    assert f"http://127.0.0.1:{port}/healthz" in check
    assert '"-m", "bot"' in instructions("ENTRYPOINT")[0]


def test_compose_sets_what_the_bot_knows() -> None:
    environment = service()["environment"]
    given, mistakes = from_environment(environment)
    assert mistakes == []
    assert len(given) == len(environment)
    assert set(service()["secrets"]) <= CREDENTIALS


def test_compose_confines_the_container_and_keeps_its_state() -> None:
    composed = yaml.safe_load(COMPOSE.read_text())
    murmur = composed["services"]["murmur"]
    assert murmur["read_only"] is True
    assert murmur["cap_drop"] == ["ALL"]
    assert set(composed["volumes"]) == {"state"}
    assert f"state:{instructions('WORKDIR')[-1]}" in murmur["volumes"]
    assert (COMPOSE.parent / murmur["build"]["context"] / murmur["build"]["dockerfile"]).exists()
