"""Key files and peer ids: libp2p agrees with both, and a damaged file is one sentence."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.client import join
from swarm.dht import open_dht
from swarm.errors import ConfigError
from swarm.identity import holding, load_identity, temporary_identity
from swarm.transport import open_transport
from swarm.wire.keys import NotAPeerId, is_signed_by, peer_id_of, public_key_of


def test_a_new_identity_is_kept_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "me.key"
    first = load_identity(path)
    assert load_identity(path).peer_id == first.peer_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["me.key"]


@pytest.mark.parametrize("raw", [b"", b"junk", bytes(68), bytes([8, 1, 18, 64]) + bytes(64)])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "me.key"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="holds no Ed25519 identity"):
        load_identity(path)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        load_identity(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be used"):
        load_identity(tmp_path / "file" / "me.key")


def test_a_device_without_an_end_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="no Ed25519 identity"):
        load_identity(Path("/dev/zero"))


def test_a_file_may_be_named_by_a_text(tmp_path: Path) -> None:
    path = tmp_path / "me.key"
    assert load_identity(str(path)).peer_id == load_identity(path).peer_id
    assert load_identity(str(path)).path == path


async def test_whoever_joins_may_name_the_file_by_a_text_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "me.key"
    async with open_transport() as other, open_dht(other):
        for name in (str(path), path):
            async with join(other.addresses, identity=name) as swarm:
                assert swarm.transport.peer_id == load_identity(path).peer_id


async def test_libp2p_reads_the_file_and_finds_the_same_peer_id(tmp_path: Path) -> None:
    identity = load_identity(tmp_path / "me.key")
    async with open_transport(identity) as transport:
        assert transport.p2p.peer_id.to_base58() == identity.peer_id
        assert transport.addresses[0].endswith(f"/p2p/{identity.peer_id}")


async def test_two_processes_cannot_use_one_identity(tmp_path: Path) -> None:
    identity = load_identity(tmp_path / "me.key")
    with holding(identity), pytest.raises(ConfigError, match="another process"):
        async with open_transport(identity):
            pass
    with holding(identity):
        pass


def test_a_temporary_identity_leaves_no_file() -> None:
    with temporary_identity() as identity:
        assert identity.path.exists()
    assert not identity.path.parent.exists()


def test_a_signature_is_checked_with_the_peer_id_alone() -> None:
    with temporary_identity() as ours, temporary_identity() as theirs:
        signature = ours.sign(b"hello")
        assert is_signed_by(ours.peer_id, signature, b"hello")
        assert not is_signed_by(ours.peer_id, signature, b"hallo")
        assert not is_signed_by(theirs.peer_id, signature, b"hello")
        assert not is_signed_by("nobody", signature, b"hello")


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_contains_its_key(public_key: bytes) -> None:
    peer_id = peer_id_of(public_key)
    assert peer_id.startswith("12D3Koo")
    assert public_key_of(peer_id) == public_key


@given(st.text(max_size=60) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdef", min_size=52, max_size=52))
def test_no_other_text_is_a_peer_id(text: str) -> None:
    with pytest.raises(NotAPeerId):
        public_key_of(text)


def test_a_peer_id_of_another_kind_of_key_is_refused() -> None:
    with pytest.raises(NotAPeerId):
        public_key_of("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
