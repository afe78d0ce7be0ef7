"""Requests to the homeserver, raw: one place that says what went wrong, and how much we read of an answer.

matrix-nio tries again by itself and for ever where it is limited or finds nobody. Here each request is made
once; whoever asks decides when to ask again.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from nio import AsyncClient

from bot.words import Limited, Refused, SendError, Unreachable

Object = dict[str, Any]

CLIENT = "/_matrix/client/v3"
WITHIN_S = 30.0
MAX_ANSWER_BYTES = 4 << 20
MAX_RETRY_AFTER_S = 3600.0
READ_BYTES = 1 << 16
LOGGED_OUT_CODES = ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN")
OPAQUE = "application/octet-stream"


class LoggedOut(Unreachable):
    """The homeserver does not know our access token any more; what is to be sent waits for another one."""


class _Refusal(msgspec.Struct):
    errcode: str = ""
    retry_after_ms: float = 1000.0


class Wire:
    """The homeserver as one account sees it."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @property
    def user_id(self) -> str:
        """Who we are."""
        return str(self._client.user_id)

    async def ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        within_s: float = WITHIN_S,
        most_bytes: int = MAX_ANSWER_BYTES,
    ) -> Object:
        """One request to the client API and what it was answered, both JSON.

        Raises LoggedOut, Refused, Limited or Unreachable.
        """
        sent = b"" if method == "GET" else msgspec.json.encode(body or {})
        status, answer = await self._send(
            method, CLIENT + path, sent, "application/json", within_s, most_bytes
        )
        return _read(status, answer)

    async def look_up(self, path: str) -> Object:
        """What the homeserver answers at a whole path. Raises what `ask` raises."""
        return _read(*await self._send("GET", path, b"", "application/json", WITHIN_S, MAX_ANSWER_BYTES))

    async def upload(self, name: str, content: bytes, kind: str) -> str:
        """Give the homeserver a file; returns its address there. Raises what `ask` raises."""
        path = f"/_matrix/media/v3/upload?{urlencode({'filename': name})}"
        answer = _read(*await self._send("POST", path, content, kind, WITHIN_S, MAX_ANSWER_BYTES))
        address = answer.get("content_uri")
        if not isinstance(address, str):
            raise Unreachable("the homeserver did not say where the file is")
        return address

    async def download(self, server: str, media_id: str, most_bytes: int, within_s: float) -> bytes:
        """A file that the homeserver has, or has from another. Raises TooLarge, and what `ask` raises."""
        path = f"/_matrix/client/v1/media/download/{quote(server, safe='')}/{quote(media_id, safe='')}"
        status, content = await self._send("GET", path, b"", OPAQUE, within_s, most_bytes)
        if status != 200:
            raise error_of(status, content)
        return content

    async def put_event(self, room_id: str, kind: str, content: Object, transaction: str) -> str:
        """Send an event; the same transaction again gives the same event. Returns its id."""
        path = room_path(room_id, "send", kind, transaction)
        return _event_id(await self.ask("PUT", path, content))

    async def redact(self, room_id: str, event_id: str) -> None:
        """Take away what an event contains; one that is gone is no error."""
        try:
            await self.ask("PUT", room_path(room_id, "redact", event_id, f"redact-{event_id}"))
        except NotFound:
            return

    async def _send(
        self, method: str, path: str, body: bytes, kind: str, within_s: float, most_bytes: int
    ) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._client.access_token}", "Content-Type": kind}
        limit = aiohttp.ClientTimeout(total=within_s)
        try:
            answer = await self._client.send(method, path, body or None, headers, None, limit)
            async with answer:
                return answer.status, await _body(answer, most_bytes)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"the homeserver did not answer: {type(error).__name__}") from error


class NotFound(Refused):
    """There is no such thing, or not for us."""


class TooLong(Unreachable):
    """There was more in an answer than we read."""


class Malformed(Refused):
    """What we asked makes no sense to the homeserver, such as a token that it does not know."""


def room_path(room_id: str, *parts: str) -> str:
    """The path of something in a room. Ids come from others, so each is quoted."""
    return "/".join(("/rooms", *(quote(part, safe="") for part in (room_id, *parts))))


def with_query(path: str, query: Mapping[str, str]) -> str:
    """A path with what is asked for."""
    return f"{path}?{urlencode(query)}"


async def _body(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    body = bytearray()
    while chunk := await answer.content.read(READ_BYTES):
        body += chunk
        if len(body) > most_bytes:
            raise TooLong("the homeserver's answer is too long")
    return bytes(body)


def _read(status: int, body: bytes) -> Object:
    """What a request was answered. Raises what went wrong."""
    if status != 200:
        raise error_of(status, body)
    try:
        return msgspec.json.decode(body, type=Object)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreachable("the homeserver's answer is no JSON object") from error


def error_of(status: int, body: bytes) -> SendError:
    """What it means that a request was answered with `status`."""
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, RecursionError):
        refusal = _Refusal()
    named = f"{status} {refusal.errcode[:60]!r}"
    if status == 429 or refusal.errcode == "M_LIMIT_EXCEEDED":
        return Limited(min(max(refusal.retry_after_ms / 1000, 0.0), MAX_RETRY_AFTER_S))
    if refusal.errcode in LOGGED_OUT_CODES:
        return LoggedOut(f"the homeserver does not know us any more: {named}; log in anew")
    if status == 404 or refusal.errcode == "M_NOT_FOUND":
        return NotFound(f"the homeserver has no such thing: {named}")
    if status == 400:
        return Malformed(f"the homeserver does not understand it: {named}")
    if 400 < status < 500 and status != 408 and refusal.errcode != "M_USER_LOCKED":
        return Refused(f"the homeserver refused it: {named}")
    return Unreachable(f"the homeserver answered {named}")


def _event_id(answer: Object) -> str:
    event_id = answer.get("event_id")
    if not isinstance(event_id, str):
        raise Unreachable("the homeserver did not say what the event is called")
    return event_id
