"""How many there are of something, in words."""

from bot.rendering.counting import counted


def test_one_is_counted_differently_from_many() -> None:
    assert [counted(number, "credit") for number in (0, 1, 2, -1)] == [
        "0 credits",
        "1 credit",
        "2 credits",
        "-1 credits",
    ]
