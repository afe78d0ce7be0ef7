"""How the bot behaves in places where moderators have said so; adapters ask at any time, without waiting.

`always`: every message there is for us. `threads`: each conversation that begins there gets a thread.
"""

from collections.abc import Mapping
from typing import Literal

from storage.database import Database
from storage.settings import Value, settings_of_places

Habit = Literal["always", "threads"]
HABITS: tuple[Habit, ...] = ("always", "threads")


class Habits:
    """What holds now. `load` reads it from the store, after every change there."""

    def __init__(self) -> None:
        self._said: Mapping[tuple[str, str, str], Value] = {}

    async def load(self, store: Database) -> None:
        """Take in what the store knows. Raises StoreUnusable."""
        self._said = await store.read(settings_of_places, HABITS)

    def is_on(self, habit: Habit, platform: str, place: str) -> bool | None:
        """What moderators have said of a place; None if nothing."""
        said = self._said.get((platform, place, habit))
        return None if said is None else said is True
