"""How much of an answer people have seen: what was never shown is not paid for. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager

from bot.words import Limited, Refused


class Growth:
    """How an answer has grown: with so many letters it had so many tokens."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int]] = []

    def note(self, num_letters: int, num_tokens: int) -> None:
        """It has so many now."""
        self._steps.append((num_letters, num_tokens))

    def tokens_within(self, num_letters: int) -> int:
        """Tokens whose text, with that of all before them, is within the first letters; 0 within none."""
        if num_letters <= 0:
            return 0
        return max((tokens for letters, tokens in self._steps if letters <= num_letters), default=0)


class Seen:
    """What of an answer is to be seen, as far as the platform has said so."""

    def __init__(self) -> None:
        self.num_letters = 0
        """At least so many, from its beginning, were to be seen at some time."""
        self._unsure: set[int] = set()

    @property
    def is_unsure(self) -> bool:
        """A message was sent, and nobody knows whether it is there."""
        return bool(self._unsure)

    def note(self, num_letters: int) -> None:
        """So many are to be seen."""
        self.num_letters = max(self.num_letters, num_letters)

    @contextmanager
    def sending(self, part: int) -> Iterator[None]:
        """Around the sending of a message: if the platform does not answer, it may be there."""
        was_sure = part not in self._unsure
        self._unsure.add(part)
        try:
            yield
        except (Refused, Limited):
            if was_sure:
                self._unsure.discard(part)
            raise
        self._unsure.discard(part)

    @contextmanager
    def looking_for(self, parts: set[int]) -> Iterator[None]:
        """Around a look for messages of which nobody knew: whatever is not found is not there."""
        self._unsure |= parts
        yield
        self._unsure -= parts
