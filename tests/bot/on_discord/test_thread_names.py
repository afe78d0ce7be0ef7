"""What threads are called, without Discord."""

import pytest

from bot.on_discord.threads import MAX_NAME_LETTERS, UNNAMED, name_of
from bot.rendering.splitting import utf16_units


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Why?", "Why?"),
        ("", UNNAMED),
        ("<@123456789012345678> @everyone", UNNAMED),
        ("**Why** is `this` <@!12345> so?\n\nBecause", "Why is this so? Because"),
        ("look\u202e at\u200b <:fox:123456> that\x07", "look at that"),
        ("word " * 50, "word " * 16 + "word…"),
        ("x" * 200, "x" * 89 + "…"),
        ("🦊" * 100, "🦊" * 44 + "…"),
        ("\ud800 lone", "lone"),
    ],
)
def test_a_thread_is_named_by_the_first_words(text: str, name: str) -> None:
    assert name_of(text) == name
    assert 1 <= utf16_units(name_of(text)) <= MAX_NAME_LETTERS
