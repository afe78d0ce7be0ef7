"""A checkpoint in many files, as large models come: its servers read what they need of each."""

from pathlib import Path

from tests.end_to_end.exact import check_answer, load_small_model, prompt, small_model
from tests.end_to_end.swarm import Offer, open_swarm, spans
from tests.models import make_model

SHARD_SIZE = "100KB"  # no block of the small model fits into one


async def test_a_checkpoint_in_many_files_gives_the_answer_of_the_one_in_a_single_file(
    tmp_path: Path,
) -> None:
    path = make_model(tmp_path, "llama", max_shard_size=SHARD_SIZE)
    assert (path / "model.safetensors.index.json").exists()
    assert len(list(path.glob("model-*-of-*.safetensors"))) > 6, "blocks lie in more than one file"
    model = load_small_model(path)
    assert model.greedy(prompt(1), 32) == small_model("llama").greedy(prompt(1), 32)
    async with open_swarm(model, Offer(0, 2), Offer(2, 6)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await check_answer(model, session, prompt(1))
            assert spans(session.route) == [(0, 2), (2, 6)]
        await swarm.check_clean()
