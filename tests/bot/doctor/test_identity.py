"""The bot's key in the swarm: what the doctor says of it, and what the bot says that cannot use it."""

import os
from pathlib import Path

import pytest

from bot.config.models import Settings, SwarmSettings
from bot.doctor.swarm import SwarmChecks
from bot.findings import Finding
from bot.operating import run_bot
from swarm.errors import ConfigError
from swarm.identity import holding, load_identity

SOMEBODY = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"


def found(path: Path) -> Finding:
    finding = SwarmChecks(SwarmSettings(models=("demo/model",), identity_file=path)).check_identity()
    assert finding.check == "identity"
    assert "--identity" not in finding.sentence
    assert "\n" not in finding.sentence
    return finding


async def start(folder: Path) -> None:
    """Start a bot with the key in `folder`, as far as it comes without a swarm."""
    settings = Settings.model_validate(
        {
            "matrix": {"enabled": True, "homeserver": "http://127.0.0.1:9", "user": "@bot:example.org"},
            "swarm": {"models": ("m",), "initial_peers": (SOMEBODY,), "identity_file": folder / "bot.key"},
            "storage": {"path": folder / "murmur.db"},
            "ops": {"metrics_port": 0},
        }
    )
    await run_bot(settings)


def test_a_key_that_is_not_there_is_well_and_is_not_made(tmp_path: Path) -> None:
    finding = found(tmp_path / "bot.key")
    assert (finding.level, finding.sentence.endswith("is made at the first start")) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_can_be_used_is_well_also_while_a_bot_uses_it(tmp_path: Path) -> None:
    identity = load_identity(tmp_path / "bot.key")
    with holding(identity):
        finding = found(identity.path)
    assert (finding.level, str(identity.peer_id) in finding.sentence) == ("ok", True)


def test_what_is_no_key_has_failed_with_the_name_of_the_setting(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "text", tmp_path / "pipe", tmp_path, tmp_path / "text" / "inside"):
        finding = found(path)
        assert finding.level == "FAILED"
        assert "with [swarm] identity_file" in finding.sentence


async def test_a_bot_that_cannot_use_its_key_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "bot.key").write_text("no key")
    with pytest.raises(ConfigError, match=r"name another file with \[swarm\] identity_file") as wrong:
        await start(tmp_path)
    assert "--identity" not in str(wrong.value)


async def test_a_bot_whose_key_another_process_uses_names_the_setting(tmp_path: Path) -> None:
    with (
        holding(load_identity(tmp_path / "bot.key")),
        pytest.raises(ConfigError, match=r"name another \[swarm\] identity_file"),
    ):
        await start(tmp_path)
