"""What can go wrong with the store; every message is a sentence that may be shown to an operator."""


class StorageError(Exception):
    """Base of all errors of this package."""


class StoreInUse(StorageError):
    """Another bot process holds this store."""


class StoreTooNew(StorageError):
    """A newer version of Murmur has written this store."""


class StoreUnusable(StorageError):
    """The file cannot be opened, read or written: full disk, read-only, damaged."""


class StoreTooOld(StoreUnusable):
    """An older version of Murmur has written this store; the bot upgrades it when it starts."""


class StoreBusy(StorageError):
    """Too much waits to be written, or another process kept the store locked for too long."""


class QuotaExceeded(StorageError):
    """The account cannot pay for this turn."""

    def __init__(self, available: int, needed: int, used_earlier: int = 0) -> None:
        """`used_earlier` is what its owner had used today when they were forgotten."""
        super().__init__(f"{needed} credits are needed and {available} are available")
        self.available = available
        self.needed = needed
        self.used_earlier = used_earlier
