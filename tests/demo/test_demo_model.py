"""The bundled model: what it is, how it is prompted, and that it answers."""

import itertools
import json
import operator
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from demo.corpus.intents import Corpus, load_corpus
from demo.evaluate import Examinee, examine, examine_dialogues, share_right
from demo.heldout import load_heldout
from demo.train import MODEL_DIR

MAX_SIZE_BYTES = 16 * 10**6
CHAT = [
    {"role": "system", "content": "You are Murmur."},
    {"role": "user", "content": "What is a block?"},
    {"role": "assistant", "content": "A block is one layer."},
    {"role": "user", "content": "  and a span? \n"},
    {"role": "assistant", "content": " A span is blocks. "},
]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)


@pytest.fixture(scope="module")
def examinee() -> Iterator[Examinee]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Examinee(MODEL_DIR)
    torch.set_num_threads(num_threads)


def rendered_ids(tokenizer: Any, chat: list[dict[str, str]], add_generation_prompt: bool) -> list[int]:
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=add_generation_prompt, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_model_is_a_small_llama_of_at_least_eight_blocks_in_fp32() -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "llama"
    assert config["num_hidden_layers"] >= 8
    with safe_open(MODEL_DIR / "model.safetensors", framework="pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"F32"}


def test_the_model_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL_DIR.rglob("*")) <= MAX_SIZE_BYTES


@pytest.mark.parametrize("num_messages", range(1, len(CHAT)))
def test_a_longer_chat_begins_with_the_ids_of_a_shorter_one(tokenizer: Any, num_messages: int) -> None:
    shorter, longer = CHAT[:num_messages], CHAT[: num_messages + 1]
    add_prompt = longer[-1]["role"] == "assistant"
    ids = rendered_ids(tokenizer, shorter, add_generation_prompt=add_prompt)
    assert rendered_ids(tokenizer, longer, add_generation_prompt=False)[: len(ids)] == ids


def test_the_template_gives_the_same_ids_as_its_pieces(tokenizer: Any) -> None:
    text_ids = tokenizer("hi, what's  up? ", add_special_tokens=False)["input_ids"]
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|end|>", "<|assistant|>")]
    chat = [{"role": "user", "content": "hi, what's  up? "}]
    assert rendered_ids(tokenizer, chat, add_generation_prompt=True) == [ends[0], *text_ids, *ends[1:]]


def test_the_template_refuses_an_unknown_role(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="roles are system, user and assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@pytest.mark.parametrize(
    "text", ["\U0001f41d says Grüß Gott", "你好 мир", " two  spaces\n\ttabs ", "\x00\x7f", "e\u0301"]
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_generation_ends_at_the_end_token(tokenizer: Any) -> None:
    config = json.loads((MODEL_DIR / "generation_config.json").read_text(encoding="utf-8"))
    assert config["eos_token_id"] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")


def test_at_least_four_in_five_held_out_questions_get_the_right_answer(
    examinee: Examinee, corpus: Corpus
) -> None:
    assert share_right(examine(examinee, corpus, load_heldout().questions)) >= 0.8


def test_dialogues_are_followed(examinee: Examinee, corpus: Corpus) -> None:
    assert share_right(examine_dialogues(examinee, corpus, load_heldout().dialogues)) >= 0.8


def test_a_system_prompt_changes_few_answers(examinee: Examinee, corpus: Corpus) -> None:
    personas = ["You are a pirate. Talk like one.", "You love trains and talk in riddles."]
    questions = {
        "What is Murmur?": "what_is_murmur",
        "How can I contribute?": "how_contribute",
        "What is a block?": "block",
        "Who can read my messages?": "who_can_read",
    }
    asked = list(itertools.product(personas, questions))
    chats = [
        [{"role": "system", "content": persona}, {"role": "user", "content": question}]
        for persona, question in asked
    ]
    right = [corpus.intents[questions[question]].answer for _, question in asked]
    assert sum(map(operator.eq, examinee.answer(chats), right)) >= 6


def test_a_chat_of_five_turns_does_not_confuse_the_model(examinee: Examinee, corpus: Corpus) -> None:
    names = ["what_is_murmur", "block", "joke", "who_can_read"]
    chat = [
        message
        for name in names
        for message in (
            {"role": "user", "content": f"What about {name.replace('_', ' ')}?"},
            {"role": "assistant", "content": corpus.intents[name].answer},
        )
    ]
    answers = examinee.answer([[*chat, {"role": "user", "content": "How can I contribute?"}]])
    assert answers == [corpus.intents["how_contribute"].answer]
