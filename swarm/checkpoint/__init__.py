"""Reading a model: its config, its fingerprint, and single tensors of it, from a directory or from the Hub.

headers       one safetensors file: its header, and the bytes of single tensors; trusts nothing
digests       SHA-256 of weight files, remembered
files         where the files are: what is asked of any place, and a directory
hub           a model on the Hub; the only file that uses huggingface_hub
hub_troubles  what can go wrong with it, in sentences
index         the JSON files beside the weights
checkpoint    config, fingerprint, tensor names, and reading tensors by name
progress      sentences for a person who waits
prequantized  matrices that are stored in int8 or nf4 of bitsandbytes
skeleton      the family's model without weights, and where its blocks are
matrices      which weights of a block are matrices, for quantization
block_sizes   what a block takes in memory, in any dtype and quantization
fitting       how many of them fit; pure
conversion    names and layouts of a checkpoint -> those of the modules, by transformers' own rules

Importing this package imports neither torch nor transformers: both come with the first call that needs them.
"""

from swarm.checkpoint.checkpoint import Checkpoint, check_model, open_checkpoint

__all__ = ["Checkpoint", "check_model", "open_checkpoint"]
