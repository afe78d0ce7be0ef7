"""What the doctor finds out about a real swarm, and about one that is not there."""

from pathlib import Path

import pytest

from bot.config.models import SwarmSettings
from bot.doctor.swarm import SwarmChecks
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model
from tests.end_to_end.swarm import Offer, open_swarm

SOMEBODY = "12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"
NOBODY = f"/ip4/127.0.0.1/tcp/9/p2p/{SOMEBODY}"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


def checks(*models: str, peers: tuple[str, ...] = (NOBODY,)) -> SwarmChecks:
    return SwarmChecks(SwarmSettings(models=models, initial_peers=peers))


async def test_a_swarm_that_serves_every_block_is_well_and_one_with_a_gap_is_not(small: SmallModel) -> None:
    async with open_swarm(small, Offer(0, 3)) as swarm:
        peers = tuple(swarm._initial_peers)
        doctor = checks(str(small.path), peers=peers)
        (model,) = await doctor.check_models()
        assert model.level == "ok"
        assert "has 6 blocks, and its files fit together" in model.sentence
        (reached,) = await doctor.check_peers()
        assert (reached.level, reached.sentence) == ("ok", f"all {len(peers)} initial peers listen")
        (gap,) = await doctor.check_servers()
        assert gap.level == "FAILED"
        assert gap.sentence.startswith("no server for blocks 3-5 of ")
        await swarm.add(Offer(3, 6))
        (whole,) = await doctor.check_servers()
        assert (whole.level, whole.sentence[:30]) == ("ok", "2 servers host every block of ")


async def test_peers_that_do_not_listen_are_told(small: SmallModel) -> None:
    (silent,) = await checks().check_peers()
    assert silent.level == "FAILED"
    assert silent.sentence == f"none of 1 initial peers listens: {NOBODY}; ask whoever runs them"
    async with open_swarm(small) as swarm:
        (some,) = await checks(peers=(NOBODY, *swarm._initial_peers)).check_peers()
        assert some.level == "warning"
        assert some.sentence.endswith(f"initial peers do not listen: {NOBODY}")


async def test_addresses_that_cannot_be_dialled_so_are_taken_for_granted() -> None:
    udp = f"/ip4/127.0.0.1/udp/9/quic/p2p/{SOMEBODY}"
    (found,) = await checks(peers=(udp,)).check_peers()
    assert found.level == "ok"


async def test_a_port_that_does_not_exist_is_no_crash() -> None:
    (found,) = await checks(peers=(f"/ip4/127.0.0.1/tcp/99999/p2p/{SOMEBODY}",)).check_peers()
    assert found.level == "FAILED"


async def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    (gone,) = await checks(str(tmp_path / "gone")).check_models()
    assert gone.level == "FAILED"
    (tmp_path / "empty").mkdir()
    (empty,) = await checks(str(tmp_path / "empty")).check_models()
    assert empty.level == "FAILED"
    assert "\n" not in gone.sentence + empty.sentence


async def test_a_swarm_that_nobody_answers_for_is_told() -> None:
    (found,) = await checks().check_servers()
    assert found.level == "FAILED"
    assert found.sentence.startswith("none of the initial peers answers")
