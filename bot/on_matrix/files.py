"""Files that we attach, encrypted where the room is, and those of others; the homeserver keeps them all."""

import asyncio
import logging
import mimetypes
import re

import msgspec
from nio import EncryptionError
from nio.crypto import attachments

from bot.on_matrix.fields import Object, number_of
from bot.on_matrix.messages import Address
from bot.on_matrix.wire import OPAQUE, TooLong, Wire
from bot.words import Refused, SendError, TooLarge

logger = logging.getLogger(__name__)

READ_S = 15.0
MEDIA_CONFIGS = ("/_matrix/client/v1/media/config", "/_matrix/media/v3/config")
"""Of homeservers since 1.11, and of older ones."""
USUAL_FILE_BYTES = 8_000_000
MOST_FILE_BYTES = 50_000_000
"""A file is in memory as a whole, and once more where it is encrypted."""
_MXC = re.compile(r"mxc://([A-Za-z0-9.:\[\]-]{1,255})/([A-Za-z0-9_-]{1,255})")


async def largest_upload(wire: Wire) -> int:
    """How large a file the homeserver takes, as far as it says so."""
    for path in MEDIA_CONFIGS:
        try:
            said = number_of((await wire.look_up(path)).get("m.upload.size"))
        except SendError as error:
            logger.info("the homeserver does not say how large a file may be: %s", error)
            continue
        return min(said, MOST_FILE_BYTES) if said > 0 else USUAL_FILE_BYTES
    return USUAL_FILE_BYTES


async def file_content(wire: Wire, name: str, content: bytes, *, is_encrypted: bool) -> Object:
    """The message that shows a file. Raises what Wire.ask raises."""
    kind = mimetypes.guess_type(name)[0] or "text/plain"
    shown: Object = {
        "msgtype": "m.file",
        "body": name,
        "info": {"mimetype": kind, "size": len(content)},
        "m.mentions": {},
    }
    if not is_encrypted:
        return shown | {"url": await wire.upload(name, content, kind)}
    sealed, keys = await asyncio.to_thread(attachments.encrypt_attachment, content)
    return shown | {"file": keys | {"url": await wire.upload("file", sealed, OPAQUE)}}


async def read_file(wire: Wire, encoded: str, most_bytes: int) -> bytes:
    """A file that somebody sent, decrypted. Raises TooLarge, Refused, Limited or Unreachable."""
    address = msgspec.json.decode(encoded, type=Address)
    named = _MXC.fullmatch(address.url)
    if named is None:
        raise Refused("a file has no address that could be one")
    try:
        content = await wire.download(named[1], named[2], most_bytes, READ_S)
    except TooLong as error:
        raise TooLarge(f"a file has more than {most_bytes} bytes") from error
    if not address.is_sealed:
        return content
    try:
        return bytes(attachments.decrypt_attachment(content, address.key, address.digest, address.iv))
    except (EncryptionError, ValueError, TypeError) as error:
        raise Refused(f"a file cannot be decrypted: {type(error).__name__}") from error
