"""Real servers and clients of a model on a Hub: what they fetch, how often, and what they say of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.end_to_end.hub_models import ENDS, block_file, save_by_blocks
from tests.end_to_end.processes import LOCAL, Forge, Service, open_forge, wait_until
from tests.swarm.hub import FakeHub, Fault, open_hub

SERVE = (*LOCAL, "--dtype", "float32", "--kv-tokens", "128")
ANSWER = ("--raw", "--prompt", "the swarm", "--max-new-tokens", "5", "--json")
STEP_S = 40.0
AT_ONCE_S = 3.0
SLACK_BYTES = 64 << 10  # what may lie in sockets when a process is killed
NUMBERS = count()

Serve = Callable[..., Service]


@pytest.fixture(scope="module")
def model(talking_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_by_blocks(talking_model, tmp_path_factory.mktemp("hub") / "model")


@pytest.fixture(scope="module")
def the_hub(model: Path) -> Iterator[FakeHub]:
    with open_hub(model) as hub:
        yield hub


@pytest.fixture(scope="module")
def hub_forge(the_hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Starts processes that share a cache and whose Hub is ours."""
    folder = tmp_path_factory.mktemp("forge")
    variables = {"HF_ENDPOINT": the_hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home")}
    with open_forge(folder, variables=variables) as forge:
        yield forge


@pytest.fixture
def hub(the_hub: FakeHub) -> FakeHub:
    """The Hub as if nothing had been asked of it."""
    the_hub.sent.clear()
    the_hub.requests.clear()
    the_hub.faults.clear()
    the_hub.status = None
    the_hub.access = "public"
    return the_hub


@pytest.fixture
def fresh(the_hub: FakeHub, model: Path) -> Callable[[], str]:
    """Gives the model a name that no cache has seen."""

    def name() -> str:
        name = f"someone/model-{next(NUMBERS)}"
        the_hub.add(name, model)
        return name

    return name


@pytest.fixture
def serve(hub_forge: Forge) -> Iterator[Serve]:
    """Starts servers, which end with the test."""
    services = []

    def start(*arguments: str) -> Service:
        services.append(hub_forge.start("server", *arguments, *SERVE))
        return services[-1]

    yield start
    for service in services:
        if service.exit_code is None:
            service.send(signal.SIGKILL)
            service.wait_exit(STEP_S)


def sizes(model: Path, *files: str) -> dict[str, int]:
    return {file: size_of(model, file) for file in files}


def size_of(model: Path, file: str) -> int:
    return (model / file).stat().st_size


def generate(forge: Forge, model: str, server: Service) -> Service:
    client = forge.run("swarm", "generate", model, "--initial-peers", *server.addresses, *ANSWER)
    client.wait_exit(STEP_S)
    return client


@pytest.mark.slow
def test_only_files_of_the_blocks_or_of_the_ends_are_fetched_and_the_answer_is_right(
    serve: Serve, hub_forge: Forge, hub: FakeHub, model: Path, fresh: Callable[[], str]
) -> None:
    first = serve(fresh(), "--new-swarm", "--blocks", "0:4")
    first.wait_ready()
    assert hub.weights_sent() == sizes(model, *map(block_file, range(4)))
    hub.sent.clear()
    second = serve(fresh(), "--initial-peers", *first.addresses, "--num-blocks", "2")  # it chooses which
    second.wait_ready()
    assert hub.weights_sent() == sizes(model, block_file(4), block_file(5))
    hub.sent.clear()
    answers = [generate(hub_forge, name, first) for name in (fresh(), str(model))]
    assert hub.weights_sent() == sizes(model, ENDS)
    ids = [json.loads(answer.output)["token_ids"] for answer in answers]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 5


@pytest.mark.slow
def test_a_server_that_hosts_what_fits_fetches_all_blocks_and_no_ends(
    serve: Serve, hub: FakeHub, model: Path, fresh: Callable[[], str]
) -> None:
    serve(fresh(), "--new-swarm").wait_ready()
    assert hub.weights_sent() == sizes(model, *map(block_file, range(6)))


def test_a_server_that_was_killed_while_it_downloaded_fetches_only_the_rest(
    serve: Serve, hub: FakeHub, model: Path, fresh: Callable[[], str]
) -> None:
    """Files that were whole are kept; the library begins the one anew that was not."""
    name, whole, broken = fresh(), block_file(1), block_file(2)
    hub.faults[broken] = Fault(pause_s=0.02, piece=4096)
    killed = serve(name, "--new-swarm", "--blocks", "1:3")
    wait_until(lambda: hub.sent[broken] > size_of(model, broken) // 2, STEP_S, killed.log)
    killed.send(signal.SIGKILL)
    killed.wait_exit(STEP_S)
    hub.faults.clear()
    serve(name, "--new-swarm", "--blocks", "1:3").wait_ready()
    assert hub.sent[whole] == size_of(model, whole)
    assert hub.sent[broken] < 2 * size_of(model, broken) + SLACK_BYTES


def test_two_servers_that_start_at_once_download_once(
    serve: Serve, hub: FakeHub, model: Path, fresh: Callable[[], str]
) -> None:
    name = fresh()
    hub.faults[block_file(0)] = Fault(pause_s=0.03, piece=4096)
    servers = [serve(name, "--new-swarm", "--blocks", "0:2") for _ in range(2)]
    for server in servers:
        server.wait_ready()
    assert hub.weights_sent() == sizes(model, block_file(0), block_file(1))


def test_ctrl_c_in_the_middle_of_a_download_ends_it_at_once(
    serve: Serve, hub: FakeHub, fresh: Callable[[], str]
) -> None:
    shard = block_file(0)
    hub.faults[shard] = Fault(pause_s=0.1, piece=1024)
    server = serve(fresh(), "--new-swarm", "--blocks", "0:1")
    wait_until(lambda: hub.sent[shard] > 0, STEP_S, server.log)
    server.send(signal.SIGINT)
    assert server.wait_exit(AT_ONCE_S) == 0
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_a_warm_cache_serves_and_answers_while_the_hub_is_out_of_order(
    serve: Serve, hub_forge: Forge, hub: FakeHub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    first = serve(name, "--new-swarm", "--blocks", "0:6")
    first.wait_ready()
    warm = json.loads(generate(hub_forge, name, first).output)["token_ids"]
    first.send(signal.SIGKILL)
    hub.status = 503
    second = serve(name, "--new-swarm", "--blocks", "0:6")
    second.wait_ready()
    assert json.loads(generate(hub_forge, name, second).output)["token_ids"] == warm


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "someone/nothing",
            "neither a directory nor a model on the Hub; check the name, and if it is private",
        ),
        ("someone/model@v9", "someone/model has no such revision; check what stands after the @"),
        ("a--b/c..d", "'a--b/c..d' is neither a directory nor a model's name on the Hub"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_wrong_name_is_one_sentence(serve: Serve, name: str, sentence: str) -> None:
    server = serve(name, "--new-swarm")
    assert server.wait_exit(STEP_S) == 2
    told = server.log.splitlines()
    assert told[0] == "starting"
    assert len(told) == 2
    assert told[1].startswith("murmur serve: ")
    assert sentence in told[1]


@pytest.mark.parametrize(
    ("access", "sentence"), [("private", "if it is private log in"), ("gated", "consent")]
)
def test_a_model_that_wants_a_token_is_one_sentence(
    serve: Serve, hub: FakeHub, fresh: Callable[[], str], access: str, sentence: str
) -> None:
    name = fresh()
    hub.access = access
    server = serve(name, "--new-swarm")
    assert server.wait_exit(STEP_S) == 2
    starting, told = server.log.splitlines()
    assert (starting, sentence in told) == ("starting", True), told


def test_a_damaged_file_is_one_sentence_and_gone(
    serve: Serve, hub: FakeHub, fresh: Callable[[], str]
) -> None:
    name = fresh()
    hub.lie = {block_file(1)}
    server = serve(name, "--new-swarm", "--blocks", "1:2")
    assert server.wait_exit(STEP_S) == 2
    said = f"murmur serve: {block_file(1)} was damaged on its way and is deleted again; start once more"
    assert server.log.splitlines()[-1] == said
    hub.lie = set()
    serve(name, "--new-swarm", "--blocks", "1:2").wait_ready()


@pytest.mark.slow  # processes of their own, for what is read when they begin
@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_a_network_a_warm_cache_serves_and_a_cold_one_says_what_to_do(
    the_hub: FakeHub, tmp_path: Path, variables: dict[str, str]
) -> None:
    with_hub = {"HF_ENDPOINT": the_hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}

    def run(name: str, environment: dict[str, str]) -> str:
        command = [sys.executable, "-m", "server", name, "--new-swarm", "--blocks", "1:3", *SERVE]
        environment = os.environ | with_hub | environment
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if line.startswith("online"):
                    process.send_signal(signal.SIGTERM)
        return said

    the_hub.add("someone/other", the_hub.folder)
    assert "online as" in run("someone/model", {})
    assert "online as" in run("someone/model", variables)
    told = run("someone/other", variables).splitlines()[-1]
    assert told.startswith("murmur serve: someone/other is neither a directory nor in the cache, and ")
    assert told.endswith(("; check the name and the network", "fill the cache where there is a network"))
