"""Any box loss in MMDetection and its relatives, by one line of a configuration.

``custom_imports = dict(imports=["boxloss.integrations.mmdet"])``, then ``loss_bbox=dict(type="BoxLoss", loss="eiou")``
wherever a configuration names a box loss. The module needs torch alone; it is entered in mmengine's registry, which
those of MMDetection, MMYOLO and MMRotate look into, so that no compiled operator of mmcv is ever needed for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..modules import BoxLoss
from ._attach import Attachment, LossLike, PerPair, already_attached, attached, refuse_without_unit

REDUCTIONS = ("none", "mean", "sum")
TERMS = ("loss_bbox", "loss_iou")
_EPS = torch.finfo(torch.float32).eps


class MMDetBoxLoss(nn.Module):
    """A box loss with MMDetection's protocol.

    Args:
        loss: a name, a `BoxLoss`, or a function of two box tensors that gives one number per pair.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the pairs.
        loss_weight: factor of the result.
        parameters: of a loss given by name, and ``convention``, as of `BoxLoss`.

    Raises:
        TypeError, ValueError: a loss, parameter or reduction that there is not.

    >>> loss = MMDetBoxLoss("iou", loss_weight=2.0)
    >>> loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]]), avg_factor=4)  # 2 (1 - 1/7) / 4
    tensor(0.4286)
    """

    def __init__(
        self, loss: LossLike = "ciou", *, reduction: str = "mean", loss_weight: float = 1.0, **parameters: Any
    ) -> None:
        super().__init__()
        if parameters:
            if not isinstance(loss, str):
                raise TypeError(f"{', '.join(parameters)}: only of a loss given by name")
            loss = BoxLoss(loss, **parameters)
        _check_reduction(reduction)
        self.per_pair = PerPair(loss)
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        **_: Any,
    ) -> Tensor:
        """The loss of ``pred`` against ``target``, ``(N, 4)`` each, as corners.

        Args:
            weight: ``(N,)``, or ``(N, 4)``, whose mean over the coordinates counts.
            avg_factor: what ``"mean"`` divides by instead of N.
            reduction_override: instead of that of the module.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        _check_reduction(reduction)
        if avg_factor is not None and reduction == "sum":
            raise ValueError("avg_factor: expected reduction 'mean' or 'none' with it, got 'sum'")
        value = self.per_pair(pred, target)
        if weight is not None:
            value = value * (weight if weight.ndim == 1 else weight.mean(-1))
        if reduction == "none":
            return self.loss_weight * value
        if reduction == "sum":
            return self.loss_weight * value.sum()
        return self.loss_weight * value.sum() / (max(len(value), 1) if avg_factor is None else avg_factor + _EPS)

    def extra_repr(self) -> str:
        return f"{self.per_pair}, reduction={self.reduction!r}, loss_weight={self.loss_weight:g}"


class _Attached(MMDetBoxLoss):
    """Put there by `attach`, not by a configuration."""


def attach(model: nn.Module, loss: LossLike, *, term: str = "loss_bbox") -> Attachment:
    """Replace the box loss of every head of a model that is built already; the head's own weight of it stays.

    Args:
        model: a detector of MMDetection.
        loss: a name, a `BoxLoss`, or a function of two box tensors that gives one number per pair.
        term: ``"loss_bbox"``, or of the DETR family, which has both, ``"loss_iou"``.

    Raises:
        TypeError: no head with such a term.
        ValueError: a loss of areas where a head compares numbers that are no corners: encoded deltas, or in the
            ``loss_bbox`` of the DETR family centers and sides.
    """
    found = PerPair(loss)
    if term not in TERMS:
        raise ValueError(f"term: expected one of {', '.join(TERMS)}, got {term!r}")
    heads = {name: head for name, head in model.named_modules() if isinstance(getattr(head, term, None), nn.Module)}
    if not heads:
        raise TypeError(
            f"model: expected a detector of MMDetection, whose heads have a {term}, got {type(model).__name__}"
        )
    for name, head in heads.items():
        if isinstance(getattr(head, term), _Attached):
            raise already_attached()
        if term == "loss_bbox" and getattr(head, "reg_decoded_bbox", True) is False:
            refuse_without_unit(found, f"{name}, with reg_decoded_bbox=False, compares deltas, which are no boxes")
        if term == "loss_bbox" and hasattr(head, "loss_iou"):
            refuse_without_unit(found, f"{name} has a term 'loss_iou' for losses of areas")
    before = {name: getattr(head, term) for name, head in heads.items()}
    for name, head in heads.items():
        own = before[name]
        ours = _Attached(
            loss, reduction=getattr(own, "reduction", "mean"), loss_weight=getattr(own, "loss_weight", 1.0)
        )
        setattr(head, term, ours)

    def undo() -> None:
        for name, head in heads.items():
            setattr(head, term, before[name])

    replaced = ", ".join(dict.fromkeys(type(own).__name__ for own in before.values()))
    return attached("mmdet", type(model).__name__, f"{found} as {term}", replaced, undo)


def _check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def _register() -> None:
    try:
        from mmengine.registry import MODELS
    except ImportError:
        return
    MODELS.register_module(name="BoxLoss", module=MMDetBoxLoss, force=True)


_register()
