"""What is to be shown of an answer while it is written, and when there is enough of it to be shown first."""

import asyncio
import re
from dataclasses import dataclass, field

FIRST_LETTERS = 40
FIRST_AFTER_S = 0.8
_SENTENCE_END = re.compile(r"[.!?…。！？\n]\s")  # noqa: RUF001


@dataclass(slots=True)
class Draft:
    """The newest text; `changed` is set whenever there is a newer one."""

    text: str = ""
    notice: str = ""
    """What is shown as long as there is no text."""
    began_s: float | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def is_worth_showing(self, now_s: float) -> bool:
        """There is a sentence, some letters, or something for a while."""
        if not self.text:
            return True  # a notice
        is_old = self.began_s is not None and now_s - self.began_s >= FIRST_AFTER_S
        return is_old or len(self.text) >= FIRST_LETTERS or bool(_SENTENCE_END.search(self.text))
