"""What a node of the DHT lets in and keeps for others: records that prove themselves, within bounds.

Asking and announcing are dht.py's.
"""

import time
from typing import Any

import msgspec
from hivemind.dht import DHTID
from hivemind.dht.crypto import DHTRecord
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import RecordValidatorBase

from swarm.wire.records import BadRecord, Record, ServerRecord, open_any_record, verified_record

MAX_SUBKEYS = 1024
MAX_KEYS = 64
MAX_KEYS_PER_PEER = 4  # a server needs two: its model's and MODELS_KEY
MODELS_KEY = "murmur.models"


def servers_key(fingerprint: str) -> str:
    """The key under which the servers of one model stand."""
    return f"murmur.servers.{fingerprint}"


def key_of(record: Record) -> str:
    """The key under which `record` belongs."""
    return servers_key(record.fingerprint) if isinstance(record, ServerRecord) else MODELS_KEY


class SelfCertified(RecordValidatorBase):  # type: ignore[misc]
    """Accepts what the peer that the sub-key names has signed, under the key and until the time in it.

    The clock is left to the table: one entry that a validator refuses makes hivemind drop the whole answer,
    and what is in time by the clock of whoever answers need not be so by ours.
    """

    def validate(self, record: DHTRecord) -> bool:
        return opened(record.key, record.subkey, record.value, record.expiration_time) is not None


def opened(key: bytes, subkey: bytes, value: bytes, expiration_time: float) -> Record | None:
    """The record in an entry of the DHT, or None. `subkey` and `value` are packed by hivemind, in msgpack."""
    try:
        peer = msgspec.msgpack.decode(subkey, type=str)
        record = verified_record(msgspec.msgpack.decode(value, type=bytes), peer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    is_at_home = key == DHTID.generate(key_of(record)).to_bytes()
    # The entry's own time is not signed: a stranger must not prolong a record that was withdrawn.
    return record if is_at_home and expiration_time == record.expires_at else None


class BoundedStorage(DHTLocalStorage):  # type: ignore[misc]
    """A table with room for MAX_KEYS keys of MAX_SUBKEYS records; a newcomer to a full one is refused.

    Refusing newcomers, not dropping the oldest, keeps a flood of fresh peers from pushing out those that
    renew their records. A key is any fingerprint, so one peer has records under MAX_KEYS_PER_PEER at most,
    lest one identity take all keys. A record whose sequence number is below the stored one's never replaces
    it.
    """

    def store(self, key: DHTID, value: Any, expiration_time: float, subkey: Any = None) -> bool:
        """Keep one record; plain values and whole dictionaries have no place here."""
        return subkey is not None and self.store_subkey(key, subkey, value, expiration_time)

    def store_subkey(self, key: DHTID, subkey: Any, value: bytes, expiration_time: float) -> bool:
        """Keep `value`, already validated, if it is in time, newer than what is there, and has room."""
        record, entry = _in_time(subkey, value), super().get(key)
        if record is None:
            return False
        records = DictionaryDHTValue() if entry is None else entry.value
        held = records.get(subkey)
        if held is None and not self._has_room(entry, subkey):
            return False
        if held is not None and not _is_newer(record, subkey, held):
            return False
        is_stored: bool = records.store(subkey, value, expiration_time)
        if is_stored:
            super().store(key, records, records.latest_expiration_time)
        return is_stored

    def _has_room(self, entry: Any, peer: Any) -> bool:
        """Whether a first record of `peer` fits under the key of `entry`; None is a key not yet here."""
        if (len(self) >= MAX_KEYS) if entry is None else (len(entry.value) >= MAX_SUBKEYS):
            return False
        return sum(peer in other.value for _, other in self.items()) < MAX_KEYS_PER_PEER

    def get(self, key: DHTID) -> Any:
        """A copy: hivemind merges what strangers answer into what this returns."""
        entry = super().get(key)
        if entry is None:
            return None
        copy = DictionaryDHTValue()
        for subkey, item in entry.value.items():
            copy.store(subkey, item.value, item.expiration_time)
        return type(entry)(copy, entry.expiration_time)


def _in_time(peer: str, value: bytes) -> Record | None:
    try:
        return open_any_record(msgspec.msgpack.decode(value, type=bytes), peer, time.time())
    except (BadRecord, msgspec.MsgspecError):
        return None


def _is_newer(record: Record, peer: str, held: Any) -> bool:
    before = _in_time(peer, held.value)
    return before is None or (record.expires_at > before.expires_at and record.sequence >= before.sequence)
