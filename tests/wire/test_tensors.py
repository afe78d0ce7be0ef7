"""Tensors as raw bytes: lossless, and cut only as their sizes say."""

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.wire.tensors import DType, TensorSpec, from_bytes, spec_of, split_tensors, to_bytes

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64]


def joined(*tensors: torch.Tensor) -> memoryview:
    return memoryview(bytearray(b"".join(map(to_bytes, tensors))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 0, 4), (2, 3, 2, 2)])
def test_a_tensor_survives_the_wire_bit_by_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape) * 100).to(dtype)
    (back,) = split_tensors([spec_of(tensor)], joined(tensor))
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_nan_and_infinity_keep_their_bits() -> None:
    tensor = torch.tensor([float("nan"), float("inf"), -0.0])
    (back,) = split_tensors([spec_of(tensor)], joined(tensor))
    assert bytes(to_bytes(back)) == bytes(to_bytes(tensor))


def test_a_view_is_sent_in_row_major_order() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    (back,) = split_tensors([spec_of(tensor)], joined(tensor))
    assert torch.equal(back, tensor)


def test_sending_a_contiguous_tensor_copies_nothing() -> None:
    tensor = torch.zeros(4)
    raw = to_bytes(tensor)
    tensor[0] = 1.0
    assert bytes(raw[:4]) != b"\0\0\0\0"


def test_tensors_behind_one_another_need_no_alignment() -> None:
    half, whole = torch.ones(3, dtype=torch.bfloat16), torch.arange(4)
    back = split_tensors([spec_of(half), spec_of(whole)], joined(half, whole))
    assert torch.equal(back[0], half)
    assert torch.equal(back[1], whole)


def test_a_dtype_without_a_place_on_the_wire_cannot_be_described() -> None:
    with pytest.raises(KeyError):
        spec_of(torch.zeros(1, dtype=torch.complex64))


@pytest.mark.parametrize("num_bytes", [0, 7, 9])
def test_sizes_must_explain_the_bytes_exactly(num_bytes: int) -> None:
    with pytest.raises(ValueError, match="explains 8 bytes"):
        split_tensors([TensorSpec("float32", (2,))], memoryview(bytearray(num_bytes)))


def test_an_empty_tensor_may_not_claim_absurd_sizes_along_its_other_axes() -> None:
    with pytest.raises(ValueError, match="bounds"):
        from_bytes(TensorSpec("float32", (0, 2**31, 2**31, 2**31)), memoryview(bytearray()))


def test_the_right_number_of_bytes_says_nothing_about_the_dtype_a_step_needs() -> None:
    # Whoever takes a step's tensor compares dtype and shape with the model's: here both specs explain it.
    raw = memoryview(bytearray(16))
    assert split_tensors([TensorSpec("float32", (2, 2))], raw)[0].dtype == torch.float32
    assert split_tensors([TensorSpec("int64", (2,))], raw)[0].dtype == torch.int64


SPECS = st.lists(
    st.builds(
        TensorSpec,
        st.sampled_from(list(DType.__args__)),  # type: ignore[attr-defined]
        st.lists(st.sampled_from([0, 1, 2, 3, 8, 2**16, 2**25, 2**31]), max_size=4).map(tuple),
    ),
    max_size=4,
)


@given(specs=SPECS, raw=st.binary(max_size=64))
@settings(max_examples=500)
def test_any_specs_over_any_bytes_give_tensors_or_a_value_error(specs: list[TensorSpec], raw: bytes) -> None:
    specs = msgspec.msgpack.decode(msgspec.msgpack.encode(specs), type=list[TensorSpec])
    try:
        tensors = split_tensors(specs, memoryview(bytearray(raw)))
    except ValueError:
        return
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == len(raw)
