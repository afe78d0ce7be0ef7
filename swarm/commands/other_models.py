"""What to tell a person whose model nobody in the swarm serves, while others are. Pure.

The index of models is strangers' words: names go through status_text.plain, and are cut and counted.
"""

from collections import Counter
from collections.abc import Iterable

from swarm.commands.status_text import cut, plain
from swarm.wire.records import ModelRecord

MAX_NAMED = 3
MAX_NAME_CELLS = 60


def name_other_models(
    models: Iterable[ModelRecord], asked: str, fingerprint: str, encoding: str = "utf-8"
) -> str | None:
    """Name what the swarm hosts instead of the model `asked`, most servers first; None if nothing."""
    servers = Counter((m.name, m.fingerprint) for m in models if m.fingerprint != fingerprint)
    if not servers:
        return None
    ranked = sorted(servers, key=lambda model: (-servers[model], model))
    named = [
        f"{cut(plain(name, encoding), MAX_NAME_CELLS, '..')} (fingerprint {its})"
        for name, its in ranked[:MAX_NAMED]
    ]
    more = f" and {len(ranked) - MAX_NAMED} more" if len(ranked) > MAX_NAMED else ""
    return (
        f"this swarm hosts {', '.join(named)}{more}, not the model in {plain(asked, encoding)}"
        f" (fingerprint {fingerprint}): use the same model and revision"
    )
