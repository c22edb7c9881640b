"""Losses of coordinate differences. They carry a unit: that of the boxes, or its square."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import BoxPair, log_excess
from ._define import define
from ._parameters import NonNegative, UpToThousand


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
    return smooth(pair.difference.abs(), beta).sum(0)


def _check_balance(*, alpha: float, gamma: float, beta: float) -> None:
    if not 0.01 <= gamma / alpha <= 80.0:
        raise ValueError(f"gamma and alpha: expected gamma/alpha in [0.01, 80], got {gamma}/{alpha}")


@define(
    source="Pang et al., Libra R-CNN, CVPR 2019, arXiv:1904.02701",
    bounds=(0, math.inf),
    degree=1,
    lengths=("beta",),
    check=_check_balance,
)
def balanced_l1_loss(
    pair: BoxPair, *, alpha: UpToThousand = 0.5, gamma: UpToThousand = 1.5, beta: NonNegative = 1.0
) -> Tensor:
    """Absolute differences of the coordinates, rounded off at 0, with more gradient for small ones than smooth L1.

        sum over the 4 coordinates of β(α/b·(bz + 1)·ln(bz + 1) − αz) where z < 1, else β(γz + γ/b − α); z = |d|/β

    d is the difference of a coordinate of the two boxes; b = e^(γ/α) − 1 makes both parts meet. The paper has β = 1;
    with another β this loss is the paper's of d/β, times β. mmdet's loss with another ``beta`` differs: its
    parts do not meet.

    Args:
        {common}
        alpha: α; the smaller, the more gradient for small differences.
        gamma: γ, the slope of large differences; γ/α in [0.01, 80].
        beta: β, a length in the unit of the boxes, from which on the loss grows linearly; 0 gives γ times L1.

    Returns:
        ``(...)``, a length. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> # b = e³ - 1 = 19.0855; ½/b (10.543 ln 10.543) - ¼ = 0.4006 of 0.5, 1.5 · 2 + 1.5/b - ½ = 2.5786 of 2
    >>> balanced_l1_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([0.5, 0, 2, 4]))
    tensor(2.9792)
    """
    d, beta = pair.difference.abs(), float(beta)
    b = math.expm1(gamma / alpha)
    if _vanishes(beta, d.dtype):
        return gamma * d.sum(0)
    near = d.masked_fill(d > beta, beta)
    y = b * (near / beta)
    # (y + 1)·ln(y + 1) − y; next to 0 as (y + 1)·(e − ln(1 + e)) with e = −y/(y + 1).
    large = y > 1.0
    small = y.masked_fill(large, 0.0)
    curved = torch.where(large, (y + 1.0) * y.log1p() - y, (small + 1.0) * log_excess(-small / (small + 1.0)))
    return (alpha / b * beta * curved + gamma * torch.relu(d - beta)).sum(0)


def smooth(d: Tensor, beta: float) -> Tensor:
    """d²/(2β) where d < β, else d − β/2, of d >= 0; d itself for β = 0."""
    beta = float(beta)  # an int may be too large for a tensor
    if _vanishes(beta, d.dtype):
        return d
    # Both branches in one: the part of d below β is squared. In a `where`, d²/(2β) could overflow where not taken.
    near = d.masked_fill(d > beta, beta)
    return 0.5 * near * (near / beta) + torch.relu(d - beta)


def _vanishes(beta: float, dtype: torch.dtype) -> bool:
    """β is 0, or 0 in the dtype."""
    limits = torch.finfo(dtype)
    if beta > limits.max:
        raise ValueError(f"beta: expected at most {limits.max} in {dtype}, got {beta}")
    return beta < limits.tiny * limits.eps
