"""A model as its publisher left it: config, fingerprint, tensor names, and single tensors by name."""

import hashlib
import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.checkpoint.digests import Progress
from swarm.checkpoint.files import LocalFiles, ModelFiles
from swarm.checkpoint.headers import DTYPES, Header, TensorEntry, parse_table, read_header, read_tensor
from swarm.checkpoint.index import read_json, read_weight_map
from swarm.checkpoint.rope_lengths import growth
from swarm.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from swarm.checkpoint.conversion import Conversion

logger = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_BLOCKS = 1024
MAX_HIDDEN_SIZE = 1 << 17
UNRELATED = frozenset(
    (
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "dtype",
        "output_attentions",
        "output_hidden_states",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)
"""Keys of config.json that change when it is saved again, and not what the model computes: the dtype of
weights is in their files, and the one that a server computes in is in its record. All others count, unknown
ones too: two models taken for one are worse than one model taken for two."""
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def open_checkpoint(
    model: str, *, cache_dir: Path | None = None, offline: bool = False, progress: Progress | None = None
) -> "Checkpoint":
    """Open `model`: a directory, or a Hub id (`owner/name`, or `owner/name@revision`).

    Reads the config and the table of tensors, no weights; `progress` hears of these and other small files.
    Raises ConfigError with one sentence if that is not possible.
    """
    folder = _find_folder(model)
    if folder is not None:
        return Checkpoint(LocalFiles(folder))
    from swarm.checkpoint.hub import HubFiles  # a directory does without

    repository, _, revision = model.partition("@")
    return Checkpoint(
        HubFiles(repository, revision or None, cache_dir=cache_dir, offline=offline, progress=progress)
    )


def check_model(model: str) -> None:
    """Raise ConfigError for what `open_checkpoint` refuses without asking the Hub. Takes milliseconds."""
    folder = _find_folder(model)
    if folder is not None:
        Checkpoint(LocalFiles(folder))


def _find_folder(model: str) -> Path | None:
    """The directory that `model` names, or None if it is a name on the Hub. Raises ConfigError."""
    try:
        folder = Path(model).expanduser()
        is_folder, is_file = folder.is_dir() and model != "", folder.is_file()
    except (OSError, RuntimeError) as error:  # no permission to look, or no such user after a tilde
        raise ConfigError(f"{model!r} cannot be looked at ({error}); check the path") from error
    if is_folder:
        return folder
    if is_file or not _HUB_NAME.fullmatch(model) or model.startswith((".", "~")):
        raise ConfigError(
            f"{model!r} is neither a directory nor the name of a model on the Hub; check the path"
        )
    return None


class Checkpoint:
    """Config and weights of one model, read lazily; reading is safe from several threads.

    Raises ConfigError, in the constructor and in every method, if the files are not what they should be.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._headers: dict[str, Header] = {}
        self._peeked: dict[str, dict[str, TensorEntry]] = {}
        self._shard_of: dict[str, str] = {}
        self._raw_config = self._read_config()
        self._shard_of = self._find_shards()
        self._fingerprint: str | None = None
        self.bytes_read = 0

    @property
    def name(self) -> str:
        """What a person would call it: the directory or the Hub id."""
        return self._files.name

    @property
    def title(self) -> str:
        """What others may read: the Hub id, or the directory without the folders above it."""
        return self._files.title

    @cached_property
    def config(self) -> "PretrainedConfig":
        """transformers' config of the model, checked. Code that comes with a model is never run."""
        from swarm.checkpoint.skeleton import parse_config

        return parse_config(self.name, self._raw_config)

    @cached_property
    def num_blocks(self) -> int:
        return self._size("num_hidden_layers", MAX_BLOCKS)

    @cached_property
    def hidden_size(self) -> int:
        return self._size("hidden_size", MAX_HIDDEN_SIZE)

    @property
    def max_positions(self) -> int | None:
        """How many positions the model was made for; None if its config names no limit."""
        positions = getattr(self.config, "max_position_embeddings", None)
        if not isinstance(positions, int) or positions <= 0:
            return None
        return int(positions * growth(self.config))

    @property
    def fingerprint(self) -> str:
        """As `find_fingerprint`; reads all weights of a directory if nobody has asked before."""
        return self.find_fingerprint()

    def find_fingerprint(self, progress: Progress | None = None) -> str:
        """Return 32 hexadecimal digits that agree on every machine that has the same model.

        They cover every byte of every weight file, which file holds which tensor, and the config but for
        UNRELATED keys. Files on the Hub are not fetched for it; those of a directory are read, once.
        """
        if self._fingerprint is None:
            config = {key: value for key, value in self._raw_config.items() if key not in UNRELATED}
            shards = sorted(set(self._shard_of.values()))
            digests = {shard: self._files.digest(shard, progress) for shard in shards}
            covered = _canonical({"config": config, "digests": digests, "tensors": self._shard_of})
            self._fingerprint = hashlib.sha256(b"murmur-model-2" + covered).hexdigest()[:32]
        return self._fingerprint

    def tensor_names(self) -> tuple[str, ...]:
        return tuple(self._shard_of)

    def block_tensor_names(self, index: int) -> tuple[str, ...]:
        """Name the tensors of block `index`, skipped ones included."""
        return self._conversion.block_names(index)

    def end_tensor_names(self) -> tuple[str, ...]:
        """Name the tensors that belong to no block: embeddings, final norm, head."""
        return self._conversion.end_names()

    def read(self, names: Iterable[str], progress: Progress | None = None) -> dict[str, "torch.Tensor"]:
        """Read tensors in the checkpoint's own dtype and layout, fetching the files that hold them first."""
        names = tuple(names)
        self.fetch(names, progress)
        return {name: self._read_one(name) for name in names}

    def fetch(self, names: Collection[str], progress: Progress | None = None) -> None:
        """Make sure that the files that hold `names` are here and whole."""
        missing = [name for name in names if name not in self._shard_of]
        if missing:
            raise ConfigError(f"{self.name} has no tensor {missing[0]!r}; the checkpoint is not complete")
        shards = sorted({self._shard_of[name] for name in names})
        self._files.reserve(shards)
        for shard in shards:
            self._header(shard, progress)

    def num_bytes(self, names: Iterable[str]) -> int:
        """Add up what tensors take in their files, which must be here."""
        return sum(self._header(self._shard_of[name]).tensors[name].num_bytes for name in names)

    def stored_dtype(self, name: str) -> str:
        """Return torch's name of the dtype in which tensor `name` is stored."""
        entry = self._tensors(self._shard_of[name]).get(name)
        if entry is None:
            raise ConfigError(
                f"{self._shard_of[name]} of {self.name} lacks the tensor {name!r}; get it again"
            )
        return DTYPES[entry.dtype][0]

    def find_file(self, filename: str) -> Path | None:
        """Return a file beside the weights (tokenizer, generation config), or None if there is none."""
        return self._files.find(filename)

    @cached_property
    def _conversion(self) -> "Conversion":
        from swarm.checkpoint.conversion import Conversion
        from swarm.checkpoint.skeleton import build_skeleton

        return Conversion(build_skeleton(self.config), self.tensor_names())

    def _read_one(self, name: str) -> "torch.Tensor":
        shard = self._shard_of[name]
        path, header = self._path(shard), self._header(shard)
        tensor = read_tensor(path, header, name)
        self.bytes_read += header.tensors[name].num_bytes
        return tensor

    def _tensors(self, shard: str) -> dict[str, TensorEntry]:
        """Return the table of a file, without fetching the file."""
        if shard not in self._headers and shard not in self._peeked:
            table = self._files.peek(shard)
            if table is not None:
                self._peeked[shard] = parse_table(shard, table)
        return self._peeked[shard] if shard in self._peeked else self._header(shard).tensors

    def _header(self, shard: str, progress: Progress | None = None) -> Header:
        header = self._headers.get(shard)
        if header is None:
            header = read_header(self._path(shard, progress))
            for name, owner in self._shard_of.items():
                if owner == shard and name not in header.tensors:
                    raise ConfigError(
                        f"{self.name} is not complete: {shard} lacks the tensor {name!r}; get it again"
                    )
            self._headers[shard] = header
        return header

    def _path(self, shard: str, progress: Progress | None = None) -> Path:
        path = self._files.find(shard, progress)
        if path is None:
            raise ConfigError(f"{self.name} lacks {shard}, which its index names; get that file again")
        return path

    def _read_config(self) -> dict[str, Any]:
        path = self._files.find("config.json")
        if path is None:
            raise ConfigError(f"{self.name} has no config.json, so it is not a model; check the path")
        config = read_json(path)
        if not isinstance(config.get("model_type"), str):
            raise ConfigError(f"{path} names no model_type; get the model's own config.json")
        return config

    def _find_shards(self) -> dict[str, str]:
        """Map every tensor's name to the file that holds it, in the order of names."""
        if self._files.has(SINGLE_FILE):
            return dict.fromkeys(sorted(self._tensors(SINGLE_FILE)), SINGLE_FILE)
        index = self._files.find(INDEX_FILE)
        if index is None:
            raise self._without_weights()
        return read_weight_map(index)

    def _without_weights(self) -> ConfigError:
        names = self._files.names()
        if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
            return ConfigError(
                f"{self.name} has only pickled weights, which can run code when read; convert them to"
                " safetensors, for example with save_pretrained of transformers"
            )
        if any(name.endswith(".safetensors") for name in names):
            return ConfigError(
                f"{self.name} has neither {SINGLE_FILE} nor {INDEX_FILE}; get the missing file"
            )
        return ConfigError(
            f"{self.name} has no safetensors weights; get {SINGLE_FILE} or its parts and {INDEX_FILE}"
        )

    def _size(self, attribute: str, bound: int) -> int:
        """Read a size from the raw config; if the family has another word for it, ask transformers."""
        value = self._raw_config.get(attribute)
        if value is None:
            value = getattr(self.config, attribute, None)
        if type(value) is not int or not 1 <= value <= bound:
            raise ConfigError(
                f"config.json of {self.name} has an impossible {attribute}; get the model's own config.json"
            )
        return value


def _canonical(table: Mapping[str, Any]) -> bytes:
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
