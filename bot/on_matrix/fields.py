"""What a JSON object contains, whoever wrote it: asked for by type, empty if it is something else. Pure."""

import re
from typing import Any

Object = dict[str, Any]

MAX_ID_BYTES = 255
MAX_NAME_LETTERS = 100
_WHOLE = re.compile("-?[0-9]{1,18}")


def text_of(value: object, most: int = MAX_ID_BYTES) -> str:
    """The value if it is text, and not longer than `most`."""
    return value if isinstance(value, str) and len(value) <= most else ""


def object_of(value: object) -> Object:
    """The value if it is an object."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """The value if it is a list."""
    return value if isinstance(value, list) else []


def objects_in(value: object) -> list[Object]:
    """The objects in a list."""
    return [item for item in list_of(value) if isinstance(item, dict)]


def number_of(value: object, default: int = 0) -> int:
    """The value if it is an integer, or text that says one, as in old rooms."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
