"""A model in files of one block each, so that what was fetched tells which blocks were wanted."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

ENDS = "model-ends.safetensors"


def block_file(index: int) -> str:
    """The name of the file that holds block `index`."""
    return f"model-block-{index}.safetensors"


def save_by_blocks(model: Path, folder: Path) -> Path:
    """Copy a model of one file to `folder`, with a file for each block and one for what belongs to none."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    shards: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        shards.setdefault(_file_of(name), {})[name] = tensor
    for file, tensors in shards.items():
        save_file(tensors, folder / file)
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _file_of(tensor: str) -> str:
    _, is_of_block, rest = tensor.partition(".layers.")
    return block_file(int(rest.partition(".")[0])) if is_of_block else ENDS
