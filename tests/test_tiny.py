"""Gradients of boxes of every size, down to the smallest numbers: never NaN, infinite only beyond the dtype."""

from __future__ import annotations

import functools
import math

import checks
import exact
import pytest
import torch
from torch import Tensor
from variants import VARIANTS, Variant, label

import boxloss
from boxloss import LOSSES, kernels, pairwise

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=label)
BITS = {torch.float32: 23, torch.float64: 52}
LIMITS = {torch.float32: (-45, 37), torch.float64: (-323, 307)}
"""Of powers of ten: the smallest number, and the largest boxes whose sums are finite."""


def gradients(variant: Variant, pred: Tensor, target: Tensor, by_formula: bool) -> tuple[Tensor, Tensor]:
    name, parameters = variant
    pred, target = pred.clone().requires_grad_(), target.clone().requires_grad_()
    with kernels.disabled() if by_formula else torch.enable_grad():
        value = LOSSES[name].function(pred, target, **parameters)
        of_pred, of_target = torch.autograd.grad(value.sum(), (pred, target))
    return of_pred, of_target


# -- boxes of subnormal numbers only ---------------------------------------------------------------------------------


@functools.cache
def whole(dtype: torch.dtype, n: int) -> tuple[Tensor, Tensor]:
    """Whole numbers that are subnormal in units of the smallest number: 0, 1, 2 and so on, many of them shared."""
    g = torch.Generator().manual_seed(11)
    boxes = []
    for _ in range(2):
        sizes = 2.0 ** torch.randint(0, BITS[dtype] + 1, (n, 4), generator=g).double()
        numbers = (torch.rand(n, 4, generator=g, dtype=torch.float64) * sizes).floor()
        numbers[torch.rand(n, 4, generator=g) < 0.3] *= -1
        numbers[torch.rand(n, 4, generator=g) < 0.2] = 0
        low, high = numbers[: n // 2].clone().split(2, 1)
        numbers[: n // 2] = torch.cat((torch.minimum(low, high), torch.maximum(low, high)), 1)
        boxes.append(numbers)
    pred, target = boxes
    target = torch.where(torch.rand(n, 4, generator=g) < 0.2, pred, target)
    target[::17] = 0
    return pred, target


def times_power(x: Tensor, exponent: int) -> Tensor:
    """x·2^e, also where only the product is a number of float64."""
    half = exponent // 2
    return x * 2.0**half * 2.0 ** (exponent - half)


@pytest.mark.parametrize("dtype", BITS, ids=str)
@every_variant
def test_boxes_of_subnormal_numbers_have_the_gradient_of_larger_ones(variant, dtype):
    """Without unit, boxes times 2^-k have the gradient times 2^k: of the sign it has, and infinite where that is."""
    pred, target = whole(dtype, 1000)
    smallest = -BITS[dtype] - (126 if dtype == torch.float32 else 1022)
    tiny = [times_power(boxes, smallest).to(dtype) for boxes in (pred, target)]
    assert (torch.cat(tiny).abs() < torch.finfo(dtype).tiny).all()
    assert torch.equal(times_power(tiny[0].double(), -smallest), pred)
    for by_formula in (False, True):
        found = gradients(variant, *tiny, by_formula)
        assert not torch.cat(found).isnan().any()
        if LOSSES[variant[0]].in_lengths or variant[1].get("aspect_gradient") == "unit":
            continue
        ordinary_size = [times_power(boxes, -BITS[dtype]).to(dtype) for boxes in (pred, target)]
        # Slopes of many sizes meet in one, and a kernel, with its fused products, rounds them in another way.
        off = 1e-4 if by_formula else 0.05
        for got, ordinary in zip(found, gradients(variant, *ordinary_size, by_formula=True), strict=True):
            largest = ordinary.abs().amax(1, keepdim=True)
            known = (ordinary.abs() > 10 * off * largest) & (largest > 1e-30)
            expected = times_power(ordinary.double(), -smallest - BITS[dtype]).to(dtype)
            close = (got == expected) | ((got - expected).abs() <= off * expected.abs())
            limit = torch.finfo(dtype).max * (1 - off)
            beyond = (got.abs() > limit) & (expected.abs() > limit) & (got.sign() == expected.sign())
            assert (close | beyond)[known].all()


def test_a_subnormal_box_and_a_point():
    pred = torch.tensor([[1e-40, 0, 2e-40, 1e-40]])  # exact: 2.4e39, 2.6e39, -3.6e38, -1.6e39
    for by_formula in (False, True):
        of_pred, _ = gradients(("ciou", {}), pred, torch.zeros(1, 4), by_formula)
        assert of_pred.tolist() == [[math.inf, math.inf, -math.inf, -math.inf]]


# -- boxes of every size, at every distance --------------------------------------------------------------------------


def powers(dtype: torch.dtype, count: int) -> list[float]:
    low, high = LIMITS[dtype]
    return [float(f"1e{round(low + (high - low) * k / (count - 1))}") for k in range(count)]


@functools.cache
def sweep(dtype: torch.dtype, sizes: int, distances: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs of squares and lines of every two sizes s and t, at every distance d, in several positions."""
    axis = torch.tensor(powers(dtype, sizes), dtype=torch.float64)
    away = torch.tensor([0.0, *powers(dtype, distances - 1)], dtype=torch.float64)
    s, t, d = (x.flatten().to(dtype) for x in torch.meshgrid(axis, axis, away, indexing="ij"))
    o = torch.zeros_like(s)
    positions = {
        "along x": ((d, o, d + s, s), (o, o, t, t)),
        "about a center": ((d - s, -s, d + s, s), (-t, -t, t, t)),
        "across": ((o, d, s, d + t), (o, o, t, s)),
        "lines": ((d, o, d, s), (o, o, t, o)),
        "inverted": ((d + s, -s, d - s, s), (-t, o, t, t)),
        "beside": ((-d, -d, d, d), (s, s, s + t, s + t)),
        "point": ((d, d, d, d), (o, o, t, s)),
        "oblique": ((d, d, d + s, s / 2 + d), (o, o, t, t)),
        "around": ((-s, -d, s, d), (o, o, t, d)),
    }
    return {name: (torch.stack(pred, 1), torch.stack(target, 1)) for name, (pred, target) in positions.items()}


KINKED = {"oblique", "around"}
"""Positions in which several kinks meet: there the exact slopes by one coordinate at a time say little."""


def check_sweep(variant: Variant, dtype: torch.dtype, sizes: int, distances: int, exactly: int) -> None:
    """No gradient is NaN, and so many of each position's infinite ones are infinite in exact arithmetic."""
    g = torch.Generator().manual_seed(3)
    for position, (pred, target) in sweep(dtype, sizes, distances).items():
        for by_formula in (False, True):
            of_pred, of_target = gradients(variant, pred, target, by_formula)
            assert not of_pred.isnan().any(), position
            assert not of_target.isnan().any(), position
        infinite = of_pred.isinf().any(1).nonzero().flatten()
        if position in KINKED:
            continue
        for i in infinite[torch.randperm(len(infinite), generator=g)[:exactly]].tolist():
            (slopes,) = exact.gradients([variant], pred[i].tolist(), target[i].tolist())
            where = f"{position}: {of_pred[i].tolist()} of {pred[i].tolist()}, {target[i].tolist()}"
            checks.check_finite(of_pred[i].tolist(), slopes, dtype, where)
            for slope, (low, high) in zip(of_pred[i].tolist(), slopes, strict=True):
                assert math.isfinite(slope) or (high > 0 if slope > 0 else low < 0), where


@pytest.mark.parametrize("dtype", BITS, ids=str)
@every_variant
def test_boxes_of_every_size(variant, dtype):
    check_sweep(variant, dtype, 5, 4, exactly=1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", BITS, ids=str)
@every_variant
def test_boxes_of_more_sizes(variant, dtype):
    check_sweep(variant, dtype, 20, 12, exactly=6)


# -- what a gradient is multiplied by --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BITS, ids=str)
def test_a_small_share_of_a_gradient_that_overflows_is_finite(dtype):
    """A kernel multiplies a gradient that is infinite; the formula's is multiplied before it is."""
    size = torch.finfo(dtype).tiny * 2.0**-8
    pred = torch.tensor([[0, 0, 2, 2], [0, 0, 3, 3]], dtype=dtype) * size
    target = torch.tensor([[1, 1, 3, 3], [0, 0, 4, 4]], dtype=dtype) * size
    for options in (
        {"reduction": "mean", "avg_factor": 2.0**20},
        {"reduction": "sum", "weight": torch.tensor([2.0**-20, 0.0])},
        {"reduction": "none", "weight": torch.tensor([0.0, 2.0**-20])},
    ):
        found = []
        for by_formula in (False, True):
            moved = pred.clone().requires_grad_()
            with kernels.disabled() if by_formula else torch.enable_grad():
                value = boxloss.giou_loss(moved, target, **options).sum()
            (gradient,) = torch.autograd.grad(value, moved)
            found.append(gradient)
        assert found[0].isfinite().all()
        assert found[0].abs().max() > 0
        torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=0)


def test_pairs_that_do_not_count_have_no_gradient_in_a_matrix():
    boxes = (torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 2], [3, 3, 4, 4]]) * 1e-42).requires_grad_()
    target = torch.tensor([[0.0, 0, 2, 1], [1, 0, 2, 3]]) * 1e-42
    pairwise("giou", boxes, target).mul(torch.zeros(3, 2)).sum().backward()
    assert (boxes.grad == 0).all()
