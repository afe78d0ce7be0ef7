"""How far the same computation may be from itself when its sums are taken in another order."""

import torch

MAX_DIFFERENCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Allowed difference by dtype, as a share of the largest output where that is above 1.

Half precisions round at every step, in another order here than there. With them the median token counts, not
the worst: rounding may send one to another expert. A wrong mask or position moves most by 0.3 and more.
"""
