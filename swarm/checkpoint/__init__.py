"""Reading a model: its config, its fingerprint, and single tensors of it, from a directory or from the Hub.

headers       one safetensors file: its header, and the bytes of single tensors; trusts nothing
digests       SHA-256 of weight files, remembered
files         where the files are: a directory, or the Hub (the only file that uses huggingface_hub)
checkpoint    config, fingerprint, tensor names, and reading tensors by name
progress      sentences for a person who waits
skeleton      the family's model without weights, and where its blocks are
conversion    names and layouts of a checkpoint -> those of the modules, by transformers' own rules

Importing this package imports neither torch nor transformers: both come with the first call that needs them.
"""

from swarm.checkpoint.checkpoint import Checkpoint, check_model, open_checkpoint

__all__ = ["Checkpoint", "check_model", "open_checkpoint"]
