"""Files that we attach: given to the homeserver, encrypted where the room is."""

import asyncio
import mimetypes

from nio.crypto import attachments

from bot.on_matrix.fields import Object
from bot.on_matrix.wire import Wire

OPAQUE = "application/octet-stream"


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
