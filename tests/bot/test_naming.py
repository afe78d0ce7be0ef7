"""Whom an admin means."""

import pytest

from bot.commands.naming import Mistaken, read_named, read_person
from storage.ledger import Person


@pytest.mark.parametrize(
    ("text", "platform", "name"),
    [
        ("@ada:example.org", "matrix", "@ada:example.org"),
        ("https://matrix.to/#/@ada:example.org", "matrix", "@ada:example.org"),
        ("123456789012345678", "discord", "123456789012345678"),
        ("<@123>", "discord", "123"),
        ("<@!123>", "discord", "123"),
        ("<@&456>", "discord", "456"),
        ("<#789>", "discord", "789"),
        ("!room:example.org", "matrix", "!room:example.org"),
        ("example.org", "matrix", "example.org"),
        ("localhost:8448", "matrix", "localhost:8448"),
    ],
)
def test_people_and_places_are_named_as_their_platforms_do(text: str, platform: str, name: str) -> None:
    assert read_named(text) == Person(platform, name)


@pytest.mark.parametrize(
    "text",
    ["", "bob", "@bob", "<@bob>", "!", "@a:b\nc", "#room:example.org", "x" * 300, "<@&1>", "example.org"],
)
def test_what_names_nobody_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(Mistaken) as raised:
        read_person(text)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 150
