"""Where the blocks of the servers under test are: pytest's option `--device` says so.

What they are compared with, and the client, stay on the CPU.
"""

import os

import torch

from tests.conftest import DEVICE_VARIABLE


def blocks_device() -> torch.device:
    """The device on which blocks are to be loaded."""
    return torch.device(os.environ.get(DEVICE_VARIABLE, "cpu"))
