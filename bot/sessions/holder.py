"""One open session and the task that holds it: sessions must be closed by the task that opened them."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager

from swarm.inference import InferenceSession

logger = logging.getLogger(__name__)


class Holder:
    """Keeps a session open until it is told to let go, and whether the servers are to keep it then."""

    def __init__(self, now_s: float) -> None:
        self.lock = asyncio.Lock()
        """Held by whoever uses the session: one step after the other."""
        self.last_used_s = now_s
        self.must_keep = True
        self._opened: asyncio.Future[InferenceSession] = asyncio.get_running_loop().create_future()
        self._let_go = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def is_idle(self) -> bool:
        """Nobody uses it."""
        return not self.lock.locked() and self._opened.done()

    @property
    def session(self) -> InferenceSession | None:
        """The session, if it is open."""
        is_open = self._opened.done() and not self._opened.cancelled() and self._opened.exception() is None
        return self._opened.result() if is_open and not self._let_go.is_set() else None

    async def opened(self) -> InferenceSession:
        """The session, once it is open. Raises what went wrong when it was opened."""
        return await asyncio.shield(self._opened)

    async def run(self, opening: AbstractAsyncContextManager[InferenceSession]) -> None:
        """Open a session and hold it. If we are cancelled the servers keep it: the bot will be back."""
        try:
            async with opening as session:
                self._opened.set_result(session)
                try:
                    await self._let_go.wait()
                finally:
                    if self.must_keep:
                        session.detach()
        except Exception as error:  # noqa: BLE001 - belongs to whoever waits for the session
            if self._opened.done():
                logger.warning("a session ended by itself: %s", error)
            else:
                self._opened.set_exception(error)
                self._opened.exception()  # whoever waits has it; nobody may
        finally:
            self._let_go.set()
            self._closed.set()

    async def let_go(self, *, keep: bool) -> None:
        """Close the session here; with `keep` the servers hold it for its lease."""
        self.must_keep = keep
        self._let_go.set()
        await self._closed.wait()
