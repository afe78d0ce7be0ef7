"""Who may use the bot: what admins have said while it runs, and who is ignored for a while.

What the configuration allows and denies is the adapters' business; they and the core ask here at any time.
Who is denied stays so, whatever else allows it.
"""

from collections.abc import Collection, Iterable, Iterator

from bot.clock import Clock
from bot.receiving.habits import Habits
from storage.access import Said, hash_of, name_of, what_admins_said
from storage.database import Database
from storage.ledger import Person

MOST_IGNORED = 10_000
ORDERS = "admin"
"""What admins' commands begin with."""


class Access:
    """What holds now. `load` reads it from the store, after every change there."""

    def __init__(self, clock: Clock, admins: Collection[str] = (), key: bytes = b"") -> None:
        """`admins` are ids as their platforms write them, `key` that of the store's hashes."""
        self.habits = Habits()
        """How the bot behaves in places; loaded together with the rest."""
        self._clock = clock
        self._admins = frozenset(admins)
        self._key = key
        self._said = Said({}, {})
        self._has_hashes = False
        self._ignored_until_s: dict[str, float] = {}

    async def load(self, store: Database) -> None:
        """Take in what the store knows. Raises StoreUnusable."""
        self._said = await store.read(what_admins_said, self._clock.now_ms())
        names = (*self._said.rules, *self._said.banned_until_ms)
        self._has_hashes = any(name.startswith("#") for name in names)
        await self.habits.load(store)

    @property
    def admins(self) -> frozenset[str]:
        """Those whom the configuration names."""
        return self._admins

    def is_admin(self, external_id: str) -> bool:
        """The configuration names this person. Ids of different platforms cannot be mistaken."""
        return external_id in self._admins

    def is_order(self, external_id: str, command: str) -> bool:
        """An admin gives an admins' command, or has mistyped one: it is heard whatever admins have said.

        Else who denies the room they are in, or their own server, could not take that back.
        """
        return command.partition(" ")[0] == ORDERS and self.is_admin(external_id)

    def is_silenced(self, platform: str, external_id: str) -> bool:
        """Nothing of this person is heard now: banned, or ignored for a while."""
        now_ms, now_s = self._clock.now_ms(), self._clock.now_s()
        return any(
            self._said.banned_until_ms.get(name, 0) > now_ms or self._ignored_until_s.get(name, now_s) > now_s
            for name in self._names(platform, external_id)
        )

    def rule_for(self, platform: str, ids: Iterable[str], *, is_order: bool = False) -> bool | None:
        """Whether one of these ids is denied (False), or else one is allowed (True).

        For an order nothing is denied: whatever admins have said of it lets it past the lists of who is
        allowed. Those had been lifted before, or it was not there that it was said.
        """
        rules = self._said.rules
        if not rules:
            return None
        found = {rules[name] for each in ids for name in self._names(platform, each) if name in rules}
        return None if not found else is_order or False not in found

    def may_be_heard(self, platform: str, external_id: str, place: str, command: str = "") -> bool:
        """Nobody has said that this person, or this place, is not to be heard; or it is an order."""
        if self.is_order(external_id, command):
            return True
        is_denied = (
            self.rule_for(platform, [external_id]) is False or self.rule_for(platform, [place]) is False
        )
        return not is_denied and not self.is_silenced(platform, external_id)

    def ignore(self, platform: str, external_id: str, for_ms: int) -> None:
        """Hear nothing of somebody for a while; a restart ends it."""
        now_s = self._clock.now_s()
        if len(self._ignored_until_s) >= MOST_IGNORED:
            kept = {name: at for name, at in self._ignored_until_s.items() if at > now_s}
            while len(kept) >= MOST_IGNORED:
                del kept[min(kept, key=kept.__getitem__)]
            self._ignored_until_s = kept
        self._ignored_until_s[name_of(Person(platform, external_id))] = now_s + for_ms / 1000

    def listen_again(self, platform: str, external_id: str) -> bool:
        """End what `ignore` has begun; False if there was nothing to end."""
        now_s = self._clock.now_s()
        return self._ignored_until_s.pop(name_of(Person(platform, external_id)), now_s) > now_s

    def _names(self, platform: str, external_id: str) -> Iterator[str]:
        person = Person(platform, external_id)
        yield name_of(person)
        if self._has_hashes:
            yield hash_of(person, self._key)
