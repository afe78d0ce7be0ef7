"""Every released schema can be upgraded, and the newest is what the code believes it to be."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect

from storage.engines import migrating_engine
from storage.migrating import migrate
from storage.schema import metadata


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
