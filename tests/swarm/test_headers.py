"""A safetensors file is believed only after a look at every number in its header."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from swarm.checkpoint.headers import MAX_HEADER_BYTES, read_header, read_tensor
from swarm.errors import ConfigError
from tests.swarm.checkpoints import write_safetensors


def test_tensors_are_read_as_the_safetensors_library_reads_them(tmp_path: Path) -> None:
    dtypes = (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
    )
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in dtypes}
    tensors |= {
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "byte": torch.tensor([3], dtype=torch.int8),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    header = read_header(path)
    for name, tensor in load_file(path).items():
        found = read_tensor(path, header, name)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found, tensor)


def entry(start: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - start) // 4], "data_offsets": [start, end]} | changes


@pytest.mark.parametrize(
    ("header", "body", "what"),
    [
        (b"not json", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b"[]", b"", "not a table"),
        (b'{"a": {}, "a": {}}', b"", "not JSON"),
        ({"a": 3}, b"", "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, shape=[3])}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, shape=[-2])}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, shape=[2.0])}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, shape=[1] * 9 + [2])}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, dtype="F3")}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, dtype=[])}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8, data_offsets=[8, 0])}, bytes(8), "describes the tensor 'a' wrongly"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), "overlap or leave gaps"),
        ({"a": entry(0, 8), "b": entry(12, 16)}, bytes(16), "overlap or leave gaps"),
        ({"a": entry(0, 8)}, bytes(5), "ends 3 bytes too early"),
        ({"a": entry(0, 1 << 60)}, bytes(5), "bytes too early"),
        ({"a": entry(0, 8)}, bytes(9), "1 bytes that belong to no tensor"),
    ],
    ids=str,
)
def test_a_damaged_header_is_told(tmp_path: Path, header: Any, body: bytes, what: str) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, header, body)
    with pytest.raises(ConfigError, match=f"is damaged: .*{what}.*; delete it and get it again"):
        read_header(path)


@pytest.mark.parametrize("length", [3, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_an_absurd_length_of_the_header_costs_no_memory(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, b"{}", length=length)
    with pytest.raises(ConfigError, match="its header claims"):
        read_header(path)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_no_bytes_do_more_than_raise_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_header(path)


def test_a_file_cut_short_after_it_was_opened_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    header = read_header(path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tensor(path, header, "a")
