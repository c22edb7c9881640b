"""What pycocotools matched, kept by image: AP of any reweighting of the images, without matching again.

A bootstrap replicate is a vector of whole numbers, how often each image was drawn. Weights of 1 give pycocotools'
figures to the last bit; any other weights, those of a data set with that many copies of each image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..training.evaluate import coco_evaluation

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "IoU")
"""Six of COCO's figures, and the mean IoU of the matches at an IoU of .5."""

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Bools = NDArray[np.bool_]

# By area range, in pycocotools' order: which of the ten IoU thresholds a figure is the mean over.
_FIGURES = (
    {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)},
    {"APs": slice(None)},
    {"APm": slice(None)},
    {"APl": slice(None)},
)
_THRESHOLDS = 10
_RECALLS = np.linspace(0.0, 1.0, 101)
_NUMBERS = 5_000_000  # in an array at work; with the few beside it, below 200 MB


@dataclass(frozen=True, eq=False)
class Category:
    """The detections of one category, D in pycocotools' order of falling score, and its truths in I images.

    A is the area range: all, small, medium, large. T is the IoU threshold: .5:.05:.95.
    """

    image: Whole
    """Index of the image, ``(D,)``."""
    score: Floats
    """``(D,)``."""
    tp: Bools
    """Found a truth that counts, ``(A, T, D)``."""
    ignored: Bools
    """Is neither right nor wrong, ``(A, T, D)``."""
    truths: Whole
    """How many there are to find, ``(A, I)``."""

    def precision(self, weights: Whole, area: int) -> Floats:
        """At the 101 recall thresholds, ``(B, T, 101)`` of weights ``(B, I)``; -1 where there is nothing to find."""
        index, drawn = self._drawn(weights)
        truths = weights @ self.truths[area]
        recall = np.arange(truths.max(initial=0) + 1) / np.maximum(truths, 1)[:, None]
        reached = np.searchsorted(_RECALLS, recall, side="right")
        rows = zip(self.tp[area][:, index], self.ignored[area][:, index], strict=True)
        found = np.stack([_precision(drawn, tp, ~ignored, reached) for tp, ignored in rows], axis=1)
        found[truths == 0] = -1
        return found

    def _drawn(self, weights: Whole) -> tuple[Whole, Whole]:
        """Detections in their order, and how often each replicate has them, ``(B, ...)``.

        Boxes of one image and one score come as often as the image, in turns: right, wrong, right, wrong. That is less
        precise than right, right, wrong, wrong, so where one of them is right, each turn is a column of its own.
        """
        new = np.ones(len(self.image), dtype=bool)
        new[1:] = (np.diff(self.image) != 0) | (np.diff(self.score) != 0)
        group = np.cumsum(new) - 1
        in_turns = ((np.bincount(group) > 1) & (np.bincount(group, self.tp.any((0, 1))) > 0))[group]
        index = np.repeat(np.arange(len(group)), np.where(in_turns, int(weights.max(initial=0)), 1))
        turn = np.arange(len(index)) - np.searchsorted(index, index)
        order = np.lexsort((index, turn, group[index]))
        index, turn = index[order], turn[order]
        times = weights[:, self.image[index]]
        return index, np.where(in_turns[index], times > turn, times)


@dataclass(frozen=True, eq=False)
class Matches:
    """The matches of one detector on one data set; made by `match`."""

    images: int
    """I. Their order is that of their ids."""
    categories: Sequence[Category]
    overlap: Floats
    """Sum of the IoUs of the matches at .5, and how many they are, ``(2, I)``."""

    def figures(self, weights: ArrayLike) -> dict[str, Floats]:
        """The `METRICS` of reweighted images.

        Args:
            weights: how often each image is there, whole numbers ``(B, I)``.

        Returns:
            ``(B,)`` each; NaN where there is nothing to find (IoU: nothing was found). As in COCO, categories count
            alike, and one without a truth in a replicate is left out of it.

        Raises:
            ValueError: weights that are negative, not whole, or of another number of images.
        """
        parts = [self._figures(part) for part in self._parts(weights)]
        return {metric: np.concatenate([part[metric] for part in parts]) for metric in METRICS}

    def thresholds(self, weights: ArrayLike) -> Floats:
        """AP at the IoU thresholds .5:.05:.95, ``(B, 10)`` of weights as for `figures`."""
        return np.concatenate([self._thresholds(part) for part in self._parts(weights)])

    def _figures(self, weights: Whole) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        for area, figures in enumerate(_FIGURES):
            precision = self._precision(weights, area)
            found |= {name: _mean(precision[:, thresholds]) for name, thresholds in figures.items()}
        return found | {"IoU": _ratio(*(weights * self.overlap[:, None]).sum(axis=2))}

    def _thresholds(self, weights: Whole) -> Floats:
        precision = self._precision(weights, 0)
        return np.stack([_mean(precision[:, t]) for t in range(_THRESHOLDS)], axis=1)

    def _precision(self, weights: Whole, area: int) -> Floats:
        """``(B, T, 101, K)`` of the categories that have truths at all: the order that pycocotools sums up in."""
        categories = [category for category in self.categories if category.truths[area].any()]
        found = np.empty((len(weights), _THRESHOLDS, len(_RECALLS), len(categories)))
        for k, category in enumerate(categories):
            found[..., k] = category.precision(weights, area)
        return found

    def _parts(self, weights: ArrayLike) -> list[Whole]:
        """Of so many replicates that the memory is bounded."""
        whole = np.asarray(weights)
        fits = whole.ndim == 2 and whole.shape[1] == self.images
        if not fits or not ((whole >= 0) & (whole < 2**31) & (whole == np.floor(whole))).all():
            raise ValueError(f"weights: expected whole numbers >= 0 of shape (B, {self.images}), got {weights!r}")
        sizes = [max(len(category.image), int(category.truths[0].sum())) for category in self.categories]
        most = max(sizes, default=0) * int(whole.max(initial=0))  # a column per turn, at most
        size = max(1, _NUMBERS // max(_THRESHOLDS * len(_RECALLS) * len(sizes), most, 1))
        return np.array_split(whole.astype(np.int64), -(-len(whole) // size) or 1)


def match(truth: dict[str, Any], detections: Sequence[dict[str, Any]]) -> Matches:
    """Has pycocotools match detections with a data set.

    Args:
        truth: a COCO data set.
        detections: COCO results: ``image_id``, ``category_id``, ``bbox``, ``score`` each.

    Raises:
        ValueError: a detection that is no COCO result, or of an image that ``truth`` does not have.

    >>> box = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    >>> truth = {"images": [{"id": 5}, {"id": 6}], "categories": [{"id": 2}], "annotations": [box]}
    >>> right = {"image_id": 5, "category_id": 2, "bbox": [0, 0, 10, 8], "score": 0.5}  # IoU .8
    >>> wrong = {"image_id": 6, "category_id": 2, "bbox": [0, 0, 10, 8], "score": 0.9}
    >>> found = match(truth, [right, wrong]).figures([[1, 1], [2, 1], [1, 0]])
    >>> found["AP50"].round(4).tolist()  # 1 of 2; 2 of 3; 1 of 1
    [0.5, 0.6667, 1.0]
    >>> found["AP"].round(4).tolist(), found["IoU"].tolist()  # at 7 of the 10 thresholds: .5:.05:.8
    ([0.35, 0.4667, 0.7], [0.8, 0.8, 0.8])
    """
    evaluation = coco_evaluation(truth, detections)
    params = evaluation.params
    images, shape = len(params.imgIds), (len(params.catIds), len(params.areaRng), len(params.imgIds))
    cells = np.array(evaluation.evalImgs, dtype=object).reshape(shape)
    overlap = np.zeros((2, images))
    for cell in filter(None, cells[:, 0].flat):
        ious = _ious(evaluation, cell)
        overlap[:, np.searchsorted(params.imgIds, cell["image_id"])] += sum(ious), len(ious)
    return Matches(images, [_category(areas) for areas in cells], overlap)


def _category(areas: NDArray[np.object_]) -> Category:
    """Of pycocotools' cells, ``(A, I)``; an image without a truth and a detection has None."""
    images = [i for i, cell in enumerate(areas[0]) if cell is not None]
    score = np.array([score for cell in areas[0, images] for score in cell["dtScores"]], dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    image = np.repeat(np.array(images, dtype=np.intp), [len(cell["dtScores"]) for cell in areas[0, images]])
    found, ignored = (
        np.stack([_joined([cell[key] for cell in row]) for row in areas[:, images]])[..., order].astype(bool)
        for key in ("dtMatches", "dtIgnore")
    )
    truths = [[0 if cell is None else np.count_nonzero(cell["gtIgnore"] == 0) for cell in row] for row in areas]
    return Category(image[order], score[order], found & ~ignored, ignored, np.array(truths, dtype=np.intp))


def _joined(parts: Sequence[Any]) -> Floats:
    """``(T, D)`` of the images', which may be none."""
    return np.concatenate(parts, axis=-1, dtype=np.float64) if parts else np.empty((_THRESHOLDS, 0))


def _ious(evaluation: Any, cell: dict[str, Any]) -> list[float]:
    """Those of the matches at .5. Rows are by score as the cell's, but columns as in the file."""
    image, category = cell["image_id"], cell["category_id"]
    rows = {key: row for row, key in enumerate(cell["dtIds"])}
    columns = {key: k for k, key in enumerate(evaluation.cocoGt.getAnnIds(imgIds=[image], catIds=[category]))}
    truths = zip(cell["gtIds"], cell["gtMatches"][0], cell["gtIgnore"], strict=True)
    ious = evaluation.ious[image, category]
    return [float(ious[rows[found], columns[key]]) for key, found, ignored in truths if found and not ignored]


def _precision(drawn: Whole, tp: Bools, counted: Bools, reached: Whole) -> Floats:
    """At the recall thresholds, ``(B, 101)``, of detections ``(D,)`` drawn ``(B, D)`` times.

    ``reached`` says how many of the thresholds 0, 1, ... true positives reach, ``(B, ...)``. Between true positives
    recall stays and precision falls: only at them is a recall first reached, or precision the best from there on.
    """
    if not tp.any():
        return np.zeros((len(drawn), len(_RECALLS)))
    counted[np.flatnonzero(tp)[-1] + 1 :] = False
    right = np.cumsum(drawn[:, tp], axis=1)
    all_found = np.cumsum(drawn[:, counted], axis=1)[:, tp[counted]]
    precision = right / (all_found + np.spacing(1))
    best = np.zeros((len(drawn), right.shape[1] + 1))  # the last is past all of them
    np.maximum.accumulate(precision[:, ::-1], axis=1, out=best[:, -2::-1])
    rows = np.arange(len(drawn))[:, None]
    times = np.diff(reached[rows, right], prepend=0, append=len(_RECALLS))
    return np.repeat(best, times.ravel()).reshape(len(drawn), len(_RECALLS))


def _mean(precision: Floats) -> Floats:
    """``(B,)`` of ``(B, ...)``, over what is known; if that is everything, to the last bit as pycocotools has it."""
    rows = precision.reshape(len(precision), math.prod(precision.shape[1:]))
    known = rows > -1
    return _ratio(np.where(known, rows, 0.0).sum(axis=1), known.sum(axis=1))


def _ratio(total: Floats, number: NDArray[Any]) -> Floats:
    """Of none, NaN."""
    out: Floats = np.full(len(total), np.nan)
    np.divide(total, number, out=out, where=number > 0)
    return out
