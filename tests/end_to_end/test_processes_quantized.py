"""Real servers whose blocks are quantized: they come up, say so, and answer what their blocks compute."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from server.block_loader import load_span
from swarm.checkpoint import open_checkpoint
from swarm.model_ends import load_ends
from swarm.wire.blocks import Span
from tests.end_to_end.conversations import answer, open_client
from tests.end_to_end.processes import Forge, open_process_swarm

DEMO_MODEL = Path(__file__).parents[2] / "demo" / "model"
QUESTION = "What is a block server?"
NUM_TOKENS = 12

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stored_in_nf4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as transformers stores it in nf4, with its tokenizer."""
    path = tmp_path_factory.mktemp("stored") / "model"
    shutil.copytree(DEMO_MODEL, path)
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    model = AutoModelForCausalLM.from_pretrained(path, quantization_config=config, dtype=torch.float32)
    model.save_pretrained(path)
    return path


def local_ids(path: Path, quantization: str, prompt: list[int]) -> list[int]:
    """What all blocks answer greedily in this process, each token from the start."""
    checkpoint = open_checkpoint(str(path))
    span = Span(0, checkpoint.num_blocks)
    base, ends = load_span(checkpoint, span, dtype="fp32", quantization=quantization), load_ends(checkpoint)
    ids = list(prompt)
    for _ in range(NUM_TOKENS):
        with torch.inference_mode():
            hidden = base(inputs_embeds=ends.embed(ids)[None], use_cache=False)[0]
        ids.append(int(ends.logits(hidden[0, -1:]).argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("asked", ["int8", "nf4", "as stored"])
async def test_servers_of_quantized_blocks_come_up_and_answer(
    forge: Forge, asked: str, stored_in_nf4: Path
) -> None:
    is_stored = asked == "as stored"
    model_path = stored_in_nf4 if is_stored else DEMO_MODEL
    kind, options = ("nf4", ()) if is_stored else (asked, ("--quantization", asked))
    with open_process_swarm(forge, model_path) as swarm:
        servers = [swarm.begin(blocks, *options) for blocks in ("0:3", "3:8")]
        for server in servers:
            server.wait_ready()
            assert "tokens/s" in server.log, "it has measured itself"
            assert "kernels-community" not in server.log
            assert "WARNING" not in server.log
        async with open_client(swarm.initial_peers, model_path) as model, model.session() as session:
            prompt = list(model.tokenizer.encode_chat([{"role": "user", "content": QUESTION}]))
            ids = await answer(model, session, NUM_TOKENS, prompt=prompt)
            assert len({hop.peer_id for hop in session.route}) == 2
            records = model.network.directory.servers
        assert ids == local_ids(model_path, "none" if is_stored else kind, prompt)
        assert {(record.quantization, record.dtype) for record in records} == {(kind, "float32")}
        assert all(record.throughput > 0 for record in records)


async def test_a_server_told_to_quantize_otherwise_than_stored_says_so_in_one_sentence(
    forge: Forge, stored_in_nf4: Path
) -> None:
    with open_process_swarm(forge, stored_in_nf4) as swarm:
        server = swarm.begin("0:3", "--quantization", "int8")
        assert server.wait_exit(60) == 2
        assert "is stored in nf4; leave --quantization out" in server.log
        assert "Traceback" not in server.log
