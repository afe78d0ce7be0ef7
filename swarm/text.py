"""Conversations to token ids, and back: the model's own tokenizer and chat template.

What people write is data: no text of theirs becomes a special token, so nobody can type the end of a turn.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.checkpoint import Checkpoint
from swarm.errors import ConfigError
from swarm.text_stream import TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)

TEMPLATES = {
    # Models that only continue text, as LLaMA-65B: a transcript is what they have seen most of.
    "dialogue": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message.role == 'system' %}{{ message.content }}\n\n{% else %}"
        "{{ 'User' if message.role == 'user' else 'Assistant' }}: {{ message.content }}\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
    # Models tuned on bare tasks, as BLOOMZ: words without roles, and an end that asks for no more.
    "instruction": (
        "{{ bos_token }}{% for message in messages %}"
        "{{ message.content }}{{ eos_token if message.role == 'assistant' else '\n' }}{% endfor %}"
    ),
}
"""Templates by name, for models that come without one."""

TEMPLATE_STOPS = {"dialogue": ("\nUser:",)}
"""Where a model that plays all roles has to be cut off."""

# Unicode guarantees that these two are no characters: they mark what must be encoded as plain text.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


def load_tokenizer(checkpoint: Checkpoint, *, chat_template: str | None = None) -> "Tokenizer":
    """Load the tokenizer that comes with a model.

    `chat_template` is a name from TEMPLATES or a Jinja template, and replaces the model's own; a model
    without any gets "dialogue". Raises ConfigError if there is no usable tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    paths = [path for name in TOKENIZER_FILES if (path := checkpoint.find_file(name)) is not None]
    if not paths:
        raise ConfigError(f"{checkpoint.name} has no tokenizer; get tokenizer.json and tokenizer_config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(paths[0].parent), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # tokenizers raises a plain Exception for a damaged file
        raise ConfigError(
            f"the tokenizer of {checkpoint.name} cannot be read ({_first_line(error)}); get its files again"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(f"{checkpoint.name} has no tokenizer.json; get it, or convert the tokenizer")
    return Tokenizer(tokenizer, chat_template=chat_template, stop_ids=_named_eos_ids(checkpoint))


class Tokenizer:
    """One model's tokenizer. `eos_ids` are all tokens that end an answer, `stop_strings` texts that do."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerFast",
        *,
        chat_template: str | None = None,
        stop_ids: Sequence[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        chosen = chat_template or tokenizer.chat_template or "dialogue"
        self._template = TEMPLATES.get(chosen, chosen)
        self.stop_strings: tuple[str, ...] = TEMPLATE_STOPS.get(chosen, ())
        added = tokenizer.added_tokens_decoder
        # Some tokenizers have rows of spaces as added tokens; nothing hangs on those.
        self._added_ids = frozenset(id_ for id_, token in added.items() if not token.content.isspace())
        self._special_ids = frozenset(id_ for id_, token in added.items() if token.special)
        self._byte_ids = _byte_ids(tokenizer)
        own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.eos_ids = frozenset((*stop_ids, *own, *self._find_end_of_turn()))

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        """Render a conversation by the chat template; contents never become special tokens.

        A template that knows no system role gets it as the beginning of the first message. Raises
        ConfigError if the template refuses the conversation.
        """
        marked = [{"role": m["role"], "content": self._mark(m["content"])} for m in messages]
        text = self._render(marked, add_generation_prompt)
        ids: list[int] = []
        for index, part in enumerate(text.replace(_CLOSE, _OPEN).split(_OPEN)):
            if part:
                ids += self._encode_plain(part) if index % 2 else self._encode(part)
        return ids

    def encode_user_text(self, text: str) -> list[int]:
        """Encode text as text, whatever it looks like: no special tokens, neither added nor recognized."""
        text = _without_halves(text)
        ids = self._encode(text)
        return ids if self._added_ids.isdisjoint(ids) else self._encode_plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into text; special tokens are left out, spaces stay as they are."""
        decoded = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(decoded, str)
        return decoded

    def stream(self, stop: Sequence[str] = ()) -> TextStream:
        """Start a stream of text that ends before any of `stop` and of our own `stop_strings`."""
        return TextStream(
            self.decode,
            (*stop, *self.stop_strings),
            byte_ids=self._byte_ids,
            skipped_ids=self._special_ids,
        )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, verbose=False)
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        """Run the tokenizer without its added tokens: it would find them in text that says it is none."""
        backend = self._tokenizer.backend_tokenizer
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words = [text]
        if backend.pre_tokenizer is not None:
            words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for word in words for token in backend.model.tokenize(word)]

    def _mark(self, content: str) -> str:
        """Enclose content in marks if the tokenizer would find a special token in it."""
        content = _without_halves(content.replace(_OPEN, "").replace(_CLOSE, ""))
        if self._added_ids.isdisjoint(self._encode(content)):
            return content
        return f"{_OPEN}{content.strip()}{_CLOSE}"

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        try:
            return self._apply_template(messages, add_generation_prompt)
        except ConfigError:
            folded = _fold_system(messages)
            if folded is None:
                raise
            return self._apply_template(folded, add_generation_prompt)

    def _apply_template(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self._template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ConfigError(
                f"the chat template refuses this conversation ({_first_line(error)});"
                " choose another one with --chat-template"
            ) from error
        assert isinstance(rendered, str)
        return rendered

    def _find_end_of_turn(self) -> tuple[int, ...]:
        """Find the special token that the template puts after an answer: not every config names it."""
        question, answer = {"role": "user", "content": "1"}, {"role": "assistant", "content": "\u2042"}
        try:
            text = self._apply_template([question, answer], add_generation_prompt=False)
        except ConfigError:
            return ()
        after = self._encode(text.rpartition("\u2042")[2])
        return tuple(after[:1]) if after and after[0] in self._added_ids else ()


def _without_halves(text: str) -> str:
    """Replace halves of surrogate pairs, which are no text, by question marks."""
    return text.encode("utf-8", "replace").decode()


def _fold_system(messages: Sequence[Message]) -> list[Message] | None:
    """Put a system message at the beginning of the user's first one; None if there is nothing to fold."""
    if len(messages) < 2 or messages[0]["role"] != "system" or messages[1]["role"] != "user":
        return None
    content = f"{messages[0]['content']}\n\n{messages[1]['content']}"
    return [{"role": "user", "content": content}, *messages[2:]]


def _byte_ids(tokenizer: "PreTrainedTokenizerFast") -> frozenset[int]:
    """Return the ids that stand for single bytes, if the tokenizer falls back to such."""
    vocabulary = tokenizer.get_vocab()
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    return frozenset(vocabulary[name] for name in names if name in vocabulary)


def _named_eos_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Return the end tokens that generation_config.json names, else those of the config."""
    path = checkpoint.find_file("generation_config.json")
    named = None if path is None else _read_object(path).get("eos_token_id")
    if named is None:
        named = getattr(checkpoint.config, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return tuple(id_ for id_ in ids if type(id_) is int and id_ >= 0)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read; get it again") from error
    return content if isinstance(content, dict) else {}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
