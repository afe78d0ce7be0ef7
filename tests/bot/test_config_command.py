"""`./murmur config check`, as a process: what it prints, where, and its exit code."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from bot.config.models import Settings
from tests.bot.configs import DISCORD, TOKEN, secret_file

LIMIT_S = 30
ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "hivemind", "discord", "nio", "sqlalchemy", "huggingface_hub", "aiohttp")


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot", "config", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_behaviour_30_check_shows_what_is_set_and_where_from_but_no_secret(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    text = f"{DISCORD}token_file = '{path}'\n[bot]\nadmins = ['5']\npersona = '\\e\u009b'\n"
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    done = run(tmp_path, "check", MURMUR__LIMITS__RUNNING="9")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'token = "********"                           # file ' + str(path) in done.stdout
    assert "running = 9                                  # environment MURMUR__LIMITS__RUNNING" in done.stdout
    assert 'admins = ["5"]                               # file config.toml' in done.stdout
    assert "queued = 500                                 # default" in done.stdout
    assert done.stdout.endswith("config.toml: no mistakes found\n")
    assert TOKEN not in done.stdout
    assert "\u009b" not in done.stdout


def test_what_check_shows_is_toml_again(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[bot]\npersona = '''a\n\"b\"\\ \U000e0001'''\n", encoding="utf-8")
    report = run(tmp_path, "check").stdout.rpartition("\n\n")[0]
    assert tomllib.loads(report)["bot"]["persona"] == 'a\n"b"\\ \U000e0001'
    assert list(tomllib.loads(report)) == list(Settings.model_fields)


def test_check_speaks_json(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(f"{DISCORD}token = '{TOKEN}'", encoding="utf-8")
    done = run(tmp_path, "check", "--config", "other.toml", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["file"], len(report["warnings"])) == (0, "other.toml", 3)
    assert report["settings"]["discord"]["token"] == {"value": "********", "from": "file other.toml"}
    assert report["settings"]["storage"]["path"] == {"value": "murmur.sqlite3", "from": "default"}
    assert TOKEN not in done.stdout


def test_check_tells_each_mistake_in_a_line_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[bot]\nnam = 1\n[discord]\ntokn = 2\n", encoding="utf-8")
    done = run(tmp_path, "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "murmur config: [bot] nam is not a setting; did you mean name?",
        "murmur config: [discord] tokn is not a setting; did you mean token_env?",
    ]


def test_check_without_a_file_is_one_sentence(tmp_path: Path) -> None:
    done = run(tmp_path, "check")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "config.example.toml" in done.stderr


def test_help_has_examples_and_a_missing_command_is_told(tmp_path: Path) -> None:
    for arguments in (["--help"], ["check", "--help"]):
        done = run(tmp_path, *arguments)
        assert (done.returncode, "./murmur config check --config" in done.stdout) == (0, True)
    done = run(tmp_path)
    assert (done.returncode, "COMMAND" in done.stderr) == (2, True)


def test_a_report_that_nobody_can_have_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    command = f"{sys.executable} -m bot config check"
    for line, status in ((f"{command} > /dev/full", 1), (f"{command} | true; exit ${{PIPESTATUS[0]}}", 0)):
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (status, False)


def test_a_report_suits_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[bot]\nname = 'müsli'\n", encoding="utf-8")
    done = run(tmp_path, "check", PYTHONIOENCODING="ascii")
    assert (done.returncode, r'name = "m\xfcsli"' in done.stdout) == (0, True)


def test_check_starts_without_what_takes_time(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    code = (
        "import sys; from bot.__main__ import main; code = main(['config', 'check']); "
        f"print(code, sorted({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"
