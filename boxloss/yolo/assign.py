"""Which prediction answers for which true box: Darknet's rule.

Each truth belongs to the one anchor, of all scales, whose shape is nearest; it is written in that anchor's scale only,
in the cell that holds its center. A later truth takes a place from an earlier one; their classes add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import check_finite_and_upright, convert, opened
from ..values import check_dense, check_index, readable
from .anchors import shape_iou
from .grid import Grid, strides


class Truths(NamedTuple):
    """The true boxes of a batch, one row each, those of an image in their order."""

    image: Tensor
    """``(T,)``, the index of the image in the batch, 0 … B − 1."""
    box: Tensor
    """``(T, 4)``, x1, y1, x2, y2 in pixels of the network's input. One without area trains nothing."""
    label: Tensor
    """``(T,)``, the class, 0 … C − 1."""
    crowd: Tensor
    """``(T,)`` bool, or 0 and 1: a region of many objects. Predictions in it are ignored; it trains nothing."""

    def to(self, device: torch.device) -> Truths:
        return Truths(*(column.to(device) for column in self))


class Positives(NamedTuple):
    """The predictions of one scale that answer for a truth, one row each."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    """``(P, 4)``, the true box."""
    classes: Tensor
    """``(P, C)``, 1 for each class of the truths that met in this place, else 0."""


def checked(truths: Truths, like: Tensor, classes: int | None = None) -> Truths:
    """Truths as they are computed with: indices int64, crowd bool, boxes plain corners.

    Values are looked at on the CPU only; an integer crowd elsewhere is true wherever it is not 0.

    Args:
        like: what is predicted, ``(B, …)``, on the device that the truths are to be on.
        classes: how many there are; None: any.

    Raises:
        TypeError: a column is of another dtype.
        ValueError: of another shape, or on another device; a value outside its range: the message names the first row.
    """
    if not isinstance(truths, Truths):
        raise TypeError(f"truths: expected Truths(image, box, label, crowd), got {type(truths).__name__}")
    image, label = _indices(truths.image, "truths.image"), _indices(truths.label, "truths.label")
    box = _corners(truths.box)
    crowd = _flags(truths.crowd)
    columns = Truths(image, box, label, crowd)
    lengths = {name: len(column) for name, column in columns._asdict().items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"truths: expected columns of one length, got {lengths}")
    devices = {name: str(column.device) for name, column in columns._asdict().items()}
    if {*devices.values()} != {str(like.device)}:
        raise ValueError(
            f"truths: expected all on {like.device}, as what is predicted, got {devices}; truths.to(device)"
        )
    if len(image) and not len(like):
        raise ValueError(f"truths: the batch has no images, but truths has {len(image)} rows")
    check_index(truths.image, len(like), "truths.image", hint=f": there are {len(like)} images")
    if classes is not None:
        check_index(truths.label, classes, "truths.label", hint=f": there are {classes} classes, counted from 0")
    return columns


def _column(column: Tensor, name: str) -> Tensor:
    if not isinstance(column, Tensor):
        raise TypeError(f"{name}: expected a tensor (T,), got {type(column).__name__}")
    check_dense(column, name)
    if column.ndim != 1:
        raise ValueError(f"{name}: expected (T,), got {tuple(column.shape)}")
    return column


def _indices(column: Tensor, name: str) -> Tensor:
    """int64: torch takes uint8 for a mask."""
    if not _is_integer(_column(column, name)):
        raise TypeError(f"{name}: expected integers, got {column.dtype}")
    return column.long()


def _flags(column: Tensor) -> Tensor:
    """bool: of integers ~ is another number, which is true as well."""
    if _column(column, "truths.crowd").dtype == torch.bool:
        return column
    if not _is_integer(column):
        raise TypeError(f"truths.crowd: expected bool, or integers 0 and 1, got {column.dtype}")
    check_index(column, 2, "truths.crowd", hint=": it says whether a box is a crowd")
    return column != 0


def _corners(box: Tensor) -> Tensor:
    box, box_format = opened(box, "truths.box")
    if box.ndim != 2:
        raise ValueError(f"truths.box: expected (T, 4), got {tuple(box.shape)}")
    if readable(box):
        check_finite_and_upright(box, box_format, "truths.box")
    return box if box_format == "xyxy" else convert(box, box_format, "xyxy")


def _is_integer(column: Tensor) -> bool:
    return not (column.is_floating_point() or column.is_complex() or column.dtype == torch.bool)


def assign(grid: Grid, raws: Sequence[Tensor], size: tuple[int, int], truths: Truths) -> list[Positives]:
    """The positives of each scale.

    Args:
        raws: from `Grid.split`; only their shapes, dtype and device count.
        size: height and width of the network's input in pixels.

    Raises:
        TypeError, ValueError: truths that `YoloLoss` refuses.
    """
    return positives(grid, raws, size, checked(truths, raws[0], grid.num_classes))


def positives(grid: Grid, raws: Sequence[Tensor], size: tuple[int, int], truths: Truths) -> list[Positives]:
    """`assign`, of truths that are `checked`."""
    trains = ~truths.crowd & (truths.box[:, 2:] > truths.box[:, :2]).all(1)
    image, box, label = truths.image[trains], truths.box[trains].to(raws[0].dtype), truths.label[trains]
    center = (box[:, :2] + box[:, 2:]) / 2
    best = shape_iou(box[:, 2:] - box[:, :2], grid.sizes(box)).argmax(1)  # of equal ones the first
    found = []
    for scale, raw in enumerate(raws):
        _, anchors, height, width, _ = raw.shape
        (here,) = torch.where(best // anchors == scale)
        cell = (center[here] / strides(raw, size)).long()
        # A center on the far border of the image belongs to the last cell.
        column, row = cell[:, 0].clamp(0, width - 1), cell[:, 1].clamp(0, height - 1)
        place = ((image[here] * anchors + best[here] % anchors) * height + row) * width + column
        places, index = torch.unique(place, return_inverse=True)
        # The last truth of a place, by its rank: what an indexed assignment keeps of duplicates is undefined.
        rank = torch.arange(len(here), device=box.device)
        last = torch.zeros_like(places).scatter_reduce_(0, index, rank, "amax", include_self=False)
        winner = here[last]
        classes = raw.new_zeros(len(places), grid.num_classes)
        classes[index, label[here]] = 1.0
        found.append(Positives(image[winner], best[winner] % anchors, row[last], column[last], box[winner], classes))
    return found


def ignored(boxes: Sequence[Tensor], truths: Truths, threshold: float) -> list[Tensor]:
    """Predictions that overlap some truth, crowds included, by more than ``threshold``: ``(B, A, H, W)`` bool each.

    Args:
        boxes: decoded predictions, ``(B, A, H, W, 4)`` each.

    Raises:
        TypeError, ValueError: truths that `YoloLoss` refuses, but for labels, which are not used.
    """
    return overlapping(boxes, checked(truths, boxes[0]), threshold)


def overlapping(boxes: Sequence[Tensor], truths: Truths, threshold: float) -> list[Tensor]:
    """`ignored`, of truths that are `checked`."""
    batch = len(boxes[0])
    count = torch.bincount(truths.image, minlength=batch)
    most = int(count.max()) if len(truths.image) else 0
    if most == 0:
        return [torch.zeros(b.shape[:-1], dtype=torch.bool, device=b.device) for b in boxes]
    # The truths of each image side by side; an empty place holds a box without area, whose IoU exceeds nothing.
    order = truths.image.argsort(stable=True)
    image = truths.image[order]
    rank = torch.arange(len(image), device=image.device) - (count.cumsum(0) - count)[image]
    padded = boxes[0].new_zeros(batch, most, 4)
    padded[image, rank] = truths.box[order].to(padded.dtype)
    return [_overlaps(b.detach().flatten(1, 3), padded, threshold).view(b.shape[:-1]) for b in boxes]


def _overlaps(boxes: Tensor, truths: Tensor, threshold: float) -> Tensor:
    """Whether a box's IoU with some truth of its image exceeds a threshold: ``(B, P, 4)``, ``(B, M, 4)`` → ``(B, P)``.

    I/(A + B − I) > t without the quotient, and coordinate by coordinate: this is most of what assignment costs.
    """
    x1, y1, x2, y2 = (column[:, :, None] for column in boxes.unbind(-1))
    u1, v1, u2, v2 = (column[:, None, :] for column in truths.unbind(-1))
    width = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    height = torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0)
    areas = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1)
    return (width.mul_(height).mul_(1 + threshold) > areas.mul_(threshold)).any(-1)
