"""Places where the bot is no member: people who have installed it for themselves use it there.

Only an interaction's own webhook exists there, for fifteen minutes, without nonces and without a history.
What is tried again or gone on with is answered through the interaction that asked for that.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import discord

from bot.clock import Clock
from bot.on_discord.attachments import with_file
from bot.on_discord.errors import translated
from bot.on_discord.receipts import NO_MENTIONS, TOKEN_S, Asked, Receipts
from bot.on_discord.telling import shown
from bot.turns.endings import FOOTERS
from bot.words import Post, Refused
from swarm.background import RunningGroup

MOST_QUESTIONS = 500
MOST_ANSWERS = 1000
WRITING_S = TOKEN_S - 60.0
"""So long after the question an answer may be written; then a minute is left in which its end is shown."""
STOPPED = FOOTERS["stopped"]
CUT = "(the answer was cut: Discord lets me write here for 15 minutes)"


def is_elsewhere(asked: Asked) -> bool:
    """Whether the bot can say something there only as an answer to this interaction."""
    is_own_chat = isinstance(asked.channel, discord.DMChannel) and asked.context.dm_channel
    return asked.is_user_integration() and not asked.is_guild_integration() and not is_own_chat


@dataclass(frozen=True, slots=True)
class Way:
    """An interaction through which something can be said, and since when; on the clock's `now_s`."""

    asked: Asked
    at_s: float


class Elsewhere:
    """The latest interactions from such places, and what was answered to them."""

    def __init__(self, clock: Clock, receipts: Receipts, group: RunningGroup) -> None:
        self.stop: Callable[[str], None] = lambda turn_id: None
        """Ends what is written for a turn."""
        self._clock = clock
        self._receipts = receipts
        self._group = group
        self._questions: OrderedDict[str, Way] = OrderedDict()
        self._again: OrderedDict[tuple[str, int], Way] = OrderedDict()
        """By place and person."""
        self._answers: OrderedDict[str, Way] = OrderedDict()
        self._turns: OrderedDict[str, bool] = OrderedDict()
        """Turns that are shown there, and whether they were cut."""

    def keep(self, event_id: str, asked: Asked) -> None:
        """A question that is to be answered there."""
        self._questions[event_id] = Way(asked, self._clock.now_s())
        _bound(self._questions, MOST_QUESTIONS)

    def go_on(self, asked: Asked) -> None:
        """Somebody wants another answer to what they have asked there before."""
        key = str(asked.channel_id), asked.user.id
        self._again.pop(key, None)
        self._again[key] = Way(asked, self._clock.now_s())
        _bound(self._again, MOST_QUESTIONS)

    def has(self, place: str, event_id: str) -> bool:
        """It was asked there, or, before we were started, may have been: somebody goes on with something."""
        return event_id in self._questions or any(self._is_open(way) for way in self._gone_on(place))

    def has_answer(self, message_id: str) -> bool:
        """It was answered there."""
        return message_id in self._answers

    async def answer(self, place: str, event_id: str, post: Post) -> str:
        """Say something; returns the message's id. Raises Refused if it is too late, Limited, Unreachable."""
        way = self._way(place, event_id)
        if not self._is_open(way):
            raise Refused("a question from a place where we are no member is too old to be answered")
        self._end_in_time(post.turn_id, way)
        self._receipts.note_answered(str(way.asked.id))
        async with translated():
            message = await way.asked.followup.send(
                self._shown(post),
                wait=True,
                allowed_mentions=NO_MENTIONS,
                suppress_embeds=True,
                **with_file(post.file),
            )
        self._answers[str(message.id)] = way
        _bound(self._answers, MOST_ANSWERS)
        return str(message.id)

    async def edit(self, message_id: str, post: Post, **more: Any) -> None:
        """Show something else. Raises Refused, Limited, Unreachable."""
        async with translated():
            await self._answers[message_id].asked.followup.edit_message(
                int(message_id), content=self._shown(post), allowed_mentions=NO_MENTIONS, **more
            )

    async def remove(self, message_id: str) -> None:
        """Take an answer away. Raises Refused, Limited, Unreachable."""
        async with translated():
            await self._answers[message_id].asked.followup.delete_message(int(message_id))

    # --- which way, and how long ---------------------------------------------------------------------------

    def _way(self, place: str, event_id: str) -> Way:
        """The newest interaction of whoever asked that; of anybody there, if we do not know who it was."""
        first = self._questions.get(event_id)
        ways = [
            way
            for way in self._gone_on(place)
            if first is None or (way.asked.user.id == first.asked.user.id and way.at_s >= first.at_s)
        ]
        return ways[-1] if ways or first is None else first

    def _gone_on(self, place: str) -> list[Way]:
        return [way for (at, _), way in self._again.items() if at == place]

    def _is_open(self, way: Way) -> bool:
        return self._clock.now_s() - way.at_s <= TOKEN_S

    def _end_in_time(self, turn_id: str, way: Way) -> None:
        if turn_id and turn_id not in self._turns:
            self._turns[turn_id] = False
            _bound(self._turns, MOST_ANSWERS)
            self._group.create_task(self._cut(turn_id, way))

    async def _cut(self, turn_id: str, way: Way) -> None:
        """Have nothing more written for a turn when its time is over; one that has ended is left alone."""
        await self._clock.sleep(max(0.0, way.at_s + WRITING_S - self._clock.now_s()))
        if turn_id in self._turns:
            self._turns[turn_id] = True
            self.stop(turn_id)

    def _shown(self, post: Post) -> str:
        """What is said; of an answer that was cut, why."""
        is_cut = self._turns.get(post.turn_id, False) and post.text.endswith(STOPPED)
        return post.text.removesuffix(STOPPED) + CUT if is_cut else shown(post.text)


def _bound(kept: OrderedDict[Any, Any], most: int) -> None:
    if len(kept) > most:
        kept.popitem(last=False)
