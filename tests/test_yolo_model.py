"""The small detector and its detections."""

from __future__ import annotations

import pytest
import torch

from boxloss import pairwise
from boxloss.yolo import Grid, TinyYolo, Truths, YoloLoss, detect

ANCHORS = (((10.0, 10.0), (20.0, 30.0)), ((40.0, 30.0), (60.0, 60.0)))
GRID = Grid(ANCHORS, num_classes=2)
NONE = torch.zeros(0, dtype=torch.long)
NOTHING = Truths(NONE, torch.zeros(0, 4), NONE, NONE.bool())


def test_shapes():
    model = TinyYolo(GRID, width=4)
    outputs = model(torch.zeros(2, 3, 64, 96))
    assert [tuple(o.shape) for o in outputs] == [(2, 14, 8, 12), (2, 14, 4, 6)]
    three = TinyYolo(Grid((*ANCHORS, ANCHORS[1]), 2), width=4)
    assert [tuple(o.shape[2:]) for o in three(torch.zeros(1, 3, 64, 64))] == [(8, 8), (4, 4), (2, 2)]
    assert 3e5 < sum(p.numel() for p in TinyYolo(Grid((*ANCHORS, ANCHORS[1]), 2)).parameters()) < 3e6


def test_bad_calls():
    with pytest.raises(ValueError, match=r"images: expected \(B, 3, H, W\) with .* multiples of 16, got \(1, 3, 60"):
        TinyYolo(GRID, width=4)(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ValueError, match="grid: expected anchors of 2 or 3 scales, got 1"):
        TinyYolo(Grid(ANCHORS[:1], 2))
    with pytest.raises(ValueError, match="width: expected at least 1, got 0"):
        TinyYolo(GRID, width=0)


@pytest.mark.parametrize("coordinates", ["darknet", "ciou"])
def test_a_batch_without_boxes_reaches_every_parameter(coordinates):
    torch.manual_seed(0)
    model = TinyYolo(GRID, width=4)
    loss = YoloLoss(GRID, coordinates=coordinates)(model(torch.rand(2, 3, 64, 64)), NOTHING, (64, 64))
    loss.total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "coordinates", ["darknet", "paper", pytest.param("giou", marks=pytest.mark.slow), "ciou", "smooth_l1"]
)
def test_it_learns_two_boxes_by_heart(coordinates):
    torch.manual_seed(0)
    model = TinyYolo(GRID, width=8)
    images = torch.rand(1, 3, 64, 64)
    truths = Truths(
        torch.tensor([0, 0]),
        torch.tensor([[6.0, 8, 26, 36], [20, 20, 60, 52]]),
        torch.tensor([0, 1]),
        torch.tensor([False, False]),
    )
    loss = YoloLoss(GRID, coordinates=coordinates, reduction="positives")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, 150)
    for _ in range(150):
        optimizer.zero_grad()
        terms = loss(model(images), truths, (64, 64))
        terms.total.backward()
        optimizer.step()
        schedule.step()
    assert terms.iou.min() > 0.8
    (found,) = detect(GRID, model(images), (64, 64), score_threshold=0.3)
    assert sorted(found.label.tolist()) == [0, 1]
    for box, label in zip(truths.box, truths.label, strict=True):
        assert 1 - pairwise("iou", box[None], found.box[found.label == label]).min() > 0.8


def place(outputs, scale, anchor, row, column, raw):
    outputs[scale].view(1, 2, 7, *outputs[scale].shape[2:])[0, anchor, :, row, column] = torch.tensor(raw)


def test_detections():
    outputs = [torch.full((1, 14, 8, 8), -20.0), torch.full((1, 14, 4, 4), -20.0)]
    # A box of 20 × 30 around (36, 28); one beside it, half a pixel off, of less score; one of the other class.
    place(outputs, 0, 1, 3, 4, [0.0, 0, 0, 0, 20, 20, -20])
    place(outputs, 0, 1, 3, 5, [-20.0, 0, 0, 0, 20, 1, -20])
    place(outputs, 1, 0, 1, 1, [20.0, 0, 0, 0, 20, -20, 3])
    place(outputs, 1, 1, 3, 3, [20.0, 20, 0, 0, 20, -20, 2])  # over the lower right corner: cut off there
    place(outputs, 1, 1, 0, 0, [float("nan"), 0, 0, 0, 20, 20, 20])
    (found,) = detect(GRID, outputs, (64, 64))
    assert found.label.tolist() == [0, 1, 1]
    expected = torch.tensor([[26.0, 13, 46, 43], [12, 9, 52, 39], [34, 34, 64, 64]])
    torch.testing.assert_close(found.box, expected)
    torch.testing.assert_close(found.score, torch.tensor([20.0, 3, 2]).sigmoid())
    (both,) = detect(GRID, outputs, (64, 64), iou_threshold=1.0)
    assert len(both.box) == 4
    (one,) = detect(GRID, outputs, (64, 64), limit=1)
    assert one.label.tolist() == [0]
    (none,) = detect(GRID, [o * 0 - 20 for o in outputs[:1]] + [torch.full((1, 14, 4, 4), -20.0)], (64, 64))
    assert none.box.shape == (0, 4)
