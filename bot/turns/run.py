"""A turn that runs: where it waits, and what it has come to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.brain import Writing
from bot.measures import Ended, Stopwatch
from bot.rendering.thinking import without_thoughts
from bot.sending.outbound import Outbound
from bot.sending.pacing import Stream
from bot.turns.bookkeeping import Wishes
from bot.turns.context import Context
from bot.turns.display import Display
from bot.turns.endings import LATE, LATE_SILENT, STATES, footer_of
from bot.turns.seen import Growth
from bot.words import Origin
from storage.transcript import Progress, Said, State


class Gate:
    """Where a turn waits until it may run. `num_ahead` tells how many run before it."""

    def __init__(self, num_ahead: Callable[[], int]) -> None:
        self.opened = asyncio.Event()
        self.is_stopped = False
        self.is_withdrawn = False
        """Its question was deleted: nothing more of it is shown."""
        self.is_left = False
        """We stop: what has shown nothing is answered after the next start, the rest is cut off."""
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
    growth: Growth = field(default_factory=Growth)
    task: "asyncio.Task[None] | None" = None
    notes: list[str] = field(default_factory=list)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    gate: Gate | None = None
    stream: Stream | None = None
    """The answer that is being shown; None as long as it waits for its time."""
    must_begin_again: bool = False
    gives_way: bool = False
    """No server has room for it, and others wait for some already."""
    is_closing: bool = False
    """Its end is being written down: nothing can be added any more."""
    is_short_of_quota: bool = False
    """Its author cannot pay for as long an answer as it may be."""
    is_late: bool = False
    """It has taken all the time that it may."""

    @property
    def is_stopped(self) -> bool:
        return self.gate is not None and self.gate.is_stopped

    @property
    def is_withdrawn(self) -> bool:
        return self.gate is not None and self.gate.is_withdrawn

    @property
    def is_left(self) -> bool:
        return self.gate is not None and self.gate.is_left

    @property
    def must_end(self) -> bool:
        """Nothing more is to be written."""
        return self.is_stopped or self.is_late or self.is_left

    @property
    def has_text(self) -> bool:
        """Something was written."""
        return self.writing is not None and bool(self.writing.text)

    @property
    def has_begun(self) -> bool:
        """There is a first token, whether it can be seen or not."""
        return self.writing is not None and bool(self.writing.ids)

    @property
    def text(self) -> str:
        """What was written, behind the thoughts that were open before."""
        if self.context is None or self.writing is None or not self.writing.text:
            return ""
        return self.context.opening + self.writing.text

    @property
    def turn_id(self) -> str:
        return self.said.question.turn_id

    def break_off(self) -> None:
        """Have nothing written any more, for now."""
        if self.task is not None:
            self.task.cancel()

    def note_once(self, remark: str) -> None:
        """Say something below the answer; nothing, if it is said there already."""
        if remark and remark not in self.notes:
            self.notes.append(remark)

    def shown(self, text: str) -> str:
        """What readers see of an answer."""
        return text if self.wishes.shows_thoughts else without_thoughts(text)

    def begin(self, writing: Writing) -> None:
        """An answer is being written, maybe anew."""
        self.writing, self.growth = writing, Growth()

    def grown(self) -> str:
        """What readers see of the answer, of which there is more now."""
        assert self.writing is not None
        text = self.shown(self.text)
        self.growth.note(len(text), self.writing.num_shown)
        return text

    def num_seen(self) -> int | None:
        """Of the answer's tokens, those that people have seen; None: something is to be seen, or may be.

        That is so after a restart, which forgets how much it was, and if a message may be there.
        """
        if self.display.seen.is_unsure:
            return None
        if self.writing is None:
            return None if self.display.is_visible else 0
        letters = self.display.seen.num_letters
        is_all = 0 < len(self.shown(self.text).rstrip()) <= letters
        return self.writing.num_shown if is_all else self.growth.tokens_within(letters)

    def progress(self) -> Progress:
        """What the transcript keeps: nothing, if nothing was written."""
        context, writing = self.context, self.writing
        if context is None or writing is None or not writing.text:
            return Progress()
        return Progress(
            self.text,
            context.prompt_ids,
            list(writing.ids),
            is_anew=context.is_anew,
            num_dropped=context.num_dropped,
            num_before=context.num_before,
            prefill_tokens=context.new_tokens,
            new_tokens=writing.num_shown,
        )

    def ended(self, outcome: str, model: str, now_ms: int) -> Ended:
        """What is measured of it in the end."""
        watch, progress = self.stopwatch, self.progress()
        first_ms, asked_ms = watch.first_ms, self.said.asked_ms
        return Ended(
            self.origin.where.platform,
            model,
            outcome,
            max(0, now_ms - asked_ms) / 1000,
            None if first_ms is None else max(0, first_ms - asked_ms) / 1000,
            watch.tokens_per_second(len(progress.answer_ids)),
            progress.prefill_tokens,
            len(progress.answer_ids),
        )


def outcome_of(run: Run) -> tuple[State, str]:
    """How a turn has ended whose answer is not written any more, and what is said below it.

    "queued" if it has not: nothing was written when we had to stop.
    """
    finish = run.writing.finish if run.writing is not None else ""
    if run.is_left and not finish and not run.is_stopped:
        state: State = "interrupted" if run.has_text else "queued"
        return state, footer_of(state, has_text=run.has_text)
    if run.is_late and not finish and not run.is_stopped:
        return ("stopped", LATE) if run.has_text else ("failed", LATE_SILENT)
    state = "stopped" if run.is_stopped else STATES.get(finish, "done")
    return state, footer_of(state, has_text=run.has_text)
