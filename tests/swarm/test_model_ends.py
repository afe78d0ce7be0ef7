"""The two ends alone give what the whole model gives before its first block and after its last one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swarm.checkpoint import open_checkpoint
from swarm.errors import ConfigError
from swarm.model_ends import load_ends
from tests.swarm.checkpoints import FAMILIES, change_config, run_and_record, save_random_model

IDS = torch.tensor([[5, 1, 7, 3, 98, 0, 12]])


@pytest.mark.parametrize("family", FAMILIES)
def test_ends_equal_those_of_the_whole_model(tmp_path: Path, family: str) -> None:
    entered, left, logits = run_and_record(save_random_model(tmp_path, family), IDS)
    ends = load_ends(open_checkpoint(str(tmp_path)))
    assert torch.equal(ends.embed(IDS[0]), entered[0])
    assert torch.equal(ends.logits(left[-1][0]), logits[0])
    assert (ends.hidden_size, ends.dtype) == (32, torch.float32)


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2"])
def test_tokens_may_be_embedded_in_pieces_at_their_positions(tmp_path: Path, family: str) -> None:
    entered, _, _ = run_and_record(save_random_model(tmp_path, family), IDS)
    ends = load_ends(open_checkpoint(str(tmp_path)))
    pieces = [ends.embed([5, 1, 7]), ends.embed([3], position=3), ends.embed(IDS[0, 4:], position=4)]
    torch.testing.assert_close(torch.cat(pieces), entered[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_no_tokens_embed_to_nothing(tmp_path: Path, family: str) -> None:
    save_random_model(tmp_path, family)
    assert load_ends(open_checkpoint(str(tmp_path))).embed([]).shape == (0, 32)


def test_tied_weights_are_kept_once(tmp_path: Path) -> None:
    model = save_random_model(tmp_path, "llama-tied")
    ends = load_ends(open_checkpoint(str(tmp_path)))
    assert ends.memory_bytes == 4 * (model.model.embed_tokens.weight.numel() + 32)


def test_only_the_ends_are_read(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    ends = load_ends(checkpoint)
    assert checkpoint.bytes_read == ends.memory_bytes == 4 * (99 * 32 * 2 + 32)
    assert len(checkpoint.end_tensor_names()) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bf16_the_head_still_computes_in_fp32(tmp_path: Path, family: str) -> None:
    model = save_random_model(tmp_path, family)
    ends = load_ends(open_checkpoint(str(tmp_path)), dtype="bf16")
    model.lm_head.weight.data = model.lm_head.weight.to(torch.bfloat16).float()
    entered, left, _ = run_and_record(model, IDS)
    assert ends.embed(IDS[0]).dtype == torch.bfloat16
    torch.testing.assert_close(ends.embed(IDS[0]).float(), entered[0], atol=0.05, rtol=0.02)
    logits = ends.logits(left[-1][0].to(torch.bfloat16))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.to(torch.bfloat16).float())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_flow_from_logits_to_hidden_states(tmp_path: Path, family: str) -> None:
    save_random_model(tmp_path, family)
    hidden = torch.randn(3, 32, requires_grad=True)
    load_ends(open_checkpoint(str(tmp_path))).logits(hidden)[1, 5].backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert hidden.grad[1].abs().sum() > 0
    assert hidden.grad[[0, 2]].abs().sum() == 0


def test_token_ids_outside_of_the_vocabulary_are_refused(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    ends = load_ends(open_checkpoint(str(tmp_path)))
    for ids in ([99], [-1], [0, 1 << 40]):
        with pytest.raises(ValueError, match="must be below 99"):
            ends.embed(ids)


def test_a_missing_head_is_named(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"no tensor for lm_head\.weight"):
        load_ends(open_checkpoint(str(tmp_path)))
    change_config(tmp_path, tie_word_embeddings=True)
    load_ends(open_checkpoint(str(tmp_path)))


def test_missing_embeddings_of_a_tied_model_are_named(tmp_path: Path) -> None:
    save_random_model(tmp_path, "llama-tied")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="is not complete, get it again"):
        load_ends(open_checkpoint(str(tmp_path)))


def test_ends_of_an_unusual_family_run_through_its_own_forward(tmp_path: Path) -> None:
    """Scales of embeddings and logits are written into its forward, in no module that could be found."""
    save_random_model(tmp_path)
    change_config(tmp_path, model_type="granite", embedding_multiplier=3.0, logits_scaling=2.0)
    scaled = load_ends(open_checkpoint(str(tmp_path)))
    change_config(tmp_path, model_type="llama")
    plain = load_ends(open_checkpoint(str(tmp_path)))
    hidden = torch.randn(4, 32)
    assert torch.equal(scaled.embed([5, 6]), 3 * plain.embed([5, 6]))
    assert torch.equal(scaled.logits(hidden), plain.logits(hidden) / 2)


def test_the_cost_is_told_in_one_sentence(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    sentence = load_ends(open_checkpoint(str(tmp_path))).describe()
    assert sentence.startswith("embeddings and head take 0.0 MB and ")
    assert sentence.endswith(" ms per token")
