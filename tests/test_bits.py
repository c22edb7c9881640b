"""Totality: boxes drawn from raw bit patterns of finite floats, subnormal to 3e38, inverted or not."""

from __future__ import annotations

import functools
import math

import checks
import exact
import pairs
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mpmath import mpf
from variants import DEFAULTS, VARIANTS, Variant, label, parameter, ulp_limit

import boxloss
from boxloss import LOSSES

N = 250_000  # of each of four dtypes; a tenth of it with parameters that are not the defaults
EXACT = 400  # of each, compared with exact values
FEWER = 5
"""By this the quick tests divide both numbers, which are those of the slow ones."""
INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def raw(n: int, dtype: torch.dtype, g: torch.Generator) -> torch.Tensor:
    """Any finite numbers of the dtype, every bit pattern as likely."""
    integer = INTEGER[dtype.itemsize]
    info = torch.iinfo(integer)
    bits = torch.randint(info.min, info.max, (n, 4), generator=g, dtype=torch.int64).to(integer)
    numbers = bits.view(dtype)
    return torch.where(numbers.isfinite(), numbers, torch.ones((), dtype=dtype))


@functools.cache  # every loss gets the same pairs, and changes none
def draw(n: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the pairs valid boxes, half any; half of them share coordinates, some all four."""
    g = torch.Generator().manual_seed(seed)
    pred, target = raw(n, dtype, g), raw(n, dtype, g)
    for boxes in (pred, target):
        low, high = boxes[: n // 2, :2].clone(), boxes[: n // 2, 2:].clone()
        boxes[: n // 2] = torch.cat((torch.minimum(low, high), torch.maximum(low, high)), 1)
    shared = torch.rand(n, 4, generator=g) < torch.tensor([0.0, 0.3, 0.8, 1.0])[torch.arange(n) % 4, None]
    return pred, torch.where(shared, pred, target)


def may_vanish(variant: Variant, wanted: mpf, dtype: torch.dtype) -> bool:
    """The exact value is 0 within the loss's ulp limit."""
    return bool(wanted <= ulp_limit(variant) * checks.smallest(dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_pairs_of_raw_bits(variant, dtype):
    check_totality(variant, dtype, N // FEWER)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_million_pairs_of_raw_bits(variant, dtype):
    check_totality(variant, dtype, N)


def check_totality(variant: Variant, dtype: torch.dtype, n: int) -> None:
    name, parameters = variant
    loss = LOSSES[name]
    pred, target = draw(n if variant in DEFAULTS else n // 10, dtype, seed=7)
    value, gradient = checks.value_and_gradient(boxloss, variant, pred, target)
    assert not value.isnan().any()
    assert not gradient.isnan().any()
    assert (value >= 0).all()

    equal = (pred == target).all(1)
    area = (pred[:, 2:] > pred[:, :2]).all(1)
    assert (value[equal & area] == 0).all()
    zero = (value == 0) & ~(equal & area)
    if loss.zero_without_overlap and parameters.get("gamma") != 0:
        zero &= boxloss.iou_loss(pred, target) < 1
    if loss.zero_from:
        zero &= boxloss.iou_loss(pred, target) > 1 - parameter(variant, loss.zero_from)
    if "floor" in parameters:  # IoU between floor and 1 is no part of this rule
        zero &= boxloss.iou_loss(pred, target) < 0.2
    for i in zero.nonzero().flatten()[:50].tolist():
        (wanted,) = exact.values([variant], pred[i].tolist(), target[i].tolist())
        assert may_vanish(variant, wanted, value.dtype), (label(variant), pred[i].tolist(), target[i].tolist())

    infinite = value.isinf()
    assert loss.in_lengths or not infinite.any()
    for i in infinite.nonzero().flatten()[:50].tolist():
        (wanted,) = exact.values([variant], pred[i].tolist(), target[i].tolist())
        assert wanted > torch.finfo(value.dtype).max
    for i in gradient.isinf().any(1).nonzero().flatten()[:20].tolist():
        (slopes,) = exact.gradients([variant], pred[i].tolist(), target[i].tolist())
        where = f"{label(variant)}: {gradient[i].tolist()} of {pred[i].tolist()}, {target[i].tolist()}"
        checks.check_finite(gradient[i].tolist(), slopes, dtype, where)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_of_raw_bits_are_exact(dtype):
    check_exact(dtype, EXACT // FEWER)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_many_values_of_raw_bits_are_exact(dtype):
    check_exact(dtype, EXACT)


def check_exact(dtype: torch.dtype, n: int) -> None:
    """Of numbers as far apart as float64 has them, logarithms take thousands of bits and pairs tens of milliseconds."""
    pred, target = draw(n, dtype, seed=8)
    values = [LOSSES[name].function(pred, target, **parameters) for name, parameters in VARIANTS]
    for i, (p, t) in enumerate(zip(pred.tolist(), target.tolist(), strict=True)):
        iou_loss, *_ = exact.values([("iou", {})], p, t)
        for variant, value, wanted in zip(VARIANTS, values, exact.values(VARIANTS, p, t), strict=True):
            # Where an intersection underflows beside its boxes, a power of IoU has lost its digits.
            if variant[0] in ("focal_eiou", "alpha_iou") and 0 < 1 - iou_loss < 2.0**-64:
                continue
            checks.check_value(value[i].item(), wanted, value.dtype, variant, pred[i], target[i])


coordinate = st.floats(width=32, allow_nan=False, allow_infinity=False)
box = st.lists(coordinate, min_size=4, max_size=4)


@settings(max_examples=100, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # to shrink one takes minutes
@given(box, box, st.lists(st.booleans(), min_size=4, max_size=4))
def test_any_pair_of_float32_boxes(first, second, shared):
    second = [a if same else b for a, b, same in zip(first, second, shared, strict=True)]
    pred, target = (torch.tensor([coordinates], dtype=torch.float32) for coordinates in (first, second))
    wanted = exact.values(VARIANTS, first, second)
    (iou_loss,) = exact.values([("iou", {})], first, second)
    for variant, exactly in zip(VARIANTS, wanted, strict=True):
        value, gradient = checks.value_and_gradient(boxloss, variant, pred, target)
        assert not gradient.isnan().any(), label(variant)
        if variant[0] in ("focal_eiou", "alpha_iou") and 0 < 1 - iou_loss < 2.0**-64:  # as above
            continue
        checks.check_value(value.item(), exactly, torch.float32, variant, pred[0], target[0])


@settings(max_examples=150)
@given(box, box, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 7))
def test_one_coordinate_that_is_not_finite(first, second, bad, place):
    coordinates = [*first, *second]
    coordinates[place] = bad
    pred, target = torch.tensor([coordinates[:4]]), torch.tensor([coordinates[4:]])
    for name, parameters in VARIANTS:
        assert LOSSES[name].function(pred, target, **parameters).isnan().all(), (name, parameters)


def test_the_generator_draws_what_it_says():
    pred, target = draw(4000, torch.float32, seed=7)
    assert pred.isfinite().all()
    assert target.isfinite().all()
    subnormal = (pred.abs() < torch.finfo(torch.float32).tiny) & (pred != 0)
    assert subnormal.any()
    assert (pred.abs() > 1e37).any()
    assert (pred == target).all(1).any()
    assert (pred[:2000, 2:] >= pred[:2000, :2]).all()
    assert (pred[2000:, 2:] < pred[2000:, :2]).any()
    assert set(pairs.DTYPES) - {torch.int64} == set(FLOATS)
