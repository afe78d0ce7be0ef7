"""`--device` moves the blocks under test there, or says that there is no such device."""

from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.conftest import DEVICE_VARIABLE
from tests.end_to_end.exact import load_small_model
from tests.models import make_model
from tests.server import test_bloom, test_families_falcon, test_span
from tests.server.local_chain import LocalChain
from tests.test_conftest import run_pytest

SPAN = Span(0, 6)
ASKS = "from tests.devices import blocks_device\ndef test(): assert blocks_device().type == %r\n"
LOADERS: dict[str, Callable[[Path], object]] = {
    "a server in a swarm": lambda path: load_small_model(path).span(SPAN),
    "a chain": lambda path: LocalChain(path, (0, 6)),
    "a span": lambda path: test_span.load(path, SPAN),
    "a span of Falcon": test_families_falcon.load,
    "a span of BLOOM": lambda path: test_bloom.load(path, SPAN),
}


def test_a_device_that_is_not_there_is_a_usage_error_in_one_sentence(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "def test(): pass\n", "--device", "cuda:99")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.strip() == "ERROR: there is no device 'cuda:99' here; use --device cpu"


def test_the_device_that_is_asked_for_is_that_of_the_run(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ASKS % "meta", "--device=meta")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_blocks_under_test_are_loaded_on_the_device_of_the_run(
    load: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model(tmp_path, "llama")
    monkeypatch.setenv(DEVICE_VARIABLE, "meta")  # which holds no numbers: what is loaded there has no value
    with pytest.raises(ConfigError, match="nothing gave a value to"):
        load(path)
