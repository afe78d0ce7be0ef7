"""How rope scalings that know the length of a sequence change what a model can take.

`dynamic` stretches its frequencies beyond the original length, up to a factor. `longrope` has two sets of
them, one for sequences beyond the original length. Such a sequence is rotated by the long set from its first
token on, so a session that grows beyond the original length is computed again from its beginning, as
transformers does in Phi-3's `generate`. Client and server must agree on when: this is the one place that says
so.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def growth(config: "PretrainedConfig") -> float:
    """Return how many times its `max_position_embeddings` a model takes: more than 1 with `dynamic` rope."""
    factors = [kind.get("factor", 1.0) for kind in _kinds(config) if kind.get("rope_type") == "dynamic"]
    return min((factor for factor in factors if isinstance(factor, int | float) and factor > 1), default=1.0)


def short_positions(config: "PretrainedConfig") -> int | None:
    """Return the length up to which the short set holds; None if the model has no `longrope`."""
    limits = [
        int(kind.get("original_max_position_embeddings") or config.max_position_embeddings)
        for kind in _kinds(config)
        if "longrope" in str(kind.get("rope_type"))
    ]
    return min(limits, default=None)


def _kinds(config: "PretrainedConfig") -> list[dict[str, Any]]:
    """The rope parameters, of each layer type if they differ."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [kind for kind in rope.values() if isinstance(kind, dict)]
    return nested or [rope]
