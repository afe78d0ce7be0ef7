"""One turn from its place in the queue to the last message that shows it: plan, reserve, write, show, settle.

What it costs is settled once, together with what it has come to, and that is kept while it runs. Whoever
stops it, and whatever fails, partial text is kept and paid for as far as it is shown.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial

import msgspec

from bot.brain import Brain, Event, Request
from bot.clock import Clock
from bot.sending.outbound import Outbound
from bot.sending.pacing import Stream
from bot.turns.bookkeeping import Books
from bot.turns.context import Context, longest, plan_context, resume_context
from bot.turns.display import Display
from bot.turns.endings import controls_after, footer_of
from bot.turns.limits import TurnLimits
from bot.turns.recovery import leave
from bot.turns.refusals import Refusals
from bot.turns.remarks import Remarks, on_path, on_quota
from bot.turns.run import Gate, Run, outcome_of
from bot.turns.troubles import Trouble, trouble_of
from bot.turns.waiting import Waiting
from bot.words import Origin, Refused, SendError
from storage.errors import StorageError
from storage.transcript import Said, State
from swarm.background import running, running_group
from swarm.errors import MurmurError, SwarmError

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
TYPING_S = 4.0
TOLD_PAUSE_S = 3.0


class TurnRunner:
    """Runs turns, each when its time has come."""

    def __init__(
        self, books: Books, brain: Brain, ports: Mapping[str, Outbound], clock: Clock, limits: TurnLimits
    ) -> None:
        self._books = books
        self._brain = brain
        self._ports = ports
        self._clock = clock
        self._context_tokens = limits.context_tokens
        self._waiting = Waiting(clock, brain, limits.seconds)
        self._remarks = Remarks()
        self._refusals = Refusals(clock)
        self._runs: dict[str, Run] = {}

    def stop(self, turn_id: str) -> None:
        """End the answer that is being written; its gate is stopped already."""
        run = self._runs.get(turn_id)
        if run is not None:
            run.break_off()

    def can_begin_again(self, turn_id: str) -> bool:
        """The question may still grow: nothing of its answer is to be seen."""
        run = self._runs.get(turn_id)
        return run is None or not (run.display.is_visible or run.must_end or run.is_closing)

    def begin_again(self, turn_id: str) -> None:
        """The question has grown: answer it anew."""
        run = self._runs.get(turn_id)
        if run is not None:
            run.must_begin_again = True
            run.break_off()

    def origin_of(self, said: Said) -> Origin:
        """Where a turn was asked for."""
        return msgspec.json.decode(said.question.origin, type=Origin)

    async def run(self, said: Said, gate: Gate) -> None:
        """Answer, and show it. Whatever happens, the turn has ended then and its reader knows it.

        Unless we have to stop: what has shown nothing then is left for the next start.
        """
        run = await self._open(said)
        run.gate = gate
        self._runs[run.turn_id] = run
        try:
            await self._recall(run)
            async with AsyncExitStack() as stack:
                async with running(self._waiting.end_in_time(run)):
                    state, footer = await self._answer(run, gate, stack)
                if state == "queued":
                    await self._leave(run)
                elif run.is_withdrawn:
                    await self._books.end_unshown(run.said, state, run.progress(), run.num_seen())
                    self._note_end(run, state)
                else:
                    await self._end_and_show(run, state, footer)
        finally:
            self._waiting.leave_line(run)
            del self._runs[run.turn_id]

    async def _leave(self, run: Run) -> None:
        try:
            await self._books.store.write(leave, run.turn_id, self._clock.now_ms())
        except StorageError as error:
            logger.warning("turn %s is left as it is: %s", run.turn_id, error)

    async def _end_and_show(self, run: Run, state: State, footer: str) -> None:
        await self._books.end(run.said, state, run.progress())
        self._note_end(run, state)
        if run.is_withdrawn:  # meanwhile
            await self._books.given_up(run.said, run.num_seen())
        else:
            await self._show(run, state, footer)

    def _note_end(self, run: Run, state: State) -> None:
        ended = run.ended(state, self._brain.name, self._clock.now_ms())
        self._books.measures.turn_ended(ended)
        number, now_s = run.said.question.conversation_id, self._clock.now_s()
        run.note_once(self._remarks.on_speed(number, ended.tokens_per_second, now_s))

    async def deliver(self, said: Said) -> None:
        """Show what a turn had come to that ended when we did not run, or whose end was not seen."""
        run = await self._open(said)
        footer = footer_of(said.state, has_text=bool(said.progress.answer))
        if said.state == "failed" and not said.progress.answer:
            footer = "Something went wrong here; please ask again."
        await self._recall(run)
        await self._show(run, said.state, footer, said.progress.answer)

    async def _recall(self, run: Run) -> None:
        """Find what was shown of a turn before a restart, so that it is not shown twice."""
        try:
            await run.display.recall()
        except SendError as error:
            logger.warning("turn %s: what was shown of it is not known: %s", run.turn_id, error)

    # --- one answer --------------------------------------------------------------------------------------

    async def _open(self, said: Said) -> Run:
        origin = self.origin_of(said)
        port = self._ports[origin.where.platform]
        place_id, wishes = await self._books.place_and_wishes(said, origin.temperature)
        display = Display(
            said.question.turn_id, place_id, origin, port, store=self._books.store, clock=self._clock
        )
        display.measures = self._books.measures
        return Run(said, origin, port, display, wishes)

    async def _answer(self, run: Run, gate: Gate, stack: AsyncExitStack) -> tuple[State, str]:
        """Write the answer; returns how it ended, and what to say below it. Its stream ends with `stack`."""
        try:
            run.stream = await self._begin_stream(run, gate, stack)
            async with running(
                self._preview(run, run.stream), self._type_forever(run), self._keep_forever(run)
            ):
                state, footer = await self._write(run)
                is_cut = state == "length" and run.is_short_of_quota
                return state, on_quota(await self._books.next_grant(run.said)) if is_cut else footer
        except (MurmurError, StorageError) as error:
            return "failed", (await self._trouble(run, error)).in_the_end
        except Exception as error:  # a mistake of ours: whoever asked is told that there was one
            trouble = await self._trouble(run, error)
            logger.exception("turn %s failed: %s", run.turn_id, trouble.sentence)
            return "failed", trouble.sentence

    async def _begin_stream(self, run: Run, gate: Gate, stack: AsyncExitStack) -> Stream:
        """When its time has come: what only waits takes no share of what the platform lets answers show."""
        waiting = Stream(self._clock.now_s())
        async with running(self._preview(run, waiting)):
            await self._waiting.for_turn(run, gate)
        stream = await stack.enter_async_context(run.port.pacer(run.origin.where).stream())
        stream.num_edits = waiting.num_edits
        return stream

    async def _write(self, run: Run) -> tuple[State, str]:
        """Try until it is written, stopped, or hopeless; begin again if the question has grown."""
        deadline_s = self._waiting.patience_ends_s()
        while not run.must_end:
            run.must_begin_again, run.is_closing, run.gives_way = False, False, False
            run.said = await self._books.reread(run.said)
            try:
                if await self._waiting.for_room(run):
                    deadline_s = self._waiting.patience_ends_s()
                await self._plan(run)
                await self._write_once(run)
            except SwarmError as error:
                await self._waiting.out(run, error, await self._trouble(run, error), deadline_s)
                continue
            run.is_closing = not (run.must_begin_again or run.gives_way)
            asked = await self._books.reread(run.said)
            if run.is_closing and asked.question.prompt == run.said.question.prompt:
                break
        return outcome_of(run)

    async def _plan(self, run: Run) -> None:
        """Read what was said before, decide what the model is told, and reserve what that may cost."""
        path = await self._books.path_before(run.said)
        context = await asyncio.to_thread(self._context, run, path)
        for remark in on_path(run.said, path, context.num_dropped):
            run.note_once(remark)
        if run.said.is_retry and context.num_held:
            context = replace(context, new_tokens=1)  # the question is there already
        granted = await self._books.begin(run.said, context, self._brain.name)
        run.is_short_of_quota = granted < context.room_tokens
        run.context, run.writing = replace(context, room_tokens=granted), None

    def _context(self, run: Run, path: list[Said]) -> Context:
        """What the model is told; without a question it goes on with its last answer."""
        wanted, said = run.wishes.params.max_new_tokens, run.said
        limit = longest(self._brain, self._context_tokens)
        if said.question.prompt:
            return plan_context(self._brain, run.wishes.system, path, said, wanted, limit)
        return resume_context(path, wanted, limit)

    async def _write_once(self, run: Run) -> None:
        """Have the answer written until it is finished, or somebody stops it, be it before its first word."""
        async with running_group() as group:
            run.task = group.create_task(self._compose(run))
            group.create_task(self._waiting.tell_reading(run))
            if run.must_end or run.must_begin_again:
                run.break_off()
            try:
                await asyncio.wait([run.task])
            finally:
                run.task = None

    async def _compose(self, run: Run) -> None:
        context = run.context
        assert context is not None
        params = replace(run.wishes.params, max_new_tokens=context.room_tokens)
        request = Request(run.said.question.conversation_id, context.ids, params)
        with suppress(asyncio.CancelledError):
            async with self._brain.write(request, partial(self._note, run)) as writing:
                run.begin(writing)
                async for _ in writing:
                    self._waiting.leave_line(run)
                    run.stopwatch.note_piece(self._clock.now_ms())
                    run.display.update(run.grown())

    # --- beside it -----------------------------------------------------------------------------------------

    async def _keep_forever(self, run: Run) -> None:
        """Keep what it has come to, so that little is lost if we die."""
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            if run.context is not None and not await self._books.keep(run.said, run.progress()):
                logger.warning("turn %s has lost its hold", run.turn_id)

    async def _preview(self, run: Run, stream: Stream) -> None:
        if run.wishes.is_streamed:
            await run.display.preview_forever(run.port.pacer(run.origin.where), stream)

    async def _type_forever(self, run: Run) -> None:
        while True:
            with suppress(SendError):
                await run.port.typing(run.origin.where)
            await self._clock.sleep(TYPING_S)

    def _note(self, run: Run, event: Event) -> None:
        if event.kind == "recovered" and event.pause_s > TOLD_PAUSE_S:
            run.notes.append(f"(a server was lost; I went on after {event.pause_s:.0f} s)")
        elif event.kind == "restoring" and run.context is not None and run.context.num_before:
            run.display.update_notice(f"(restoring the conversation: {event.num_tokens} tokens)")
        elif event.kind == "busy":
            self._waiting.hear_busy(run)

    async def _trouble(self, run: Run, error: Exception) -> Trouble:
        return trouble_of(error, secrets.token_hex(4), await self._books.next_grant(run.said))

    async def _show(self, run: Run, state: State, footer: str, text: str | None = None) -> None:
        answer = run.text if text is None else text
        written = run.shown(answer)
        first = await self._books.first_notice(run.said) if answer else ""
        notes = "\n".join([*run.notes, *([f"({first})"] if first else []), *([footer] if footer else [])])
        controls = controls_after(state, has_text=bool(answer))
        try:
            await run.display.finish(run.port.pacer(run.origin.where), run.stream, written, notes, controls)
        except Refused as error:
            logger.warning("turn %s may not be shown: %s", run.turn_id, error)
            await self._books.given_up(run.said, run.num_seen())
            if state != "stopped":  # nobody waits for it
                await self._refusals.tell(run, error)
            return
        except SendError as error:
            logger.warning("turn %s is not shown yet: %s", run.turn_id, error)
            return
        await self._books.delivered(run.said, was_told=bool(first))
