"""An independent client for tests: matrix-js-sdk, which trusts devices only if their owner signed them.

It reads and writes as strict clients of people do, and shares no code with ours. See `signed_only.mjs`.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from demo.zygote import die_with
from tests.matrix_peer.synapse import Account

SCRIPT = Path(__file__).with_name("signed_only.mjs")
ANSWERS_WITHIN_S = 30.0
SEES_WITHIN_S = 15.0
ENDS_WITHIN_S = 5.0
MAX_ANSWER_BYTES = 1 << 20


class SignedOnlyFailed(Exception):
    """It could not do what it was asked for."""


class SignedOnly:
    """One device of one account. See `open_signed_only`."""

    def __init__(self, process: asyncio.subprocess.Process, account: Account, log: Path) -> None:
        self.account = account
        self._process = process
        self._log = log
        self._number = 0

    @property
    def user_id(self) -> str:
        return self.account.user_id

    async def create_room(self, *invited: str) -> str:
        """An encrypted room."""
        return str(await self.ask("create", invite=invited))

    async def join(self, room: str) -> None:
        await self.ask("join", room=room)

    async def wait_for_member(self, room: str, user_id: str) -> None:
        """Wait until somebody has joined."""
        await self.ask("member", room=room, user=user_id)

    async def say(self, room: str, text: str) -> str:
        """Returns the event's id."""
        return str(await self.ask("send", room=room, text=text))

    async def wait_for_text(self, room: str, text: str) -> dict[str, Any]:
        """Wait for a message that reads so: event_id, sender, text, encrypted, relation."""
        seen: dict[str, Any] = await self.ask("wait", room=room, text=text, within_ms=1000 * SEES_WITHIN_S)
        return seen

    async def outcome(self, room: str, event_id: str) -> dict[str, Any]:
        """The same of one event, once it is read or `failure` says why it cannot be."""
        limit_ms = 1000 * SEES_WITHIN_S
        seen: dict[str, Any] = await self.ask("outcome", room=room, event_id=event_id, within_ms=limit_ms)
        return seen

    async def ask(self, name: str, **arguments: object) -> Any:
        """Have it do something. Raises SignedOnlyFailed if it cannot, TimeoutError if it says nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        line = json.dumps({"id": self._number, "do": name, **arguments})
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            said = await self._process.stdout.readline()
        if not said:
            raise SignedOnlyFailed(f"{name}: it ended: {self._last_words()}")
        answer = json.loads(said)
        assert answer["id"] == self._number
        if "error" in answer:
            raise SignedOnlyFailed(f"{name}: {answer['error']}")
        return answer["result"]

    def _last_words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]


class NewSignedOnly(Protocol):
    """Makes people with strict clients: the fixture `new_signed_only`."""

    async def __call__(self, name: str) -> SignedOnly: ...


@contextlib.asynccontextmanager
async def open_signed_only(sdk: Path, url: str, account: Account, log: Path) -> AsyncIterator[SignedOnly]:
    """Log `account` in, for the length of the block, and sign its device. What it logs goes to `log`."""
    with log.open("ab") as words:
        process = await asyncio.create_subprocess_exec(
            "node",
            str(SCRIPT),
            str(sdk),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            limit=MAX_ANSWER_BYTES,
            preexec_fn=partial(die_with, os.getpid()),
        )
    client = SignedOnly(process, account, log)
    try:
        await client.ask("login", url=url, user=account.user_id, password=account.password)
        assert await client.ask("bootstrap", password=account.password)
        yield client
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
