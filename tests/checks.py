"""What must hold of the losses, as functions of the package under test: run on boxloss, and on mutants of it."""

from __future__ import annotations

import functools
from types import ModuleType

import exact
import pairs
import torch
from mpmath import mp, mpf
from torch import Tensor
from variants import VARIANTS, Variant, label, ulp_limit

VALUES, GRADIENTS, ROUNDED_GRADIENTS = 40, 30, 12
"""Pairs of a kind, dtype and test: arithmetic without rounding takes milliseconds each. Slow tests take many more.

Gradients of halves are those of float32, rounded. Tests of the same numbers share what is exact (`exact_values`).
"""

FULL = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.int64: torch.float64}
"""The dtype in which other dtypes are computed."""


def smallest(dtype: torch.dtype) -> mpf:
    """The smallest subnormal number."""
    info = torch.finfo(dtype)
    return mpf(info.tiny) * mpf(info.eps)


def ulp(value: mpf, dtype: torch.dtype) -> mpf:
    """The distance of neighbouring numbers of the dtype around a value."""
    if value == 0:
        return smallest(dtype)
    spacing = mp.ldexp(mpf(torch.finfo(dtype).eps), int(mp.frexp(abs(value))[1]) - 1)
    return max(spacing, smallest(dtype))


@functools.cache
def exact_values(kind: str, n: int, dtype: torch.dtype, seed: int) -> list[list[mpf]]:
    pred, target = pairs.draw(kind, n, dtype, seed)
    return [exact.values(VARIANTS, p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)]


@functools.cache
def exact_gradients(kind: str, n: int, dtype: torch.dtype, seed: int) -> list[list[list[tuple[mpf, mpf]]]]:
    pred, target = pairs.draw(kind, n, dtype, seed)
    return [exact.gradients(VARIANTS, p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)]


def value_and_gradient(package: ModuleType, variant: Variant, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    name, parameters = variant
    pred = pred.clone().requires_grad_()
    value = package.LOSSES[name].function(pred, target, **parameters)
    (gradient,) = torch.autograd.grad(value, pred, torch.ones_like(value))
    return value.detach(), gradient


def check_values(package: ModuleType, kind: str, dtype: torch.dtype, n: int, seed: int = 0) -> None:
    """Values are within 4 or 8 ulp of the exact ones."""
    pred, target = pairs.draw(kind, n, dtype, seed)
    computed_in = FULL.get(dtype, dtype)
    wanted = exact_values(kind, n, dtype, seed)
    for k, variant in enumerate(VARIANTS):
        name, parameters = variant
        got = package.LOSSES[name].function(pred, target, **parameters)
        assert got.dtype == computed_in, label(variant)
        for i, value in enumerate(got.tolist()):
            check_value(value, wanted[i][k], computed_in, variant, pred[i], target[i])


def check_value(value: float, wanted: mpf, dtype: torch.dtype, variant: Variant, pred: Tensor, target: Tensor) -> None:
    if value == float("inf") and wanted > torch.finfo(dtype).max:
        return
    off = abs(mpf(value) - wanted) / ulp(exact.measure(variant, pred.tolist(), target.tolist(), wanted), dtype)
    assert off <= ulp_limit(variant), (
        f"{label(variant)} is {mp.nstr(off, 3)} ulp off: {value!r} for {mp.nstr(wanted, 20)}"
        f" of pred {pred.tolist()}, target {target.tolist()}"
    )


def check_gradients(package: ModuleType, kind: str, dtype: torch.dtype, n: int, seed: int = 0) -> None:
    """Gradients are finite, and on ordinary boxes within 64 eps of the pair's largest component."""
    pred, target = pairs.draw(kind, n, dtype, seed)
    ordinary = pairs.ordinary(pred.double(), target.double())
    wanted = exact_gradients(kind, n, dtype, seed)
    eps = torch.finfo(FULL.get(dtype, dtype)).eps
    for k, variant in enumerate(VARIANTS):
        _, gradient = value_and_gradient(package, variant, pred, target)
        assert gradient.dtype == dtype
        for i, got in enumerate(gradient.tolist()):
            sides = wanted[i][k]
            where = f"{label(variant)}: gradient {got} of pred {pred[i].tolist()}, target {target[i].tolist()}"
            check_finite(got, sides, dtype, where)
            if not ordinary[i] or (variant[1].get("aspect_gradient") == "unit" and not in_unit(pred[i], target[i])):
                continue
            if variant[0] == "nwd" and (pred[i] - target[i]).abs().max() > 40 * variant[1]["constant"]:
                continue  # e^(−W/C) next to nothing, with the last place of its exponent
            scale = max(abs(s) for side in [*sides, *wanted[i][_part(k)]] for s in side)
            for g, (low, high) in zip(got, sides, strict=True):
                if abs(g) == float("inf"):
                    continue
                off = max(low - mpf(g), mpf(g) - high, mpf(0))
                # A gradient returned in half precision is rounded once more.
                rounding = max(abs(low), abs(high)) * torch.finfo(dtype).eps if dtype in FULL else 0
                rounding += 64 * smallest(dtype)  # a slope of a loss with a length may underflow
                assert off <= 64 * eps * scale + rounding, f"{where}; exact: {mp.nstr(low, 17)} … {mp.nstr(high, 17)}"


def in_unit(pred: Tensor, target: Tensor) -> bool:
    """Boxes in [0, 1], as darknet has them: the "unit" aspect gradient is not without unit.

    In pixels it grows with the square of the box, and with it the rounding of a side, beyond every other component.
    """
    return bool(torch.cat((pred, target)).abs().max() <= 1)


def _part(k: int) -> int:
    """The variant whose gradient is one of the two terms that a product rule adds; they may cancel."""
    name, parameters = VARIANTS[k]
    if parameters.get("detach_weight") is not False:
        return k
    return VARIANTS.index((name, {key: value for key, value in parameters.items() if key != "detach_weight"}))


def check_finite(got: list[float], sides: list[tuple[mpf, mpf]], dtype: torch.dtype, where: str) -> None:
    """Finite, or infinite where the exact derivative exceeds the dtype."""
    for g, (low, high) in zip(got, sides, strict=True):
        exceeds = max(abs(low), abs(high)) >= mpf(torch.finfo(dtype).max) * (1 - torch.finfo(dtype).eps)
        assert abs(g) < float("inf") or (abs(g) == float("inf") and exceeds), f"not finite: {where}"


# Pairs that training meets early on and formulas divide by zero on.
DEGENERATE = {
    "identical": ([0, 0, 10, 10], [0, 0, 10, 10]),
    "identical and tiny": ([0, 0, 1e-3, 1e-3], [0, 0, 1e-3, 1e-3]),
    "point in box": ([5, 5, 5, 5], [0, 0, 10, 10]),
    "box around point": ([0, 0, 10, 10], [5, 5, 5, 5]),
    "line in box": ([2, 5, 8, 5], [0, 0, 10, 10]),
    "upright line in box": ([5, 2, 5, 8], [0, 0, 10, 10]),
    "one point": ([3, 3, 3, 3], [3, 3, 3, 3]),
    "two points": ([0, 0, 0, 0], [1, 2, 1, 2]),
    "one line": ([0, 5, 10, 5], [0, 5, 10, 5]),
    "two crossing lines": ([0, 5, 10, 5], [5, 0, 5, 10]),
    "two lines in a row": ([0, 5, 3, 5], [6, 5, 10, 5]),
    "point at a corner": ([0, 0, 0, 0], [0, 0, 10, 10]),
    "edge to edge": ([0, 0, 10, 10], [10, 0, 20, 10]),
    "corner to corner": ([0, 0, 10, 10], [10, 10, 20, 20]),
    "inverted along x": ([10, 0, 0, 10], [0, 0, 10, 10]),
    "inverted along y": ([0, 10, 10, 0], [0, 0, 10, 10]),
    "inverted along both": ([10, 10, 0, 0], [0, 0, 10, 10]),
    "both inverted": ([10, 10, 0, 0], [10, 10, 0, 0]),
    "inverted and spanning": ([20, 2, -5, 8], [0, 0, 10, 10]),
    "target inverted": ([0, 0, 10, 10], [7, 8, 2, 3]),
    "inverted beside": ([30, 30, 20, 20], [0, 0, 10, 10]),
    "far apart": ([0, 0, 1, 1], [1e4, 3e4, 2e4, 4e4]),
    "tiny beside huge": ([0, 0, 1e-4, 1e-4], [-5e4, -5e4, 5e4, 5e4]),
}


def degenerate(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    pred, target = (torch.tensor(boxes, dtype=torch.float64) for boxes in zip(*DEGENERATE.values(), strict=True))
    return pred.to(dtype), target.to(dtype)


def check_degenerate(package: ModuleType, dtype: torch.dtype) -> None:
    """Values are exact and gradients finite on every degenerate pair."""
    pred, target = degenerate(dtype)
    exactly = [
        (exact.values(VARIANTS, p, t), exact.gradients(VARIANTS, p, t))
        for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    for k, variant in enumerate(VARIANTS):
        value, gradient = value_and_gradient(package, variant, pred, target)
        for i, (values, slopes) in enumerate(exactly):
            check_value(value[i].item(), values[k], value.dtype, variant, pred[i], target[i])
            where = f"{label(variant)}: gradient {gradient[i].tolist()} of {list(DEGENERATE)[i]}"
            check_finite(gradient[i].tolist(), slopes[k], dtype, where)
            # Sides are 1e-4 or more: a larger slope would be an artefact, of a 0 that was replaced by something tiny.
            assert package.LOSSES[variant[0]].degree or gradient[i].abs().max() < 1e5, where


def check_collapsed(package: ModuleType) -> None:
    """A prediction that has collapsed to a line inside its target can still grow."""
    pred, target = torch.tensor([2.0, 5, 8, 5]), torch.tensor([0.0, 0, 10, 10])
    # The exact slope of these is 0 at IoU 0, or infinite at a side of 0.
    flat = ("squared_iou", "log_iou", "focal_eiou", "alpha_iou", "kld")
    for variant in VARIANTS:
        if variant[0] not in flat and variant[1].get("base") != "log_iou" and not variant[1].get("d"):
            _, gradient = value_and_gradient(package, variant, pred, target)
            assert gradient[3] < 0, label(variant)


def check_ties(package: ModuleType) -> None:
    """Where edges touch or are shared, a gradient lies between the one-sided ones."""
    rows = [
        ([0, 0, 10, 10], [10, 2, 20, 12]),
        ([10, 2, 20, 12], [0, 0, 10, 10]),
        ([0, 10, 10, 14], [2, 0, 7, 10]),
        ([0, 0, 10, 10], [0, 2, 8, 12]),
        ([0, 0, 10, 10], [0, 0, 10, 7]),
        ([3, 3, 10, 7], [0, 0, 10, 10]),
    ]
    for pred, target in rows:
        sides = exact.gradients(VARIANTS, pred, target)
        for variant, limits in zip(VARIANTS, sides, strict=True):
            boxes = (torch.tensor(box, dtype=torch.float64) for box in (pred, target))
            _, gradient = value_and_gradient(package, variant, *boxes)
            off = 1e-13 * max(abs(s) for side in limits for s in side)
            for g, (low, high) in zip(gradient.tolist(), limits, strict=True):
                assert low - off <= g <= high + off, (label(variant), pred, target, gradient.tolist(), limits)


def check_empty_target(package: ModuleType) -> None:
    """IoU with a line is 0 wherever pred goes, also where its edge touches the line."""
    pred, target = torch.tensor([0.0, 5, 10, 9]), torch.tensor([0.0, 5, 10, 5])
    _, gradient = value_and_gradient(package, ("iou", {}), pred, target)
    assert (gradient == 0).all(), gradient


def check_scale(package: ModuleType) -> None:
    """Boxes times a power of two: dimensionless losses to the bit, the others times the power of their unit."""
    for kind in pairs.KINDS:
        pred, target = pairs.draw(kind, 20, torch.float32)
        if kind == "any_scale":
            continue
        for name, parameters in VARIANTS:
            loss = package.LOSSES[name]
            if loss.lengths or loss.degree is None:
                continue
            value = loss.function(pred, target, **parameters)
            # A length or an area must not under- or overflow itself.
            for exponent in (-7, 20) if loss.degree else (-60, -7, 20, 50):
                scaled = loss.function(pred * 2.0**exponent, target * 2.0**exponent, **parameters)
                assert torch.equal(scaled, value * 2.0 ** (exponent * loss.degree)), (name, parameters, exponent)


def check_not_finite(package: ModuleType) -> None:
    """A NaN or infinite coordinate makes its pair's value NaN and leaves every other value and gradient as it was."""
    pred, target = pairs.draw("pixels", 1000, torch.float32)
    for variant in VARIANTS:
        value, gradient = value_and_gradient(package, variant, pred, target)
        for bad in (float("nan"), float("inf"), -float("inf")):
            for side, column in ((0, 0), (0, 3), (1, 1), (1, 2)):
                spoiled = [pred.clone(), target.clone()]
                spoiled[side][500, column] = bad
                got, slope = value_and_gradient(package, variant, *spoiled)
                assert got[500].isnan(), (label(variant), bad, side, column)
                others = torch.arange(1000) != 500
                assert torch.equal(got[others], value[others]), label(variant)
                assert torch.equal(slope[others], gradient[others]), label(variant)


def check_extremes(package: ModuleType) -> None:
    """Values at the ends of float32 and gradients of pairs that hardly overlap: exact, and no NaN."""
    tiny, huge = 2.0**-149, 3e38
    rows = [
        ([0, 0, tiny, tiny], [0, 0, tiny, tiny]),
        ([0, 0, 2 * tiny, 1], [0, 0, tiny, 1]),
        ([-huge, -huge, huge, huge], [-huge, -huge, huge, huge / 2]),
        ([-huge, 0, huge, 1e-30], [0, 0, huge, 1e-30]),
        ([0, 0, 1e30, 1e-30], [0, 0, 1e30, 1e-30]),
        ([0, 0, 1e-25, 1], [1e-26, 0, 1e-25, 1]),
        ([0, 0, 1, 1], [1e-25, 0, 1, 1]),
        ([0, 0, 1e-20, 1], [0, 0, 1, 1e-18]),
        ([0, 0, 1e-35, 1e-35], [0, 0, 1e30, 1e30]),
        ([0, 0, 1e30, 1e30], [0, 0, 1e-35, 1e-35]),
        ([1e30, 1e30, 1e30, 1e30], [1e30, 1e30, 1e30, 1e30]),
        ([0, -50 * tiny, 0, 0], [0, -50 * tiny, 0, 0]),
    ]
    pred, target = (torch.tensor(boxes, dtype=torch.float32) for boxes in zip(*rows, strict=True))
    exactly = [exact.values(VARIANTS, p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)]
    for k, variant in enumerate(VARIANTS):
        value, gradient = value_and_gradient(package, variant, pred, target)
        assert not gradient.isnan().any(), f"{label(variant)}: {gradient}"
        for i, values in enumerate(exactly):
            if variant[0] != "focal_eiou" or values[0] < 1e30:  # IoU below the smallest normal number
                check_value(value[i].item(), values[k], torch.float32, variant, pred[i], target[i])
