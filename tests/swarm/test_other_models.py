"""Whoever asks for a model that the swarm does not host hears what it hosts instead."""

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.announcer import Announced, Announcer
from swarm.background import running
from swarm.checkpoint import open_checkpoint
from swarm.commands.other_models import name_other_models
from swarm.commands.status_page import Look, sentence
from swarm.commands.status_report import Report
from swarm.identity import Identity, temporary_identity
from swarm.wire.blocks import Span
from swarm.wire.records import ModelRecord
from tests.swarm.peers import FINGERPRINT, node


@pytest.fixture
def identity() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


def hosted(peer: str, name: str, fingerprint: str) -> ModelRecord:
    now = time.time()
    return ModelRecord(
        peer=peer, sequence=1, issued_at=now, expires_at=now + 30,
        name=name, fingerprint=fingerprint, num_blocks=4,
    )  # fmt: skip


def test_a_swarm_without_other_models_is_no_reason_to_name_any(identity: Identity) -> None:
    assert name_other_models([], "mine", FINGERPRINT) is None
    assert name_other_models([hosted(identity.peer_id, "mine", FINGERPRINT)], "mine", FINGERPRINT) is None


def test_the_sentence_names_the_other_model_and_both_fingerprints(identity: Identity) -> None:
    said = name_other_models([hosted(identity.peer_id, "theirs", "e" * 32)], "./mine", FINGERPRINT)
    assert said == (
        f"this swarm hosts theirs (fingerprint {'e' * 32}), not the model in ./mine"
        f" (fingerprint {FINGERPRINT}): use the same model and revision"
    )


def test_a_flood_of_hostile_names_is_made_harmless_cut_and_counted(identity: Identity) -> None:
    flood = [hosted(identity.peer_id, f"{n:03}\u202e" + "x" * 100, f"{n:032x}") for n in range(500)]
    said = name_other_models(flood, "mine", FINGERPRINT)
    assert said is not None
    assert "\u202e" not in said
    assert " and 497 more" in said
    assert len(said) < 600


def test_status_says_it_in_place_of_the_advice_to_start_a_server(identity: Identity) -> None:
    fields: dict[str, Any] = {"model": "mine", "fingerprint": FINGERPRINT, "num_blocks": 4, "now": 0.0}
    other = hosted(identity.peer_id, "theirs", "e" * 32)
    report = Report(servers=(), hosted=(other,), **fields)
    assert sentence(report, Look()).startswith("mine: no servers; this swarm hosts theirs")
    assert '"hosted_instead": [{"name": "theirs"' in report.as_json()


async def test_a_server_announces_its_model_without_folders_or_control_characters() -> None:
    import torch

    async with node() as (transport, dht):
        announced = Announced(FINGERPRINT, Span(0, 2), torch.float32, model_name="a\x1b\nb", num_blocks=4)
        announcer = Announcer(transport, dht, announced)
        async with running(announcer.announce_forever()), asyncio.timeout(10):
            while not (models := await dht.find_models()):  # noqa: ASYNC110 - the table is the only sign
                await asyncio.sleep(0.01)
    assert [(m.name, m.fingerprint, m.num_blocks) for m in models] == [("ab", FINGERPRINT, 4)]


async def test_generate_names_the_other_model_at_once_and_exits_with_2() -> None:
    import torch

    mine = Path(__file__).parents[2] / "demo" / "model"
    async with node() as (transport, dht):
        announced = Announced("e" * 32, Span(0, 4), torch.float32, model_name="theirs", num_blocks=4)
        async with running(Announcer(transport, dht, announced).announce_forever()):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "swarm", "generate", str(mine), "--prompt", "Hello",
                "--initial-peers", *transport.addresses,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(50):
                    _, complained = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    fingerprint = open_checkpoint(str(mine)).fingerprint
    assert process.returncode == 2
    assert complained.decode() == (
        f"murmur generate: this swarm hosts theirs (fingerprint {'e' * 32}), not the model in {mine}"
        f" (fingerprint {fingerprint}): use the same model and revision\n"
    )
