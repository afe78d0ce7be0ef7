"""Private and gated models: who may see the token, and what is said when it is missing, wrong or too weak."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.checkpoint import Checkpoint
from swarm.checkpoint.hub import HubFiles
from swarm.errors import ConfigError
from tests.swarm.checkpoints import save_random_model
from tests.swarm.hub import REPOSITORY, FakeHub, open_hub

TOKEN, STRANGER, WRONG = "hf_allowed", "hf_stranger", "hf_wrong"
READ_ALL = """
import sys
from swarm.checkpoint import open_checkpoint
from swarm.errors import ConfigError
try:
    checkpoint = open_checkpoint("someone/model")
    checkpoint.fetch(checkpoint.tensor_names())
except ConfigError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_random_model(folder, max_shard_size="60KB")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[FakeHub]:
    with open_hub(model, has_store=True) as hub:
        hub.tokens = {TOKEN: True, STRANGER: False}
        yield hub


def read_all(hub: FakeHub, cache: Path) -> Checkpoint:
    checkpoint = Checkpoint(HubFiles(REPOSITORY, cache_dir=cache, endpoint=hub.endpoint))
    assert checkpoint.fingerprint
    assert checkpoint.stored_dtype(checkpoint.tensor_names()[0]) == "float32"  # peeks into a file
    checkpoint.read(checkpoint.tensor_names())
    return checkpoint


@pytest.mark.parametrize("access", ["private", "gated"])
def test_a_token_opens_a_model_and_is_shown_to_the_endpoint_alone(
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    access: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    hub.access = access
    read_all(hub, tmp_path / "cache")
    shown = {(who, authorization) for who, _, authorization in hub.seen}
    assert shown == {("hub", f"Bearer {TOKEN}"), ("store", "")}
    assert TOKEN not in caplog.text


def test_a_public_model_needs_no_token(hub: FakeHub, tmp_path: Path) -> None:
    read_all(hub, tmp_path / "cache")
    assert {authorization for _, _, authorization in hub.seen} == {""}


@pytest.mark.parametrize(
    ("access", "token", "sentence"),
    [
        (
            "private",
            None,
            r"check the name, and if it is private log in with `\.venv/bin/hf auth login` or set HF_TOKEN$",
        ),
        (
            "private",
            STRANGER,
            r"that the token from HF_TOKEN may read; check the name, and what the token is",
        ),
        (
            "private",
            WRONG,
            r"^the Hub does not know the token from HF_TOKEN; make a new one, or take this one",
        ),
        (
            "public",
            WRONG,
            r"^the Hub does not know the token from HF_TOKEN; make a new one, or take this one",
        ),
        (
            "gated",
            None,
            r"asks for consent: accept its terms on the Hub, then log in with .* or set HF_TOKEN$",
        ),
        (
            "gated",
            STRANGER,
            r"accept its terms on the Hub with the account of the token from HF_TOKEN, and let",
        ),
        ("gated", WRONG, r"^the Hub does not know the token from HF_TOKEN; make a new one, or take this one"),
        ("private", "hf_\a", r"^the token from HF_TOKEN has letters that no token has; get it again$"),
        (
            "private",
            "hf_\N{SNOWMAN}",
            r"^the token from HF_TOKEN has letters that no token has; get it again$",
        ),
    ],
)
def test_a_token_that_does_not_do_is_told(  # noqa: PLR0913, PLR0917 - what each case consists of
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    access: str,
    token: str | None,
    sentence: str,
) -> None:
    hub.access = access
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_all(hub, tmp_path / "cache")
    assert "hf_" not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, r"the Hub refuses someone/model \(HTTP 403\); choose another model, or log in with"),
        (404, "is neither a directory nor a model on the Hub"),
        (410, r"the Hub refuses someone/model \(HTTP 410\)"),
        (429, "and the Hub wants fewer requests from here; wait some minutes and start again"),
        (503, r"and the Hub is in trouble \(HTTP 503\); try again later"),
    ],
)
def test_every_status_is_a_sentence(hub: FakeHub, tmp_path: Path, status: int, sentence: str) -> None:
    hub.status = status
    with pytest.raises(ConfigError, match=sentence):
        read_all(hub, tmp_path / "cache")


@pytest.mark.parametrize("refused", ["private", "status"])
def test_what_the_hub_does_not_give_any_more_is_read_from_the_cache(
    hub: FakeHub, tmp_path: Path, refused: str
) -> None:
    fingerprint = read_all(hub, tmp_path / "cache").fingerprint
    hub.access, hub.status = ("private", None) if refused == "private" else ("public", 503)
    hub.sent.clear()
    assert read_all(hub, tmp_path / "cache").fingerprint == fingerprint
    assert hub.weights_sent() == {}


def test_a_token_file_is_read_and_named_and_never_shown(hub: FakeHub, tmp_path: Path) -> None:
    hub.access = "private"
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_DEBUG": "1"}

    def run(token: str) -> "subprocess.CompletedProcess[str]":
        (home / "token").write_text(f"{token}\n")
        command = [sys.executable, "-c", READ_ALL]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    refused, accepted = run(STRANGER), run(TOKEN)
    assert f"that the token from {home}/token may read; check the name" in refused.stderr
    assert accepted.returncode == 0, accepted.stderr
    said = refused.stderr + accepted.stderr + accepted.stdout
    assert not [token for token in (TOKEN, STRANGER) if token in said]
    assert {authorization for who, _, authorization in hub.seen if who == "store"} == {""}


@pytest.mark.slow
def test_no_other_host_is_asked_for_anything(hub: FakeHub, tmp_path: Path) -> None:
    """Any connection but to the endpoint and its store fails in this process."""
    program = f"""
import socket
real = socket.socket.connect
def connect(self, address):
    assert self.family == socket.AF_UNIX or address[0] == "127.0.0.1", address
    return real(self, address)
socket.socket.connect = connect
resolve = socket.getaddrinfo
def resolve_here(host, *rest, **more):
    assert host == "127.0.0.1", host
    return resolve(host, *rest, **more)
socket.getaddrinfo = resolve_here
{READ_ALL}"""
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=30)
