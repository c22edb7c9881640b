"""Losses of areas only. Without unit, and without gradient where the boxes lie apart (GIoU excepted)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import BoxPair, one_minus_exp
from ._define import define
from ._parameters import NonNegative, UpToOne, UpToTen, UpToThousand


@define(source="", bounds=(0, 1))
def iou_loss(pair: BoxPair) -> Tensor:
    """IoU, linear.

        1 − I/U

    I and U are the areas of the boxes' intersection and union.

    Args:
        {common}

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where both are empty.

    Raises:
        {raises}

    >>> iou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # 1 - 1/7
    tensor(0.8571)
    """
    return pair.iou_loss


@define(source="Yu et al., UnitBox, ACM MM 2016, arXiv:1608.01471", bounds=(0, math.inf))
def log_iou_loss(pair: BoxPair, *, floor: UpToOne = 1e-6) -> Tensor:
    """IoU, logarithmic: UnitBox's IoU loss.

        −ln(I/U)

    I and U are the areas of the boxes' intersection and union.

    Args:
        {common}
        floor: IoU is held at least this, with zero gradient below.

    Returns:
        ``(...)``, without unit, in [0, −ln floor]. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> log_iou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # -ln(1/7)
    tensor(1.9459)
    """
    low = pair.iou <= floor if floor < 0.5 else pair.iou_loss >= 1.0 - floor
    return (-pair.log_iou).masked_fill(low, 0.0 - math.log(floor))


@define(source="Ge et al., YOLOX, 2021, arXiv:2107.08430 (code); PaddleDetection", bounds=(0, 1))
def squared_iou_loss(pair: BoxPair) -> Tensor:
    """IoU, squared: what YOLOX and PaddleDetection call IoU loss.

        1 − (I/U)²

    I and U are the areas of the boxes' intersection and union.

    Args:
        {common}

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where both are empty.

    Raises:
        {raises}

    >>> squared_iou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # 1 - 1/49
    tensor(0.9796)
    """
    # Equal in both branches; each keeps its digits, and those of its gradient, where it is taken.
    return torch.where(pair.iou > 0.5, pair.iou_loss * (1.0 + pair.iou), 1.0 - pair.iou * pair.iou)


@define(source="He et al., NeurIPS 2021, arXiv:2110.13675", bounds=(0, 1))
def alpha_iou_loss(pair: BoxPair, *, alpha: UpToThousand = 3.0) -> Tensor:
    """IoU to a power: α > 1 gives more weight to pairs that overlap much.

        1 − (I/U)^α

    I and U are the areas of the boxes' intersection and union. α = 1 is the IoU loss, α = 2 the squared one.

    Args:
        {common}
        alpha: α; 3 in the authors' code.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where they do not overlap.

    Raises:
        {raises}

    >>> alpha_iou_loss(torch.tensor([0.0, 0, 2, 4]), torch.tensor([0.0, 1, 2, 3]))  # 1 - (4/8)³
    tensor(0.8750)
    """
    return one_minus_exp(-alpha * pair.log_iou).masked_fill(pair.iou == 0.0, 1.0)


def _check_range(*, d: float, u: float) -> None:
    if not d + 0.001 <= u:
        raise ValueError(f"d and u: expected u to be at least 0.001 above d, got {d} and {u}")


@define(source="Zhang and Zhang, 2024, arXiv:2401.10525", bounds=(0, 1), zero_from="u", check=_check_range)
def focaler_iou_loss(pair: BoxPair, *, d: NonNegative = 0.0, u: UpToOne = 0.95) -> Tensor:
    """IoU, stretched: of the range between two bounds, so that pairs worse or better than these have no say.

        1 − clamp((I/U − d)/(u − d), 0, 1)

    I and U are the areas of the boxes' intersection and union. As published, the loss is 0, with zero gradient,
    wherever IoU is u or more, and 1, with zero gradient, wherever it is below d. Next to u the value is a small
    difference, rounded as 1 − I/U is: within 4 units in the last place of (1 − I/U)/(u − d), not of itself.

    Args:
        {common}
        d: the IoU up to which the loss is 1.
        u: the IoU from which on it is 0; at least 0.001 above ``d``.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 **wherever IoU is u or more**; 1 where it is d or less.

    Raises:
        {raises}

    >>> focaler_iou_loss(torch.tensor([0.0, 0, 2, 4]), torch.tensor([0.0, 1, 2, 3]))  # 1 - (4/8)/0.95
    tensor(0.4737)
    """
    # 1 − u is exact for u above ½, and 1 − I/U has the digits there.
    above = torch.where(pair.iou > 0.5, pair.iou_loss - (1.0 - u), u - pair.iou)
    return (above / (u - d)).clamp(min=0.0).masked_fill(pair.iou < d, 1.0)


@define(source="Zhang et al., 2023, arXiv:2311.02877", bounds=(0, 1))
def inner_iou_loss(pair: BoxPair, *, ratio: UpToTen = 0.75) -> Tensor:
    """IoU of smaller or larger boxes about the same centers.

        1 − Iᵢ/Uᵢ

    Iᵢ and Uᵢ are the areas of the intersection and union of both boxes with their sides times ``ratio``, each about its
    own center. Smaller ones tell good pairs apart more sharply, larger ones reach further.

    Args:
        {common}
        ratio: of the inner sides to the sides. Values are within 6 units in the last place for 1/2 … 2; each further
            factor of 2 costs a bit.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where the inner ones do not overlap.

    Raises:
        {raises}

    >>> # 4 × 4 boxes 1 apart; their inner ones are 3 × 3 and share 2 × 3
    >>> inner_iou_loss(torch.tensor([0.0, 0, 4, 4]), torch.tensor([1.0, 0, 5, 4]))  # 1 - 6/(9 + 9 - 6)
    tensor(0.5000)
    """
    return pair.inner(ratio).iou_loss


@define(source="Rezatofighi et al., CVPR 2019, arXiv:1902.09630", bounds=(0, 2))
def giou_loss(pair: BoxPair) -> Tensor:
    """Generalized IoU: goes on pulling boxes together after they stop overlapping.

        1 − I/U + (|H| − U)/|H|

    I and U are the areas of the boxes' intersection and union; H is their hull, the smallest box around both.

    Args:
        {common}

    Returns:
        ``(...)``, without unit, in [0, 2]. 0 where two boxes coincide; 1 where both are one point.

    Raises:
        {raises}

    >>> giou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # 1 - 1/7 + 2/9
    tensor(1.0794)
    """
    return pair.iou_loss + pair.hull_excess


@define(source="Salehi et al., MLMI 2017, arXiv:1706.05721, of box areas", bounds=(0, 1), symmetric=False)
def tversky_box_loss(pair: BoxPair, *, alpha: UpToThousand = 0.3, beta: UpToThousand = 0.7) -> Tensor:
    """Tversky index of the areas: what a box has too much and what it lacks weigh differently.

        1 − I/(I + α|p∖t| + β|t∖p|)

    I is the area of the boxes' intersection, p∖t what the prediction has too much, t∖p what it lacks. α = β = 1 is the
    IoU loss, α = β = ½ the Dice loss.

    Args:
        {common}
        alpha: α, the weight of what is too much.
        beta: β, the weight of what is missing.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where they do not overlap.

    Raises:
        {raises}

    >>> tversky_box_loss(torch.tensor([0.0, 0, 4, 2]), torch.tensor([0.0, 0, 2, 4]))  # 1 - 4/(4 + 0.3 * 4 + 0.7 * 4)
    tensor(0.5000)
    """
    return pair.tversky_loss(alpha, beta)


@define(source="Milletari et al., V-Net, 3DV 2016, arXiv:1606.04797, of box areas", bounds=(0, 1))
def dice_box_loss(pair: BoxPair) -> Tensor:
    """Dice coefficient, or F1, of the areas.

        1 − 2I/(|p| + |t|)

    I is the area of the boxes' intersection, |p| and |t| are those of the boxes.

    Args:
        {common}

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where they do not overlap.

    Raises:
        {raises}

    >>> dice_box_loss(torch.tensor([0.0, 0, 4, 2]), torch.tensor([0.0, 0, 2, 4]))  # 1 - 2 * 4/(8 + 8)
    tensor(0.5000)
    """
    return pair.tversky_loss(0.5, 0.5)
