"""Every released schema can be upgraded, and the newest is what the code believes it to be."""

import os
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, inspect

from storage.engines import migrating_engine
from storage.migrating import MIGRATIONS, migrate
from storage.schema import metadata
from tests.storage.people import upgrade_to


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "murmur.db")
    return tmp_path / "murmur.db"


def test_the_newest_schema_is_that_of_the_code(path: Path) -> None:
    engine = migrating_engine(path)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_checks_and_unique_rules_are_in_the_file_too(path: Path) -> None:
    engine = migrating_engine(path)
    found = inspect(engine)
    for table in metadata.sorted_tables:
        checks = {str(check["name"]) for check in found.get_check_constraints(table.name)}
        constraints = (it for it in table.constraints if isinstance(it, CheckConstraint))
        assert checks == {
            f"ck_{table.name}_{str(it.name).removeprefix(f'ck_{table.name}_')}" for it in constraints
        }
    engine.dispose()


def test_a_second_start_changes_nothing_and_copies_nothing(path: Path) -> None:
    before = path.read_bytes()
    migrate(path)
    assert path.read_bytes() == before
    assert [it.name for it in path.parent.iterdir() if "before" in it.name] == []


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_a_store_of_an_earlier_version_is_upgraded_and_copied_aside(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "murmur.db"
    upgrade_to(path, revision)
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO account (platform, external_id, created_at) VALUES ('m', '@ada', 0)")
    connection.close()
    migrate(path)
    for file in (path, tmp_path / f"murmur.db.before-{revision}"):
        with sqlite3.connect(file) as connection:
            assert connection.execute("SELECT external_id FROM account").fetchall() == [("@ada",)]
        connection.close()
    test_the_newest_schema_is_that_of_the_code(path)


def test_entries_of_the_ledger_outlive_the_upgrade_and_refunds_may_be_added(tmp_path: Path) -> None:
    path = tmp_path / "murmur.db"
    upgrade_to(path, "0003")
    entry = "INSERT INTO ledger (account_id, kind, amount, turn_id, period, at) VALUES (1, ?, ?, ?, ?, 0)"
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO account (platform, external_id, created_at) VALUES ('m', '@ada', 0)")
        connection.execute(entry, ("daily", 1000, None, "2026-11-26"))
        connection.execute(entry, ("charge", -10, "t", None))
        connection.execute("INSERT INTO forgotten VALUES (x'00', '2026-11-26', 1000, NULL)")
    connection.close()
    migrate(path)
    with sqlite3.connect(path) as connection:
        connection.execute(entry, ("refund", 10, "t", None))
        for again in (
            ("refund", 10, "t", None),
            ("charge", -10, "t", None),
            ("daily", 1, None, "2026-11-26"),
        ):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(entry, again)
        assert connection.execute("SELECT kind, amount FROM ledger").fetchall() == [
            ("daily", 1000), ("charge", -10), ("refund", 10),
        ]  # fmt: skip
        assert connection.execute("SELECT period, used FROM forgotten").fetchall() == [("2026-11-26", 1000)]
    connection.close()


def test_every_released_revision_is_upgraded_by_a_test() -> None:
    released = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][1:]
    (tested,) = (
        mark.args[1]
        for mark in test_a_store_of_an_earlier_version_is_upgraded_and_copied_aside.pytestmark  # type: ignore[attr-defined]
    )
    assert sorted(released) == sorted(tested)


def test_copies_of_earlier_versions_are_removed_after_a_month(path: Path) -> None:
    old, new = (path.with_name(f"{path.name}.before-{name}") for name in ("old", "new"))
    for copy in (old, new):
        copy.write_text("what somebody said")
    os.utime(old, (0, 0))
    migrate(path)
    assert (old.exists(), new.exists()) == (False, True)
