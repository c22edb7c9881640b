"""The normalizer shared by all ranks; the identity without a process group."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """``value`` averaged over the ranks of the default process group, without gradient.

    Dividing each rank's sum by it makes the gradient that DistributedDataParallel averages the one of the global
    quotient. Every rank has to call it, also one that has no boxes, or the others wait forever.
    """
    value = value.detach()
    if not (dist.is_available() and dist.is_initialized()):
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()
