"""Numbers that people type, and what they may type."""

import pytest

from bot.commands.numbers import decimal_from, read_decimal, read_whole, whole_from


@pytest.mark.parametrize(("text", "number"), [("7", 7), (" +7 ", 7), ("-7", -7), ("0", 0), ("1000", 1000)])
def test_a_whole_number_is_read(text: str, number: int) -> None:
    assert read_whole(text, -10, 1000) == number


@pytest.mark.parametrize(
    "text", ["", "-", "+", "seven", "1.5", "7 8", "--7", "1e3", "0x7", "1001", "-11", "²", "9" * 5000]
)
def test_what_is_no_whole_number_or_too_large_a_one_is_none(text: str) -> None:
    assert read_whole(text, -10, 1000) is None


def test_what_may_be_typed_is_told_with_its_bounds() -> None:
    assert whole_from(0, 10**12) == "a whole number from 0 to 1000000000000"
    assert decimal_from(0.01, 2) == "a number from 0.01 to 2"


@pytest.mark.parametrize(("text", "number"), [("0,5", 0.5), ("0.5", 0.5), ("-1", -1.0), ("1e2", 100.0)])
def test_a_number_is_read_with_a_point_or_a_comma(text: str, number: float) -> None:
    assert read_decimal(text) == number


@pytest.mark.parametrize("text", ["", "warm", "nan", "inf", "-inf", "1,2,3", "1e999"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert read_decimal(text) is None
