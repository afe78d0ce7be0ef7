"""What Discord says when it does not do what it is asked: a status, a code of its own, a sentence."""

from typing import Any

SENTENCES: dict[int, tuple[int, str]] = {
    0: (401, "401: Unauthorized"),
    10003: (404, "Unknown Channel"),
    10004: (404, "Unknown Guild"),
    10007: (404, "Unknown Member"),
    10008: (404, "Unknown Message"),
    10013: (404, "Unknown User"),
    10014: (400, "Unknown Emoji"),
    10015: (404, "Unknown Webhook"),
    10062: (404, "Unknown interaction"),
    10063: (404, "Unknown application command"),
    20012: (403, "You are not authorized to perform this action on this application"),
    30010: (400, "Maximum number of reactions reached (20)"),
    30032: (400, "Maximum number of application commands reached (100)."),
    40005: (413, "Request entity too large"),
    40094: (400, "This interaction has reached its maximum follow-up messages"),
    40060: (400, "Interaction has already been acknowledged."),
    50001: (403, "Missing Access"),
    50003: (403, "Cannot execute action on a DM channel"),
    50005: (403, "Cannot edit a message authored by another user"),
    50006: (400, "Cannot send an empty message"),
    50007: (403, "Cannot send messages to this user"),
    50013: (403, "Missing Permissions"),
    50024: (400, "Cannot execute action on this channel type"),
    50027: (401, "Invalid Webhook Token"),
    50035: (400, "Invalid Form Body"),
    50083: (400, "Thread is archived"),
    50109: (400, "The request body contains invalid JSON."),
    160002: (400, "Cannot reply without permission to read message history"),
    160004: (400, "A thread has already been created for this message"),
    160005: (400, "Thread is locked"),
}


class Refusal(Exception):
    """An answer with a status of 400 or more."""

    def __init__(self, code: int, errors: dict[str, Any] | None = None, status: int = 0) -> None:
        known_status, sentence = SENTENCES.get(code, (status, f"{status}: refused by the test"))
        super().__init__(sentence)
        self.status = status or known_status
        self.code = code
        self.body: dict[str, Any] = {"message": sentence, "code": code}
        if errors:
            self.body["errors"] = errors
        self.headers: dict[str, str] = {}


class TooManyRequests(Refusal):
    """A 429. `retry_after_s` says when to come again."""

    def __init__(self, retry_after_s: float, is_global: bool = False, scope: str = "user") -> None:
        super().__init__(0, status=429)
        seconds = max(round(retry_after_s, 3), 0.001)
        self.body = {
            "message": "You are being rate limited.",
            "retry_after": seconds,
            "global": is_global,
        }
        # A 429 without Via looks like a ban by Discord's proxy; clients then do not come again.
        self.headers = {
            "Via": "1.1 google",
            "Retry-After": str(int(seconds) + 1),
            "X-RateLimit-Scope": "global" if is_global else scope,
        }
        if is_global:
            self.headers["X-RateLimit-Global"] = "true"


def invalid_form(field: str, code: str, sentence: str) -> Refusal:
    """A 50035 that blames one field; `field` may be a path with dots."""
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": sentence}]}
    for name in reversed(field.split(".")):
        errors = {name: errors}
    return Refusal(50035, errors)


def too_long(field: str, limit: int) -> Refusal:
    return invalid_form(field, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")
