"""What a turn reads from the store and writes into it, each in one transaction."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from bot.clock import Clock
from bot.measures import Measures
from bot.turns.context import Context
from bot.words import Origin
from storage.amounts import Rates, charge, next_period_ms
from storage.conversations import Conversation, get_conversation
from storage.database import Database, Transaction
from storage.errors import QuotaExceeded, StoreBusy
from storage.ledger import (
    Turn,
    grant_today,
    heartbeat,
    note_person_told,
    refund,
    reserve,
    settle,
    standing,
    was_person_told,
)
from storage.settings import PERSONA, Value, settings_of
from storage.transcript import (
    Progress,
    Said,
    State,
    checkpoint,
    end,
    get_turn,
    note_delivered,
    path_to,
    start,
)
from swarm.sampling_params import SamplingParams

HOLD_MS = 120_000
END_AGAIN_S = (1.0, 5.0, 20.0)
SAMPLED = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "seed")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a conversation is to be answered."""

    params: SamplingParams = field(default_factory=SamplingParams)
    system: str = ""
    is_streamed: bool = True
    shows_thoughts: bool = False

    def changed(self, settings: dict[str, Value], persona: str | None) -> "Wishes":
        """With what people have set. Raises ConfigError if a value makes no sense."""
        values = {name: settings[name] for name in SAMPLED if name in settings}
        params = {name: getattr(self.params, name) for name in self.params.__slots__} | values
        params["max_new_tokens"] = min(params["max_new_tokens"], self.params.max_new_tokens)
        return Wishes(
            SamplingParams(**params),
            str(settings.get(PERSONA, self.system)) if persona is None else persona,
            bool(settings.get("streaming", self.is_streamed)),
            settings.get("thinking", "show" if self.shows_thoughts else "hide") == "show",
        )


class Books:
    """The store, as turns use it."""

    def __init__(
        self,
        store: Database,
        clock: Clock,
        rates: Rates,
        boot: str,
        wishes: Wishes,
        person_notice: str = "",
    ) -> None:
        self.store = store
        self.measures = Measures()
        """Who is told what turns come to."""
        self._person_notice = person_notice
        self._clock = clock
        self._rates = rates
        self._boot = boot
        self._wishes = wishes

    @property
    def has_chance(self) -> bool:
        """The same question may get another answer, if nobody has set it otherwise."""
        return self._wishes.params.temperature > 0

    @property
    def system(self) -> str:
        """What the model is told where nobody has set anything else; "" if nothing."""
        return self._wishes.system

    @property
    def most_new_tokens(self) -> int:
        """An answer is never longer, whatever people set."""
        return self._wishes.params.max_new_tokens

    async def place_and_wishes(self, said: Said, temperature: float | None) -> tuple[int, Wishes]:
        """Where a turn's conversation is, and how it is to be answered."""
        conversation, settings = await self.store.read(_settings, said)
        if temperature is not None:
            settings["temperature"] = temperature
        return conversation.place_id, self._wishes.changed(settings, conversation.persona)

    async def path_before(self, said: Said) -> list[Said]:
        """What was said before a turn: up to its conversation's head, or to what it follows already."""
        return await self.store.read(_path_before, said)

    async def reread(self, said: Said) -> Said:
        """The turn as it is now, whatever is being written to it."""
        again = await self.store.write(get_turn, said.question.turn_id)
        return said if again is None else again

    async def begin(self, said: Said, context: Context, model: str) -> int:
        """Start a turn and hold what it may cost at most; returns how many tokens it may write.

        Its author gets today's grant if the day has begun while it waited. Raises QuotaExceeded.
        """
        now_ms = self._clock.now_ms()
        question = said.question
        wanted = Turn(question.turn_id, context.new_tokens, context.room_tokens)

        def begin(connection: Transaction) -> int:
            start(connection, question.turn_id, model, now_ms)
            grant_today(connection, question.account_id, self._rates, now_ms)
            held = reserve(connection, question.account_id, wanted, self._rates, self._boot, now_ms + HOLD_MS)
            return held.max_new_tokens

        try:
            return await self.store.write(begin)
        except QuotaExceeded as error:
            origin = msgspec.json.decode(question.origin, type=Origin)
            self.measures.quota_refused(origin.where.platform)
            stands = await self.store.read(standing, question.account_id, now_ms)
            raise QuotaExceeded(error.available, error.needed, stands.used_earlier) from None

    async def first_notice(self, said: Said) -> str:
        """What the person has to be told below their first answer; "" if they were, or there is nothing."""
        if not self._person_notice or await self.store.read(was_person_told, said.question.account_id):
            return ""
        return self._person_notice

    async def keep(self, said: Said, progress: Progress) -> bool:
        """Keep what a turn has come to, and what it has cost; False if its hold is gone."""
        turn_id, until_ms = said.question.turn_id, self._clock.now_ms() + HOLD_MS

        def keep(connection: Transaction) -> bool:
            if progress.answer_ids:
                checkpoint(connection, turn_id, progress)
            return heartbeat(connection, turn_id, self._cost(progress), until_ms)

        return await self.store.write(keep)

    async def end(self, said: Said, state: State, progress: Progress) -> None:
        """End a turn, and settle it for what it has shown."""
        now_ms = self._clock.now_ms()

        def ended(connection: Transaction) -> None:
            self._end(connection, said, state, progress, now_ms)

        await self._insist(ended)

    async def end_unshown(self, said: Said, state: State, progress: Progress, num_seen: int | None) -> None:
        """End a turn of which no more is ever to be seen, and do what `given_up` does, at once.

        Whatever happens next, nobody takes it for a turn that is still to be shown.
        """
        now_ms = self._clock.now_ms()

        def ended(connection: Transaction) -> None:
            self._end(connection, said, state, progress, now_ms)
            self._give_up(connection, said, num_seen, now_ms)

        await self._insist(ended)

    async def delivered(self, said: Said, *, was_told: bool = False) -> None:
        """All of a turn is to be seen; and what is below a person's first answer, if they `was_told` that."""

        def note(connection: Transaction, now_ms: int) -> None:
            note_delivered(connection, said.question.turn_id, now_ms)
            if was_told:
                note_person_told(connection, said.question.account_id, now_ms)

        await self.store.write(note, self._clock.now_ms())

    async def given_up(self, said: Said, num_seen: int | None) -> None:
        """No more of a turn is ever to be seen: what was paid for the rest is given back, once.

        `num_seen` of its tokens were seen; if that is None, nobody knows, and all is paid for.
        """
        await self.store.write(self._give_up, said, num_seen, self._clock.now_ms())

    async def next_grant(self, said: Said) -> str:
        """When there is quota again, for people."""
        hours = (next_period_ms(self._clock.now_ms()) - self._clock.now_ms()) / 3_600_000
        return f"in {hours:.0f} hours" if hours >= 1.5 else "within the next hour"

    async def _insist(self, work: Callable[[Transaction], None]) -> None:
        """Write it, and again while the store is busy. Raises StoreBusy in the end."""
        for wait_s in END_AGAIN_S:
            try:
                return await self.store.write(work)
            except StoreBusy:
                await self._clock.sleep(wait_s)
        return await self.store.write(work)

    def _end(
        self, connection: Transaction, said: Said, state: State, progress: Progress, now_ms: int
    ) -> None:
        turn_id = said.question.turn_id
        settle(connection, turn_id, self._cost(progress), now_ms)
        end(connection, turn_id, state, now_ms, progress if progress.answer_ids else None)

    def _give_up(self, connection: Transaction, said: Said, num_seen: int | None, now_ms: int) -> None:
        turn_id = said.question.turn_id
        ended = get_turn(connection, turn_id)
        if ended is not None and num_seen is not None:
            refund(connection, turn_id, self._cost(replace(ended.progress, new_tokens=num_seen)), now_ms)
        note_delivered(connection, turn_id, now_ms)

    def _cost(self, progress: Progress) -> int:
        return charge(self._rates, new_tokens=progress.new_tokens, prefill_tokens=progress.prefill_tokens)


def _settings(connection: Transaction, said: Said) -> tuple[Conversation, dict[str, Value]]:
    """The turn's conversation, and what is set: for it before its asker, for them before the place."""
    conversation = get_conversation(connection, said.question.conversation_id)
    assert conversation is not None
    return conversation, {
        **settings_of(connection, "place", conversation.place_id),
        **settings_of(connection, "account", said.question.account_id),
        **settings_of(connection, "conversation", conversation.conversation_id),
    }


def _path_before(connection: Transaction, said: Said) -> list[Said]:
    if said.parent_id is not None or said.is_retry:
        return path_to(connection, said.parent_id)
    conversation = get_conversation(connection, said.question.conversation_id)
    return path_to(connection, conversation.head_id if conversation is not None else None)
