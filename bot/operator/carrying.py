"""Who carries a command out: a bot that runs, through its control socket, or we, on its store.

What changes data is written beside a running bot. What a running bot has in its memory goes through it; if
none runs, the store is ours for that moment, and its lock keeps one from starting.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bot.clock import RealClock
from bot.commands.naming import Mistaken
from bot.commands.office import Done, Office
from bot.config.models import Settings
from bot.operator.actions import ALL_ACTIONS
from bot.operator.calling import NobodyListens, call
from bot.receiving.access import Access
from storage.amounts import Rates
from storage.database import Database, open_database
from storage.errors import StoreInUse
from storage.hash_key import load_hash_key

ACTOR = "operator"
ON_DATA = frozenset({"admin audit", "admin grant", "admin reports", "quota set", "quota show"})
"""Nobody has in memory what they change."""
ON_LIFE = frozenset({"admin drain", "admin kill"})
"""Without a bot they make no sense."""


async def carry_out(settings: Settings, command: str, arguments: Mapping[str, str]) -> Done:
    """Have it done. Raises Mistaken, StorageError."""
    socket = settings.ops.control_socket
    if command not in ON_DATA:
        try:
            return await call(socket, command, arguments)
        except NobodyListens as error:
            if command in ON_LIFE:
                raise Mistaken(f"no bot listens on {socket}, so there is nothing to do") from error
    async with open_office(settings, is_alone=command not in ON_DATA) as office:
        return await ALL_ACTIONS[command](office, arguments)


@asynccontextmanager
async def open_office(settings: Settings, *, is_alone: bool) -> AsyncIterator[Office]:
    """The store of a configuration, in our hands alone or beside a bot. Raises Mistaken, StorageError."""
    path, clock, quota = settings.storage.path, RealClock(), settings.quota
    check_store(path)
    rates = Rates(quota.daily_grant, quota.balance_cap, quota.prefill_percent, quota.least_new_tokens)
    async with AsyncExitStack() as stack:
        store = await _opened(stack, settings, is_alone=is_alone)
        key = load_hash_key(path)
        access = Access(clock, settings.bot.admins, key)
        await access.load(store)
        yield Office(store, clock, rates, key, access, ACTOR)


def check_store(path: Path) -> None:
    """Raise Mistaken, with a remedy, if there is no such store."""
    if path.exists():
        return
    if path.is_absolute():
        raise Mistaken(
            f"there is no store {path} yet: start the bot once, or name its configuration with --config"
        )
    raise Mistaken(
        f"there is no store {path.absolute()}: relative paths, as that of [storage], start where ./murmur is"
        " called; call it where the bot is started, or start the bot once"
    )


async def _opened(stack: AsyncExitStack, settings: Settings, *, is_alone: bool) -> Database:
    path = settings.storage.path
    try:
        return await stack.enter_async_context(open_database(path))
    except StoreInUse as error:
        if is_alone:
            raise Mistaken(
                f"{error}, and nobody listens on {settings.ops.control_socket}: if that bot is starting or"
                " stopping, try again in a moment"
            ) from error
    return await stack.enter_async_context(open_database(path, is_alone=False))
