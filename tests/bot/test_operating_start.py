"""What the bot says while the ends of its model are fetched, which may take minutes."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from bot.config.models import Settings
from bot.operating import open_model
from swarm.checkpoint.digests import Progress
from swarm.checkpoint.progress import FIRST_S, SpokenProgress
from swarm.client import Murmur
from swarm.identity import Identity


class FakeSwarm:
    """Hands out models, slowly."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    async def load(self, model: str, *, progress: Progress | None = None) -> str:
        self.progress = progress
        return f"the ends of {model}"


async def test_the_bot_shows_how_far_it_is_with_its_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    swarm = FakeSwarm()

    @asynccontextmanager
    async def join(initial_peers: Sequence[str], *, identity: Identity) -> AsyncIterator[Murmur]:
        yield cast(Murmur, swarm)

    settings = Settings.model_validate(
        {"swarm": {"models": ("owner/model",), "identity_file": tmp_path / "bot.key"}}
    )
    async with open_model(settings, join) as model:
        assert cast(Any, model) == "the ends of owner/model"
    assert isinstance(swarm.progress, SpokenProgress)
    swarm.progress._told_s -= FIRST_S
    swarm.progress("downloading model.safetensors", 12_000_000, 48_000_000)
    assert capsys.readouterr().err == ""  # which is no terminal
    assert caplog.messages == ["downloading model.safetensors: 12 of 48 MB"]
