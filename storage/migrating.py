"""Bring a store up to this version's schema, or refuse it. Called once, under the instance lock."""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from storage.backup import copy_store
from storage.engines import migrating_engine, reading_engine
from storage.errors import StoreTooNew, StoreTooOld, StoreUnusable

KEEP_COPIES_S = 30 * 86_400
MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(path: Path) -> None:
    """Upgrade the store at `path`, which need not exist yet; what is upgraded is copied beside it before.

    Such copies are removed after a month: they still have what people asked us to forget.

    Raises StoreTooNew, or StoreUnusable if an upgrade would break references between tables.
    """
    _remove_old_copies(path)
    engine = migrating_engine(path)
    try:
        with engine.begin() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
            if current == _newest():
                # SQLite begins to write a file that may not be written without a word: it is told now.
                connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
                return
            _check_known(path, current)
        if current is not None:
            copy_store(path, path.with_name(f"{path.name}.before-{current}"), replace=True)
        with engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _check_references(connection)
    finally:
        engine.dispose()


def _remove_old_copies(path: Path) -> None:
    for copy in path.parent.glob(f"{path.name}.before-*"):
        if time.time() - copy.stat().st_mtime > KEEP_COPIES_S:
            copy.unlink(missing_ok=True)


def check_schema(path: Path) -> None:
    """See that the store at `path` is there and of this version.

    Raises StoreUnusable if it is missing or older, StoreTooNew if it is newer.
    """
    if not path.exists():
        raise StoreUnusable(f"there is no store at {path}: start the bot once, or name another file")
    engine = reading_engine(path)
    try:
        with engine.begin() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    _check_known(path, current)
    if current != _newest():
        raise StoreTooOld(f"{path} was written by an older Murmur: start the bot once, which upgrades it")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _newest() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _check_known(path: Path, revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreTooNew(
            f"{path} was written by a newer Murmur (schema {revision}): install that, or restore a backup"
        )


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise StoreUnusable(f"the upgrade would break what {broken[0]} refers to; nothing was changed")
