"""The files with the device's keys, as the real matrix-nio writes them: for their owner alone."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bot.on_matrix.account import SESSION_FILE, NotLoggedIn, Session, log_in, open_account
from bot.on_matrix.key_files import check_keys, database_of

HOMESERVER, USER, DEVICE, SECRET = "http://127.0.0.1:9", "@bot:example.org", "DEVICE", "a secret"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Whatever is made without a mode is open to everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def logged_in(folder: Path, device: str = DEVICE) -> Path:
    """A folder as `log_in` leaves it; no homeserver is needed to take it up."""
    folder.mkdir(exist_ok=True)
    (folder / SESSION_FILE).write_bytes(msgspec.json.encode(Session(HOMESERVER, USER, device, "a token")))
    return folder


async def take_up(folder: Path, secret: str = SECRET) -> str:
    """Open the account and write to its keys; returns what identifies the device."""
    async with open_account(HOMESERVER, USER, folder, secret) as client:
        client.olm.save_account()
        return str(client.olm.account.identity_keys["ed25519"])


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("open_umask")
async def test_the_keys_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = logged_in(tmp_path / "matrix")
    key = await take_up(folder)
    made = [path for path in folder.iterdir() if path.name.startswith(USER)]
    assert database_of(folder, USER, DEVICE) in made
    assert {path.name: mode_of(path) for path in made} == {path.name: 0o600 for path in made}
    assert mode_of(folder) == 0o700
    assert await take_up(folder) == key, "a file that was made before has the keys in it"


@pytest.mark.usefixtures("open_umask")
async def test_what_an_older_start_left_open_is_closed_and_other_files_are_left_alone(tmp_path: Path) -> None:
    folder = logged_in(tmp_path / "matrix")
    key = await take_up(folder)
    own = database_of(folder, USER, DEVICE)
    older = [folder / f"{USER}_OLDER.db", folder / f"{USER}_OLDER.db-journal", own]
    others = [folder / "notes.txt", folder / "@eve:example.org_X.db", folder / f"{USER}_notes"]
    (inner := folder / f"{USER}_folder.db").mkdir(mode=0o755)
    for path in (*older, *others):
        path.touch()
        path.chmod(0o644)
    assert await take_up(folder) == key
    assert [mode_of(path) for path in older] == [0o600] * len(older)
    assert [mode_of(path) for path in others] == [0o644] * len(others)
    assert mode_of(inner) == 0o755


async def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotLoggedIn, match=r"cannot be used: .*name another folder with") as wrong:
        await log_in(HOMESERVER, USER, "a password", tmp_path / "file")
    assert "\n" not in str(wrong.value)
    folder = logged_in(tmp_path / "matrix")
    database_of(folder, USER, DEVICE).mkdir()
    with pytest.raises(NotLoggedIn, match="cannot be used: Is a directory"):
        await take_up(folder)


async def test_looking_at_keys_changes_nothing(tmp_path: Path) -> None:
    folder = logged_in(tmp_path / "matrix")
    assert not check_keys(folder, folder / "seeds", USER, DEVICE, SECRET)
    assert [path.name for path in folder.iterdir()] == [SESSION_FILE]
    await take_up(folder)
    path = database_of(folder, USER, DEVICE)
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    path.chmod(0o400)
    assert check_keys(folder, folder / "seeds", USER, DEVICE, SECRET)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
