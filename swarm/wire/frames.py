"""One message and its tensors <-> one frame of bytes.

    length   u32, big-endian   of all that follows; checked before anything else is read
    version  u8
    header   u32 length, then the message in msgpack
    tensors  raw bytes, whose sizes the header must explain exactly

A frame is refused before its body is read if its length is above the stream's limit.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch

from swarm.wire.bounds import VERSION
from swarm.wire.messages import Message, OnChain, ToClient, ToServer
from swarm.wire.tensors import spec_of, split_tensors, to_bytes

PREFIX_BYTES = 4
MAX_CHAIN_FRAME_BYTES = 64 << 20
MAX_CONTROL_FRAME_BYTES = 1 << 20
_HEAD = struct.Struct(">IBI")
_BODY_HEAD = struct.Struct(">BI")
_encode = msgspec.msgpack.Encoder().encode


class BadFrame(ValueError):
    """The bytes break the wire's rules; `code` is what the peer is told."""

    def __init__(self, message: str, code: str = "bad_message") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Frame:
    """A message and the tensors that came behind it."""

    message: Message
    tensors: tuple[torch.Tensor, ...] = ()


def encode_frame(message: Message, tensors: Sequence[torch.Tensor] = ()) -> list[bytes | memoryview]:
    """Buffers to write, in order. Tensors on the CPU are not copied."""
    raw: list[bytes | memoryview] = [to_bytes(tensor) for tensor in tensors]
    if tensors or message.tensors:
        message = msgspec.structs.replace(message, tensors=tuple(map(spec_of, tensors)))
    header = _encode(message)
    size = _BODY_HEAD.size + len(header) + sum(map(len, raw))
    return [_HEAD.pack(size, VERSION, len(header)) + header, *raw]


def body_bytes(prefix: bytes, limit: int) -> int:
    """Length of the body behind a 4-byte prefix. Raises BadFrame if it is not in `[5, limit]`."""
    size = int.from_bytes(prefix, "big")
    if not _BODY_HEAD.size <= size <= limit:
        raise BadFrame(f"a frame of {size} bytes is outside the limit of {limit} bytes")
    return size


class FrameDecoder:
    """Turns bodies into frames of one family of messages: ToServer, ToClient or OnChain."""

    def __init__(self, family: object) -> None:
        self._decoder = msgspec.msgpack.Decoder(family)

    def decode(self, body: bytearray) -> Frame:
        """Raises BadFrame; its code is `unsupported` for a version or kind that we do not speak."""
        if len(body) < _BODY_HEAD.size:
            raise BadFrame("the frame is shorter than its own head")
        version, header_bytes = _BODY_HEAD.unpack_from(body)
        if version != VERSION:
            raise BadFrame(
                f"this peer speaks version {version} of the wire, we speak {VERSION}", "unsupported"
            )
        header_end = _BODY_HEAD.size + header_bytes
        if header_end > len(body):
            raise BadFrame("the header is longer than its frame")
        view = memoryview(body)
        message = self._decode_header(view[_BODY_HEAD.size : header_end])
        try:
            return Frame(message, split_tensors(message.tensors, view[header_end:]))
        except ValueError as error:
            raise BadFrame(str(error)) from error

    def _decode_header(self, header: memoryview) -> Message:
        try:
            message: Message = self._decoder.decode(header)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            code = "unsupported" if "Invalid value" in str(error) and "kind" in str(error) else "bad_message"
            raise BadFrame(f"the header does not decode: {error}"[:400], code) from error
        return message


FROM_CLIENT = FrameDecoder(ToServer)
FROM_SERVER = FrameDecoder(ToClient)
FROM_CHAIN = FrameDecoder(OnChain)
