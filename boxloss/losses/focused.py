"""Another loss, reweighted pair by pair."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..geometry import BoxPair
from ._define import LOSSES, define
from ._parameters import NonNegative, between


def _iou_power(pair: BoxPair, *, gamma: NonNegative = 0.5, detach_weight: bool = True) -> Tensor:
    """(I/U)^γ."""
    constant = pair.iou.detach().pow(gamma)
    if detach_weight:
        return constant
    # Not even a slope that is thrown away may be that of a power at 0: in forward mode inf * 0 would stay.
    return torch.where(pair.next_to_0, constant, pair.iou.masked_fill(pair.next_to_0, 1.0).pow(gamma))


@define(
    source="Zhang et al., Neurocomputing 2022, arXiv:2101.08158",
    bounds=(0, 4),
    detached=True,
    zero_without_overlap=True,
    focus=_iou_power,
)
def focal_eiou_loss(pair: BoxPair, *, gamma: NonNegative = 0.5, detach_weight: bool = True) -> Tensor:
    """Efficient IoU with more weight on pairs that overlap much. Boxes that lie apart get no gradient at all.

        (I/U)^γ · (1 − I/U + ρ²/c² + dw²/Hw² + dh²/Hh²)

    The symbols are those of `eiou_loss`. As published, the loss is 0, with zero gradient, wherever the boxes do not
    overlap: a detector that starts far from its targets does not learn from it. The batch form, Σ W·L / Σ W with
    W = (I/U)^γ, is ``BoxLoss("focal_eiou", normalize_weight=True)``.

    Args:
        {common}
        gamma: γ; 0 gives the EIoU loss, also for boxes that lie apart.
        detach_weight: hold the weight (I/U)^γ constant in the backward pass.

    Returns:
        ``(...)``, without unit, in [0, 4]. 0 where two boxes coincide, **and where they do not overlap**.

    Raises:
        {raises}

    >>> focal_eiou_loss(torch.tensor([0.0, 0, 2, 4]), torch.tensor([0.0, 1, 2, 3]))  # (4/8)^0.5 * 0.75
    tensor(0.5303)
    """
    value: Tensor = LOSSES["eiou"].formula(pair)
    return _iou_power(pair, gamma=gamma, detach_weight=detach_weight) * value


def _wiou_factor(
    pair: BoxPair,
    *,
    version: Literal["v1", "v2", "v3"] = "v1",
    mean: Annotated[float, between(1e-6, 1)] = 1.0,
    gamma: Annotated[float, between(0, 5)] = 0.5,
    a: Annotated[float, between(1, 100)] = 1.9,
    delta: Annotated[float, between(0.01, 10)] = 3.0,
) -> Tensor:
    """1, (L/L̄)^γ or β/(δ·a^(β − δ)), by version; constant."""
    quality = pair.iou_loss.detach() / mean
    if version == "v1":
        return torch.ones_like(quality)
    if version == "v2":
        return quality.pow(gamma)
    return quality / delta * ((delta - quality) * math.log(a)).exp()


@define(
    source="Tong et al., 2023, arXiv:2301.10051",
    bounds=(0, math.e),
    detached=True,
    focus=_wiou_factor,
    running_mean=lambda version="v1", **_: version != "v1",
)
def wiou_loss(
    pair: BoxPair,
    *,
    version: Literal["v1", "v2", "v3"] = "v1",
    mean: Annotated[float, between(1e-6, 1)] = 1.0,
    gamma: Annotated[float, between(0, 5)] = 0.5,
    a: Annotated[float, between(1, 100)] = 1.9,
    delta: Annotated[float, between(0.01, 10)] = 3.0,
) -> Tensor:
    """Wise IoU: IoU times a factor of the distance of the centers; then by how bad a pair is beside all pairs.

        v1: e^(ρ²/c²)·L, L = 1 − I/U; v2: v1·(L/L̄)^γ; v3: v1·β/(δ·a^(β − δ)), β = L/L̄

    I and U are the areas of the boxes' intersection and union, ρ is the distance of their centers, c the diagonal of
    their hull, the smallest box around both. c² and the factors of v2 and v3 are held constant in the backward pass. L̄
    is the mean of L over the pairs seen in training: ``BoxLoss("wiou", version="v3")`` keeps it; this function is told.

    Args:
        {common}
        version: ``"v1"``; ``"v2"``, which gives pairs worse than the mean more weight; or ``"v3"``, which gives the
            most to pairs somewhat worse than it, and little to hopeless ones.
        mean: L̄ of v2 and v3.
        gamma: γ of v2.
        a: a of v3; the authors' code has 1.7. The last place of (β − δ)·ln a counts as often as that is large.
        delta: δ of v3, the β whose factor is 1; the authors' code has 2.7.

    Returns:
        ``(...)``, without unit; in [0, e] with the default parameters. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> wiou_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # e^(2/18) (1 - 1/7)
    tensor(0.9579)
    """
    value = pair.center_ratio_of_constant_hull.exp() * pair.iou_loss
    if version == "v1":
        return value
    return _wiou_factor(pair, version=version, mean=mean, gamma=gamma, a=a, delta=delta) * value
