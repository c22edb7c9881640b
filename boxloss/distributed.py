"""Normalizers shared by all ranks of a process group; without one, those of a single process.

DistributedDataParallel averages the gradients of its ranks. A rank that divides its own sum by the *mean* of a number
over the ranks therefore trains on the global sum over the global number. Every rank has to call these functions, also
one that has no boxes, or the others wait forever.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """The number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """``value`` averaged over the ranks, without gradient."""
    value = value.detach()
    ranks = world_size()
    if ranks == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / ranks


def mean_count(count: Tensor) -> Tensor:
    """A number of things averaged over the ranks, of at least one in all: max(total, 1)/ranks."""
    return mean_over_ranks(count).clamp(min=1 / world_size())
