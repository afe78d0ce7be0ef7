"""Cuts answers into messages without holding the event loop for long."""

import asyncio
from collections.abc import Callable

from bot.rendering.splitting import Measure, Part
from bot.sending.outbound import Outbound

INLINE_LETTERS = 1500
"""A thousand letters take up to 10 ms, where fence follows fence."""


async def cut(how: Callable[[str, int, Measure], list[Part]], text: str, port: Outbound) -> list[Part]:
    """Cut `text` by `split` or `preview` into messages that a platform takes; long ones on a thread."""
    if len(text) <= INLINE_LETTERS:
        return how(text, port.limits.letters, port.size)
    return await asyncio.to_thread(how, text, port.limits.letters, port.size)
