"""Every file of a model that we parse ourselves, and pages that are copied: strangers made them too.

A file gives a value or a sentence (ConfigError); pages give a cache or a refusal. What transformers and
tokenizers parse is theirs: here it must only not end in anything but a sentence.
"""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.page_copy import MAX_PAGES_FRAME_BYTES
from server.session_table import Refused
from server.throughput import Setup, recall_throughput
from swarm.checkpoint import open_checkpoint
from swarm.checkpoint.digests import load_digests, read_checksums
from swarm.checkpoint.headers import read_header, read_tensor
from swarm.errors import ConfigError, PeerUnreachable
from swarm.identity import load_identity
from swarm.streams import StreamRules
from swarm.text import load_tokenizer
from swarm.wire.frames import FROM_CHAIN, BadFrame, encode_frame
from tests.server.page_servers import COMMIT, all_pages, hello, serving, stream_pair
from tests.swarm.checkpoints import save_random_model
from tests.swarm.tokenizers_for_tests import byte_level
from tests.wire.fuzz import EXAMPLES, FEW, Decoder, check, mutations, within

FILE_BYTES = 17 << 20  # one buffer of 4 MiB for a file of ours, its text, and what Python takes beside


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_random_model(folder, max_shard_size="20KB")
    byte_level().save_pretrained(folder)
    return folder


def file_decoder(folder: Path, name: str, seed: bytes, read: Callable[[Path], object]) -> Decoder:
    """Read bytes by way of a file."""
    path = folder / name

    def decode(raw: bytes) -> None:
        path.write_bytes(raw)
        read(path)

    return Decoder(decode, [seed], ConfigError, growth=256, least=FILE_BYTES)


def read_all(path: Path) -> None:
    header = read_header(path)
    for name in header.tensors:
        read_tensor(path, header, name)


def recall(path: Path) -> None:
    setup = Setup("f" * 32, 4, "cpu", "float32", "none", torch.__version__)
    recall_throughput(path, setup, lambda: MEASURED)


MEASURED = recall_throughput.__annotations__["return"](1.0, 2.0)
DIGEST = "0123456789abcdef" * 4
FILES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "x.safetensors": (b"", read_all),
    "digests.json": (json.dumps({"a": DIGEST, "b": DIGEST}).encode(), load_digests),
    "SHA256SUMS": (f"{DIGEST}  a.safetensors\n{DIGEST} *b.safetensors\n".encode(), read_checksums),
    "throughput.json": (b"", recall),
}


@EXAMPLES
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_bytes_gives_a_value_or_a_sentence(
    name: str, num_examples: int, tmp_path: Path, model: Path
) -> None:
    seed, read = FILES[name]
    if name == "x.safetensors":
        seed = min(model.glob("*.safetensors"), key=lambda path: path.stat().st_size).read_bytes()
    elif name == "throughput.json":
        recall(tmp_path / "made.json")
        seed = (tmp_path / "made.json").read_bytes()
    check(file_decoder(tmp_path, name, seed, read), num_examples)


def test_rare_characters_in_a_list_of_checksums_take_no_more_memory_than_others(tmp_path: Path) -> None:
    decoder = file_decoder(tmp_path, "SHA256SUMS", *FILES["SHA256SUMS"])
    rare = "\U00010000\r".encode()
    with within(decoder.growth * len(rare) + decoder.least):
        decoder.decode(rare)


@EXAMPLES
def test_an_identity_of_any_bytes_gives_an_identity_or_a_sentence(num_examples: int, tmp_path: Path) -> None:
    load_identity(tmp_path / "made")
    seed = (tmp_path / "made").read_bytes()
    check(file_decoder(tmp_path, "identity", seed, load_identity), num_examples)


def open_model(folder: Path) -> None:
    """What a client and a server look at before they read weights."""
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.num_blocks >= 1
    assert checkpoint.hidden_size >= 1
    assert checkpoint.max_positions is None or checkpoint.max_positions > 0
    checkpoint.find_fingerprint()


@pytest.mark.parametrize(
    "num_examples", [FEW, pytest.param(2500, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_model_with_a_file_of_any_bytes_opens_or_is_told_in_a_sentence(
    name: str, num_examples: int, tmp_path: Path, model: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    seed = (folder / name).read_bytes()
    check(file_decoder(folder, name, seed, lambda path: open_model(path.parent)), num_examples)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 7, 2**31, 2**63, 10**30]) | st.floats()
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "num_examples", [FEW, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_config_with_any_value_in_any_field_opens_or_is_told_in_a_sentence(
    num_examples: int, tmp_path: Path, model: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())

    @given(changes=st.dictionaries(st.sampled_from(sorted(config)), JUNK, min_size=1, max_size=2))
    @settings(max_examples=num_examples, suppress_health_check=list(HealthCheck))
    def opens(changes: dict[str, Any]) -> None:
        (folder / "config.json").write_text(json.dumps(config | changes))
        try:
            open_model(folder)
            open_checkpoint(str(folder)).block_tensor_names(0)
        except ConfigError:
            return

    opens()


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
)
@pytest.mark.parametrize(
    "num_examples", [40, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_tokenizer_with_a_file_of_any_bytes_loads_or_is_told_in_a_sentence(
    name: str, num_examples: int, tmp_path: Path, model: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")

    def load(path: Path) -> None:
        load_tokenizer(open_checkpoint(str(path.parent))).encode_chat([{"role": "user", "content": "hello"}])

    seed = (folder / name).read_bytes()
    decoder = file_decoder(folder, name, seed, load)

    @given(raw=mutations(decoder.seeds))
    @settings(max_examples=num_examples, suppress_health_check=list(HealthCheck))
    def decode(raw: bytes) -> None:
        try:
            decoder.decode(raw)
        except ConfigError:
            return

    decode()


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "num_examples", [FEW, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_pages_of_any_bytes_are_taken_whole_or_not_at_all(num_examples: int) -> None:
    pages = b"".join(raw for message, halves in all_pages() for raw in encode_frame(message, halves))
    greeting = b"".join(encode_frame(hello()))

    @given(raw=mutations([greeting + pages]))
    @settings(max_examples=num_examples, suppress_health_check=list(HealthCheck))
    def take(raw: bytes) -> None:
        asyncio.run(take_pages(raw))

    asyncio.run(take_pages(greeting + pages))
    take()


async def take_pages(raw: bytes) -> None:
    """Whatever comes, the session holds all of its commit afterwards or nothing; and its room, no more."""
    async with serving() as server:
        await server.bind()
        theirs, ours = await stream_pair(
            StreamRules(1, FROM_CHAIN), StreamRules(MAX_PAGES_FRAME_BYTES, FROM_CHAIN)
        )
        theirs._writer.write(raw)
        theirs._writer.write_eof()
        try:
            await server.copies.take(ours)
        except (Refused, BadFrame, PeerUnreachable):
            pass
        finally:
            theirs.close()
            ours.close()
        (session,) = server.host.table.sessions()
        assert session.position in (0, COMMIT)
