"""A loss by its kernel: value, gradient and reduction in one pass, where it can stand in for the formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..geometry import joint_shape
from ._reduce import as_weight, divide, divisor, reduce_pairs

Formula = Callable[[Tensor, Tensor], Tensor]
"""One value per pair of boxes."""

_Gradients = tuple[Tensor | None, Tensor | None]


def fused(
    kernel: kernels.Kernel,
    formula: Formula,
    pred: Tensor,
    target: Tensor,
    reduction: str,
    weight: Tensor | None,
    avg_factor: float | Tensor | None,
) -> Tensor:
    """What `reduce_pairs` makes of the formula's values, by its kernel.

    Args:
        kernel: of the formula.
        formula: for what a kernel can't do, such as a gradient that is itself differentiated.
        pred: boxes, float32 or float64.
        target: boxes that pair up with them, of the same dtype.
        reduction: and the other two, as of a loss function.
        weight: without gradient.
        avg_factor: without gradient.
    """
    shape = joint_shape(pred.shape[:-1], target.shape[:-1])
    weights = None if weight is None else as_weight(weight, shape, pred.dtype).contiguous()
    by = divisor(reduction, shape.numel(), pred, avg_factor)
    call = _Call(kernel, formula, shape, reduction, weights, by)
    if torch.is_grad_enabled() and (pred.requires_grad or target.requires_grad):
        result: Tensor = _Fused.apply(call, pred, target)
        return result
    return _values(call, pred, target) if reduction == "none" else _reduced(call, pred, target)[0]


class _Call(NamedTuple):
    """All that is asked for besides the boxes."""

    kernel: kernels.Kernel
    formula: Formula
    shape: torch.Size
    reduction: str
    weight: Tensor | None
    by: int | Tensor

    @property
    def factor(self) -> float:
        """Of a sum, in the loss; 0 for a division by 0, which has no gradient."""
        by = float(self.by)
        return 1.0 / by if by else 0.0

    def run(self, pred: Tensor, target: Tensor, **wanted: Any) -> tuple[float, bool]:
        rows_pred, pred_stride = _rows(pred, self.shape)
        rows_target, target_stride = _rows(target, self.shape)
        kernel = self.kernel
        return kernel.library.rows(
            kernel.place,
            kernel.numbers,
            rows_pred,
            rows_target,
            self.shape.numel(),
            (pred_stride, target_stride),
            **wanted,
        )

    def again(self, pred: Tensor, target: Tensor) -> Tensor:
        """By the formula."""
        value = reduce_pairs(self.formula(pred, target), "none" if self.reduction == "none" else "sum", self.weight)
        return divide(value, self.by) if self.reduction == "mean" else value


def _values(call: _Call, pred: Tensor, target: Tensor) -> Tensor:
    values = pred.new_empty(call.shape)
    call.run(pred, target, weight=call.weight, values=values)
    return values


def _reduced(call: _Call, pred: Tensor, target: Tensor, gradients: _Gradients = (None, None)) -> tuple[Tensor, bool]:
    """The value, and whether all gradients are finite."""
    total, finite = call.run(pred, target, weight=call.weight, factor=call.factor, gradients=gradients, sum=True)
    return divide(torch.tensor(total, dtype=torch.float64, device=pred.device), call.by).to(pred.dtype), finite


class _Fused(torch.autograd.Function):
    """A reduced loss computes its gradient with its value, and multiplies it in the backward pass, if by anything.

    Of single values the gradient is computed when it is known what each is multiplied by. Where a gradient overflows,
    it is the formula's, which multiplies first: the product may be finite, and infinity times 0 would be NaN.
    """

    @staticmethod
    def forward(ctx: Any, call: _Call, pred: Tensor, target: Tensor) -> Tensor:
        ctx.call = call
        keep(ctx, pred, target)
        ctx.gradients, ctx.finite = None, True
        if call.reduction == "none":
            return _values(call, pred, target)
        ctx.gradients = _empty(call, pred, ctx.needs_input_grad[1:])
        value, ctx.finite = _reduced(call, pred, target, ctx.gradients)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        call: _Call = ctx.call
        if needs_graph(grad):
            return None, *gradients_by_graph(ctx, call.again, grad)
        grad = in_memory(grad)
        pred, target = ctx.saved_tensors
        # They are handed over once: autograd would have to copy what is kept here.
        gradients, ctx.gradients = ctx.gradients, None
        finite = ctx.finite
        if gradients is None:
            gradients = _empty(call, pred, ctx.needs_input_grad[1:])
            if call.reduction == "none":
                weight = grad if call.weight is None else grad * call.weight
                _, finite = call.run(pred, target, weight=weight, gradients=gradients)
            else:
                factor = grad.item() * call.factor
                _, finite = call.run(pred, target, weight=call.weight, factor=factor, gradients=gradients)
        elif grad.item() != 1.0:
            gradients = tuple(None if gradient is None else gradient.mul_(grad) for gradient in gradients)
            finite = finite and math.isfinite(grad.item())
        if not finite:
            gradients = _mended(call, pred, target, grad, gradients)
        of_pred, of_target = gradients
        return None, _summed(of_pred, pred.shape), _summed(of_target, target.shape)


def _mended(call: _Call, pred: Tensor, target: Tensor, grad: Tensor, gradients: _Gradients) -> _Gradients:
    """Gradients of pairs, by the formula where they are not finite; those of other pairs stay to the bit."""
    needed = [gradient is not None for gradient in gradients]
    pred, target = (
        boxes.detach().expand(*call.shape, 4).requires_grad_(needs)
        for boxes, needs in zip((pred, target), needed, strict=True)
    )
    with torch.enable_grad():
        value = call.again(pred, target)
    return finite_or(gradients, gradients_of(value, pred, target, grad, needed))


def finite_or(gradients: _Gradients, others: _Gradients) -> _Gradients:
    """The first ones where they are finite, else the others."""
    of_pred, of_target = (
        None if ours is None or other is None else torch.where(ours.isfinite(), ours, other)
        for ours, other in zip(gradients, others, strict=True)
    )
    return of_pred, of_target


def keep(ctx: Any, *boxes: Tensor) -> None:
    """Save boxes for the backward pass; those of inference mode can only be copied for it."""
    ctx.save_for_backward(*(each.clone() if each.is_inference() else each for each in boxes))


def in_memory(grad: Tensor) -> Tensor:
    """As numbers side by side: autograd also hands over views yet to be negated, and zeros without any memory."""
    if grad._is_zerotensor():
        return torch.zeros(grad.shape, dtype=grad.dtype)
    return grad.resolve_neg().contiguous()


def needs_graph(grad: Tensor) -> bool:
    """Whether a backward pass is to be differentiated (create_graph) or run for many at once (is_grads_batched)."""
    return torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad)


def gradients_by_graph(ctx: Any, formula: Formula, grad: Tensor) -> _Gradients:
    """Gradients by the two boxes that were kept, the last inputs, through a formula that autograd follows."""
    pred, target = ctx.saved_tensors
    with torch.enable_grad():
        value = formula(pred, target)
    return gradients_of(value, pred, target, grad, ctx.needs_input_grad[-2:], create_graph=torch.is_grad_enabled())


def gradients_of(
    value: Tensor, first: Tensor, second: Tensor, grad: Tensor, needed: Sequence[bool], *, create_graph: bool = False
) -> _Gradients:
    """Gradients by those of two boxes that need one."""
    wanted = [boxes for boxes, needs in zip((first, second), needed, strict=True) if needs]
    found = iter(torch.autograd.grad(value, wanted, grad, create_graph=create_graph))
    return next(found) if needed[0] else None, next(found) if needed[1] else None


def _summed(gradient: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Over what was expanded."""
    return gradient if gradient is None or gradient.shape == shape else gradient.sum_to_size(shape)


def _empty(call: _Call, like: Tensor, needed: tuple[bool, ...]) -> _Gradients:
    of_pred, of_target = (like.new_empty(*call.shape, 4) if wanted else None for wanted in needed)
    return of_pred, of_target


def _rows(boxes: Tensor, shape: torch.Size) -> tuple[Tensor, int]:
    """Boxes of pairs of a shape, and how far apart they lie, in numbers; their coordinates lie side by side."""
    if boxes.shape[:-1] == shape:
        if boxes.is_contiguous():
            return boxes, 4
        if boxes.ndim == 2 and boxes.stride(1) == 1:
            return boxes, boxes.stride(0)
    elif boxes.numel() == 4:  # one for all
        return boxes.contiguous(), 0
    return boxes.expand(*shape, 4).contiguous(), 4
