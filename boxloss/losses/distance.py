"""Losses of areas and of distances: centers, sides, corners, angles. Without unit."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..boxes import as_pair
from ..geometry import ASPECT, BoxPair, one_minus_exp, ratio
from ._define import LOSSES, define
from ._parameters import NonNegative, OneToThousand, Size, UpToTen, between, is_number, up_to
from .coordinate import smooth


@define(source="Zheng et al., AAAI 2020, arXiv:1911.08287", bounds=(0, 2))
def diou_loss(pair: BoxPair, *, inner_ratio: UpToTen | None = None) -> Tensor:
    """Distance IoU: IoU and the distance of the centers.

        1 − I/U + ρ²/c²

    I and U are the areas of the boxes' intersection and union, ρ is the distance of their centers, c the diagonal of
    their hull, the smallest box around both.

    Args:
        {common}
        inner_ratio: take I/U of the inner boxes, as `inner_iou_loss` does with this ratio; None: of the boxes.

    Returns:
        ``(...)``, without unit, in [0, 2]. 0 where two boxes coincide; 1 where both are one point.

    Raises:
        {raises}

    >>> diou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # 1 - 1/7 + 2/18
    tensor(0.9683)
    """
    return _iou_loss(pair, inner_ratio) + pair.center_ratio


def _iou_loss(pair: BoxPair, inner_ratio: float | None) -> Tensor:
    return pair.iou_loss if inner_ratio is None else pair.inner(inner_ratio).iou_loss


@define(source="Zheng et al., AAAI 2020, arXiv:1911.08287; gate: 2005.03572", bounds=(0, 2.5), detached=True)
def ciou_loss(
    pair: BoxPair,
    *,
    gated: bool = False,
    differentiate_alpha: bool = False,
    aspect_gradient: Literal["exact", "unit"] = "exact",
    inner_ratio: UpToTen | None = None,
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
        inner_ratio: take the loss's I/U, not that of α, of the inner boxes, as `inner_iou_loss` does with this ratio;
            None: of the boxes.

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
    return _iou_loss(pair, inner_ratio) + pair.center_ratio + alpha * v


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


@define(source="Gevorgyan, 2022, arXiv:2205.12740", bounds=(0, 3))
def siou_loss(pair: BoxPair, *, theta: OneToThousand = 4.0) -> Tensor:
    """SCYLLA IoU: IoU, the distance of the centers, faster along an axis than obliquely, and the sides.

        1 − I/U + (Δ + Ω)/2, Δ = Σ 1 − e^(−(2 − Λ)(d/H)²), Λ = 2|dx||dy|/ρ², Ω = Σ (1 − e^(−|side change|))^θ

    I and U are the areas of the boxes' intersection and union. Δ adds up both axes, with the centers' distance d and
    the hull's side H on each; ρ is the distance of the centers. Ω adds up |wp − wt|/max(wp, wt) and the same of the
    heights. mmdet's default has e^(+(2 − Λ)…), which rewards distance; its ``neg_gamma=True`` is this loss.

    Args:
        {common}
        theta: θ, how little small differences of the sides count; at least 1.

    Returns:
        ``(...)``, without unit, in [0, 3]. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> # The hull is 3 × 1: Δ = 1 - e^(-2 · 4/9), along an axis
    >>> siou_loss(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1]))  # 1 + (1 - e^(-8/9))/2
    tensor(1.2944)
    """
    distances = one_minus_exp(pair.center_shares * pair.center_shares * (2.0 - pair.obliqueness))
    sides = one_minus_exp(pair.side_changes).pow(theta)
    return pair.iou_loss + 0.5 * (distances + sides).sum(0)


@define(source="Zhang and Zhang, 2023, arXiv:2312.17663", bounds=(0, 4), symmetric=False)
def shape_iou_loss(pair: BoxPair, *, scale: Annotated[float, between(0, 10)] = 0.0) -> Tensor:
    """Shape IoU: distances and sides count by the target's shape, those along its longer side less.

        1 − I/U + hh·dx²/c² + ww·dy²/c² + ½Ω, Ω = Σ (1 − e^(−ω))⁴, ω = hh·|dw|/max(wp, wt) and ww·|dh|/max(hp, ht)

    I and U are the areas of the boxes' intersection and union, dx and dy are the distances of their centers, c is the
    diagonal of their hull, ww = 2wtˢ/(wtˢ + htˢ), hh = 2htˢ/(wtˢ + htˢ), s the scale. The formula is from knowledge of
    the paper; it could not be compared with the authors' code.

    Args:
        {common}
        scale: s, by the size of the data set's objects; 0, the paper's default, makes ww = hh = 1.

    Returns:
        ``(...)``, without unit; in [0, 4] with the default parameters. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> # ww = hh = 1, the hull is 3 × 1: dx²/c² = 4/10
    >>> shape_iou_loss(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1]))  # 1 + 4/10
    tensor(1.4000)
    """
    weights = pair.target_shape(scale)
    distance = (weights * pair.center_ratios).sum(0)
    changes = one_minus_exp(weights * pair.side_changes)
    squares = changes * changes
    return pair.iou_loss + distance + 0.5 * (squares * squares).sum(0)


@define(source="Ma and Xu, 2023, arXiv:2307.07662", bounds=(0, math.inf), lengths=("image_size",))
def mpdiou_loss(pair: BoxPair, *, image_size: Size) -> Tensor:
    """Minimum point distance IoU: IoU and the distances of two corners, in units of the image.

        1 − I/U + (d₁² + d₂²)/(W² + H²)

    I and U are the areas of the boxes' intersection and union, d₁ and d₂ are the distances of the two upper left and
    the two lower right corners; W and H are the sides of the network's input. The formula is from knowledge of the
    paper, in which W and H are the input image's; some implementations take those of a feature map.

    Args:
        {common}
        image_size: (W, H), in the unit of the boxes.

    Returns:
        ``(...)``, without unit; in [0, 3] for boxes within the image. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> p, t = torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3])
    >>> mpdiou_loss(p, t, image_size=(6, 8))  # 1 - 1/7 + (2 + 2)/100
    tensor(0.8971)
    """
    width, height = image_size
    d = pair.difference_over((width**2 + height**2) ** 0.5)
    return pair.iou_loss + (d * d).sum(0)


@define(source="Liu et al., Powerful-IoU, Neural Networks 170, 2024", bounds=(0, 2), symmetric=False)
def piou_loss(pair: BoxPair, *, version: Literal[1, 2] = 1, lam: Annotated[float, up_to(2)] = 1.3) -> Tensor:
    """Powerful IoU: IoU and the distances of the edges, in sides of the target.

        1 − I/U + 1 − e^(−P²), P = (|Δx1| + |Δx2|)/(4wt) + (|Δy1| + |Δy2|)/(4ht); version 2: × 3λq·e^(−(λq)²), q = e^−P

    I and U are the areas of the boxes' intersection and union, Δ are differences of corresponding edges. P is infinite
    where a target without a side is missed. The second version's factor gives pairs of middling quality the most
    weight. Of far pairs it falls like e^(−P), within (8 + 4P) units in the last place: beyond P = 1 or so the **loss
    falls with the distance**, and the gradient pushes away. The formula is from knowledge of the paper; it could not be
    compared with the authors' code.

    Args:
        {common}
        version: 1, or 2 with the factor.
        lam: λ of version 2.

    Returns:
        ``(...)``, without unit, in [0, 2]. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> # P = (2 + 2)/4: both vertical edges are off by two target sides
    >>> piou_loss(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1]))  # 1 + 1 - e^(-1)
    tensor(1.6321)
    """
    x, y = pair.edge_shares.unbind(0)
    p = 0.25 * (x + y)
    value = pair.iou_loss + one_minus_exp(p * p)
    if version == 1:
        return value
    q = lam * (-p).exp()
    return 3.0 * q * (-(q * q)).exp() * value


@define(source="Tychsen-Smith and Petersson, CVPR 2018, arXiv:1711.00164", bounds=(0, 3.6), symmetric=False)
def bounded_iou_loss(pair: BoxPair, *, beta: NonNegative = 0.2) -> Tensor:
    """Bounded IoU: of each number of a box, the best IoU that it leaves possible.

        sum over x, y, w, h of smooth L1 of 1 − Bᵢ; 1 − Bₓ = min(1, 4|dx|/(wt + 2|dx|)), 1 − B_w = |dw|/max(wp, wt)

    dx, dy, dw, dh are the differences of the centers and sides of the boxes; Bᵢ is the IoU of the target with itself,
    changed in the one number. Smooth L1 of a number l is l²/(2β) where l < β, else l − β/2. Without mmdet's eps.

    Args:
        {common}
        beta: β, the 1 − Bᵢ from which on the loss grows linearly; 0.2 in mmdet. 0 gives the plain sum.

    Returns:
        ``(...)``, without unit; in [0, 3.6] with the default parameters. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> # 1 - Bx = 4/(4 + 2), 1 - Bw = 2/6
    >>> bounded_iou_loss(torch.tensor([0.0, 0, 6, 4]), torch.tensor([0.0, 0, 4, 4]))  # (4/6 - 0.1) + (2/6 - 0.1)
    tensor(0.8000)
    """
    return smooth(torch.cat((pair.center_bounds, pair.side_changes)), beta).sum(0)


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
