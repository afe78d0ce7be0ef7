"""Token ids as the transcript keeps them: unsigned 32-bit little-endian, compressed."""

import zlib
from collections.abc import Sequence

import numpy as np

MAX_IDS = 1 << 22
_LITTLE_ENDIAN = np.dtype("<u4")


def pack_ids(ids: Sequence[int]) -> bytes:
    """Compress token ids. Raises OverflowError for an id that is negative or needs more than 32 bits."""
    return zlib.compress(np.array(ids, dtype=_LITTLE_ENDIAN).tobytes())


def unpack_ids(packed: bytes) -> list[int]:
    """What `pack_ids` was given. Raises ValueError for bytes that it did not make."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, MAX_IDS * _LITTLE_ENDIAN.itemsize)
    except zlib.error as error:
        raise ValueError("the token ids of a transcript are damaged") from error
    if not stream.eof or len(raw) % _LITTLE_ENDIAN.itemsize:
        raise ValueError("the token ids of a transcript are damaged")
    ids: list[int] = np.frombuffer(raw, dtype=_LITTLE_ENDIAN).tolist()
    return ids
