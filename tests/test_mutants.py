"""Tests that can fail: faults planted in a copy of the package must each be found by the checks.

The first mutant is none: the copy itself has to pass.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import checks
import pairs
import pytest
import torch

import boxloss

SOURCE = Path(boxloss.__file__).parent

MUTANTS = {
    # the geometry
    "no eps: an eps added to the union": ("geometry.py", "ratio(part, union)", "ratio(part, union + 1e-7)"),
    "scale by a power of two lost": ("geometry.py", "return _reciprocal_power(largest, self._pred.dtype)", "return torch.ones_like(self._pred[0] + self._target[0]).detach()"),
    "scale shared by both axes": ("geometry.py", "largest = torch.maximum(_exponent_bits(self._pred).amax(0), _exponent_bits(self._target).amax(0))", "largest = torch.maximum(_exponent_bits(self._pred).amax(0), _exponent_bits(self._target).amax((0, 1)))"),
    "scale not a power of two": ("geometry.py", "x.detach().view(integer) & mask", "x.detach().abs().view(integer)"),
    "overlap not clamped": ("geometry.py", "return _positive(self._overlap).masked", "return self._overlap.masked"),
    "sides not clamped": ("geometry.py", "return _positive(high - low)\n\n    @_lazy\n    def _target", "return high - low\n\n    @_lazy\n    def _target"),
    "an empty target pulls": ("geometry.py", ".masked_fill(self._target_sides == 0.0, 0.0)", ""),
    "clamp without a slope at 0": ("geometry.py", "x.masked_fill(x < 0.0, 0.0)", "torch.relu(x)"),
    "union without intersection": ("geometry.py", "target_width * target_height - intersection", "target_width * target_height"),
    "union as a difference of areas": ("geometry.py", "torch.where(self._apart, areas, intersection + outside)", "areas"),
    "loss as 1 - IoU everywhere": ("geometry.py", "close = intersection > outside", "close = intersection > 1e38 * outside + 1.0"),
    "outside without the shared part": ("geometry.py", "+ shared_width * (pred_y + target_y)", ""),
    "outside of pred and target swapped": ("geometry.py", "pred_x * pred_height + target_x * target_height", "pred_x * target_height + target_x * pred_height"),
    "0/0 not guarded": ("geometry.py", "denominator.masked_fill(zero, 1.0)", "denominator"),
    "0/0 guarded after the division": ("geometry.py", "return numerator.masked_fill(zero, 0.0) / denominator.masked_fill(zero, 1.0)", "return (numerator / denominator).masked_fill(zero, 0.0)"),
    "two empty boxes are equal": ("geometry.py", "close = intersection > outside", "close = intersection >= outside"),
    "hull of raw corners": ("geometry.py", "return below + above - overlap", "return self._low_shift.abs() + self._high_shift.abs() + overlap"),
    "hull excess of overlapping boxes by areas": ("geometry.py", "torch.where(self._apart, union, corners)", "torch.where(self._apart, union, hull - union)"),
    "hull excess of disjoint boxes by corners": ("geometry.py", "return self._intersection <= 0.0", "return self._intersection < 0.0"),
    "only one corner free": ("geometry.py", "corners = pred_x * target_y + target_x * pred_y", "corners = pred_x * target_y"),
    "centers in one unit per axis": ("geometry.py", "return (self._low_shift + self._high_shift) * (0.5 * self._one_unit)", "return (self._low_shift + self._high_shift) * 0.5"),
    "center distance doubled": ("geometry.py", "(0.5 * self._one_unit)", "self._one_unit"),
    "side difference of rounded sides": ("geometry.py", "return torch.where(shared, self._high_shift - self._low_shift, self._pred_sides - self._target_sides)", "return self._pred_sides - self._target_sides"),
    "corners crossed": ("geometry.py", "torch.stack((low_y, high_y, high_y, low_y))", "torch.stack((high_y, low_y, high_y, low_y))"),
    "half the corners": ("geometry.py", "4.0 * _length(hull_width", "2.0 * _length(hull_width"),
    "length without a guard at 0": ("geometry.py", "torch.hypot(x.masked_fill(origin, 1.0), y)", "torch.hypot(x, y)"),
    "length by squares": ("geometry.py", "torch.hypot(x.masked_fill(origin, 1.0), y)", "(x.masked_fill(origin, 1.0) ** 2 + y**2).sqrt()"),
    "angle of height over width": ("geometry.py", "pred_height * target_height + pred_width * target_width", "pred_height * target_height - pred_width * target_width"),
    "a point has no angle": ("geometry.py", "height.masked_fill(point, 1.0)", "height"),
    "a point's angle has a slope": ("geometry.py", "return width.masked_fill(point, 0.0), ", "return width, "),
    "v without 4/pi^2": ("geometry.py", "ASPECT = 4.0 / math.pi**2", "ASPECT = 1.0"),
    "unit gradient has the wrong sign": ("geometry.py", "_turn(self._target) - _turn", "_turn(self._target) + _turn"),
    "huge sides overflow": ("geometry.py", "(1.0 - 0.5 * huge.to(box.dtype))", "1.0"),
    "infinity not told from large numbers": ("geometry.py", "self._pred - self._target + self._not_finite", "self._pred - self._target"),
    # the formulas
    "l1 without abs": ("losses/coordinate.py", "return pair.difference.abs().sum(0)", "return pair.difference.sum(0)"),
    "l2 halved": ("losses/coordinate.py", "return (d * d).sum(0)", "return (0.5 * d * d).sum(0)"),
    "smooth l1 is Huber": ("losses/coordinate.py", "near * (near / beta) + torch.relu(d - beta)", "near * near + beta * torch.relu(d - beta)"),
    "smooth l1 overflows": ("losses/coordinate.py", "0.5 * near * (near / beta)", "0.5 * (near * near) / beta"),
    "log floor lost": ("losses/overlap.py", ".masked_fill(low, 0.0 - math.log(floor))", ""),
    "log of a mean digit": ("geometry.py", "torch.where(self.iou > 0.5, near, far)", "far"),
    "squared is linear": ("losses/overlap.py", "1.0 - pair.iou * pair.iou", "1.0 - pair.iou"),
    "tversky's weights exchanged": ("geometry.py", "too_much * pred_outside + missing * target_outside", "missing * pred_outside + too_much * target_outside"),
    "tversky of areas where boxes overlap": ("geometry.py", "torch.where(apart, pred_area - intersection, pred_outside)", "pred_area - intersection"),
    "tversky without the shared part": ("geometry.py", "+ shared_width * pred_y", ""),
    "dice is jaccard": ("losses/overlap.py", "return pair.tversky_loss(0.5, 0.5)", "return pair.tversky_loss(1.0, 1.0)"),
    "giou without its hull": ("losses/overlap.py", "return pair.iou_loss + pair.hull_excess", "return pair.iou_loss"),
    "giou rewards a hull": ("losses/overlap.py", "pair.iou_loss + pair.hull_excess", "pair.iou_loss - pair.hull_excess"),
    "diou rewards distance": ("losses/distance.py", "_iou_loss(pair, inner_ratio) + pair.center_ratio\n", "_iou_loss(pair, inner_ratio) - pair.center_ratio\n"),
    "ciou is diou": ("losses/distance.py", " + alpha * v", ""),
    "ciou with the sign of alpha v": ("losses/distance.py", " + alpha * v", " - alpha * v"),
    "alpha is 1": ("losses/distance.py", "alpha = ratio(v, pair.iou_loss + v)", "alpha = v / v.clamp(min=1e-30)"),
    "alpha over IoU": ("losses/distance.py", "ratio(v, pair.iou_loss + v)", "ratio(v, pair.iou + v)"),
    "alpha not held constant": ("losses/distance.py", "if not differentiate_alpha:", "if False:"),
    "alpha always held constant": ("losses/distance.py", "if not differentiate_alpha:", "if True:"),
    "gate lost": ("losses/distance.py", "if gated:", "if False:"),
    "eiou without sides": ("losses/distance.py", " + pair.side_ratio", ""),
    "cdiou by the authors' code": ("losses/distance.py", "penalty_weight * pair.corner_ratio", "penalty_weight * pair.corner_ratio / 4"),
    "cdiou ignores its base": ("losses/distance.py", "LOSSES[base].formula(pair)", 'LOSSES["iou"].formula(pair)'),
    "cdiou ignores its weight": ("losses/distance.py", "penalty_weight * pair.corner_ratio", "pair.corner_ratio"),
    "focal weight not held constant": ("losses/focused.py", "if detach_weight:", "if False:"),
    "focal weight always held constant": ("losses/focused.py", "if detach_weight:", "if True:"),
    "focal slope at 0": ("losses/focused.py", "pair.iou.masked_fill(pair.next_to_0, 1.0).pow(gamma)", "pair.iou.pow(gamma)"),
    "focal gamma lost": ("losses/focused.py", "pair.iou.detach().pow(gamma)", "pair.iou.detach().pow(0.5)"),
    # of the newer losses
    "1 - e^-x by its definition": ("geometry.py", "torch.where(small, -(-x.masked_fill(~small, 0.0)).expm1(), 1.0 - (-x).exp())", "1.0 - (-x).exp()"),
    "1 - e^-x by expm1 alone": ("geometry.py", "torch.where(small, -(-x.masked_fill(~small, 0.0)).expm1(), 1.0 - (-x).exp())", "-(-x).expm1()"),
    "x - ln(1 + x) by its definition": ("geometry.py", "torch.where(far, beyond - beyond.log1p(), of_near)", "x - x.log1p()"),
    "inner boxes by the wrong edge": ("geometry.py", "torch.minimum(pred + low, target - low)", "torch.minimum(pred + high, target - high)"),
    "side change of shifts alone": ("geometry.py", "return torch.where(shared, self._high_shift - self._low_shift, ", "return torch.where(shared | True, self._high_shift - self._low_shift, "),
    "no NaN beside infinity": ("geometry.py", "wider = wider + self._not_finite.sum(0)", "pass"),
    "whole sides in the Wasserstein distance": ("geometry.py", "(0.5 * wider * (factor / factors))", "(wider * (factor / factors))"),
    "a divergence by its sum alone": ("geometry.py", "torch.maximum(shift.abs(), pred) > 2.0**16 * target", "torch.maximum(shift.abs(), pred) > 1e38 * (target + 1.0)"),
    "half the divergence of a shift": ("geometry.py", "share = 2.0 * moved * moved", "share = moved * moved"),
    "siou along every axis alike": ("losses/distance.py", "(2.0 - pair.obliqueness)", "2.0"),
    "siou rewards distance": ("losses/distance.py", "0.5 * (distances + sides).sum(0)", "0.5 * (sides - distances).sum(0)"),
    "shape iou turned": ("geometry.py", "torch.stack((height, width))", "torch.stack((width, height))"),
    "mpdiou of the image's half perimeter": ("losses/distance.py", "math.hypot(*image_size)", "sum(image_size)"),
    "piou of half sides": ("losses/distance.py", "p = 0.25 * (x + y)", "p = 0.5 * (x + y)"),
    "piou's attention without its fall": ("losses/distance.py", "3.0 * q * (-(q * q)).exp() * value", "3.0 * q * value"),
    "bounded iou of half the way": ("geometry.py", "ratio(2.0 * twice, side", "ratio(twice, side"),
    "wiou's diagonal not held constant": ("geometry.py", "self._squared_diagonal.detach()", "self._squared_diagonal"),
    "wiou focuses on the good": ("losses/focused.py", "((delta - quality) * math.log(a))", "((quality - delta) * math.log(a))"),
    "focaler iou ignores d": ("losses/overlap.py", "(above / (u - d))", "(above / u)"),
    "alpha iou ignores alpha": ("losses/overlap.py", "-alpha * pair.log_iou", "-3.0 * pair.log_iou"),
    "balanced l1 with the slope of l1": ("losses/coordinate.py", "* curved + gamma * torch.relu(d - beta)", "* curved + torch.relu(d - beta)"),
    "the empty are equal to kld": ("losses/gaussian.py", ".masked_fill(pair.empty, 1.0)", ""),
    # around them
    "halves not raised": ("boxes.py", "return torch.float32 if dtype.itemsize < 4 else dtype", "return dtype"),
}  # fmt: skip


def fault_of(package: ModuleType) -> None:
    """Raise if a check finds a fault: a small part of what the suite does."""
    for kind in pairs.KINDS:
        checks.check_values(package, kind, torch.float32, checks.VALUES)
        checks.check_gradients(package, kind, torch.float32, 12)
    checks.check_values(package, "pixels", torch.float16, checks.VALUES)
    checks.check_degenerate(package, torch.float32)
    checks.check_collapsed(package)
    checks.check_empty_target(package)
    checks.check_ties(package)
    checks.check_scale(package)
    checks.check_not_finite(package)
    checks.check_extremes(package)
    checks.check_values(package, "nearly_equal", torch.float64, 1000, seed=5)  # where the last digits are lost


FEW = list(MUTANTS)[::10]
"""Enough to see in minutes that the checks find faults; `make test-slow` plants them all."""


@pytest.mark.parametrize(
    "mutant", [None, *FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MUTANTS if name not in FEW)]
)
def test_every_mutant_dies(mutant, tmp_path, monkeypatch):
    name = "mutant"
    shutil.copytree(SOURCE, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "compiled.*"))
    if mutant:
        file, old, new = MUTANTS[mutant]
        path = tmp_path / name / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has changed: {text.count(old)} places like {old!r}"
        path.write_text(text.replace(old, new))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        package = importlib.import_module(name)
        assert Path(package.__file__).parent == tmp_path / name
        if mutant is None:
            fault_of(package)
        else:
            with pytest.raises((AssertionError, RuntimeError)):
                fault_of(package)
    finally:
        for module in [key for key in sys.modules if key.split(".")[0] == name]:
            del sys.modules[module]
