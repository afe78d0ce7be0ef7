"""Mistakes and damaged files, through the real commands: one sentence that says what to do, exit code 2."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.conversations import PROMPT, answer, make_talking_model, open_client
from tests.end_to_end.processes import (
    LOCAL,
    Forge,
    ProcessSwarm,
    Service,
    open_forge,
    open_process_swarm,
)
from tests.end_to_end.small_disks import with_small_disks
from tests.swarm.hub import REPOSITORY, FakeHub, open_hub

ROOT = Path(__file__).resolve().parent.parent
STEP_S = 60.0
SPILLED_TOKENS = 90  # with their prompt 80 KiB of keys and values: more than a small disk takes
NOBODY_ANSWERS_S = 30.0  # 8 s to join, and what starting takes on a busy machine
NOWHERE = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"
SHIFTED_CLOCK = """
import os, time
_now, _shift = time.time, float(os.environ["CLOCK_SHIFT_S"])
time.time = lambda: _now() + _shift
"""
NO_TEMPORARY_FOLDER = """
import tempfile
tempfile._candidate_tempdir_list = lambda: ["/proc/nowhere"]
"""

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The one sentence; fails the test if there is no such thing."""
        assert (self.code, self.stdout) == (2, ""), self
        assert "Traceback" not in self.stderr, self.stderr
        complaints = [line for line in self.stderr.splitlines() if line.startswith("murmur ")]
        assert len(complaints) == 1, self.stderr
        assert self.stderr.endswith(f"{complaints[0]}\n"), self.stderr
        return complaints[0]


def run(*command: str, path: Path | None = None, output: Path | None = None) -> Ended:
    """Run `python -m command`; with `path`, Python starts with the sitecustomize of that folder.

    What it writes to standard output goes to `output`.
    """
    search = [str(path)] if path else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CLOCK_SHIFT_S": "10"}
    with output.open("w") if output else nullcontext(subprocess.PIPE) as stdout:
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            env=environment | {"PYTHONPATH": os.pathsep.join([*search, str(ROOT)])},
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
            timeout=STEP_S, check=False,
        )  # fmt: skip
    return Ended(ended.returncode, ended.stdout or "", ended.stderr)


@dataclass(frozen=True)
class Pending:
    """A command that runs while others do."""

    service: Service

    def ended(self) -> Ended:
        code = self.service.wait_exit(STEP_S)
        return Ended(code, self.service.output, self.service.log)

    @property
    def complaint(self) -> str:
        return self.ended().complaint


Start = Callable[..., Pending]


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small disks are, as `with_small_disks` makes them for all that the forge starts."""
    folder = tmp_path_factory.mktemp("disks")
    for name in ("full", "hub", "tmp"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def small_disks(disks: Path) -> Path:
    """The same, for tests that cannot do without."""
    if not with_small_disks(disks):
        pytest.skip("no disk can be made small: user namespaces are not allowed here")
    return disks


@pytest.fixture(scope="module")
def hub(talking_model: Path) -> Iterator[FakeHub]:
    with open_hub(talking_model) as hub:
        yield hub


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory, disks: Path, hub: FakeHub) -> Iterator[Forge]:
    variables = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(disks / "hub"),
        "TMPDIR": str(disks / "tmp"),
    }
    with open_forge(tmp_path_factory.mktemp("forge"), with_small_disks(disks), variables) as forge:
        yield forge


@pytest.fixture(scope="module")
def start(forge: Forge) -> Start:
    """Start a command in a process of its own, which has no need to import everything first."""
    return lambda *command: Pending(forge.run(*command))


@pytest.fixture(scope="module")
def talking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talking_model(tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="module")
def swarm(forge: Forge, talking_model: Path) -> Iterator[ProcessSwarm]:
    """A swarm that serves blocks 0-2 of the model, and no others."""
    with open_process_swarm(forge, talking_model) as swarm:
        swarm.start("0:3")
        yield swarm


def damaged(model: Path, folder: Path, damage: Callable[[Path], None]) -> str:
    """A copy of the model with something done to it."""
    copy = folder / "damaged"
    shutil.copytree(model, copy)
    damage(copy)
    return str(copy)


def serve(model: str, *options: str) -> tuple[str, ...]:
    """The command of a server that would start a swarm of its own."""
    return ("server", model, "--new-swarm", *LOCAL, *options)


# --- models ---------------------------------------------------------------------------------------


def truncate(model: Path) -> None:
    path = model / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)


def corrupt_header(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.write(b"\xff" * 8)


def to_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def to_mamba(model: Path) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 6}))


def change_config(model: Path) -> None:
    path = model / "config.json"
    path.write_text(path.read_text().replace('"rms_norm_eps": ', '"rms_norm_eps": 1'))


def remove(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def corrupt_config(model: Path) -> None:
    (model / "config.json").write_text("{ this is no")


DAMAGES = {
    "no weights": (remove("model.safetensors"), "model.safetensors"),
    "no config": (remove("config.json"), "config.json"),
    "a damaged config": (corrupt_config, "config.json"),
    "truncated weights": (truncate, "model.safetensors"),
    "a damaged header": (corrupt_header, "model.safetensors"),
    "a pickle": (to_pickle, "safetensors"),
    "an unsupported family": (to_mamba, "mamba"),
}


def test_a_model_that_cannot_be_used_is_refused_in_one_sentence(
    start: Start, talking_model: Path, tmp_path: Path
) -> None:
    ended = {}
    for name, (damage, _) in DAMAGES.items():
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        ended[name] = start(*serve(damaged(talking_model, folder, damage)))
    ended["unknown"] = start(*serve("./no/such/model"))
    complaints = {name: pending.complaint for name, pending in ended.items()}
    assert {name: words for name, (_, words) in DAMAGES.items() if words not in complaints[name]} == {}
    assert "no/such/model" in complaints["unknown"]


def test_a_client_refuses_a_model_without_a_tokenizer(
    start: Start, swarm: ProcessSwarm, talking_model: Path, tmp_path: Path
) -> None:
    model = damaged(talking_model, tmp_path, remove("tokenizer.json"))
    command = ("swarm", "generate", model, "--prompt", "hi", "--initial-peers", *swarm.initial_peers)
    assert "tokenizer" in start(*command).complaint


# --- options --------------------------------------------------------------------------------------


def test_options_that_make_no_sense_are_refused_in_one_sentence(
    start: Start, talking_model: Path, tmp_path: Path
) -> None:
    corrupt_key = tmp_path / "corrupt.key"
    corrupt_key.write_bytes(b"\x08\x01\x12\x40 this is no key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        model = str(talking_model)
        cases = {
            "has blocks 0:6; --blocks 4:9": serve(model, "--blocks", "4:9"),
            "--blocks": serve(model, "--blocks", "five"),
            "--num-blocks must be 1 or more": serve(model, "--num-blocks", "0"),
            "--kv-tokens must be 128 or more, not -5": serve(model, "--kv-tokens", "-5"),
            "--kv-tokens must be 128 or more, not 127": serve(model, "--kv-tokens", "127"),
            "--public-name must be text of at most 64 letters": serve(model, "--public-name", "x" * 65),
            "without tabs and line breaks": serve(model, "--public-name", "a\tname"),
            "--public-name must be text": serve(model, "--public-name", "\udcff"),
            "--announce-maddrs must name shorter addresses": serve(
                model, "--announce-maddrs", f"/dns4/{'long.' * 60}net/tcp/1"
            ),
            "--threads must be 1 or more": serve(model, "--threads", "0"),
            "--threads must be 1024 or less": serve(model, "--threads", "99999999999"),
            "is not a block range; write": serve(model, "--blocks", f"0:{'9' * 5000}"),
            "neither one of dialogue": (
                "swarm",
                "generate",
                model,
                "--prompt",
                "hi",
                "--chat-template",
                "nowhere",
                "--initial-peers",
                NOWHERE,
            ),
            "there is no device 'gpu'": serve(model, "--device", "gpu"),
            "corrupt.key": serve(model, "--identity", str(corrupt_key)),
            "/proc/me.key": serve(model, "--identity", "/proc/me.key"),
            f"port {port} is in use": ("swarm", "dht", "--host-maddrs", f"/ip4/127.0.0.1/tcp/{port}"),
            "is no address to listen at": ("swarm", "dht", "--host-maddrs", "localhost:1234"),
            "names no peer": ("swarm", "dht", *LOCAL, "--initial-peers", "/ip4/127.0.0.1/tcp/9"),
            "is no multiaddress": ("server", model, *LOCAL, "--initial-peers", "127.0.0.1:9"),
        }
        ended = {words: start(*command) for words, command in cases.items()}
        complaints = {words: pending.complaint for words, pending in ended.items()}
    assert {words: said for words, said in complaints.items() if words not in said} == {}


def test_options_of_the_wrong_kind_are_refused_by_name(start: Start, talking_model: Path) -> None:
    model = str(talking_model)
    commands = {
        "--num-blocks": serve(model, "--num-blocks", "many"),
        "--dtype": serve(model, "--dtype", "float8"),
        "--max-new-tokens": ("swarm", "generate", model, "--initial-peers", NOWHERE, "--prompt", "hi",
                             "--max-new-tokens", "x"),
    }  # fmt: skip
    for option, pending in {option: start(*command) for option, command in commands.items()}.items():
        ended = pending.ended()
        assert (ended.code, ended.stdout) == (2, "")
        assert "Traceback" not in ended.stderr
        assert f"error: argument {option}" in ended.stderr.splitlines()[-1]


def test_sampling_that_makes_no_sense_is_refused_in_one_sentence(
    start: Start, swarm: ProcessSwarm, talking_model: Path
) -> None:
    command = ("swarm", "generate", str(talking_model), "--prompt", "hi",
               "--initial-peers", *swarm.initial_peers)  # fmt: skip
    cases = {
        "temperature": ("--temperature", "-1"),
        "max_new_tokens": ("--max-new-tokens", "0"),
        "top_p": ("--top-p", "7"),
    }
    ended = {words: start(*command, *options) for words, options in cases.items()}
    complaints = {words: pending.complaint for words, pending in ended.items()}
    assert {words: said for words, said in complaints.items() if words not in said.replace("-", "_")} == {}


# --- swarms ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_swarm_that_cannot_answer_is_one_sentence(
    start: Start, swarm: ProcessSwarm, talking_model: Path, tmp_path: Path
) -> None:
    other = damaged(talking_model, tmp_path, change_config)
    peers = ("--initial-peers", *swarm.initial_peers)
    generate = ("swarm", "generate", str(talking_model), *peers)
    missing = start(*generate, "--prompt", "hi")
    foreign = start("swarm", "generate", other, *peers, "--prompt", "hi")
    empty = start(*generate, "--raw", "--prompt", "")
    long = start(*generate, "--prompt", "word " * 9000)
    assert "no server for blocks 3-5" in missing.complaint
    assert "--blocks 3:6" in missing.complaint
    assert "this swarm hosts" in foreign.complaint
    assert "use the same model and revision" in foreign.complaint
    assert "empty" in empty.complaint
    assert "2048" in long.complaint


def test_peers_that_do_not_answer_are_one_sentence_after_a_short_wait(
    start: Start, talking_model: Path
) -> None:
    peers = ("--initial-peers", NOWHERE)
    pending = [
        start("server", str(talking_model), *LOCAL, *peers),
        start("swarm", "generate", str(talking_model), *peers, "--prompt", "hi"),
        start("swarm", "dht", *LOCAL, *peers),
    ]
    for each in pending:
        assert each.service.wait_exit(NOBODY_ANSWERS_S) == 2
        assert "none of the initial peers answers" in each.complaint


@pytest.mark.slow
def test_a_clock_that_is_wrong_is_one_sentence(
    swarm: ProcessSwarm, talking_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    command = ("server", str(talking_model), *LOCAL, "--initial-peers", *swarm.initial_peers)
    assert "clock differs" in run(*command, path=tmp_path).complaint


@pytest.mark.parametrize("command", ["server", "demo", "swarm dht"])
def test_a_machine_without_a_folder_for_temporary_files_is_one_sentence(
    command: str, talking_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_TEMPORARY_FOLDER)
    options = {"server": (str(talking_model), "--new-swarm", *LOCAL), "demo": (), "swarm dht": LOCAL}[command]
    assert "name one with TMPDIR" in run(*command.split(), *options, path=tmp_path).complaint


# --- disks ----------------------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence(start: Start, small_disks: Path, talking_model: Path) -> None:
    full, model = small_disks / "full", str(talking_model)
    dht = ("swarm", "dht", *LOCAL)
    no_room = "No space left on device"
    cases = {
        f"identity file {full}/me.key cannot be used: {no_room}": (*dht, "--identity", f"{full}/me.key"),
        f"identity file {full}/new/me.key cannot": serve(model, "--identity", f"{full}/new/me.key"),
        "downloading model.safetensors takes 946.6 kB more, and the disk of": serve(REPOSITORY),
    }
    ended = {words: start(*command) for words, command in cases.items()}
    ready = start(*dht, "--ready-file", f"{full}/ready.json").ended()
    complaints = {words: pending.complaint for words, pending in ended.items()}
    assert {words: said for words, said in complaints.items() if words not in said} == {}
    assert ready.code == 2
    assert ready.stderr.endswith(f"the ready file {full}/ready.json cannot be written: {no_room}\n")


async def test_a_server_without_room_to_put_sessions_aside_goes_on_and_answers_alike(
    forge: Forge, small_disks: Path, talking_model: Path
) -> None:
    tight = ("--new-swarm", *LOCAL, "--dtype", "float32", "--kv-tokens", "128")
    server = forge.start("server", str(talking_model), *tight)
    server.wait_ready()
    async with open_client(server.addresses, talking_model) as model:
        async with model.session() as session:
            expected = await answer(model, session, SPILLED_TOKENS)
            ticket = session.detach()
        async with model.session() as session:
            assert await answer(model, session, SPILLED_TOKENS) == expected
        assert "cannot spill a session's KV pages: [Errno 28] No space left on device" in server.log
        async with model.session(ticket=ticket, ids=[*PROMPT, *expected]) as session:
            assert await answer(model, session, SPILLED_TOKENS) == expected
    server.send(signal.SIGTERM)
    assert server.wait_exit(STEP_S) == 0
    assert "Traceback" not in server.log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_a_disk_cannot_take_is_one_sentence() -> None:
    said = run("swarm", "dht", *LOCAL, output=Path("/dev/full")).complaint
    assert said == "murmur dht: there is no room on the disk: free some and start again"


def test_what_cannot_be_written_anywhere_is_one_sentence(start: Start, tmp_path: Path) -> None:
    dht = ("swarm", "dht", *LOCAL)
    nowhere = start(*dht, "--ready-file", str(tmp_path / "no" / "such" / "ready.json"))
    assert "/dev/full" in start(*dht, "--identity", "/dev/full/me.key").complaint
    ended = nowhere.ended()
    assert ended.code == 2
    assert "ready file" in ended.stderr.splitlines()[-1]
    assert os.listdir(tmp_path) == []
