"""What the model is told: the turns of a path that fit, and how much room is left for the answer. Pure.

The ids that a session was told are the truth. A turn adds to them; only where the template rewrites what came
before, where turns are dropped or where ids are missing is everything rendered anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.brain import Brain, Message, Reads
from bot.rendering.thinking import joined, opening_after, opening_of_prompt
from bot.turns.names import as_told
from storage.transcript import Said
from swarm.errors import ContextTooLong, LocalProtocolError

LEAST_ROOM_TOKENS = 16
OPENING_TOKENS = 8
"""Of a prompt, the last: more than a template needs to open the thoughts of the answer."""
SPARE_SHARE = 4
"""If turns must go, so many go that a fourth is free: else the next turn would be told everything anew."""


@dataclass(frozen=True, slots=True)
class Context:
    """All that the session holds when the answer begins."""

    ids: Sequence[int]
    num_held: int
    """So many of them were there before; 0 if everything was rendered anew."""
    num_dropped: int
    room_tokens: int
    new_tokens: int
    """What the question itself has added: what is paid for, whatever had to be said again."""
    num_before: int = 0
    """Turns of the path, the dropped ones too."""
    opening: str = ""
    """What the answer's text lacks at its beginning: thoughts that were open when it began."""

    @property
    def is_anew(self) -> bool:
        """The session's ids do not go on from those of the turn before."""
        return self.num_held == 0

    @property
    def prompt_ids(self) -> Sequence[int]:
        """What the transcript keeps of this turn."""
        return self.ids[self.num_held :]


def longest(brain: Brain, set_tokens: int) -> int | None:
    """How long a conversation may become: what the model takes, or less if less is set; None: for ever."""
    limits = [limit for limit in (brain.max_tokens, set_tokens or None) if limit is not None]
    return min(limits, default=None)


def plan_context(  # what there is to say, and how much of it may be said
    brain: Brain, system: str, path: Sequence[Said], said: Said, wanted_tokens: int, limit: int | None
) -> Context:
    """Fit a question behind as much of `path` as leaves room for `wanted_tokens`; the oldest turns go first.

    Raises ContextTooLong if the question alone does not fit into `limit`.
    """
    told = as_told([*path, said])
    before = min(path[-1].progress.num_dropped, len(path)) if path else 0
    for num_dropped in range(before, len(path) + 1):
        is_more = num_dropped > before
        if num_dropped < len(path) and not path[num_dropped].question.prompt:
            continue  # it goes on with an answer that would be gone
        messages = _messages(system, path[num_dropped:], told[num_dropped:])
        held = [] if is_more or num_dropped == len(path) else held_ids(path)
        ids = brain.encode(messages, held)
        room_tokens = wanted_tokens if limit is None else limit - len(ids)
        spare = limit // SPARE_SHARE if is_more and limit is not None and num_dropped < len(path) else 0
        if room_tokens >= wanted_tokens + spare:
            break
    if room_tokens < min(LEAST_ROOM_TOKENS, wanted_tokens):
        raise ContextTooLong(f"{len(ids)} tokens are too many where {limit} are the most")
    num_held = len(held) if ids[: len(held)] == held else 0
    new_tokens = len(ids) - num_held if num_held or not path else len(brain.encode(messages[-1:]))
    opening = opening_of_prompt(brain.text_of(ids[-OPENING_TOKENS:])) if isinstance(brain, Reads) else ""
    room_tokens = min(room_tokens, wanted_tokens)
    return Context(ids, num_held, num_dropped, room_tokens, new_tokens, len(path), opening)


def resume_context(path: Sequence[Said], wanted_tokens: int, limit: int | None) -> Context:
    """Go on with the last answer of `path` where it ended.

    Raises LocalProtocolError if its ids are not known any more, ContextTooLong if there is no room.
    """
    held = held_ids(path)
    if not held:
        raise LocalProtocolError("there is no answer to go on with")
    room = wanted_tokens if limit is None else min(wanted_tokens, limit - len(held))
    if room < min(LEAST_ROOM_TOKENS, wanted_tokens):
        raise ContextTooLong(f"the conversation has {len(held)} tokens, and {limit} are the most")
    last = path[-1].progress
    return Context(held, len(held), last.num_dropped, room, 0, len(path), opening_after(last.answer))


def held_ids(path: Sequence[Said]) -> list[int]:
    """What a session that was told the turns of `path` holds; nothing if part of that is not known."""
    ids: list[int] | None = []
    for said in path:
        progress = said.progress
        if progress.prompt_ids is None or (ids is None and not progress.is_anew):
            ids = None
        else:
            before = [] if progress.is_anew or ids is None else ids
            ids = [*before, *progress.prompt_ids, *progress.answer_ids]
    return ids or []


def _messages(system: str, path: Sequence[Said], told: Sequence[str]) -> list[Message]:
    """`told` are the questions of `path`, and the one that is to be answered."""
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for said, question in zip(path, told, strict=False):
        if question:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": said.progress.answer})
        elif messages:  # it went on with the answer before
            *messages, last = messages
            messages.append({"role": "assistant", "content": joined(last["content"], said.progress.answer)})
    return [*messages, {"role": "user", "content": told[-1]}]
