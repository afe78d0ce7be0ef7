"""What `./murmur doctor` finds out about the keys on Matrix; no homeserver is there for it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bot.config.platforms import MatrixSettings
from bot.findings import Finding
from bot.on_matrix.account import SEEDS_FILE, SESSION_FILE
from bot.on_matrix.key_checkup import check_matrix_keys
from bot.on_matrix.key_files import database_of
from bot.on_matrix.signing_seeds import new_seeds, save_seeds
from tests.bot.on_matrix.test_key_files import DEVICE, HOMESERVER, SECRET, USER, logged_in, take_up


async def found(folder: Path, secret: str = SECRET) -> Finding:
    """The one thing that is found."""
    settings = MatrixSettings.model_validate(
        {"enabled": True, "homeserver": HOMESERVER, "user": USER, "store": folder, "store_secret": secret}
    )
    (finding,) = await check_matrix_keys(settings)
    assert finding.check == "matrix keys"
    assert "\n" not in finding.sentence
    assert SECRET not in finding.sentence
    return finding


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return logged_in(tmp_path / "matrix")


async def test_keys_that_are_not_there_yet_are_well(tmp_path: Path, folder: Path) -> None:
    for each in (tmp_path / "none", folder):
        finding = await found(each)
        assert (finding.level, finding.sentence) == ("ok", "they are made at the first start")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("what", ["device", "seeds", "both"])
async def test_the_right_secret_is_well_and_a_wrong_one_has_failed_in_one_sentence(
    folder: Path, what: str
) -> None:
    if what != "seeds":
        await take_up(folder)
    if what != "device":
        save_seeds(folder / SEEDS_FILE, USER, SECRET, new_seeds())
    right, wrong = await found(folder), await found(folder, "another secret")
    assert right.level == "ok"
    assert right.sentence == "store_secret opens the device's keys and those that sign it"
    assert wrong.level == "FAILED"
    assert "set the store_secret" in wrong.sentence


async def test_a_bot_without_a_secret_reads_no_keys_whatever_lies_there(folder: Path) -> None:
    for _ in range(2):
        finding = await found(folder, "")
        assert finding.level == "ok"
        assert finding.sentence == "none are needed: without a store_secret the bot does not encrypt"
        await take_up(folder)
        save_seeds(folder / SEEDS_FILE, USER, SECRET, new_seeds())


async def test_a_bot_that_runs_is_not_disturbed(folder: Path) -> None:
    await take_up(folder)
    with closing(sqlite3.connect(database_of(folder, USER, DEVICE), isolation_level=None)) as bot:
        bot.execute("BEGIN")
        bot.execute("SELECT count(*) FROM accounts").fetchone()
        assert (await found(folder)).level == "ok"
        bot.execute("UPDATE accounts SET shared = 1")
        bot.execute("COMMIT")


@pytest.mark.parametrize("content", [b"no database" * 500, b"SQLite format 3\0"])
async def test_a_broken_file_has_failed_in_one_sentence(folder: Path, content: bytes) -> None:
    database_of(folder, USER, DEVICE).write_bytes(content)
    finding = await found(folder)
    assert finding.level == "FAILED"
    assert finding.sentence.endswith("or log in anew with ./murmur matrix login")


async def test_a_session_or_seeds_that_cannot_be_read_have_failed(folder: Path) -> None:
    (folder / SEEDS_FILE).write_bytes(b"broken")
    assert (await found(folder)).sentence.endswith("restore it from a backup")
    (folder / SESSION_FILE).write_bytes(b"{")
    finding = await found(folder)
    assert (finding.level, "log in anew" in finding.sentence) == ("FAILED", True)
