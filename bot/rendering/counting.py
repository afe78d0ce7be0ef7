"""How many there are of something, in words. Pure."""


def counted(number: int, what: str) -> str:
    """A number with what it counts: "1 credit", "2 credits"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
