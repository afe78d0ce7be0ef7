"""The JSON files beside the weights: their size and shape are checked before they are believed."""

import json
import re
from pathlib import Path
from typing import Any

from swarm.errors import ConfigError

MAX_JSON_BYTES = 64 << 20


def read_weight_map(path: Path) -> dict[str, str]:
    """Read from a model's index which file holds which tensor. Raises ConfigError if it does not say so."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConfigError(f"{path} names no tensors; get it again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.-]{1,200}\.safetensors", shard):
            raise ConfigError(
                f"{path} puts {name[:80]!r} into something that is no safetensors file of the model"
            )
    return dict(sorted(weight_map.items()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ConfigError if the file is none, or too large to be one."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"{path} is too large to be what its name says; get it again")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON; get it again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is not a JSON object; get it again")
    return content
