"""The file of our cross-signing seeds: whole or untouched, its owner's alone, useless without the secret."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.on_matrix.signing_seeds import (
    FILE_BYTES,
    SEED_BYTES,
    SeedsUnusable,
    load_seeds,
    new_seeds,
    save_seeds,
)

USER, SECRET = "@bot:example.org", "a secret"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "seeds"


def test_what_was_saved_is_loaded(path: Path) -> None:
    assert load_seeds(path, USER, SECRET) is None
    seeds = new_seeds()
    save_seeds(path, USER, SECRET, seeds)
    assert load_seeds(path, USER, SECRET) == seeds
    save_seeds(path, USER, SECRET, newer := new_seeds())
    assert load_seeds(path, USER, SECRET) == newer != seeds
    assert {len(seeds.master), len(seeds.self_signing), len(seeds.user_signing)} == {SEED_BYTES}
    assert len({seeds.master, seeds.self_signing, seeds.user_signing}) == 3


def test_only_its_owner_may_read_it_and_it_holds_no_seed_in_plain(path: Path) -> None:
    path.with_name(f"{path.name}.{os.getpid()}.part").touch(mode=0o644)  # a crash left it
    save_seeds(path, USER, SECRET, seeds := new_seeds())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == FILE_BYTES
    assert not any(seed in path.read_bytes() for seed in (seeds.master, seeds.self_signing))
    assert "secret" in repr(seeds)
    assert repr(seeds.master) not in repr(seeds)


@pytest.mark.parametrize(("user", "secret"), [(USER, "another secret"), ("@eve:example.org", SECRET)])
def test_neither_another_secret_nor_another_account_opens_it(path: Path, user: str, secret: str) -> None:
    save_seeds(path, USER, SECRET, new_seeds())
    with pytest.raises(SeedsUnusable, match="another secret or for another account"):
        load_seeds(path, user, secret)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:-1], lambda whole: whole + b"x"])
def test_a_file_of_another_length_is_refused(path: Path, damage: Callable[[bytes], bytes]) -> None:
    save_seeds(path, USER, SECRET, new_seeds())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SeedsUnusable, match="restore it from a backup"):
        load_seeds(path, USER, SECRET)


def test_a_flipped_bit_is_noticed(path: Path) -> None:
    save_seeds(path, USER, SECRET, new_seeds())
    whole = bytearray(path.read_bytes())
    whole[-40] ^= 1
    path.write_bytes(whole)
    with pytest.raises(SeedsUnusable):
        load_seeds(path, USER, SECRET)


def test_a_place_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "seeds"
    with pytest.raises(SeedsUnusable, match="cannot be written"):
        save_seeds(inside, USER, SECRET, new_seeds())
    with pytest.raises(SeedsUnusable, match="cannot be read"):
        load_seeds(inside, USER, SECRET)


def test_a_failed_write_leaves_what_was_there(path: Path) -> None:
    save_seeds(path, USER, SECRET, seeds := new_seeds())
    path.with_name(f"{path.name}.{os.getpid()}.part").mkdir()
    with pytest.raises(SeedsUnusable, match="cannot be written"):
        save_seeds(path, USER, SECRET, new_seeds())
    assert load_seeds(path, USER, SECRET) == seeds
