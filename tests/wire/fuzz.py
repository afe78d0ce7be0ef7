"""Bytes as strangers send them: noise, and what is valid with bits flipped, parts cut out and spliced in.

`check(decoder, num_examples)` is the whole test of one decoder: see `Decoder`.
"""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW, MANY = 200, 3_000  # --all: other ones in each run
EXAMPLES = pytest.mark.parametrize(
    "num_examples", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)


@dataclass(frozen=True)
class Decoder:
    """Something that reads bytes of strangers: its value is none of ours, its errors are `errors` alone.

    While it decodes it may take `growth` bytes of memory for each that came, and `least` besides: for the
    sentence of an error, or a memory of what was decoded lately. Tensors are none of Python's memory: whoever
    makes them looks at them itself.
    """

    decode: Callable[[bytes], object]
    seeds: Sequence[bytes]
    errors: type[Exception] | tuple[type[Exception], ...] = ()
    growth: int = 64
    least: int = 1 << 20


def mutations(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Noise, or one of `seeds` after up to six changes, each of them four drawn bytes: quick to draw."""
    mutated = st.builds(_changed, st.just(seeds), st.sampled_from(seeds), st.binary(max_size=24))
    return st.one_of(st.binary(max_size=300), mutated, mutated, mutated)


def _changed(seeds: Sequence[bytes], seed: bytes, changes: bytes) -> bytes:
    raw = bytearray(seed)
    for kind, high, low, number in zip(*[iter(changes)] * 4, strict=False):
        at = (high * 256 + low) % (len(raw) + 1)
        _change(raw, kind % 6, at, number, seeds[number % len(seeds)])
    return bytes(raw)


def _change(raw: bytearray, kind: int, at: int, number: int, other: bytes) -> None:
    if kind == 0:
        raw[at : at + 1] = bytes([number])
    elif kind == 1:
        raw[at : at + 1] = bytes(byte ^ 1 << number % 8 for byte in raw[at : at + 1])
    elif kind == 2:
        del raw[at : at + number % 64]
    elif kind == 3:
        raw[at:at] = raw[at : at + number % 64] * 3
    elif kind == 4:
        raw[at:] = other[at % (len(other) + 1) :]
    else:
        del raw[at:]


@contextmanager
def within(num_bytes: int) -> Iterator[None]:
    """Fail if Python takes more than `num_bytes` of memory at any moment of the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert taken <= num_bytes, f"{taken} bytes taken, {num_bytes} allowed"


def check(decoder: Decoder, num_examples: int) -> None:
    """Decode seeds, noise and mutations; fails on any error that is not the decoder's own."""
    for seed in decoder.seeds:
        decoder.decode(seed)

    @given(raw=mutations(decoder.seeds))
    @settings(max_examples=num_examples, suppress_health_check=list(HealthCheck))
    def decode(raw: bytes) -> None:
        with within(decoder.growth * len(raw) + decoder.least):
            try:
                decoder.decode(raw)
            except decoder.errors:
                return

    decode()
