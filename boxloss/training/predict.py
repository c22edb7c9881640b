"""Detections of a data set, in pixels of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..boxes import convert
from ..data import Batch, CocoImages, Sample, collate
from ..yolo import Detections, Grid, detect
from .config import TrainConfig

Detect = Callable[[Batch], list[Detections]]
"""A batch → the detections of its images, in pixels of the input."""

_DIGITS = 3  # of a pixel


def of_outputs(outputs: Callable[[Batch], list[Tensor]], grid: Grid, config: TrainConfig) -> Detect:
    """The detections of a YOLO head's raw outputs."""
    how = config.detect
    return lambda batch: detect(
        grid,
        outputs(batch),
        config.input_size,
        score_threshold=how.score_threshold,
        iou_threshold=how.iou_threshold,
        limit=how.limit,
        classification="softmax" if config.terms.classification == "softmax" else "sigmoid",
    )


@torch.no_grad()
def predict(
    images: CocoImages,
    samples: torch.utils.data.Dataset[Sample],
    detections: Detect,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> list[dict[str, Any]]:
    """COCO results: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score`` each.

    Args:
        samples: what ``detections`` reads: the images, or their cached features.
    """
    found = []
    batches: Iterable[Batch] = progress(DataLoader(samples, 32, collate_fn=collate))
    for batch in batches:
        for index, detection in zip(batch.place.tolist(), detections(batch), strict=True):
            box = images.letterboxes[index].back(detection.box.double().cpu())
            found += coco_results(detection._replace(box=box), images.records[index])
    return found


def coco_results(detection: Detections, record: dict[str, Any]) -> list[dict[str, Any]]:
    """As COCO has them, with our numbers of image and category, cut at the image's border.

    Args:
        detection: of an image, in pixels of it.
        record: of the image in COCO's annotations.
    """
    edge = detection.box.new_tensor([record["width"], record["height"]] * 2)
    box = convert(torch.minimum(detection.box.clamp(min=0), edge), "xyxy", "xywh")
    return [
        {
            "image_id": record["id"],
            "category_id": label + 1,
            "bbox": [round(n, _DIGITS) for n in sides],
            "score": score,
        }
        for sides, score, label in zip(box.tolist(), detection.score.tolist(), detection.label.tolist(), strict=True)
    ]
