"""Where people are received, put together under the operator's rules."""

from bot.clock import Clock
from bot.receiving.access import Access
from bot.receiving.consent import Consent
from bot.receiving.haste import Haste
from bot.receiving.reception import Desk
from bot.rules import Rules
from storage.database import Database


def open_desk(
    store: Database, clock: Clock, hash_key: bytes, rules: Rules, access: Access | None = None
) -> Desk:
    """Where people are received, under these rules."""
    known = access or Access(clock, key=hash_key)
    return Desk(
        store,
        clock,
        rules.rates,
        hash_key,
        known,
        Haste(rules.rate, rules.patience, known),
        rules.place_notice,
        rules.attachment_bytes,
        letters=rules.letters,
        consent=Consent(store, clock, rules.consent_notice),
    )
