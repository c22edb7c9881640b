"""Losses of coordinate differences. They carry a unit: that of the boxes, or its square."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import BoxPair
from ._define import define
from ._parameters import NonNegative


@define(source="", bounds=(0, math.inf), degree=1)
def l1_loss(pair: BoxPair) -> Tensor:
    """Absolute differences of the coordinates.

        sum over the 4 coordinates of |d|

    d is the difference of a coordinate of the two boxes.

    Args:
        {common}

    Returns:
        ``(...)``, a length. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> l1_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 2, 4]))  # 1 + 0 + 0 + 2
    tensor(3.)
    """
    return pair.difference.abs().sum(0)


@define(source="", bounds=(0, math.inf), degree=2)
def l2_loss(pair: BoxPair) -> Tensor:
    """Squared differences of the coordinates.

        sum over the 4 coordinates of d²

    d is the difference of a coordinate of the two boxes.

    Args:
        {common}

    Returns:
        ``(...)``, an area. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> l2_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 2, 4]))  # 1² + 0² + 0² + 2²
    tensor(5.)
    """
    d = pair.difference
    return (d * d).sum(0)


@define(
    source="Girshick, Fast R-CNN, ICCV 2015, arXiv:1504.08083",
    bounds=(0, math.inf),
    degree=1,
    lengths=("beta",),
)
def smooth_l1_loss(pair: BoxPair, *, beta: NonNegative = 1.0) -> Tensor:
    """Absolute differences of the coordinates, rounded off at 0.

        sum over the 4 coordinates of d²/(2β) where |d| < β, else |d| − β/2

    d is the difference of a coordinate of the two boxes. With boxes in [0, 1] and β = 1 it is only ½ · L2.

    Args:
        {common}
        beta: β, a length in the unit of the boxes, from which on the loss grows linearly; 0 gives L1.

    Returns:
        ``(...)``, a length. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> smooth_l1_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([0.5, 0, 2, 4]))  # 0.5²/2 + (2 - 1/2)
    tensor(1.6250)
    """
    d = pair.difference.abs()
    beta, limits = float(beta), torch.finfo(d.dtype)
    if beta > limits.max:
        raise ValueError(f"beta: expected at most {limits.max} in {d.dtype}, got {beta}")
    if beta < limits.tiny * limits.eps:  # 0, or 0 in the dtype
        return d.sum(0)
    # Both branches in one: the part of |d| below β is squared. In a `where`, d²/(2β) could overflow where not taken.
    near = d.masked_fill(d > beta, beta)
    return (0.5 * near * (near / beta) + torch.relu(d - beta)).sum(0)
