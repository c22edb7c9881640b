"""Another loss, reweighted pair by pair."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import BoxPair
from ._define import LOSSES, define
from ._parameters import NonNegative


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
