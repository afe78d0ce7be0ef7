"""What the control socket carries: one line of JSON each way."""

import msgspec

MAX_REQUEST_BYTES = 65_536
MAX_ANSWER_BYTES = 4 << 20
MAX_VALUE_LETTERS = 1000
MAX_ARGUMENTS = 8


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An admin's command."""

    command: str
    arguments: dict[str, str] = {}

    def __post_init__(self) -> None:
        if len(self.arguments) > MAX_ARGUMENTS or any(
            len(it) > MAX_VALUE_LETTERS for it in self.arguments.values()
        ):
            raise ValueError("too much")


class Answer(msgspec.Struct, frozen=True):
    """What has come of it, or why nothing has."""

    text: str = ""
    rows: list[dict[str, str | int]] | None = None
    mistake: str = ""
    """A sentence, if it was not carried out."""
