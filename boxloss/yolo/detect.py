"""From a head's raw outputs to detections: decode, score, suppress."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torchvision.ops
from torch import Tensor

from .grid import Grid


class Detections(NamedTuple):
    """The detections of one image, by falling score."""

    box: Tensor
    """``(D, 4)``, x1, y1, x2, y2 in pixels of the network's input, within it."""
    score: Tensor
    """``(D,)``, objectness times class probability."""
    label: Tensor
    """``(D,)``, the class."""


@torch.no_grad()
def detect(
    grid: Grid,
    outputs: Sequence[Tensor],
    size: tuple[int, int],
    *,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.5,
    limit: int = 100,
    classification: str = "sigmoid",
) -> list[Detections]:
    """The detections of each image of a batch.

    Every class of a prediction counts on its own; of boxes of one class that overlap by
    more than ``iou_threshold`` the best stays (torchvision's ``batched_nms``).

    Args:
        outputs: the head's raw output per scale, ``(B, A·(5 + C), H, W)``.
        size: height and width of the network's input in pixels.
        score_threshold: lower scores are dropped.
        limit: the most detections of an image.
        classification: how a score is made of the class outputs: ``"sigmoid"``, each on its own, or ``"softmax"``.
    """
    if classification not in ("sigmoid", "softmax"):
        raise ValueError(f"classification: expected 'sigmoid' or 'softmax', got {classification!r}")
    raws = grid.split(outputs)
    boxes = torch.cat([box.flatten(1, 3) for box in grid.decode_all(raws, size)], 1)
    raw = torch.cat([raw.flatten(1, 3) for raw in raws], 1)
    classes = raw[..., 5:].sigmoid() if classification == "sigmoid" else raw[..., 5:].softmax(-1)
    scores = raw[..., 4:5].sigmoid() * classes
    edge = boxes.new_tensor([size[1], size[0]]).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0.0), edge)
    found = []
    for box, score in zip(boxes, scores, strict=True):
        # NaN compares false: an output that is not a number detects nothing.
        place, label = torch.where((score >= score_threshold) & box.isfinite().all(1, keepdim=True))
        kept = torchvision.ops.batched_nms(box[place], score[place, label], label, iou_threshold)[:limit]
        found.append(Detections(box[place[kept]], score[place[kept], label[kept]], label[kept]))
    return found
