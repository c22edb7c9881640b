"""Average precision as COCO defines it, by pycocotools, and detections as COCO results."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.fields import shown
from ..extras import needs

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve, in its order."""

MAX_DETECTIONS = 100
"""How many detections of an image and category COCO counts, the best ones."""

EVALUATORS = ("pycocotools", "faster-coco-eval")


def coco_figures(
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    evaluator: str = "pycocotools",
    max_detections: int = MAX_DETECTIONS,
) -> dict[str, Any]:
    """COCO's twelve figures, and AP by category.

    It warns of images with more objects of a category, crowds aside, than ``max_detections``.

    Args:
        truth: a COCO data set.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox``, ``score`` each.
        evaluator: ``"pycocotools"``, or ``"faster-coco-eval"`` (extra ``boxloss[eval]``), which gives the same, faster.
        max_detections: how many detections of each image and category count, those of the highest scores.

    Returns:
        The `FIGURES`; ``max_detections``, the limit of all but AR1 and AR10 (AR100 has its name whatever the limit);
        ``by_category`` and ``AP50_by_category``: AP and AP50 by name. A figure is None where there is nothing to find,
        such as no small box.

    Raises:
        ValueError: a detection that is no COCO result, or of an image that ``truth`` does not have; ``max_detections``
            is not a whole number of 10 or more.
    """
    found = coco_evaluation(truth, detections, evaluator=evaluator, max_detections=max_detections)
    _warn_of_more(truth, max_detections)
    with contextlib.redirect_stdout(io.StringIO()):
        found.accumulate()
    # Threshold × recall × category, and threshold × category; each by area and limit.
    precision, recall = np.asarray(found.eval["precision"]), np.asarray(found.eval["recall"])
    at_most = precision[..., -1]
    figures = (
        *(_mean(part) for part in (at_most[..., 0], at_most[0, ..., 0], at_most[5, ..., 0])),
        *(_mean(at_most[..., area]) for area in (1, 2, 3)),
        *(_mean(recall[..., 0, limit]) for limit in (0, 1, 2)),
        *(_mean(recall[..., area, -1]) for area in (1, 2, 3)),
    )
    names = {category["id"]: category["name"] for category in truth["categories"]}
    by_category = {names[key]: at_most[:, :, k, 0] for k, key in enumerate(found.params.catIds)}
    return dict(zip(FIGURES, figures, strict=True)) | {
        "max_detections": max_detections,
        "by_category": {name: _mean(part) for name, part in by_category.items()},
        "AP50_by_category": {name: _mean(part[0]) for name, part in by_category.items()},
    }


def coco_evaluation(
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    *,
    evaluator: str = "pycocotools",
    max_detections: int = MAX_DETECTIONS,
) -> Any:
    """The evaluator's own object, which has matched every image and summed up nothing yet.

    Args and errors are those of `coco_figures`.
    """
    check_max_detections(max_detections)
    check_detections(truth, detections)
    data, evaluation = _classes(evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = data()
        # Copies, since the evaluation writes in them; numbered, since it takes a match with annotation 0 for none.
        gt.dataset = truth | {"annotations": [box | {"id": k} for k, box in enumerate(truth["annotations"], 1)]}
        gt.createIndex()
        dt = data()
        dt.dataset = {key: truth[key] for key in ("images", "categories")} | {"annotations": _boxes(detections)}
        dt.createIndex()
        found = evaluation(gt, dt, "bbox")
        # No more than there are: faster-coco-eval makes room for as many as it is told.
        found.params.maxDets = [1, 10, min(max_detections, max(MAX_DETECTIONS, len(detections)))]
        found.evaluate()
    return found


def check_max_detections(limit: int) -> None:
    """
    Raises:
        ValueError: not a whole number of 10, the limit of AR10, or more.
    """
    if type(limit) is not int or limit < 10:
        raise ValueError(f"max_detections: expected a whole number >= 10, got {limit!r}")


def _warn_of_more(truth: dict[str, Any], limit: int) -> None:
    """Of images with more to find than counts."""
    objects = Counter((box["image_id"], box["category_id"]) for box in truth["annotations"] if not box.get("iscrowd"))
    more = {key: count for key, count in objects.items() if count > limit}
    if not more:
        return
    image, category = max(more, key=more.__getitem__)
    most, images = more[image, category], len({image for image, _ in more})
    files = {record["id"]: record.get("file_name") for record in truth["images"]}
    names = {record["id"]: record.get("name") for record in truth["categories"]}
    warnings.warn(
        f"{images:,} image{'s have' if images > 1 else ' has'} more objects of one category than the {limit:,}"
        f" detections of an image and category that count: {files.get(image) or f'image {image}'} has {most:,} of"
        f" {names.get(category) or category}. Not all of them can be found; boxloss evaluate --max-detections {most}"
        " counts as many",
        stacklevel=2,  # one place, whoever evaluates: Python shows it once
    )


def _classes(evaluator: str) -> tuple[Any, Any]:
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    if evaluator == "faster-coco-eval":
        with needs("eval", "faster-coco-eval"):
            from faster_coco_eval import COCO as FASTER_COCO
            from faster_coco_eval import COCOeval_faster
        return FASTER_COCO, COCOeval_faster
    raise ValueError(f"evaluator: expected one of {', '.join(EVALUATORS)}, got {evaluator!r}")


def check_detections(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> None:
    """
    Raises:
        ValueError: one is not a COCO result, or of an image or category that ``truth`` does not have.
    """
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for place, found in enumerate(detections):
        if not isinstance(found, dict) or not {"image_id", "category_id", "bbox", "score"} <= found.keys():
            raise ValueError(f"detection {place}: expected image_id, category_id, bbox and score, got {shown(found)}")
        for kind, known in (("image", images), ("category", categories)):
            key = found[f"{kind}_id"]
            if type(key) is not int or key not in known:
                raise ValueError(f"detection {place}: the annotations have no {kind} {shown(key)}")
        box = found["bbox"]
        four = isinstance(box, list) and len(box) == 4 and all(map(finite, box))
        if not four or min(box[2:]) < 0 or not math.isfinite(float(box[2]) * float(box[3])):
            raise ValueError(
                f"detection {place}: expected bbox [x, y, width, height], finite and with sides >= 0, got {shown(box)}"
            )
        if not finite(found["score"]):
            raise ValueError(f"detection {place}: expected a finite score, got {shown(found['score'])}")


def finite(number: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    return type(number) in (int, float) and abs(number) < 10**300  # of NaN it is False


def _boxes(detections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As annotations, with what COCO's ``loadRes`` sets, whatever they had; it refuses an empty list."""
    boxes = [[float(n) for n in found["bbox"]] for found in detections]  # of longer whole numbers numpy makes objects
    return [
        found | {"id": k, "bbox": box, "score": float(found["score"]), "area": box[2] * box[3], "iscrowd": 0}
        for k, (found, box) in enumerate(zip(detections, boxes, strict=True), 1)
    ]


def _mean(values: Any) -> float | None:
    """Over what is known, summed up in the order of the evaluators' own summary."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None
