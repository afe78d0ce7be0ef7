"""What a server says of its device: which it is, why there is none, that its memory is too small."""

import errno
from pathlib import Path

import pytest
import torch

from server.block_server import Options, _num_blocks, _what_makes_smaller, serve
from server.devices import computing_on, describe, enough_memory, find_device, why_there_is_none
from swarm.checkpoint import open_checkpoint
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.models import make_model
from tests.server.quantized_checkpoints import save_quantized

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"), "llama")


# --- which one ------------------------------------------------------------------------------------


def test_whoever_takes_fewer_threads_than_there_are_cores_hears_of_more() -> None:
    assert computing_on(CPU, 1, 1) == "computing on the CPU with 1 thread"
    assert computing_on(CPU, 4, 4) == "computing on the CPU with 4 threads"
    said = "computing on the CPU with 1 thread; --threads N takes more of its 64 cores"
    assert computing_on(CPU, 1, 64) == said


def test_the_device_is_found_by_its_name_or_without_one() -> None:
    assert find_device("cpu") == CPU
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cpu:x", "cuda:999999999999999999999", "cuda:99"])
def test_a_device_that_is_not_there_is_one_sentence_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^there is no device .* here: .+; use --device cpu$") as told:
        find_device(name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "has_cuda", "num_gpus", "reason"),
    [
        ("gpu", True, 1, "it is none of cpu, cuda and cuda:N"),
        ("cuda", False, 0, "the torch that is installed is built without CUDA"),
        (
            "cuda:0",
            True,
            0,
            "torch finds no NVIDIA GPU, or no driver for it that is new enough (see nvidia-smi)",
        ),
        ("cuda:2", True, 2, "the last one is cuda:1"),
        ("cuda:1", True, 2, "torch cannot use it (CUDA error: the device is busy)"),
    ],
)
def test_each_reason_why_there_is_no_device_has_its_words(
    name: str, has_cuda: bool, num_gpus: int, reason: str
) -> None:
    said = "CUDA error: the device is busy\nCompile with TORCH_USE_CUDA_DSA"
    assert why_there_is_none(name, said, has_cuda=has_cuda, num_gpus=num_gpus) == reason


@pytest.mark.gpu
def test_a_gpu_is_told_with_its_number_and_its_name() -> None:
    device = find_device("cuda")
    assert describe(device, 1) == f"cuda:{device.index} ({torch.cuda.get_device_name(device)})"


# --- its memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "cuda:0"),
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), "cuda:0"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "cuda:0"),
        (MemoryError(), "this machine"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "this machine"),
    ],
)
def test_memory_that_is_too_small_is_one_sentence_with_remedies(error: Exception, place: str) -> None:
    with pytest.raises(ConfigError) as told, enough_memory(GPU, 40, "--quantization int8 or nf4"):
        raise error
    assert str(told.value) == (
        f"not enough memory on {place} for 40 blocks: free some, or host fewer with --num-blocks or --blocks,"
        " or add --quantization int8 or nf4"
    )


def test_what_torch_says_of_the_machines_memory_is_understood() -> None:
    said = r"^not enough memory on this machine for 1 block: free some$"
    with pytest.raises(ConfigError, match=said), enough_memory(CPU, 1, ""):
        torch.empty(1 << 60, dtype=torch.int8)


@pytest.mark.gpu
def test_what_torch_says_of_a_gpus_memory_is_understood() -> None:
    said = r"^not enough memory on cuda:0 for 2 blocks: free some"
    with pytest.raises(ConfigError, match=said), enough_memory(find_device("cuda:0"), 2, ""):
        torch.empty(1 << 50, dtype=torch.int8, device="cuda:0")


def test_memory_may_be_the_cause_of_what_others_complain_of() -> None:
    complaint = ConfigError("llama models cannot be split yet, their blocks do not run here")
    complaint.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    said = r"^not enough memory on cuda:0 for 2 blocks"
    with pytest.raises(ConfigError, match=said), enough_memory(GPU, 2, ""):
        raise complaint


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ConfigError("no such block"), OSError(5, "x")]
)
def test_other_mistakes_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, enough_memory(GPU, 2, ""):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("moment", ["checking that", "measuring"])
async def test_a_server_whose_memory_ends_while_it_starts_says_so(model: Path, moment: str) -> None:
    def say(sentence: str) -> None:
        if sentence.startswith(moment):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    options = Options(
        model=str(model),
        device="cpu",
        blocks=Span(0, 2),
        kv_tokens=999,
        host_maddrs=("/ip4/127.0.0.1/tcp/0",),
    )
    with pytest.raises(ConfigError, match=r"^not enough memory on cpu for 2 blocks: .* int8 or nf4$"):
        await serve(options, say)


def test_what_makes_a_block_fit_is_told(model: Path) -> None:
    options = Options(model=str(model), kv_tokens=1 << 40)
    with pytest.raises(
        ConfigError,
        match=r"^not one block fits: .*GiB of free memory; free some, lower --kv-tokens, or add "
        r"--quantization int8 or nf4$",
    ):
        _num_blocks(open_checkpoint(str(model)), options, CPU)


def test_only_a_smaller_quantization_makes_blocks_smaller(model: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(model))
    assert _what_makes_smaller(checkpoint, Options(model="", quantization="int8")) == "--quantization nf4"
    assert _what_makes_smaller(checkpoint, Options(model="", quantization="nf4")) == ""
    stored = open_checkpoint(str(save_quantized(tmp_path)))
    assert _what_makes_smaller(stored, Options(model="")) == ""
