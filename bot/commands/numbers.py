"""Numbers that people type, and what they may type. Pure."""

import math

MAX_DIGITS = 20


def whole_from(least: int, most: int) -> str:
    """What somebody may type, in a sentence."""
    return f"a whole number from {least} to {most}"


def decimal_from(least: float, most: float) -> str:
    """What somebody may type, in a sentence."""
    return f"a number from {least:g} to {most:g}"


def read_whole(text: str, least: int, most: int) -> int | None:
    """A whole number that somebody typed; None if it is none, or not one from `least` to `most`."""
    digits = text.strip().removeprefix("+")
    is_number = len(digits) <= MAX_DIGITS and digits.removeprefix("-").isdecimal()
    if not is_number or not least <= int(digits) <= most:
        return None
    return int(digits)


def read_decimal(text: str) -> float | None:
    """A number that somebody typed, with a point or a comma; None if it is none."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
