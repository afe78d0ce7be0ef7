"""Conversations as token ids: a new turn appends to what was really generated, never to its re-rendering.

Text tokenized again is not always what the model wrote. The ids of an answer are therefore kept, and only
what the template puts around and behind it is rendered.
"""

from collections.abc import Sequence

from swarm.text import Message, Tokenizer

__all__ = ["Message", "turn_ids"]


def turn_ids(tokenizer: Tokenizer, messages: Sequence[Message], told: Sequence[int]) -> list[int]:
    """Ids of the whole conversation up to the answer that is wanted now.

    `messages` end with the user's new one; `told` are the ids of all before it, with the answer that was
    written last, as a session was told them. Where there are none, or the template rewrites earlier turns,
    everything is rendered anew.
    """
    rendered = tokenizer.encode_chat(messages)
    if not told or len(messages) < 3:
        return rendered
    before = tokenizer.encode_chat(messages[:-1], add_generation_prompt=False)
    if rendered[: len(before)] != before:
        return rendered
    first = tokenizer.encode_chat(_up_to_first_question(messages))
    if list(told[: len(first)]) != first:  # it was told other instructions
        return rendered
    held = list(told)
    end = _last_end(before, tokenizer)
    if end is None:
        return rendered
    if held[-1] not in tokenizer.eos_ids:
        held.append(before[end])
    return held + before[end + 1 :] + rendered[len(before) :]


def _up_to_first_question(messages: Sequence[Message]) -> Sequence[Message]:
    roles = [message["role"] for message in messages]
    return messages[: roles.index("user") + 1] if "user" in roles else messages


def _last_end(ids: Sequence[int], tokenizer: Tokenizer) -> int | None:
    """Where the last turn in `ids` ends, if the template marks it."""
    ends = [index for index, token_id in enumerate(ids) if token_id in tokenizer.eos_ids]
    return ends[-1] if ends else None
