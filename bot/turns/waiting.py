"""What a turn waits for before a word of it is written, and what its reader sees meanwhile."""

from bot.brain import Brain
from bot.clock import Clock
from bot.rendering.counting import counted
from bot.turns.room_line import NoRoom, RoomLine
from bot.turns.run import Gate, Run
from bot.turns.troubles import Trouble
from swarm.errors import PeerBusy, SwarmError

PATIENCE_S = 60.0
RETRY_S = 2.0
TOLD_QUEUE_S = 2.0
TOLD_READING_S = 3.0
LOOK_S = 0.2


class Waiting:
    """Knows which turns wait for room. `seconds` is all that a turn may take."""

    def __init__(self, clock: Clock, brain: Brain, seconds: float) -> None:
        self._clock = clock
        self._brain = brain
        self._seconds = seconds
        self._line = RoomLine()

    async def end_in_time(self, run: Run) -> None:
        """End a turn that has taken all its time."""
        await self._clock.sleep(self._seconds)
        run.is_late = True
        run.break_off()

    async def for_turn(self, run: Run, gate: Gate) -> None:
        """Until it may run; whoever waits for long sees how many are ahead."""
        since_s, told = self._clock.now_s(), ""
        while not gate.opened.is_set() and not run.must_end:
            await self._clock.sleep(LOOK_S)
            notice = f"(queued: {gate.num_ahead()} ahead)"
            if self._clock.now_s() - since_s >= TOLD_QUEUE_S and notice != told:
                told = notice
                run.display.update_notice(notice)
        run.display.update_notice("")

    async def tell_reading(self, run: Run) -> None:
        """Whoever waits for long for the first word, and knows no reason, sees how much is read before it."""
        await self._clock.sleep(TOLD_READING_S)
        if run.has_begun or run.context is None or not run.context.prompt_ids:
            return
        state = await self._brain.session_state(run.said.question.conversation_id)
        reading = f"(reading: {counted(len(run.context.prompt_ids), 'token')})"
        if not run.has_begun and not run.display.notice:
            run.display.update_notice(reading if state.has_servers else "(looking for servers)")

    def patience_ends_s(self) -> float:
        """Until when a turn that begins now puts up with trouble."""
        return self._clock.now_s() + PATIENCE_S

    async def out(self, run: Run, error: SwarmError, trouble: Trouble, deadline_s: float) -> None:
        """Wait a moment for what may pass, and tell why. Raises `error`, or NoRoom, if it is hopeless."""
        is_full = isinstance(error, PeerBusy)
        if is_full and not run.has_text:
            self.hear_busy(run)
            self._check_hope(run)
        elif is_full:
            raise NoRoom("in mid-answer") from error
        elif not trouble.may_pass or run.has_text or self._clock.now_s() > deadline_s:
            raise error
        else:
            run.display.update_notice(trouble.sentence)
        for _ in range(round(RETRY_S / LOOK_S)):
            if not run.must_end:
                await self._clock.sleep(LOOK_S)

    # --- room ------------------------------------------------------------------------------------------

    async def for_room(self, run: Run) -> bool:
        """Until nobody is ahead who waits for room on the servers; tells whether there was somebody.

        Raises NoRoom if that takes too long.
        """
        if not self._line.num_ahead(run.turn_id):
            return False
        self._line.join(run.turn_id, self._clock.now_s())
        while self._line.num_ahead(run.turn_id) and not run.must_end:
            run.display.update_notice(self._line.place_of(run.turn_id))
            await self._clock.sleep(LOOK_S)
            self._check_hope(run)
        run.display.update_notice(self._line.place_of(run.turn_id))
        return True

    def hear_busy(self, run: Run) -> None:
        """No server has room for it. If others wait already it gives way to them."""
        if run.has_text:  # its session waits by itself
            return
        self._line.join(run.turn_id, self._clock.now_s())
        run.display.update_notice(self._line.place_of(run.turn_id))
        if self._line.num_ahead(run.turn_id):
            run.gives_way = True
            run.break_off()

    def leave_line(self, run: Run) -> None:
        """It has room, or has ended."""
        self._line.leave(run.turn_id, self._clock.now_s())

    def _check_hope(self, run: Run) -> None:
        if self._line.is_hopeless(run.turn_id, self._clock.now_s()):
            raise NoRoom("for too long")
