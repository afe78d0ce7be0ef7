"""Every number, name and code on the wire, with the range it may have."""

from typing import Annotated, Literal

from msgspec import Meta

VERSION = 1
MAX_STEP_TOKENS = 4096
MAX_STAGES = 256
MAX_POSITION = 2**24

ErrorCode = Literal[
    "busy",
    "draining",
    "unknown_session",
    "expired",
    "fenced",
    "gap",
    "too_long",
    "unauthorised",
    "wrong_model",
    "unsupported",
    "bad_message",
    "internal",
]

Peer = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[1-9A-HJ-NP-Za-km-z]+\Z")]
Session = Annotated[bytes, Meta(min_length=16, max_length=16)]
Epoch = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seq = Annotated[int, Meta(ge=0, le=2**48)]
Attempt = Annotated[int, Meta(ge=0, le=2**32)]
Position = Annotated[int, Meta(ge=0, le=MAX_POSITION)]
Tag = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Stage = Annotated[int, Meta(ge=0, lt=MAX_STAGES)]
Slot = Annotated[int, Meta(ge=0, lt=MAX_STAGES)]
"""Which visit of the path to this server: 0, unless a custom path comes back to it."""
BlockIndex = Annotated[int, Meta(ge=0, le=65_535)]
Tokens = Annotated[int, Meta(ge=0, le=MAX_STEP_TOKENS)]
Text = Annotated[str, Meta(max_length=500)]
Millis = Annotated[int, Meta(ge=0, le=3_600_000)]
Counter = Annotated[int, Meta(ge=0, le=2**53)]
Address = Annotated[str, Meta(max_length=300)]
Fingerprint = Annotated[str, Meta(min_length=8, max_length=64)]
