"""The whole bot of one configuration: a real homeserver, a real swarm, and a server that dies."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot.config.models import Settings
from bot.operating import rules_of
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.processes import ProcessSwarm, open_forge, open_process_swarm
from tests.matrix_peer.human import Human, NewHuman
from tests.matrix_peer.synapse import Account, Synapse

pytest_plugins = ("tests.matrix_peer.fixtures",)
pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
READY_S = 60.0
GONE_S = 30.0
QUESTION = "What is a block server?"


def write_config(folder: Path, account: Account, synapse: Synapse, swarm: ProcessSwarm, model: Path) -> Path:
    """A configuration as an operator would write it."""
    for name, secret in (("password", account.password), ("secret", "a secret of the operator")):
        path = folder / name
        path.write_text(secret)
        path.chmod(0o600)
    peers = ", ".join(f'"{peer}"' for peer in swarm.initial_peers)
    config = folder / "config.toml"
    config.write_text(f"""
[bot]
temperature = 0.0
[matrix]
enabled = true
homeserver = "{synapse.url}"
user = "{account.user_id}"
password_file = "{folder / "password"}"
store = "{folder / "matrix"}"
store_secret_file = "{folder / "secret"}"
[swarm]
models = ["{model}"]
initial_peers = [{peers}]
identity_file = "{folder / "bot.key"}"
[limits]
max_new_tokens = 60
[storage]
path = "{folder / "murmur.db"}"
[ops]
control_socket = "{folder / "control.sock"}"
drain_seconds = 10
""")
    return config


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bot", *arguments]


@contextmanager
def running_bot(config: Path) -> "Iterator[subprocess.Popen[str]]":
    """`./murmur bot`, once it hears; it is told to stop in the end, and does."""
    process = subprocess.Popen(
        command("--config", str(config)), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "ready on matrix" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(GONE_S) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


async def answer_after(human: Human, room: str, bot: str, text: str) -> str:
    """Say something; returns the bot's answer, which is complete when it has not changed for a while."""
    before = len(human.visible_text(room, by=bot))
    await human.say(room, text)
    last, since = "", 0
    while since < 8:
        await human.sync(500)
        shown = human.visible_text(room, by=bot)[before:]
        now = shown[-1] if shown else ""
        since = since + 1 if now and now == last and not now.endswith("...") else 0
        last = now
    return last


@pytest.mark.slow
async def test_the_whole_path_answers_and_a_server_that_dies_in_mid_answer_changes_no_word(
    synapse: Synapse, new_human: NewHuman, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = make_talking_model(tmp_path_factory.mktemp("talking"))
    account = await asyncio.to_thread(synapse.register, "murmur")
    with open_forge(tmp_path_factory.mktemp("forge")) as forge, open_process_swarm(forge, model) as swarm:
        await asyncio.to_thread(swarm.start, "0:3", "3:6", "3:6")
        config = write_config(tmp_path, account, synapse, swarm, model)
        login = command("matrix", "login", "--config", str(config))
        done = await asyncio.to_thread(subprocess.run, login, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stderr.count("is logged in")) == (0, 1), done.stderr
        anna = await new_human("anna")
        with running_bot(config):
            room = await anna.create_direct(account.user_id)
            await anna.wait_for_member(room, account.user_id)
            whole = await answer_after(anna, room, account.user_id, QUESTION)
            assert len(whole) > 40
            await answer_after(anna, room, account.user_id, "!new")
            asking = asyncio.create_task(answer_after(anna, room, account.user_id, QUESTION))
            await asyncio.sleep(0.5)
            swarm.services[2].send(signal.SIGKILL)
            again = await asking
        assert again.split("\n\n(")[0] == whole.split("\n\n(")[0]


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("", "no platform is enabled: set enabled = true in [discord] or [matrix]"),
        (
            '[matrix]\nenabled = true\nhomeserver = "http://127.0.0.1:9"\nuser = "@m:localhost"\n'
            'store_secret = "x"\n[swarm]\ninitial_peers = ["/ip4/127.0.0.1/tcp/9/p2p/'
            '12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"]\n',
            '[swarm] models is needed once a platform is enabled: models = ["owner/model"]',
        ),
    ],
)
def test_a_mistake_is_one_sentence(toml: str, sentence: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(toml)
    config.chmod(0o600)
    done = subprocess.run(
        command("--config", str(config)), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"murmur bot: {sentence}"


def test_the_bots_name_stands_in_its_persona() -> None:
    settings = Settings.model_validate({"bot": {"name": "Ada", "persona": "I am {name}. {name}!"}})
    assert rules_of(settings).wishes.system == "I am Ada. Ada!"
