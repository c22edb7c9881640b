"""Detections of a data set, in pixels of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data import Batch, CocoImages, Sample, collate
from ..yolo import Grid, detect
from .config import Detect

Outputs = Callable[[Batch], list[Tensor]]
"""A batch → the raw outputs of its images."""

_DIGITS = 3  # of a pixel


@torch.no_grad()
def predict(
    images: CocoImages,
    samples: torch.utils.data.Dataset[Sample],
    outputs: Outputs,
    grid: Grid,
    how: Detect,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[dict[str, Any]]:
    """COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score`` each.

    Args:
        samples: what ``outputs`` reads: the images, or their cached features.
    """
    found = []
    batches: Iterable[Batch] = progress(DataLoader(samples, 32, collate_fn=collate))
    for batch in batches:
        detections = detect(
            grid,
            outputs(batch),
            images.size,
            score_threshold=how.score_threshold,
            iou_threshold=how.iou_threshold,
            limit=how.limit,
        )
        for index, detection in zip(batch.place.tolist(), detections, strict=True):
            record = images.records[index]
            box = images.letterboxes[index].back(detection.box.double().cpu())
            edge = box.new_tensor([record["width"], record["height"]] * 2)
            box = torch.minimum(box.clamp(min=0), edge)
            sides = torch.cat((box[:, :2], box[:, 2:] - box[:, :2]), 1)
            for (x, y, w, h), score, label in zip(
                sides.tolist(), detection.score.tolist(), detection.label.tolist(), strict=True
            ):
                found.append(
                    {
                        "image_id": record["id"],
                        "category_id": images.annotations.category_ids[label],
                        "bbox": [round(n, _DIGITS) for n in (x, y, w, h)],
                        "score": score,
                    }
                )
    return found
