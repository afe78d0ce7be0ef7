"""A person in Matrix rooms, for tests: writes, reads, and sees what a client would show."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from nio import (
    AsyncClient,
    AsyncClientConfig,
    EncryptionError,
    ErrorResponse,
    MegolmEvent,
    RoomPreset,
)

from tests.matrix_peer.synapse import Account
from tests.matrix_peer.timeline import Message, fold

SEES_WITHIN_S = 10.0
POLL_MS = 250
SYNC_FILTER = {"room": {"timeline": {"limit": 10_000}}, "presence": {"types": []}}
ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}

T = TypeVar("T")


class Human:
    """One person with one device. See `open_human`."""

    def __init__(self, client: AsyncClient, account: Account) -> None:
        self.client = client
        self.account = account
        self._seen: dict[str, list[Any]] = {}

    @property
    def user_id(self) -> str:
        return self.account.user_id

    # --- rooms ------------------------------------------------------------------------------------

    async def create_room(
        self,
        *invited: str,
        encrypted: bool = False,
        version: Literal["11", "12"] = "12",
        direct: bool = False,
    ) -> str:
        """A private room with others invited; returns its id, and is known to us on return."""
        preset = RoomPreset.trusted_private_chat if direct else RoomPreset.private_chat
        created = await self._ask(
            self.client.room_create(
                invite=invited,
                is_direct=direct,
                preset=preset,
                room_version=version,
                initial_state=[ENCRYPTION] if encrypted else [],
            )
        )
        await self._until(lambda: created.room_id in self.client.rooms, "our new room")
        return str(created.room_id)

    async def create_direct(
        self, other: str, *, encrypted: bool = False, version: Literal["11", "12"] = "12"
    ) -> str:
        """A chat of two."""
        return await self.create_room(other, encrypted=encrypted, version=version, direct=True)

    async def invite(self, room: str, user_id: str) -> None:
        await self._ask(self.client.room_invite(room, user_id))

    async def join(self, room: str) -> None:
        """Accept an invitation, or come back; the room is known to us on return."""
        await self._ask(self.client.join(room))
        await self._until(lambda: room in self.client.rooms, "the room we joined")

    async def leave(self, room: str) -> None:
        await self._ask(self.client.room_leave(room))

    async def wait_for_invitation(self, room: str) -> None:
        await self._until(lambda: room in self.client.invited_rooms, "an invitation")

    async def wait_for_member(self, room: str, user_id: str) -> None:
        """Wait until somebody has joined; an encrypted message sent before could not be read."""

        def has_joined() -> bool:
            known = self.client.rooms[room]
            return user_id in known.users and user_id not in known.invited_users

        await self._until(has_joined, f"{user_id} in the room")

    # --- messages ---------------------------------------------------------------------------------

    async def say(self, room: str, text: str, *, mentions: Sequence[str] = (), kind: str = "m.text") -> str:
        """Returns the event's id, as the following do."""
        return await self.send(room, _content(text, mentions, kind))

    async def reply(self, room: str, event_id: str, text: str, *, mentions: Sequence[str] = ()) -> str:
        relation = {"m.in_reply_to": {"event_id": event_id}}
        return await self.send(room, _content(text, mentions) | {"m.relates_to": relation})

    async def reply_in_thread(self, room: str, root: str, text: str, *, mentions: Sequence[str] = ()) -> str:
        relation = {
            "rel_type": "m.thread",
            "event_id": root,
            "is_falling_back": True,
            "m.in_reply_to": {"event_id": root},
        }
        return await self.send(room, _content(text, mentions) | {"m.relates_to": relation})

    async def edit(self, room: str, event_id: str, text: str) -> str:
        changed = {
            "m.new_content": _content(text),
            "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
        }
        return await self.send(room, _content(f"* {text}") | changed)

    async def react(self, room: str, event_id: str, key: str) -> str:
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self.send(room, {"m.relates_to": relation}, "m.reaction")

    async def redact(self, room: str, event_id: str) -> str:
        return str((await self._ask(self.client.room_redact(room, event_id))).event_id)

    async def send(self, room: str, content: dict[str, Any], kind: str = "m.room.message") -> str:
        """Send any event, encrypted where the room is."""
        sent = await self._ask(self.client.room_send(room, kind, content, ignore_unverified_devices=True))
        return str(sent.event_id)

    # --- what we see ------------------------------------------------------------------------------

    async def sync(self, timeout_ms: int = 0) -> None:
        """Take in what happened, and do what the keys of encrypted rooms need."""
        is_first = not self.client.next_batch
        answer = await self._ask(
            self.client.sync(timeout=timeout_ms, sync_filter=SYNC_FILTER, full_state=is_first)
        )
        for room, joined in answer.rooms.join.items():
            # A room that is new to us counts as limited, however little was in it.
            assert room not in self._seen or not joined.timeline.limited, "events were left out"
            for event in joined.timeline.events:
                event.room_id = room  # decrypting later needs it, and nio leaves it out
            self._seen.setdefault(room, []).extend(joined.timeline.events)
        await self._keep_keys()

    def messages(self, room: str) -> list[Message]:
        """All messages that were synced, in the order of the room, as they look now."""
        return fold(map(self._source, self._seen.get(room, [])))

    def visible_text(self, room: str, by: str = "") -> list[str]:
        """What a reader sees, of everybody or of one sender: newest edits, nothing redacted."""
        return [m.text for m in self.messages(room) if not m.is_redacted and by in ("", m.sender)]

    def events(self, room: str) -> list[dict[str, Any]]:
        """Every event that was synced, raw but decrypted where possible."""
        return [self._source(event)[0] for event in self._seen.get(room, [])]

    def unreadable(self, room: str) -> list[str]:
        """Ids of events that we cannot decrypt."""
        return [event["event_id"] for event in self.events(room) if event.get("type") == "m.room.encrypted"]

    async def until(
        self, room: str, find: Callable[[list[Message]], T], within_s: float = SEES_WITHIN_S
    ) -> T:
        """Sync until `find` finds something in the room. Raises AssertionError if it does not."""
        found: list[T] = []

        def look() -> bool:
            found[:] = [find(self.messages(room))]
            return bool(found[0])

        await self._until(look, lambda: f"what was looked for in {self.visible_text(room)}", within_s)
        return found[0]

    async def wait_for_text(
        self, room: str, text: str, by: str = "", within_s: float = SEES_WITHIN_S
    ) -> Message:
        """Sync until a message looks exactly so."""

        def find(messages: list[Message]) -> Message | None:
            return next((m for m in messages if m.text == text and by in ("", m.sender)), None)

        found = await self.until(room, find, within_s)
        assert found is not None
        return found

    async def _until(
        self, is_there: Callable[[], bool], what: str | Callable[[], str], within_s: float = SEES_WITHIN_S
    ) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        while not is_there():
            late = asyncio.get_running_loop().time() > deadline
            assert not late, f"after {within_s} s: no {what if isinstance(what, str) else what()}"
            await self.sync(POLL_MS)

    def _source(self, event: Any) -> tuple[dict[str, Any], bool]:
        """An event's JSON, and whether it was encrypted. Keys may have come after it."""
        if isinstance(event, MegolmEvent) and self.client.olm is not None:
            with contextlib.suppress(EncryptionError):
                event = self.client.decrypt_event(event)
        return event.source, bool(getattr(event, "decrypted", False)) or isinstance(event, MegolmEvent)

    async def _keep_keys(self) -> None:
        client = self.client
        if client.olm is None:
            return
        if client.should_upload_keys:
            await self._ask(client.keys_upload())
        if client.should_query_keys:
            await self._ask(client.keys_query())
        if client.should_claim_keys:
            await self._ask(client.keys_claim(client.get_users_for_key_claiming()))
        await client.send_to_device_messages()

    async def _ask(self, request: Any) -> Any:
        answer = await request
        assert not isinstance(answer, ErrorResponse), f"{self.user_id}: {answer}"
        return answer


class NewHuman(Protocol):
    """Makes people: the fixture `new_human`."""

    async def __call__(self, name: str, *, encrypted: bool = False) -> Human: ...


def _content(text: str, mentions: Sequence[str] = (), kind: str = "m.text") -> dict[str, Any]:
    named = {"user_ids": list(mentions)} if mentions else {}
    return {"msgtype": kind, "body": text, "m.mentions": named}


@contextlib.asynccontextmanager
async def open_human(url: str, account: Account, store: Path | None = None) -> AsyncIterator[Human]:
    """Log `account` in on a new device, for the length of the block.

    It can encrypt if it has a folder, `store`, which is made if need be. It never waits by itself when it is
    limited: that is a failure of the test's set-up.
    """
    encrypts = store is not None
    if store is not None:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = AsyncClientConfig(
        encryption_enabled=encrypts, store_sync_tokens=False, pickle_key="of tests", max_limit_exceeded=0
    )
    client = AsyncClient(url, account.user_id, store_path=str(store or ""), config=config)
    human = Human(client, account)
    try:
        await human._ask(client.login(account.password, device_name="a human's"))
        await human.sync()
        yield human
    finally:
        await client.close()
