"""`./murmur doctor` as a process: lines, JSON, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bot.configs import ENVIRONMENT, TOKEN
from tests.test_launcher import REPOSITORY

LIMIT_S = 55
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"


def doctor(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot", "doctor", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], **ENVIRONMENT, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def write(folder: Path, text: str) -> None:
    (folder / "config.toml").write_text(text, encoding="utf-8")


def test_an_installation_that_is_well_ends_with_0(tmp_path: Path) -> None:
    write(tmp_path, "[storage]\npath = 'murmur.sqlite3'\n")
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "ok       config: config.toml has no mistakes"
    assert "ok       store: murmur.sqlite3 is made at the first start" in lines
    assert not any(line.startswith("FAILED") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_broken_file_is_told_with_line_and_column_and_ends_with_1(tmp_path: Path) -> None:
    write(tmp_path, "[bot]\nname = \n")
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == "FAILED   config: config.toml is not TOML: line 2, column 8: invalid value\n"


def test_a_typo_is_told_with_its_key(tmp_path: Path) -> None:
    write(tmp_path, "[limits]\nruning = 5\n")
    done = doctor(tmp_path)
    assert (done.returncode, done.stdout) == (
        1,
        "FAILED   config: [limits] runing is not a setting; did you mean running?\n",
    )


def test_json_is_one_object(tmp_path: Path) -> None:
    write(tmp_path, "[bot]\nname = \n")
    report = json.loads(doctor(tmp_path, "--json").stdout)
    assert report["ok"] is False
    (finding,) = report["findings"]
    assert (finding["check"], finding["level"]) == ("config", "FAILED")
    (tmp_path / "other.toml").touch()
    report = json.loads(doctor(tmp_path, "--json", "--config", "other.toml").stdout)
    assert report["ok"] is True
    assert {"config", "store", "disk", "metrics"} <= {finding["check"] for finding in report["findings"]}


@pytest.mark.parametrize("arguments", [["--jsn"], ["now"], ["--config"]])
def test_a_mistake_on_the_command_line_ends_with_2(tmp_path: Path, arguments: list[str]) -> None:
    done = doctor(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: ./murmur doctor" in done.stderr


def test_help_has_examples(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--help")
    assert done.returncode == 0
    assert "./murmur doctor --json" in done.stdout


@pytest.mark.slow
def test_whatever_is_gone_each_has_its_line_and_no_secret_is_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        f"""
[matrix]
enabled = true
homeserver = "http://127.0.0.1:9"
user = "@murmur:localhost"
[swarm]
models = ["{REPOSITORY / "demo/model"}"]
initial_peers = ["{NOBODY}"]
""",
    )
    done = doctor(tmp_path, MATRIX_STORE_SECRET=TOKEN)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for begin in (
        "FAILED   matrix: http://127.0.0.1:9 did not answer",
        "FAILED   peers: ",
        "FAILED   swarm: ",
    ):
        assert [line for line in lines if line.startswith(begin)], done.stdout
    for begin in (
        "ok       model: ",
        "ok       matrix keys: they are made at the first start",
        "ok       identity: bot.key is made at the first start",
    ):
        assert [line for line in lines if line.startswith(begin)], done.stdout
    assert not (tmp_path / "bot.key").exists()
    assert all(line.startswith(("ok ", "warning ", "FAILED ")) for line in lines)
