"""Configurations for tests: written to a file, read with an environment of our own."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.config.loading import BadConfig, Loaded, load_config

PEER = "/ip4/127.0.0.1/tcp/31337/p2p/12D3KooWPeer"
SWARM = f'[swarm]\nmodels = ["./demo/model"]\ninitial_peers = ["{PEER}"]\n'
DISCORD = f"{SWARM}[discord]\nenabled = true\n"
MATRIX = (
    f'{SWARM}[matrix]\nenabled = true\nhomeserver = "http://localhost:8008"\nuser = "@murmur:localhost"\n'
)
ENVIRONMENT = {"DISCORD_TOKEN": "t", "MATRIX_STORE_SECRET": "s" * 16}
TOKEN = "a-token.that-is.never-shown"


def load(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> Loaded:
    """Load `text` as a file of `folder`."""
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return load_config(path, environment or {})


def mistakes(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """The sentences about `text`, which must have mistakes."""
    with pytest.raises(BadConfig) as raised:
        load(folder, text, environment)
    return list(raised.value.sentences)


def mistake(folder: Path, text: str, environment: Mapping[str, str] | None = None) -> str:
    """The one sentence about `text`."""
    (sentence,) = mistakes(folder, text, environment)
    return sentence


def secret_file(folder: Path, text: str = TOKEN, mode: int = 0o600) -> Path:
    """A file that holds a secret."""
    path = folder / "secret"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path
