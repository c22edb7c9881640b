"""Losses of areas and of distances: centers, sides, corners, angles. Without unit."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..boxes import as_pair
from ..geometry import ASPECT, BoxPair, ratio
from ._define import LOSSES, define
from ._parameters import NonNegative, is_number


@define(source="Zheng et al., AAAI 2020, arXiv:1911.08287", bounds=(0, 2))
def diou_loss(pair: BoxPair) -> Tensor:
    """Distance IoU: IoU and the distance of the centers.

        1 − I/U + ρ²/c²

    I and U are the areas of the boxes' intersection and union, ρ is the distance of their centers, c the diagonal of
    their hull, the smallest box around both.

    Args:
        {common}

    Returns:
        ``(...)``, without unit, in [0, 2]. 0 where two boxes coincide; 1 where both are one point.

    Raises:
        {raises}

    >>> diou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # 1 - 1/7 + 2/18
    tensor(0.9683)
    """
    return pair.iou_loss + pair.center_ratio


@define(source="Zheng et al., AAAI 2020, arXiv:1911.08287; gate: 2005.03572", bounds=(0, 2.5), detached=True)
def ciou_loss(
    pair: BoxPair,
    *,
    gated: bool = False,
    differentiate_alpha: bool = False,
    aspect_gradient: Literal["exact", "unit"] = "exact",
) -> Tensor:
    """Complete IoU: IoU, the distance of the centers and the aspect ratio.

        1 − I/U + ρ²/c² + αv, v = 4/π² · (θt − θp)², α = v/(1 − I/U + v)

    I and U are the areas of the boxes' intersection and union, ρ is the distance of their centers, c the diagonal of
    their hull, θ = atan2(w, h) the angle of a box's diagonal. α is held constant in the backward pass.

    Args:
        {common}
        gated: α = 0 where IoU < ½, as the second paper has it.
        differentiate_alpha: let the gradient pass through α, as some implementations do.
        aspect_gradient: ``"unit"`` replaces the factor 1/(w² + h²) of v's derivatives by 1, as the authors' darknet
            does; the value stays, the gradient depends on the unit of the boxes.

    Returns:
        ``(...)``, without unit, in [0, 2.5]. 0 where two boxes coincide; 1 where both are one point.

    Raises:
        {raises}

    >>> # Centers coincide, IoU = 1/2; v = 4/pi^2 (pi/4 - atan(1/2))^2 = 0.0420, alpha = v/(1/2 + v) = 0.0774
    >>> ciou_loss(torch.tensor([0.0, 0, 2, 4]), torch.tensor([0.0, 1, 2, 3]))  # 1/2 + 0.0774 * 0.0420
    tensor(0.5032)
    """
    angle = pair.angle if aspect_gradient == "exact" else pair.angle_with_unit_gradient
    v = ASPECT * angle * angle
    alpha = ratio(v, pair.iou_loss + v)
    if gated:
        alpha = alpha.masked_fill(pair.iou < 0.5, 0.0)
    if not differentiate_alpha:
        alpha = alpha.detach()
    return pair.iou_loss + pair.center_ratio + alpha * v


@define(source="Zhang et al., Neurocomputing 2022, arXiv:2101.08158", bounds=(0, 4))
def eiou_loss(pair: BoxPair) -> Tensor:
    """Efficient IoU: IoU, the distance of the centers and the differences of the sides.

        1 − I/U + ρ²/c² + dw²/Hw² + dh²/Hh²

    I and U are the areas of the boxes' intersection and union, ρ is the distance of their centers, dw and dh are the
    differences of their widths and heights; Hw, Hh and c are the sides and the diagonal of their hull, the smallest
    box around both. Not mmdet's `EIoULoss`, which is Extended IoU.

    Args:
        {common}

    Returns:
        ``(...)``, without unit, in [0, 4]. 0 where two boxes coincide; 1 where both are one point.

    Raises:
        {raises}

    >>> eiou_loss(torch.tensor([0.0, 0, 2, 4]), torch.tensor([0.0, 1, 2, 3]))  # 1 - 4/8 + 0/20 + 0/4 + 2²/4²
    tensor(0.7500)
    """
    return pair.iou_loss + pair.center_ratio + pair.side_ratio


@define(source="Chen and Du, 2021, arXiv:2103.11696", bounds=(0, 2))
def cdiou_loss(
    pair: BoxPair,
    *,
    base: Literal["iou", "log_iou", "giou", "diou", "ciou"] = "iou",
    penalty_weight: NonNegative = 1.0,
) -> Tensor:
    """Control Distance IoU: another loss and the distances of the corners.

        base loss + penalty_weight · D, D = (AE + BF + CG + DH)/(4c)

    AE, BF, CG, DH are the distances of the four pairs of corresponding corners, c is the diagonal of the boxes' hull,
    the smallest box around both; D is in [0, 1]. This is the paper's form; the authors' code takes D/4 of anchors and
    encoded targets, which has no gradient.

    Args:
        {common}
        base: the loss that D is added to, with its default parameters.
        penalty_weight: the factor of D.

    Returns:
        ``(...)``, without unit; in [0, 2] with the default parameters. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> cdiou_loss(torch.tensor([0.0, 0, 3, 4]), torch.tensor([0.0, 0, 3, 2]))  # 1 - 6/12 + (0 + 0 + 2 + 2)/(4 * 5)
    tensor(0.7000)
    """
    value: Tensor = LOSSES[base].formula(pair)
    return value + penalty_weight * pair.corner_ratio


def cdiou(pred: Tensor, target: Tensor, lam: float = 0.001) -> Tensor:
    """The CDIoU paper's measure of evaluation.

        I/U + λ(1 − D)

    D is the mean distance of corresponding corners over the hull's diagonal, as in `cdiou_loss`.

    Args:
        pred: boxes ``(..., 4)`` as x1, y1, x2, y2, in any one unit of length.
        target: boxes that pair up with ``pred``, in the same unit.
        lam: λ; 0.001 in the authors' code.

    Returns:
        ``(...)``, without unit, in [0, 1 + λ]; higher is better.

    Raises:
        ValueError: the shapes do not pair up.

    Source: Chen and Du, 2021, arXiv:2103.11696

    >>> cdiou(torch.tensor([0.0, 0, 3, 4]), torch.tensor([0.0, 0, 3, 2]))  # 6/12 + 0.001 (1 - 4/20)
    tensor(0.5008)
    """
    if not is_number(lam):
        raise TypeError(f"lam: expected a number, got {lam!r}")
    pair = BoxPair(*as_pair(pred, target))
    return pair.iou + lam * (1.0 - pair.corner_ratio)
