"""A turn that runs: where it waits, and what it has come to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.bookkeeping import Wishes
from bot.brain import Writing
from bot.context import Context
from bot.display import Display
from bot.outbound import Outbound
from bot.rendering.thinking import without_thoughts
from bot.words import Origin
from storage.transcript import Progress, Said


class Gate:
    """Where a turn waits until it may run. `num_ahead` tells how many run before it."""

    def __init__(self, num_ahead: Callable[[], int]) -> None:
        self.opened = asyncio.Event()
        self.is_stopped = False
        self.num_ahead = num_ahead


@dataclass(slots=True)
class Run:
    """A turn that runs, and what it has come to."""

    said: Said
    origin: Origin
    port: Outbound
    display: Display
    wishes: Wishes
    context: Context | None = None
    writing: Writing | None = None
    task: "asyncio.Task[None] | None" = None
    notes: list[str] = field(default_factory=list)
    gate: Gate | None = None
    must_begin_again: bool = False
    is_closing: bool = False
    """Its end is being written down: nothing can be added any more."""

    @property
    def is_stopped(self) -> bool:
        return self.gate is not None and self.gate.is_stopped

    @property
    def turn_id(self) -> str:
        return self.said.question.turn_id

    def shown(self, text: str) -> str:
        """What readers see of an answer."""
        return text if self.wishes.shows_thoughts else without_thoughts(text)

    def progress(self) -> Progress:
        """What the transcript keeps: nothing, if nothing was written."""
        context, writing = self.context, self.writing
        if context is None or writing is None or not writing.text:
            return Progress()
        return Progress(
            writing.text,
            context.prompt_ids,
            list(writing.ids),
            is_anew=context.is_anew,
            num_dropped=context.num_dropped,
            prefill_tokens=context.new_tokens,
            new_tokens=writing.num_shown,
        )
