"""Token ids to text, piece by piece: never half a character, nothing that a stop string takes back. Pure."""

from collections.abc import Callable, Collection, Sequence

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for bytes that are no character, or not one yet."""

LONG_WINDOW = 64
"""Tokens after which an unfinished piece is looked at for a place to cut: only broken output gets there."""

KEPT_TOKENS = 16
"""More than the tokens of any character, which has at most four bytes."""

Decode = Callable[[Sequence[int]], str]


class TextStream:
    """The text of one growing row of token ids.

    All pieces together are `decode` of all ids, cut before the first stop string. `decode` adds text at the
    end when ids are added, except for unfinished characters, which it shows as U+FFFD; it leaves out
    `skipped_ids`. Ids in `byte_ids` are single bytes of a tokenizer that looks at a run of them as a whole:
    nothing of a run is shown before it ends.

    Example: the four bytes of an emoji in two tokens: the first `push` returns "", the second the emoji.
    """

    def __init__(
        self,
        decode: Decode,
        stop: Sequence[str] = (),
        *,
        byte_ids: Collection[int] = (),
        skipped_ids: Collection[int] = (),
    ) -> None:
        self.stopped = False
        self._decode = decode
        self._stop = tuple(stop)
        self._byte_ids = frozenset(byte_ids)
        self._skipped_ids = frozenset(skipped_ids)
        # Decoding a window gives the same text as decoding everything: its first tokens are shown already and
        # only give context (some tokenizers drop the space at the start of what they decode).
        self._window: list[int] = []
        self._num_shown_tokens = 0
        self._num_shown_characters = 0
        self._held = ""

    def push(self, token_id: int) -> str:
        """Add one id; return the text that is certain now, often "", and always after a stop string."""
        if self.stopped or token_id in self._skipped_ids:
            return ""
        self._window.append(token_id)
        if token_id in self._byte_ids:
            return ""
        return self._release(self._decode_certain())

    def flush(self) -> str:
        """Return what was held back, unfinished characters as U+FFFD. The stream is over then."""
        if self.stopped:
            return ""
        rest = self._release(self._decode(self._window)[self._num_shown_characters :])
        if not self.stopped:
            rest += self._held
        self.stopped, self._held = True, ""
        return rest

    def _decode_certain(self) -> str:
        """Return new text: all but a last U+FFFD, since only the last character can be unfinished."""
        text = self._decode(self._window)
        certain = text.removesuffix(REPLACEMENT)
        piece = certain[self._num_shown_characters :]
        if piece and certain == text:
            self._move_window(self._num_shown_tokens)
        else:
            self._num_shown_characters = max(self._num_shown_characters, len(certain))
            if len(self._window) > LONG_WINDOW:
                self._shorten_window(text)
        return piece

    def _move_window(self, start: int) -> None:
        """Let the window begin at its token `start`, everything in it being shown."""
        self._window = self._window[start:]
        self._num_shown_tokens = len(self._window)
        self._num_shown_characters = len(self._decode(self._window))

    def _shorten_window(self, text: str) -> None:
        """Drop the first tokens of a window that ends in no whole character, if that changes nothing."""
        head, tail = self._window[:-KEPT_TOKENS], self._window[-KEPT_TOKENS:]
        dropped = self._decode(head)
        if dropped + self._decode(tail) == text and len(dropped) <= self._num_shown_characters:
            self._window = tail
            self._num_shown_tokens = 0
            self._num_shown_characters -= len(dropped)

    def _release(self, piece: str) -> str:
        """Hold back what could become a stop string; cut at the first one that is complete."""
        text = self._held + piece
        found = [position for stop in self._stop if (position := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        num_held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]


def _overlap(text: str, stop: str) -> int:
    """Count the characters at the end of `text` with which `stop` begins: `_overlap("a##", "###")` is 2."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
