"""Where the operator asks for it: nobody's words leave for the swarm before they have agreed to that.

Until then a question stays in the inbox. It is answered if its author agrees while it is fresh, and forgotten
if not.
"""

from collections.abc import Iterable

from bot.clock import Clock
from bot.once import Once
from bot.words import Inbound
from storage.access import account_named
from storage.database import Database, Transaction
from storage.inbox import Waiting, dispose, waiting
from storage.ledger import Person
from storage.settings import set_setting, settings_of

FRESH_MS = 600_000
MOST_KEPT = 3
"""Questions of one person: answered all at once when they agree, and not too fast then."""
KEY = "consent"
"""Of an account's setting: it is exported and forgotten with the others."""
COMPUTED = frozenset({"retry", "continue"})
"""Commands that let the swarm compute something anew."""
HOW = "If that is all right, give the command `agree`; I keep your question for ten minutes."
NOTHING_ASKED = "There is nothing here that you have to agree to; just ask."


class Consent:
    """Knows who has agreed to `notice`; where it is "" nobody has to."""

    def __init__(self, store: Database, clock: Clock, notice: str) -> None:
        self.notice = notice
        self._store = store
        self._clock = clock
        self._told = Once(FRESH_MS / 1000)

    async def is_missing(self, inbound: Inbound) -> bool:
        """Whether this must not be dealt with yet."""
        call = inbound.call
        if not self.notice or (call is not None and call.command not in COMPUTED):
            return False
        person = Person(inbound.where.platform, inbound.author.external_id)
        return not await self._store.read(_has_agreed, person)

    def question(self, inbound: Inbound) -> str:
        """What to ask somebody; "" if they were asked a moment ago at the same place."""
        key = inbound.where.platform, inbound.author.external_id, inbound.where.place
        return f"{self.notice} {HOW}" if self._told.is_first(key, self._clock.now_s()) else ""

    async def give(self, inbound: Inbound, account_id: int) -> None:
        """Somebody agrees; whoever takes it back is asked again."""
        person = inbound.where.platform, inbound.author.external_id
        self._told.forget_those(lambda key: isinstance(key, tuple) and key[:2] == person)
        await self._store.write(set_setting, "account", account_id, KEY, True)

    async def kept(self, platform: str, sender: str) -> list[Waiting]:
        """What somebody has asked before they agreed, as far as it is fresh."""
        since_ms = self._clock.now_ms() - FRESH_MS
        events = await self._store.read(waiting, platform)
        return [each for each in events if each.event.sender == sender and each.received_ms >= since_ms]

    async def has_too_many(self, inbound: Inbound) -> bool:
        """Whether more of a person's questions are kept than will be answered."""
        return len(await self.kept(inbound.where.platform, inbound.author.external_id)) > MOST_KEPT

    async def let_go_of_old(self, platforms: Iterable[str]) -> None:
        """Forget questions whose authors have not agreed in time."""
        before_ms = self._clock.now_ms() - FRESH_MS
        for platform in platforms if self.notice else ():
            for each in await self._store.read(waiting, platform):
                if each.received_ms < before_ms:
                    await self._store.write(dispose, each.inbox_id)


def _has_agreed(connection: Transaction, person: Person) -> bool:
    account_id = account_named(connection, person)
    return account_id is not None and settings_of(connection, "account", account_id).get(KEY) is True
