"""What tests on real processes share: the forge that starts them, and a small random model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.attacked_server import Target, open_target
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.processes import Forge, open_forge


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """Starts real processes in a second each."""
    with open_forge(tmp_path_factory.mktemp("forge")) as forge:
        yield forge


@pytest.fixture(scope="session")
def talking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA of six blocks with random weights, and a tokenizer."""
    return make_talking_model(tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="module")
def target(forge: Forge, talking_model: Path) -> Iterator[Target]:
    """A server that hosts the whole model, to be attacked."""
    with open_target(forge, talking_model) as target:
        yield target
