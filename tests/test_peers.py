"""Other implementations, where they are right; and real predictions, where the data is at hand."""

from __future__ import annotations

import csv
from pathlib import Path

import checks
import exact
import pairs
import pytest
import torch
import torchvision.ops
from variants import VARIANTS

import boxloss
from boxloss import pairwise

LOSSES = {
    "giou": torchvision.ops.generalized_box_iou_loss,
    "diou": torchvision.ops.distance_box_iou_loss,
    "ciou": torchvision.ops.complete_box_iou_loss,
}
MATRICES = {
    "iou": torchvision.ops.box_iou,
    "giou": torchvision.ops.generalized_box_iou,
    "diou": torchvision.ops.distance_box_iou,
    "ciou": torchvision.ops.complete_box_iou,
}
VOC_PAIRS = Path(__file__).parent.parent.parent / "shared/data/voc_pairs/pairs.csv"


@pytest.mark.parametrize("name", LOSSES)
def test_torchvision_losses(name):
    """On boxes of some pixels, beside whose area torchvision's eps of 1e-7 vanishes; gradients included."""
    pred, target = pairs.draw("pixels", 500, torch.float64)
    value, gradient = checks.value_and_gradient(boxloss, (name, {}), pred, target)
    pred = pred.clone().requires_grad_()
    expected = LOSSES[name](pred, target)
    (slope,) = torch.autograd.grad(expected.sum(), pred)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", MATRICES)
def test_torchvision_matrices(name):
    pred, _ = pairs.draw("pixels", 20, torch.float64)
    _, target = pairs.draw("pixels", 30, torch.float64)
    torch.testing.assert_close(1 - pairwise(name, pred, target), MATRICES[name](pred, target), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_empty_means_agree_with_torchvision(name):
    empty = torch.zeros(0, 4)
    assert boxloss.LOSSES[name].function(empty, empty, reduction="mean") == LOSSES[name](empty, empty, reduction="mean")


@pytest.mark.skipif(not VOC_PAIRS.exists(), reason="shared/data/voc_pairs is not beside this checkout")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_real_predictions_are_exact(dtype):
    with VOC_PAIRS.open() as file:
        rows = list(csv.DictReader(file))
    boxes = [
        torch.tensor([[float(row[f"{who}{c}"]) for c in ("x1", "y1", "x2", "y2")] for row in rows]) for who in "pg"
    ]
    pred, target = (b.to(dtype) for b in boxes)
    published = torch.tensor([float(row["iou"]) for row in rows])
    torch.testing.assert_close(boxloss.similarity("iou", *boxes), published, rtol=0, atol=1e-6)
    exactly = [exact.values(VARIANTS, p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)]
    for k, variant in enumerate(VARIANTS):
        value, gradient = checks.value_and_gradient(boxloss, variant, pred, target)
        assert gradient.isfinite().all()
        for i, values in enumerate(exactly):
            checks.check_value(value[i].item(), values[k], value.dtype, variant, pred[i], target[i])
