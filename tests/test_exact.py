"""Every loss against arithmetic without rounding, on every kind of pair, in every dtype."""

import checks
import exact
import pairs
import pytest
import torch
from mpmath import mp, mpf
from variants import DEFAULTS, VARIANTS

import boxloss
from boxloss import LOSSES

DIFFERENTIABLE = [dtype for dtype in pairs.DTYPES if dtype.is_floating_point]


@pytest.mark.parametrize("dtype", pairs.DTYPES, ids=str)
@pytest.mark.parametrize("kind", pairs.KINDS)
def test_values(kind, dtype):
    checks.check_values(boxloss, kind, dtype, checks.VALUES)


@pytest.mark.parametrize("dtype", DIFFERENTIABLE, ids=str)
@pytest.mark.parametrize("kind", pairs.KINDS)
def test_gradients(kind, dtype):
    # Halves are raised to float32, whose gradients are checked; what is left is a rounding.
    n = checks.GRADIENTS if dtype.itemsize > 2 else checks.ROUNDED_GRADIENTS
    checks.check_gradients(boxloss, kind, dtype, n)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", pairs.DTYPES, ids=str)
@pytest.mark.parametrize("kind", pairs.KINDS)
def test_many_values(kind, dtype):
    checks.check_values(boxloss, kind, dtype, 10_000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DIFFERENTIABLE, ids=str)
@pytest.mark.parametrize("kind", pairs.KINDS)
def test_many_gradients(kind, dtype):
    checks.check_gradients(boxloss, kind, dtype, 1000, seed=1)


@pytest.mark.parametrize("dtype", DIFFERENTIABLE, ids=str)
def test_degenerate_pairs(dtype):
    checks.check_degenerate(boxloss, dtype)


def test_a_collapsed_box_can_grow():
    checks.check_collapsed(boxloss)


def test_at_a_tie_the_gradient_lies_between_the_one_sided_ones():
    checks.check_ties(boxloss)


def test_an_empty_target_does_not_pull():
    checks.check_empty_target(boxloss)


def test_every_loss_has_a_reference():
    assert {name for name, _ in VARIANTS} == set(exact.LOSSES) == set(boxloss.LOSSES)


def test_the_reference_agrees_with_sums_by_hand():
    pred, target = [0, 0, 2, 4], [0, 1, 2, 3]
    values = dict(zip(LOSSES, exact.values(DEFAULTS, pred, target), strict=True))
    angle = mp.atan2(2, 2) - mp.atan2(2, 4)
    v = 4 / mp.pi**2 * angle**2
    eiou = 1 - mpf(4) / 8 + mpf(0) + mpf(4) / 16
    expected = {
        "l1": 2,
        "l2": 2,
        "smooth_l1": 1,
        "iou": mpf(1) / 2,
        "log_iou": mp.log(2),
        "squared_iou": mpf(3) / 4,
        "giou": mpf(1) / 2,
        "tversky_box": 1 - mpf(4) / (4 + mpf(0.3) * 4),
        "dice_box": 1 - mpf(8) / 12,
        "diou": mpf(1) / 2,
        "ciou": mpf(1) / 2 + v * v / (mpf(1) / 2 + v),
        "eiou": eiou,
        "focal_eiou": mp.sqrt(mpf(1) / 2) * eiou,
        "cdiou": mpf(1) / 2 + 4 / (4 * mp.sqrt(20)),
        # Corners are 1 apart: z = 1 is the knee of balanced L1, γ + γ/b − α.
        "balanced_l1": 2 * (1 + mpf(1.5) / (mp.e**3 - 1)),
        "alpha_iou": mpf(7) / 8,
        "focaler_iou": 1 - mpf(0.5) / mpf(0.95),
        "inner_iou": mpf(1) / 2,
        "siou": mpf(1) / 2 + (1 - mp.exp(-mpf(1) / 2)) ** 4 / 2,
        "shape_iou": mpf(1) / 2 + (1 - mp.exp(-mpf(1) / 2)) ** 4 / 2,
        "mpdiou": mpf(1) / 2 + mpf(2) / 800**2,
        "piou": mpf(1) / 2 + 1 - mp.exp(-((mpf(2) / 8) ** 2)),  # P = (1 + 1)/(4 · 2)
        "bounded_iou": mpf(1) / 2 - mpf(0.2) / 2,
        "wiou": mpf(1) / 2,
        "nwd": 1 - mp.exp(-mpf(1) / 64),  # W = dh/2
        "gwd": 1 - 1 / (1 + mp.log(2)),
        "kld": 1 - 1 / (1 + mp.log(1 + mpf(1) / 2 + 2 - mp.log(2) - 1)),
    }
    assert set(expected) == set(LOSSES)
    for name, value in expected.items():
        assert abs(values[name] - value) < 1e-14, name


def test_the_reference_gradient_is_one_sided_at_a_kink():
    # |d| of equal edges has the slopes -1 and 1; x2 is 1 too large.
    ((x1, y1, x2, y2),) = exact.gradients([("l1", {})], [0, 0, 3, 2], [0, 0, 2, 2])
    assert (x1, y1, x2, y2) == ((-1, 1), (-1, 1), (1, 1), (-1, 1))


def test_the_reference_gradient_is_the_slope_of_the_reference_value():
    pred, target, step = [1.0, 2.0, 7.0, 5.0], [2.0, 1.0, 6.0, 6.0], mpf(2) ** -100
    variants = [v for v in VARIANTS if not LOSSES[v[0]].detached and v[1].get("base") != "ciou"]
    slopes = exact.gradients(variants, pred, target)
    for j in range(4):
        with mp.workprec(400):
            moved = [mpf(x) + (step if i == j else 0) for i, x in enumerate(pred)]
            g = exact.Geometry(moved, [mpf(x) for x in target])
            h = exact.Geometry([mpf(x) for x in pred], [mpf(x) for x in target])
            for k, (name, parameters) in enumerate(variants):
                slope = (exact.LOSSES[name](g, **parameters) - exact.LOSSES[name](h, **parameters)) / step
                assert abs(slope - slopes[k][j][1]) < 1e-20, name


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_the_kinds_are_what_they_say(kind):
    """The generator is tested too: valid, finite boxes; the share of ordinary ones keeps the gradient test alive."""
    pred, target = pairs.draw(kind, 300, torch.float64)
    for boxes in (pred, target):
        assert boxes.isfinite().all()
        assert (boxes[:, 2:] >= boxes[:, :2]).all()
    least = {"normalized": 200, "nearly_equal": 200, "pixels": 100, "thin": 50, "far_apart": 0}
    assert pairs.ordinary(pred, target).sum() >= least.get(kind, 10)
