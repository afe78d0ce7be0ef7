"""What no value tells alone: which do not go together, and which are allowed but unwise. Pure."""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from bot.config.mistakes import Key, Mistake, written
from bot.config.models import Settings

LEAST_SECRET_LETTERS = 16
_PATHS: tuple[Key, ...] = (
    ("storage", "path"),
    ("matrix", "store"),
    ("swarm", "identity_file"),
    ("ops", "control_socket"),
)


def find_contradictions(settings: Settings) -> Iterator[Mistake]:
    """What keeps the bot from running with these settings, though each of them is right for itself."""
    yield from _missing(settings)
    quota, limits = settings.quota, settings.limits
    if quota.balance_cap < quota.daily_grant:
        yield Mistake(
            f"[quota] balance_cap must be daily_grant ({quota.daily_grant}) or more, not {quota.balance_cap}",
            (("quota", "balance_cap"), ("quota", "daily_grant")),
        )
    if 0 < limits.context_tokens <= limits.max_new_tokens:
        yield Mistake(
            f"[limits] context_tokens must be 0 or more than max_new_tokens ({limits.max_new_tokens}), "
            f"not {limits.context_tokens}",
            (("limits", "context_tokens"), ("limits", "max_new_tokens")),
        )
    yield from _shared_paths(settings)


def find_warnings(settings: Settings) -> Iterator[str]:
    """What works and should be thought about again, one sentence each."""
    is_enabled = settings.discord.enabled or settings.matrix.enabled
    if not is_enabled:
        yield "neither [discord] nor [matrix] is enabled: the bot would have nobody to answer"
    elif not settings.bot.admins:
        yield "[bot] admins is empty: nobody may use the admin commands in a chat"
    if settings.quota.credit:
        yield "[quota] credit: earning by running a server is not there yet, and changes nothing"
    if settings.ops.metrics_port and not is_loopback(settings.ops.metrics_host):
        yield "[ops] metrics_host is no loopback address: whoever reaches it can read the metrics"
    address = urlsplit(settings.matrix.homeserver)
    if address.scheme == "http" and not is_loopback(address.hostname or ""):
        yield "[matrix] homeserver is not https: whoever is on the way can read the access token"
    if 0 < len(settings.matrix.store_secret) < LEAST_SECRET_LETTERS:
        yield f"[matrix] store_secret is short: make it {LEAST_SECRET_LETTERS} letters or more, at random"


def is_loopback(host: str) -> bool:
    """Whether an address leads to this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _missing(settings: Settings) -> Iterator[Mistake]:
    """What an enabled platform needs. Secrets that are missing are told by those who look for them."""
    swarm, matrix = settings.swarm, settings.matrix
    if matrix.enabled and not matrix.homeserver:
        yield _needed(("matrix", "homeserver"), "[matrix]", '"https://matrix.example.org"')
    if matrix.enabled and not matrix.user:
        yield _needed(("matrix", "user"), "[matrix]", '"@murmur:example.org"')
    if not (settings.discord.enabled or matrix.enabled):
        return
    if not swarm.models:
        yield _needed(("swarm", "models"), "a platform", '["owner/model"]')
    if not swarm.initial_peers:
        yield _needed(
            ("swarm", "initial_peers"), "a platform", '["/ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..."]'
        )


def _needed(key: Key, by: str, example: str) -> Mistake:
    return Mistake(f"{written(key)} is needed once {by} is enabled: {key[1]} = {example}", (key,))


def _shared_paths(settings: Settings) -> Iterator[Mistake]:
    first_of: dict[object, Key] = {}
    for key in _PATHS:
        path = getattr(getattr(settings, key[0]), key[1])
        other = first_of.setdefault(path, key)
        if other != key:
            yield Mistake(f"{written(key)} and {written(other)} must not be the same path", (other, key))
