"""What the newer losses' papers and implementations say of them, in numbers."""

from __future__ import annotations

import math

import pairs
import pytest
import torch

import boxloss
from boxloss import (
    LOSSES,
    alpha_iou_loss,
    balanced_l1_loss,
    bounded_iou_loss,
    ciou_loss,
    diou_loss,
    focaler_iou_loss,
    gwd_loss,
    inner_iou_loss,
    iou_loss,
    kernels,
    kld_loss,
    mpdiou_loss,
    nwd_loss,
    piou_loss,
    shape_iou_loss,
    siou_loss,
    smooth_l1_loss,
    wiou_loss,
)

UNIT = torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)


def shifted(*by):
    return UNIT + torch.tensor(by, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)


@pytest.fixture
def batch():
    return pairs.draw("pixels", 50, torch.float64)


def test_siou_grows_with_distance():
    """mmdet's default, with e^(+…), falls instead: research of its pull request."""
    values = siou_loss(shifted(2, 3, 100), UNIT.expand(3, 4))
    assert values.tolist() == pytest.approx([1.294, 1.338, 1.430], abs=6e-4)
    far = siou_loss(shifted(*torch.linspace(0, 50, 200).tolist()), UNIT.expand(200, 4))
    assert (far.diff() > 0).all()
    hundred = siou_loss(100 * shifted(1, 1.5, 2), 100 * UNIT.expand(3, 4))
    assert hundred.tolist() == pytest.approx([1.197, 1.257, 1.294], abs=6e-4)  # boxes of 100 × 100, 100, 150, 200 apart


def test_siou_turns_along_an_axis():
    """Λ is 0 along an axis and 1 along a diagonal, where the same shares of the hull count half."""
    straight, oblique = (UNIT + torch.tensor(by, dtype=torch.float64) for by in ([3.0, 0, 3, 0], [3.0, 3, 3, 3]))
    assert siou_loss(straight, UNIT).item() == pytest.approx(1 + (1 - math.exp(-2 * (3 / 4) ** 2)) / 2)
    assert siou_loss(oblique, UNIT).item() == pytest.approx(1 + (1 - math.exp(-((3 / 4) ** 2))))


def test_alpha_iou_holds_iou_and_its_square(batch):
    torch.testing.assert_close(alpha_iou_loss(*batch, alpha=1.0), iou_loss(*batch))
    torch.testing.assert_close(alpha_iou_loss(*batch, alpha=2.0), boxloss.squared_iou_loss(*batch))


def test_wiou_pulls_boxes_that_lie_apart():
    """A port that holds e^(ρ²/c²) constant too gives them no gradient at all."""
    for version in ("v1", "v2", "v3"):
        pred = shifted(5).requires_grad_()
        wiou_loss(pred, UNIT[None], version=version, mean=0.5).sum().backward()
        assert (pred.grad[:, [0, 2]] > 0).all()
        # c² is held constant: the slope of e^(ρ²/c²) along x is 2·dx/c² times it, half for each edge; c² = 6² + 1².
        if version == "v1":
            assert pred.grad[0, 0].item() == pytest.approx(math.exp(25 / 37) * 5 / 37)


def test_wiou_focuses():
    """v3's factor is 1 at β = δ, less beyond; v2's grows with β."""
    pred, target = shifted(0.25, 0.5, 5), UNIT.expand(3, 4)
    loss, plain = iou_loss(pred, target), wiou_loss(pred, target)
    torch.testing.assert_close(wiou_loss(pred, target, version="v2", mean=0.4) / plain, (loss / 0.4).sqrt())
    third = wiou_loss(pred, target, version="v3", mean=float(loss[1] / 3)) / plain
    assert third[1].item() == pytest.approx(1)  # β = 3 = δ
    assert third[0] > 1 > third[2]


def test_inner_iou_of_inner_boxes(batch):
    centers, sides = ((b[:, :2] + b[:, 2:]) / 2 for b in batch), (b[:, 2:] - b[:, :2] for b in batch)
    inner = [torch.cat((c - 0.35 * s, c + 0.35 * s), 1) for c, s in zip(centers, sides, strict=True)]
    torch.testing.assert_close(inner_iou_loss(*batch, ratio=0.7), iou_loss(*inner))
    torch.testing.assert_close(inner_iou_loss(*batch, ratio=1.0), iou_loss(*batch))


def test_inner_ratio_replaces_the_iou_and_nothing_else(batch):
    excess = inner_iou_loss(*batch, ratio=0.7) - iou_loss(*batch)
    torch.testing.assert_close(diou_loss(*batch, inner_ratio=0.7), diou_loss(*batch) + excess)
    torch.testing.assert_close(ciou_loss(*batch, inner_ratio=0.7), ciou_loss(*batch) + excess)
    assert torch.equal(diou_loss(*batch, inner_ratio=None), diou_loss(*batch))
    if not isinstance(kernels.library(), str) and not kernels.why_not(*batch):
        assert "formula; no kernel" in kernels.explain("diou", *batch, inner_ratio=0.7)
        assert "kernel diou" in kernels.explain("diou", *batch)


def test_focaler_iou_between_its_bounds():
    pred = UNIT * torch.tensor([[1, 1, side, 1] for side in (0.1, 0.3, 0.5, 0.7, 0.8, 1)])
    values = focaler_iou_loss(pred.requires_grad_(), UNIT.expand(6, 4), d=0.25, u=0.75)
    assert values.tolist() == pytest.approx([1, 0.9, 0.5, 0.1, 0, 0])
    values.sum().backward()
    assert (pred.grad[:, 2] != 0).tolist() == [False, True, True, True, False, False]
    assert "wherever IoU ≥ u" in LOSSES["focaler_iou"].warning
    with pytest.raises(ValueError, match=r"d and u: expected u to be at least 0\.001 above d, got 0\.5 and 0\.5"):
        boxloss.BoxLoss("focaler_iou", d=0.5, u=0.5)


def test_mpdiou_by_hand():
    pred, target = torch.tensor([10.0, 20, 50, 60]), torch.tensor([13.0, 24, 50, 66])
    expected = iou_loss(pred, target) + (3**2 + 4**2 + 6**2) / (640**2 + 480**2)
    torch.testing.assert_close(mpdiou_loss(pred, target, image_size=(640, 480)), expected)
    torch.testing.assert_close(mpdiou_loss(pred, target, image_size=[640, 480]), expected)  # as YAML has it


@pytest.mark.parametrize(
    ("size", "error"),
    [(640, TypeError), ("ab", TypeError), ((640, "b"), TypeError), ((640,), ValueError), ((0, 480), ValueError)],
)
def test_mpdiou_wants_two_sides(size, error):
    with pytest.raises(error, match=r"^image_size: expected two finite numbers in \[1e-9, 1e9\], got"):
        mpdiou_loss(UNIT, UNIT, image_size=size)


def test_what_is_required():
    with pytest.raises(TypeError, match="mpdiou: parameter 'image_size' is required: two finite numbers"):
        mpdiou_loss(UNIT, UNIT)
    with pytest.raises(TypeError, match="nwd: parameter 'constant' is required: a finite number"):
        boxloss.BoxLoss("nwd")


def test_piou_attends_to_the_middle():
    """Version 2's factor is largest where λq = 1/√2, P = ln(λ√2); both versions meet nowhere but at equal boxes."""
    shifts = torch.linspace(0, 3, 601, dtype=torch.float64)
    pred, target = shifted(*shifts.tolist()), UNIT.expand(601, 4)
    factor = (piou_loss(pred, target, version=2) / piou_loss(pred, target))[1:]
    p = shifts[1:] / 2  # both vertical edges are off by the shift
    assert p[factor.argmax()].item() == pytest.approx(math.log(1.3 * math.sqrt(2)), abs=3e-3)
    assert factor.max().item() == pytest.approx(3 / math.sqrt(2 * math.e), rel=1e-5)
    with pytest.raises(ValueError, match="version: expected one of 1, 2, got 3"):
        piou_loss(UNIT, UNIT, version=3)
    with pytest.raises(TypeError, match="version: expected one of 1, 2, got True"):
        piou_loss(UNIT, UNIT, version=True)


def test_shape_iou_goes_by_the_targets_shape():
    """A wide target, 4 × 1 with scale 1: ww = 8/5, hh = 2/5, so a way along x counts a quarter of one along y."""
    target = torch.tensor([0.0, 0, 4, 1], dtype=torch.float64)
    along, across = (target + torch.tensor(by, dtype=torch.float64) for by in ([9.0, 0, 9, 0], [0.0, 9, 0, 9]))
    assert shape_iou_loss(along, target, scale=1.0).item() == pytest.approx(1 + 2 / 5 * 81 / (13**2 + 1))
    assert shape_iou_loss(across, target, scale=1.0).item() == pytest.approx(1 + 8 / 5 * 81 / (4**2 + 10**2))
    torch.testing.assert_close(shape_iou_loss(along, target), diou_loss(along, target))


def test_bounded_iou_is_smooth_l1_of_four_bounds():
    """mmdet without its eps: a shift by d of a side w leaves at most (w − 2d)/(w + 2d)."""
    target = torch.tensor([0.0, 0, 8, 4], dtype=torch.float64)
    moved, grown = torch.tensor([1.0, 0, 9, 4]).double(), torch.tensor([-1.0, 0, 9, 4]).double()
    assert bounded_iou_loss(moved, target).item() == pytest.approx((1 - 6 / 10) - 0.1)
    assert bounded_iou_loss(grown, target).item() == pytest.approx((1 - 8 / 10) - 0.1)
    far = torch.tensor([90.0, 0, 98, 4]).double()
    assert bounded_iou_loss(far, target).item() == pytest.approx(1 - 0.1)


def test_gaussian_distances():
    """NWD, GWD and KLD of boxes as normal distributions with half the sides as deviations."""
    pred, target = torch.tensor([1.0, 2, 5, 10]).double(), torch.tensor([4.0, 2, 10, 6]).double()
    (x, y, w, h), (a, b, v, g) = (3, 6, 4, 8), (7, 4, 6, 4)
    square = (x - a) ** 2 + (y - b) ** 2 + ((w - v) ** 2 + (h - g) ** 2) / 4
    assert nwd_loss(pred, target, constant=5).item() == pytest.approx(1 - math.exp(-math.sqrt(square) / 5))
    assert gwd_loss(pred, target).item() == pytest.approx(1 - 1 / (1 + math.log(1 + square)))
    gaussians = [
        torch.distributions.Normal(torch.tensor([u, t]).double(), torch.tensor([s, r]).double() / 2)
        for u, t, s, r in ((x, y, w, h), (a, b, v, g))
    ]
    divergence = torch.distributions.kl_divergence(*gaussians).sum().item()
    assert kld_loss(pred, target).item() == pytest.approx(1 - 1 / (1 + math.log(1 + divergence)))
    for loss in (gwd_loss, kld_loss):
        assert loss(UNIT, UNIT, tau=2.0) == 0.5


def test_divergences_beyond_every_number():
    """D is 5e60 in 1e30 sides of the target, and 1e120 where the one is 1e60 times as wide as the other."""
    pred, target = torch.tensor([1e30, 0, 2e30, 1]), torch.tensor([0.0, 0, 1, 1])
    log = math.log(5) + 60 * math.log(10)  # 2·1.5² + ½
    assert kld_loss(pred, target).item() == pytest.approx(1 - 1 / (1 + log), rel=1e-6)
    wide, thin = torch.tensor([0.0, 0, 1e30, 1]), torch.tensor([0.0, 0, 1e-30, 1])
    log = 120 * math.log(10)  # 2·½² + ½
    assert kld_loss(wide, thin).item() == pytest.approx(1 - 1 / (1 + log), rel=1e-6)


def test_balanced_l1_meets_at_beta():
    """Value and slope go on at |d| = β; the slope is γ beyond, and at 0 it rises with α·b, steeper than smooth L1's."""
    target = torch.zeros(4, dtype=torch.float64)
    for beta in (1.0, 0.25):
        at = torch.tensor([0.0, 0, 0, beta], dtype=torch.float64)
        below, above = (at * (1 - 1e-9)).requires_grad_(), (at * (1 + 1e-9)).requires_grad_()
        values = [balanced_l1_loss(boxes, target, beta=beta) for boxes in (below, above)]
        slopes = [torch.autograd.grad(value, boxes)[0][3] for value, boxes in zip(values, (below, above), strict=True)]
        torch.testing.assert_close(*values, rtol=1e-6, atol=0)
        assert [slope.item() for slope in slopes] == pytest.approx([1.5, 1.5], rel=1e-6)
    near = torch.tensor([0.0, 0, 0, 1e-3], dtype=torch.float64)
    ratio = balanced_l1_loss(near, target) / smooth_l1_loss(near, target)
    assert ratio.item() == pytest.approx(0.5 * (math.exp(3) - 1), rel=1e-2)
    torch.testing.assert_close(balanced_l1_loss(near, target, beta=0.0, gamma=2.0), 2 * boxloss.l1_loss(near, target))
    with pytest.raises(ValueError, match=r"gamma and alpha: expected gamma/alpha in \[0\.01, 80\], got 9\.0/0\.1"):
        balanced_l1_loss(near, target, alpha=0.1, gamma=9.0)


def test_lengths_of_every_size_in_one_pair():
    """A target 1e-45 wide beside a pred 3e38 long: neither vanishes, whatever the unit in which they are computed."""
    huge, least = 3e38, 2.0**-149
    wide = kld_loss(torch.tensor([0.0, 0, huge, 1]), torch.tensor([0.0, 0, least, 1]))
    log = 2 * (math.log(huge) - math.log(least))  # 2·½² + ½
    assert wide.item() == pytest.approx(1 - 1 / (1 + log), rel=1e-6)
    low = kld_loss(torch.tensor([0.0, 0, 1, least]), torch.tensor([0.0, 0, 1, huge]))
    log = math.log(0.5 + math.log(huge) - math.log(least) + 0.5)  # 1 + 2·½² − ½ + ln(ht/hp)
    assert low.item() == pytest.approx(1 - 1 / (1 + log), rel=1e-6)
    # Inverted boxes: what is left of them is their centers, which the distance of the edges hides.
    hidden = torch.tensor([-1e-40, -1e-40, 512, -0.989204466342926]), torch.tensor([512.0, -(2**24) + 1, 512, 2.0**24])
    x, y = 256, (2**24 - 1 - 2**24 - 0.989204466342926) / 2
    slow = 2 - 2 * x * -y / (x * x + y * y)
    expected = 1 + (1 - math.exp(-slow / 4)) / 2 + ((1 - math.exp(-1)) ** 4) / 2 * 2
    assert siou_loss(*hidden).item() == pytest.approx(expected, rel=1e-6)
    thin = shape_iou_loss(torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 0, least, 0]), scale=10.0)
    assert thin.isfinite()


@pytest.mark.parametrize("size", [1.6e-38, 1e-39, 1e-42])
def test_no_slope_of_subnormal_boxes_is_nan(size):
    pred, target = (boxes.float() * size for boxes in pairs.draw("normalized", 2000, torch.float64))
    for loss in (siou_loss, shape_iou_loss, bounded_iou_loss, piou_loss, wiou_loss, kld_loss, inner_iou_loss):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, target)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        assert value.isfinite().all(), loss.__name__
        assert not slope.isnan().any(), loss.__name__
