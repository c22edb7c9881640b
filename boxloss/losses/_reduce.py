"""From one value per pair to what is asked for: the values themselves, their sum or their mean, weighted or not."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..values import bounds, check_dense, is_one_of, readable, shown
from ._parameters import is_finite, is_number

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(reduction: str, avg_factor: float | Tensor | None) -> None:
    if not is_one_of(reduction, REDUCTIONS):
        raise ValueError(f"Invalid reduction {shown(reduction)}: expected one of {', '.join(map(repr, REDUCTIONS))}")
    if avg_factor is not None and reduction != "mean":
        raise ValueError(f"avg_factor divides a sum: expected reduction 'mean' with it, got {reduction!r}")


def reduce_pairs(
    value: Tensor, reduction: str, weight: Tensor | None = None, avg_factor: float | Tensor | None = None
) -> Tensor:
    """One value per pair → weighted values, their sum, or their sum over the number of pairs or ``avg_factor``."""
    if weight is not None:
        value = value * as_weight(weight, value.shape, value.dtype)
    if reduction == "none":
        return value
    return divide(value.sum(), divisor(reduction, value.numel(), value, avg_factor))


def divide(total: Tensor, by: int | Tensor) -> Tensor:
    """total / by; 0 where both are 0. A division by 0 has no gradient: it would be infinite, or NaN."""
    if not isinstance(by, Tensor):
        return total / by
    zero = by == 0.0
    beyond = (total / by).detach().masked_fill(total == 0.0, 0.0)
    return torch.where(zero, beyond, total / by.masked_fill(zero, 1.0))


def as_weight(weight: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The weights of pairs of a shape.

    Raises:
        TypeError: not a dense tensor of real numbers.
        ValueError: of another shape.
    """
    if not isinstance(weight, Tensor):
        option = "; a module takes its reduction when it is made" if is_one_of(weight, REDUCTIONS) else ""
        raise TypeError(f"weight: expected a torch.Tensor, one number per pair, got {type(weight).__name__}{option}")
    check_dense(weight, "weight")
    if weight.is_complex():
        raise TypeError(f"weight: expected real numbers, got {weight.dtype}")
    if weight.shape != shape:
        raise ValueError(f"weight: expected one number per pair, shape {tuple(shape)}, got {tuple(weight.shape)}")
    return weight.to(dtype)


def as_class_weight(weight: Tensor, count: int, like: Tensor) -> Tensor:
    """A factor of each class, in the dtype and on the device of what it multiplies.

    Raises:
        TypeError: not a dense tensor of real numbers.
        ValueError: of another shape; a factor that is not finite or is negative, which is looked for on the CPU only.
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"class_weight: expected a tensor ({count},), got {type(weight).__name__}")
    check_dense(weight, "class_weight")
    if weight.shape != (count,):
        raise ValueError(f"class_weight: expected ({count},), got {tuple(weight.shape)}")
    if weight.is_complex():
        raise TypeError(f"class_weight: expected real numbers, got {weight.dtype}")
    if count and readable(weight):
        low, high = bounds(weight)
        if not (low >= 0 and high < math.inf):
            wrong = next(number for number in weight.tolist() if not 0 <= number < math.inf)
            raise ValueError(f"class_weight: expected {count} finite numbers >= 0, got {wrong}")
    return weight.to(like)


def divisor(reduction: str, count: int, like: Tensor, avg_factor: float | Tensor | None) -> int | Tensor:
    """What a sum over pairs is divided by: their number, or ``avg_factor`` in the dtype of their values.

    Raises:
        TypeError: an ``avg_factor`` that is not a number.
        ValueError: one that is negative or not finite, or a tensor of more than one number.
    """
    if isinstance(avg_factor, Tensor):
        if avg_factor.ndim > 0 or avg_factor.is_complex():
            found = f"a tensor {tuple(avg_factor.shape)} of {avg_factor.dtype}"
            raise ValueError(f"avg_factor: expected a number or a real tensor (), got {found}")
        avg_factor = avg_factor.to(like, non_blocking=True)
    elif avg_factor is not None:
        if not is_number(avg_factor):
            raise TypeError(f"avg_factor: expected a number or a real tensor (), got {avg_factor!r}")
        if not is_finite(avg_factor) or avg_factor < 0:
            raise ValueError(f"avg_factor: expected a finite number >= 0, got {avg_factor!r}")
        avg_factor = torch.full((), float(avg_factor), dtype=like.dtype, device=like.device)
    if reduction == "sum" or count == 0:  # the sum of no pairs is 0 with a graph
        return 1
    return count if avg_factor is None else avg_factor
