"""Who sends too much too fast: asked to wait, and after so many times in a row ignored for a while."""

from dataclasses import dataclass

from bot.receiving.access import Access
from bot.words import Inbound
from storage.rate import Rate, TokenBuckets

RIGHTS = frozenset({"stop", "forget", "privacy", "help"})
"""Commands that end work, or tell people what they have a right to: they are counted apart from all else."""
RIGHTS_RATE = Rate(burst=20, interval_ms=3000)
"""More often nobody needs them, and each of their answers is one that others wait behind."""
MOST_HASTY = 10_000
MOST_COUNTED = 10_000
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Patience:
    """How often somebody may be too fast in a row, and for how long they are ignored then."""

    ignore_after: int = 20
    ignore_ms: int = 10 * MINUTE_MS


class Haste:
    """Counts messages and commands of each person."""

    def __init__(self, rate: Rate, patience: Patience, access: Access) -> None:
        self._buckets = TokenBuckets(rate)
        self._buckets_of_rights = TokenBuckets(RIGHTS_RATE)
        self._patience = patience
        self._access = access
        self._too_fast: dict[tuple[str, str], int] = {}
        self._refusals: dict[int, str] = {}

    def refusal(self, inbox_id: int, inbound: Inbound, now_ms: int) -> str:
        """Why this is not dealt with; "" if it is.

        It is counted once, however often it is taken up: it may wait for consent, or for the store. `now_ms`
        is of a clock that only goes on.
        """
        if inbox_id not in self._refusals:
            if len(self._refusals) >= MOST_COUNTED:
                del self._refusals[next(iter(self._refusals))]  # the oldest
            self._refusals[inbox_id] = self._counted(inbound, now_ms)
        return self._refusals[inbox_id]

    def _counted(self, inbound: Inbound, now_ms: int) -> str:
        is_right = inbound.call is not None and inbound.call.command in RIGHTS
        buckets = self._buckets_of_rights if is_right else self._buckets
        person = inbound.where.platform, inbound.author.external_id
        wait_ms = buckets.take(person, now_ms)
        if not wait_ms:
            if not is_right:
                self._too_fast.pop(person, None)
            return ""
        number = self._too_fast.pop(person, 0) + 1
        if number >= self._patience.ignore_after and not self._access.is_admin(person[1]):
            self._access.ignore(*person, self._patience.ignore_ms)
            minutes = max(1, round(self._patience.ignore_ms / MINUTE_MS))
            return f"That was too much too fast; I listen to you again in {minutes} minutes."
        self._note(person, number)
        return f"That was fast; please wait {1 + wait_ms // 1000} seconds."

    def _note(self, person: tuple[str, str], number: int) -> None:
        if len(self._too_fast) >= MOST_HASTY:
            del self._too_fast[next(iter(self._too_fast))]  # who was too fast longest ago
        self._too_fast[person] = number
