"""Encryption, as matrix-nio has it: keys are fetched, shared and used for whole rooms.

The library tries again by itself where it is limited, unless it is told not to (`max_limit_exceeded=0`,
`max_timeouts=0`), tells of failures in return values, and keeps its sessions in SQLite, on our loop.
"""

import asyncio
import logging
from collections import defaultdict

import aiohttp
import msgspec
from nio import (
    AsyncClient,
    EncryptionError,
    ErrorResponse,
    Event,
    MatrixRoom,
    MegolmEvent,
    SyncResponse,
)

from bot.on_matrix.fields import Object, list_of, object_of
from bot.on_matrix.room_keys import RoomKeys, portions
from bot.on_matrix.wire import LOGGED_OUT_CODES, LoggedOut
from bot.words import Limited, Refused, SendError, Unreachable

logger = logging.getLogger(__name__)

WITHIN_S = 60.0


class Sealer:
    """The device's keys. See `AsyncClient.olm`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._keys = RoomKeys(client)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """For each room: its key is shared by one at a time."""

    async def seal(self, room_id: str, kind: str, content: Object) -> Object:
        """Encrypt an event for all who are in a room. Raises Refused, Limited or Unreachable."""
        async with self._locks[room_id]:
            try:
                async with asyncio.timeout(WITHIN_S):
                    await self._share(room_id)
                _, sealed = self._client.encrypt(room_id, kind, content)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise Unreachable(f"keys cannot be shared: {type(error).__name__}") from error
            except EncryptionError as error:
                raise Refused(f"a message cannot be encrypted: {type(error).__name__}") from error
        return dict(sealed)

    async def _share(self, room_id: str) -> None:
        client = self._client
        if room_id not in client.rooms:
            client.rooms[room_id] = MatrixRoom(room_id, client.user_id, encrypted=True)
        room = client.rooms[room_id]
        room.encrypted = True  # whatever the library believes
        if not room.members_synced:
            _check(await client.joined_members(room_id))
        client.olm.update_tracked_users(room)
        if client.should_query_keys:
            await self._keys.ask_for_devices()
        if client.olm.should_share_group_session(room_id):
            await self._keys.hand_out(room)

    def look_again(self) -> None:
        """Ask anew which devices people have: what has changed of them meanwhile was not told."""
        self._client.olm.users_for_key_query.update(self._client.olm.tracked_users)

    async def take_in(self, answer: Object) -> None:
        """Let the library see what a sync was answered: keys, some at a time, then members and devices.

        Once, for what opens a key is used up with it.
        """
        token = answer.get("next_batch")
        if token == self._client.next_batch:
            return
        for number, some in enumerate(portions(list_of(object_of(answer.get("to_device")).get("events")))):
            await self._show({"next_batch": f"{number} of {token}", "to_device": {"events": some}})
            await asyncio.sleep(0)
        await self._show({name: value for name, value in answer.items() if name != "to_device"})

    async def _show(self, answer: Object) -> None:
        """Let the library see a part of it; all that it keeps of that is written at once."""
        try:
            with self._client.store.database.atomic():
                await self._receive(answer)  # waits for nothing
        except Exception:  # the store below it fails as it likes when the disk does
            logger.exception("matrix-nio could not keep what a sync said; keys may be missing")

    async def _receive(self, answer: Object) -> None:
        try:
            # It changes what it is given.
            response = SyncResponse.from_dict(msgspec.json.decode(msgspec.json.encode(answer)))
            if isinstance(response, SyncResponse):
                await self._client.receive_response(response)
        except Exception:  # it fails on events that are not what it expects, in any way
            logger.exception("matrix-nio did not take a sync in; keys may be missing")

    async def keep_keys(self) -> None:
        """Upload, fetch and hand out keys as far as need be. Raises Limited or Unreachable."""
        client = self._client
        try:
            async with asyncio.timeout(WITHIN_S):
                if client.should_upload_keys:
                    _check(await client.keys_upload())
                if client.should_query_keys:
                    await self._keys.ask_for_devices()
                if client.should_claim_keys:
                    await self._keys.open_channels(client.get_users_for_key_claiming())
                await client.send_to_device_messages()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"keys cannot be kept: {type(error).__name__}") from error

    def open(self, room_id: str, event: Object) -> Object | None:
        """Decrypt an event, if its key is here by now."""
        try:
            parsed = Event.parse_event(event)
            if not isinstance(parsed, MegolmEvent):
                return None
            parsed.room_id = room_id
            source = object_of(getattr(self._client.decrypt_event(parsed), "source", None))
        except EncryptionError:
            return None
        except Exception:  # as above
            logger.exception("matrix-nio failed to decrypt an event")
            return None
        # What an event relates to is said outside; some clients say it only there.
        relation = object_of(event.get("content")).get("m.relates_to")
        content = object_of(source.get("content"))
        return source | {"content": content | ({"m.relates_to": relation} if relation else {})}


def _check(answer: object) -> None:
    if isinstance(answer, ErrorResponse):
        raise _error_of(answer)


def _error_of(answer: ErrorResponse) -> SendError:
    if answer.status_code == "M_LIMIT_EXCEEDED":
        return Limited((answer.retry_after_ms or 1000) / 1000)
    if answer.status_code in LOGGED_OUT_CODES:
        return LoggedOut("the homeserver does not know us any more; log in anew")
    return Unreachable(f"keys cannot be shared: {str(answer.status_code)[:60]!r}")
