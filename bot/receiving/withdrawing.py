"""A person deletes a message on the platform: what was made of it goes, wherever it is by then.

It may still wait in the inbox, be answered at this moment, or have been answered long ago. Its event is
disposed of last of all, so that after a crash all of this is done again.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import msgspec

from bot.brain import Brain
from bot.clock import Clock
from bot.sending.outbound import Outbound
from bot.sending.pacing import Priority
from bot.words import Inbound, Origin, Refused, SendError, Where
from storage.database import Database, Transaction
from storage.deliveries import deliveries_of
from storage.inbox import Waiting, dispose, withdraw_event
from storage.live_sessions import LiveSession
from storage.messages import is_being_answered, places_of, turns_of
from storage.privacy import forget_message
from storage.transcript import Said, get_turn

logger = logging.getLogger(__name__)

LOOK_S = 0.2
TRIES = 300
AGAIN_S = (1.0, 5.0, 20.0)

T = TypeVar("T")


class Withdrawal:
    """Takes messages back. `end_turn` ends a turn and waits until nothing of it is done any more."""

    def __init__(
        self, store: Database, brain: Brain, clock: Clock, end_turn: Callable[[str], Awaitable[None]]
    ) -> None:
        self._store = store
        self._brain = brain
        self._clock = clock
        self._end_turn = end_turn

    async def __call__(self, waiting: Waiting, inbound: Inbound, port: Outbound) -> None:
        """Take back what `inbound.deleted` names."""
        for _ in range(TRIES):
            for said in await self._store.read(_turns, inbound):
                await self._end_turn(said.question.turn_id)
            for said in await self._store.read(_turns, inbound):
                await self._take_away(said, port)
            touched = await self._store.write(_forget, waiting.inbox_id, inbound)
            if touched is not None:
                await let_go(self._brain, self._store, touched)
                return
            await self._clock.sleep(LOOK_S)  # a turn is about to begin
        logger.warning("what event %s has deleted is still being answered", inbound.event_id)

    async def _take_away(self, said: Said, port: Outbound) -> None:
        """Take what shows an answer away, if the platform lets us."""
        origin = msgspec.json.decode(said.question.origin, type=Origin)
        shown = await self._store.read(deliveries_of, said.question.turn_id)
        unsure = [each.key for each in shown if each.message_id is None]
        found: dict[str, str] = {}
        if unsure:
            find = partial(port.find, origin.where, origin.event_id, unsure)
            found = await self._insist(find) or {}
        for each in shown:
            message_id = each.message_id or found.get(each.key)
            if message_id is not None:
                await self._insist(partial(_remove, port, origin.where, message_id))

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do it, again if the platform cannot be reached; None if it cannot be done."""
        for wait_s in (*AGAIN_S, None):
            try:
                return await work()
            except SendError as error:
                logger.warning("the answer to a deleted message is still shown: %s", error)
                if isinstance(error, Refused) or wait_s is None:
                    return None
                await self._clock.sleep(wait_s)
        raise AssertionError("the last try returns")


async def _remove(port: Outbound, where: Where, message_id: str) -> None:
    await port.pacer(where).send(Priority.NOTICE, None, partial(port.remove, where, message_id))


async def let_go(
    brain: Brain,
    store: Database,
    conversations: Iterable[int],
    sessions: Mapping[int, LiveSession] = MappingProxyType({}),
) -> None:
    """Close the sessions that know what is deleted, and leave no bytes of it.

    `sessions` are those that the store knows no more.
    """
    for conversation_id in conversations:
        await brain.forget(conversation_id, sessions.get(conversation_id))
    await store.scrub()


def _places(connection: Transaction, inbound: Inbound) -> list[int]:
    return places_of(connection, inbound.where.platform, inbound.where.place, inbound.deleted)


def _turns(connection: Transaction, inbound: Inbound) -> list[Said]:
    places = _places(connection, inbound)
    turns = [turn_id for place_id in places for turn_id in turns_of(connection, place_id, inbound.deleted)]
    return [said for turn_id in turns if (said := get_turn(connection, turn_id)) is not None]


def _forget(connection: Transaction, inbox_id: int, inbound: Inbound) -> set[int] | None:
    """Delete all of it at once; None if something of it is being answered."""
    places = _places(connection, inbound)
    if any(is_being_answered(connection, place_id, inbound.deleted) for place_id in places):
        return None
    withdraw_event(connection, inbound.where.platform, inbound.deleted)
    dispose(connection, inbox_id)
    touched = (forget_message(connection, place_id, inbound.deleted) for place_id in places)
    return set().union(*touched)
