"""Average precision as COCO defines it, by pycocotools, and detections as COCO results."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..extras import needs

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve, in its order."""

EVALUATORS = ("pycocotools", "faster-coco-eval")


def coco_figures(
    truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, evaluator: str = "pycocotools"
) -> dict[str, Any]:
    """COCO's twelve figures, and AP by category.

    Args:
        truth: a COCO data set.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox``, ``score`` each.
        evaluator: ``"pycocotools"``, or ``"faster-coco-eval"`` (extra ``boxloss[eval]``), which gives the same, faster.

    Returns:
        The `FIGURES`, and ``by_category``: AP by name. None where there is nothing to find, such as no small box.

    Raises:
        ValueError: a detection that is no COCO result, or of an image that ``truth`` does not have.
    """
    found = coco_evaluation(truth, detections, evaluator=evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        found.accumulate()
        found.summarize()
    # Threshold × recall × category; of any size, most boxes.
    precision = np.asarray(found.eval["precision"])[:, :, :, 0, -1]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    by_category = {names[key]: _mean(precision[:, :, k]) for k, key in enumerate(found.params.catIds)}
    return dict(zip(FIGURES, map(_known, found.stats[:12]), strict=True)) | {"by_category": by_category}


def coco_evaluation(
    truth: dict[str, Any], detections: Sequence[dict[str, Any]], *, evaluator: str = "pycocotools"
) -> Any:
    """The evaluator's own object, which has matched every image and summed up nothing yet.

    Args and errors are those of `coco_figures`.
    """
    _check(truth, detections)
    data, evaluation = _classes(evaluator)
    with contextlib.redirect_stdout(io.StringIO()):
        gt = data()
        # Copies, since the evaluation writes in them.
        gt.dataset = truth | {"annotations": [dict(box) for box in truth["annotations"]]}
        gt.createIndex()
        dt = data()
        dt.dataset = {key: truth[key] for key in ("images", "categories")} | {"annotations": _boxes(detections)}
        dt.createIndex()
        found = evaluation(gt, dt, "bbox")
        found.evaluate()
    return found


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


def _check(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> None:
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for place, found in enumerate(detections):
        if not isinstance(found, dict) or not {"image_id", "category_id", "bbox", "score"} <= found.keys():
            raise ValueError(f"detection {place}: expected image_id, category_id, bbox and score, got {found!r}")
        for kind, known in (("image", images), ("category", categories)):
            key = found[f"{kind}_id"]
            if type(key) is not int or key not in known:
                raise ValueError(f"detection {place}: the annotations have no {kind} {key!r}")
        box = found["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)) or min(box[2:]) < 0:
            raise ValueError(
                f"detection {place}: expected bbox [x, y, width, height], finite and with sides >= 0, got {box!r}"
            )
        if not _finite(found["score"]):
            raise ValueError(f"detection {place}: expected a finite score, got {found['score']!r}")


def _finite(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) < 10**300  # of NaN it is False


def _boxes(detections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As annotations, with what COCO's ``loadRes`` sets, whatever they had; it refuses an empty list."""
    return [
        found | {"id": k, "area": found["bbox"][2] * found["bbox"][3], "iscrowd": 0}
        for k, found in enumerate(detections, 1)
    ]


def _mean(precision: Any) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _known(figure: float) -> float | None:
    return float(figure) if figure > -1 else None
