"""Losses of regions, for masks: how much of what is predicted and of what is there is not shared.

Over masks ``(N, C, ...)``, one number per image and class. Each is a quotient of sums of non-negative terms, so that
nothing cancels where prediction and target nearly agree.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .losses._keywords import answered
from .losses._parameters import check_not_negative
from .losses._reduce import as_class_weight, check_reduction, reduce_pairs
from .values import IGNORED, IGNORING, check_dense, check_floats, check_index, check_share, is_one_of, shown

Activation = Literal["sigmoid", "softmax", "none"]


@answered({"ignore_index": IGNORING})
def dice_loss(
    pred: Tensor,
    target: Tensor,
    *,
    activation: Activation = "sigmoid",
    squared: bool = False,
    complement: bool = False,
    smooth: float = 0.0,
    per_image: bool = True,
    class_weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Dice, or F1: of both regions together, the share that is not common.

        1 − (2 Σpt + s)/(Σp + Σt + s), or squared: 1 − (2 Σpt + s)/(Σp² + Σt² + s)

    Args:
        pred: ``(N, C, ...)``: logits, or with ``activation="none"`` probabilities p, in [0, 1].
        target: t, of the shape of pred, in [0, 1]; or classes, ``(N, ...)`` int64, 0 … C − 1, or −100 for a place that
            is to be ignored: it counts in no region.
        activation: ``"sigmoid"``: each class on its own; ``"softmax"``: one of C; ``"none"``.
        squared: the denominator of V-Net.
        complement: of what is outside: 1 − p and 1 − t.
        smooth: s ≥ 0. With 0, both regions empty give 0, and one of them 1.
        per_image: sums over each image; else over the batch.
        class_weight: ``(C,)``, a factor of each class, of any dtype.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over images and classes.

    Returns:
        ``(N, C)``, of the batch ``(C,)``, or ``()``; in [0, 1], without unit.

    Raises:
        TypeError: not tensors, or of other kinds.
        ValueError: shapes that do not go together; a parameter outside its domain; a mask outside [0, 1], NaN in a
            target, or a class outside its range, which are looked for on the CPU only.

    Source: Milletari et al., V-Net, 3DV 2016, arXiv:1606.04797 (squared); Sudre et al., 2017, arXiv:1707.03237

    >>> dice_loss(torch.tensor([[[1.0, 1, 0, 0]]]), torch.tensor([[[1.0, 0, 1, 0]]]), activation="none")  # 1 - 2/4
    tensor([[0.5000]])
    """
    m = _masks(pred, target, activation)
    if complement:
        m = _Masks(m.not_p, m.not_t, m.p, m.t)
    check_not_negative(smooth=smooth)
    if squared:
        apart = m.p * m.not_t - m.not_p * m.t  # p − t, with all digits near t = 1
        value = _share(_sum(apart * apart, per_image), _sum(m.p * m.p + m.t * m.t, per_image) + smooth)
    else:
        value = _index(m, 0.5, 0.5, smooth / 2, per_image)
    return _reduced(value, class_weight, reduction)


@answered({"ignore_index": IGNORING})
def tversky_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    activation: Activation = "sigmoid",
    smooth: float = 0.0,
    per_image: bool = True,
    class_weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Dice with separate weights of what is too much and what is missing.

        1 − (TP + s)/(TP + α FP + β FN + s), TP = Σpt, FP = Σp(1 − t), FN = Σ(1 − p)t

    α = β = ½ is Dice, α = β = 1 Jaccard; β > α punishes what is missed more.

    Args:
        alpha: α ≥ 0, of false positives.
        beta: β ≥ 0, of false negatives.
        smooth: s ≥ 0.

    The other arguments, the result and the errors are those of `dice_loss`.

    Source: Salehi et al., MLMI 2017, arXiv:1706.05721

    >>> pred, target = torch.tensor([[[1.0, 1, 0, 0]]]), torch.tensor([[[1.0, 0, 1, 0]]])
    >>> tversky_loss(pred, target, alpha=0.5, beta=2.5, activation="none")  # 1 - 1/(1 + 0.5 + 2.5)
    tensor([[0.7500]])
    """
    masks = _masks(pred, target, activation)
    check_not_negative(alpha=alpha, beta=beta, smooth=smooth)
    return _reduced(_index(masks, alpha, beta, smooth, per_image), class_weight, reduction)


@answered({"ignore_index": IGNORING})
def focal_tversky_loss(
    pred: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
    activation: Activation = "sigmoid",
    smooth: float = 0.0,
    per_image: bool = True,
    class_weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """A power of the Tversky loss; below 1 it is steeper the better the regions agree.

        (1 − TI)^γ, 1 − TI the Tversky loss

    Args:
        alpha: α ≥ 0, of false positives.
        beta: β ≥ 0, of false negatives.
        gamma: γ > 0. The paper writes (1 − TI)^(1/γ) with γ = 4/3, which is 0.75 here. At a loss of 0 the slope of a γ
            below 1 would be infinite; it is 0.

    The other arguments, the result and the errors are those of `dice_loss`.

    Source: Abraham and Khan, ISBI 2019, arXiv:1810.07842, with α and β exchanged

    >>> pred, target = torch.tensor([[[1.0, 1, 0, 0]]]), torch.tensor([[[1.0, 0, 1, 0]]])
    >>> focal_tversky_loss(pred, target, alpha=0.5, beta=2.5, gamma=2.0, activation="none")  # 0.75²
    tensor([[0.5625]])
    """
    masks = _masks(pred, target, activation)
    check_not_negative(alpha=alpha, beta=beta, smooth=smooth, gamma=gamma)
    if gamma == 0:
        raise ValueError("gamma: expected a finite number > 0, got 0")
    index = _index(masks, alpha, beta, smooth, per_image)
    right = index == 0
    return _reduced(index.masked_fill(right, 1.0).pow(gamma).masked_fill(right, 0.0), class_weight, reduction)


@answered({"ignore_index": IGNORING})
def jaccard_loss(
    pred: Tensor,
    target: Tensor,
    *,
    activation: Activation = "sigmoid",
    smooth: float = 0.0,
    per_image: bool = True,
    class_weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Soft IoU of masks.

        1 − (Σpt + s)/(Σp + Σt − Σpt + s)

    Arguments, result and errors are those of `dice_loss`.

    Source: Rahman and Wang, ISVC 2016

    >>> jaccard_loss(torch.tensor([[[1.0, 1, 0, 0]]]), torch.tensor([[[1.0, 0, 1, 0]]]), activation="none")  # 1 - 1/3
    tensor([[0.6667]])
    """
    masks = _masks(pred, target, activation)
    check_not_negative(smooth=smooth)
    return _reduced(_index(masks, 1.0, 1.0, smooth, per_image), class_weight, reduction)


class _Masks(NamedTuple):
    """Probabilities, targets, and 1 less each of them."""

    p: Tensor
    t: Tensor
    not_p: Tensor
    not_t: Tensor


def _index(m: _Masks, alpha: float, beta: float, smooth: float, per_image: bool) -> Tensor:
    """1 − Tversky's index; both sides without TP + s, which would cancel."""
    apart = alpha * _sum(m.p * m.not_t, per_image) + beta * _sum(m.not_p * m.t, per_image)
    return _share(apart, _sum(m.p * m.t, per_image) + apart + smooth)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """0/0 = 0: of two empty regions nothing is wrong."""
    nothing = whole == 0
    return part / whole.masked_fill(nothing, 1.0)


def _sum(values: Tensor, per_image: bool) -> Tensor:
    axes = tuple(axis for axis in range(values.ndim) if axis != 1 and not (per_image and axis == 0))
    return values.sum(axes) if axes else values


def _masks(pred: Tensor, target: Tensor, activation: str) -> _Masks:
    """Of one shape and dtype; in halves sums over a mask would have no digits."""
    check_floats(pred, "pred")
    if not isinstance(target, Tensor):
        raise TypeError(f"target: expected a tensor, got {type(target).__name__}")
    check_dense(target, "target")
    if pred.ndim < 2:
        raise ValueError(f"pred: expected (N, C, ...), got {tuple(pred.shape)}")
    if not is_one_of(activation, ("sigmoid", "softmax", "none")):
        raise ValueError(f"activation: expected 'sigmoid', 'softmax' or 'none', got {shown(activation)}")
    t, ignored = _target(pred, target)
    if activation == "none":
        pred = pred if ignored is None else pred.masked_fill(ignored, 0.0)
        check_share(pred, "pred", "logits: activation 'sigmoid' or 'softmax'", nan=True)
    pred = pred.float() if pred.dtype in (torch.float16, torch.bfloat16) else pred
    p, not_p = _shares(pred, activation)
    t = t.to(pred.dtype)
    if ignored is None:
        return _Masks(p, t, not_p, 1 - t)
    # t is 0 there as it is.
    return _Masks(p.masked_fill(ignored, 0.0), t, not_p.masked_fill(ignored, 0.0), (1 - t).masked_fill(ignored, 0.0))


def _target(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor | None]:
    """The target in the shape of pred, and which places of it are to be ignored; None: none."""
    classes = pred.shape[:1] + pred.shape[2:]
    if target.dtype == torch.int64 and target.shape == classes != pred.shape:
        count = pred.shape[1]
        one = "; a mask of a single class has the shape of pred" if count == 1 else ""
        some = check_index(target, count, "target", ignored=True, hint=one)
        here = target[:, None]
        t = here == torch.arange(count, device=target.device).view(-1, *[1] * (target.ndim - 1))
        return t, here == IGNORED if some else None
    if target.shape != pred.shape:
        raise ValueError(
            f"target: expected the shape of pred, {tuple(pred.shape)}, got {tuple(target.shape)} of {target.dtype};"
            f" classes are int64 {tuple(classes)}"
        )
    check_share(target, "target", _advice)
    return target, None


def _advice(greatest: float) -> str:
    """What to do about a mask with numbers other than 0 to 1."""
    if greatest > 2:
        return "a mask of 0 and 255: divide it by 255, or compare, mask > 0"
    return "1 is inside and 0 is outside: (target > 0) for other codes of the two"


def _shares(pred: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Probabilities, and 1 less each of them."""
    if activation == "sigmoid":
        return pred.sigmoid(), (-pred).sigmoid()
    if activation == "softmax":
        log_p = pred.log_softmax(1)
        return log_p.exp(), -log_p.expm1()
    return pred, 1 - pred


def _reduced(value: Tensor, class_weight: Tensor | None, reduction: str) -> Tensor:
    check_reduction(reduction, None)
    if class_weight is not None:
        value = value * as_class_weight(class_weight, value.shape[-1], value)
    return reduce_pairs(value, reduction)
