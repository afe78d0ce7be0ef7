"""What volunteers and operators type, set and keep is written down as it is."""

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from server import serving
from server.__main__ import parse_arguments
from swarm import streams
from swarm.bootstrap import DEFAULT_HOST

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "demo/MODEL_CARD.md", *sorted(ROOT.glob("docs/*.md"))]
VARIABLES = ("HF_TOKEN", "HF_HOME", "HF_HUB_OFFLINE", "TMPDIR", "MURMUR_PYTHON")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def ignored() -> list[str]:
    return read(".gitignore").splitlines()


def test_every_option_of_a_server_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    described = read("README.md") + read("docs/contribute.md")
    assert {option for option in options if not re.search(rf"{option}(?![\w-])", described)} == set()


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_that_a_volunteer_may_set_is_described(name: str) -> None:
    assert f"| `{name}" in read("docs/contribute.md")


def test_the_port_to_open_is_the_one_that_a_bootstrap_node_takes() -> None:
    assert f"TCP port {DEFAULT_HOST.rpartition('/')[2]}" in read("README.md")


def test_the_time_for_a_first_frame_is_the_one_that_streams_get() -> None:
    times = f"first frame has {streams.FIRST_FRAME_S:.0f} s ({serving.FIRST_FRAME_S:.0f} s on a chain)"
    assert f"{times}, the rest of a frame {streams.HALF_FRAME_S:.0f} s" in read("docs/security.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_module_is_run_with_the_python_that_has_its_libraries(page: Path) -> None:
    assert re.findall(r"(?<![/\w])python3? -m \w+", page.read_text(encoding="utf-8")) == []


def test_git_ignores_the_secrets_that_the_steps_for_a_bot_make() -> None:
    steps = read("docs/run-a-bot.md")
    names = {*re.findall(r'_file = "([\w-]+)"', steps), *re.findall(r"folder `([\w-]+)`", steps)}
    assert names == {"discord-token", "matrix-secret", "matrix-store"}
    assert all(f"/{name}" in ignored() or f"/{name}/" in ignored() for name in names)


def test_git_ignores_what_lies_beside_the_compose_file() -> None:
    composed = yaml.safe_load(read("deploy/compose.yaml"))
    mounts = [volume.partition(":")[0] for volume in composed["services"]["murmur"]["volumes"]]
    files = [secret["file"] for secret in composed["secrets"].values()]
    beside = [path.removeprefix("./") for path in (*mounts, *files) if path.startswith("./")]
    assert len(beside) == 3
    assert all(f"/deploy/{name}" in ignored() for name in beside)
