"""Compares the traffic with Discord's public OpenAPI document, where that is present.

It says what the fake leaves out and what the bot gets wrong. It knows neither state nor permissions, allows
unknown fields, and knows nothing of the gateway but the shape of messages.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.discord_peer.things import Json

DOCUMENT = Path(__file__).parents[3] / "shared/discord/openapi.json"
NUMBER_ONLY = re.compile(r"-?\d{1,19}")


class Referee:
    """Validators by operation, made once."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._validators: dict[str, Any] = {}

    def request_errors(self, route: str, query: Json, body: Any) -> list[str]:
        """What is wrong with a request; `route` is a method and a path template of the document."""
        operation = self._operation(route)
        if operation is None:
            return [f"{route}: Discord has no such operation"]
        found = [f"{route}: {sentence}" for sentence in self._query_errors(operation, query)]
        if body is None:
            return found
        if "requestBody" not in operation:
            return [*found, f"{route}: takes no body"]
        return found + self._errors(route, ids_as_text(body), "requestBody")

    def answer_errors(self, route: str, status: int, body: Any) -> list[str]:
        """What is wrong with an answer of ours."""
        operation = self._operation(route)
        # Any operation may be answered so, but the document does not say it of each.
        if operation is None or status == 429 or status >= 500:
            return []
        responses = operation["responses"]
        if str(status) not in responses:
            return [] if f"{status // 100}XX" in responses else [f"{route}: never answers {status}"]
        if "content" not in responses[str(status)]:
            return [] if body is None else [f"{route}: {status} has no body"]
        return self._errors(route, body, "responses", str(status))

    def message_errors(self, event: str, payload: Json) -> list[str]:
        """What is wrong with a message in a gateway event."""
        validator = self._validator("#/components/schemas/MessageResponse")
        return [f"{event}: {sentence(error)}" for error in validator.iter_errors(payload)]

    def _operation(self, route: str) -> Json | None:
        method, _, path = route.partition(" ")
        item: Json = self._document["paths"].get(path, {})
        return item.get(method.lower())

    def _errors(self, route: str, body: Any, *below: str) -> list[str]:
        method, _, path = route.partition(" ")
        steps = ("paths", path, method.lower(), *below, "content", "application/json", "schema")
        pointer = "#/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)
        return [f"{route}: {sentence(error)}" for error in self._validator(pointer).iter_errors(body)]

    def _query_errors(self, operation: Json, query: Json) -> list[str]:
        known = {one["name"]: one for one in operation.get("parameters", []) if one.get("in") == "query"}
        found = [f"query has no {name!r}" for name in query if name not in known]
        for name in set(query) & set(known):
            schema = {**known[name]["schema"], "components": self._document["components"]}
            value = _plain(query[name], str(schema.get("type", "string")))
            found += [
                f"query {name}: {sentence(error)}"
                for error in Draft202012Validator(schema).iter_errors(value)
            ]
        return found

    def _validator(self, pointer: str) -> Any:
        if pointer not in self._validators:
            parts = {key: self._document[key] for key in ("components", "paths")}
            self._validators[pointer] = Draft202012Validator({"$ref": pointer, **parts})
        return self._validators[pointer]


def _plain(text: str, kind: str) -> Any:
    """A query's value as JSON of the documented type: numbers and truths are text in a URL."""
    if "boolean" in kind:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return int(text) if "integer" in kind and NUMBER_ONLY.fullmatch(text) else text


def sentence(error: Any) -> str:
    return f"{error.json_path}: {error.message[:200]}"


def ids_as_text(value: Any) -> Any:
    """A copy with ids as text: discord.py sends some as numbers, and Discord takes them."""
    if isinstance(value, list):
        return [ids_as_text(one) for one in value]
    if not isinstance(value, dict):
        return value
    is_file = "filename" in value
    return {
        key: str(one)
        if type(one) is int and (key.endswith("_id") or (is_file and key == "id"))
        else ids_as_text(one)
        for key, one in value.items()
    }


@lru_cache(maxsize=1)
def load_referee() -> Referee | None:
    """None where the document is not."""
    if not DOCUMENT.exists():
        return None
    return Referee(json.loads(DOCUMENT.read_text(encoding="utf-8")))
