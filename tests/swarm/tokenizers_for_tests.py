"""Two tokenizers of the kinds that models come with, learnt on the spot."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis.",
    "敏捷的棕色狐狸跳过懒狗。 いろはにほへと ちりぬるを",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. 👍🏽 👨‍👩‍👧",
] * 3

CHAT = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|end|>", "<|im_start|>", "<|im_end|>"]


def byte_level(chat_template: str | None = CHAT) -> PreTrainedTokenizerFast:
    """As GPT-2, LLaMA 3 and Qwen: every byte is a character of the vocabulary's alphabet."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return _wrapped(tokenizer, chat_template)


def byte_fallback(chat_template: str | None = CHAT) -> PreTrainedTokenizerFast:
    """As LLaMA 2 and Mistral: a sign for the space, and tokens for single bytes where no other fits."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=560, special_tokens=special, limit_alphabet=60, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return _wrapped(_with_plain_bytes(tokenizer), chat_template)


def _with_plain_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Let the bytes be ordinary tokens: the trainer has no other way to put them in than as special ones."""
    import json

    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(content))


def _wrapped(tokenizer: Tokenizer, chat_template: str | None) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<|end|>", additional_special_tokens=SPECIAL[1:]
    )
    fast.chat_template = chat_template
    return fast
