"""Which way a box goes: along the exact gradient of a loss, or by the rules the DIoU paper's experiment was run with.

The published rules are hand-written directions and not the derivatives of the losses they are named for: among other
things the intersection is not held at 0 where boxes lie apart, and those of width and height are twice as large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..losses import LOSSES, LossFunction, iou_loss
from .cases import edges

Rule: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of boxes and targets ``(4, …)``: the direction in which each box improves, ``(4, …)``, and its IoU, ``(…)``."""


def exact(
    name: str, parameters: Mapping[str, Any], wh_factor: float, boxes: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Against the gradient of a loss, of columns ``(4, N)``.

    Args:
        name: of the loss.
        parameters: its own.
        wh_factor: of the components of width and height; 2 makes them comparable with the published rules.
        boxes: and targets, as of any `Rule`.
    """
    loss: LossFunction = LOSSES[name].function
    rows, target_rows = _rows(boxes), _rows(targets)
    iou = 1.0 - iou_loss(rows, target_rows)
    rows.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(rows, target_rows, reduction="sum", **parameters), rows)
    low, high = gradient.T[:2], gradient.T[2:]
    return torch.cat((-(low + high), (low - high) * 0.5 * wh_factor)), iou


def _rows(boxes: Tensor) -> Tensor:
    """``(N, 4)``, x1, y1, x2, y2."""
    return torch.cat(edges(boxes)).T.contiguous()


# -- as published -----------------------------------------------------------------------------------------------------


class _Axis:
    """A box and its target on one axis."""

    def __init__(self, center: Tensor, side: Tensor, target_center: Tensor, target_side: Tensor) -> None:
        self.side, self.target_side, self.shift = side, target_side, target_center - center
        low, high = center - side * 0.5, center + side * 0.5
        target_low, target_high = target_center - target_side * 0.5, target_center + target_side * 0.5
        self.below, self.above = low < target_low, high > target_high
        self.inside_low, self.inside_high = low > target_low, high < target_high
        # Not held at 0: the product of two negative lengths is an intersection too.
        self.shared = torch.minimum(high, target_high) - torch.maximum(low, target_low)
        self.hull = torch.maximum(high, target_high) - torch.minimum(low, target_low)


class _Published:
    """What the published rules know of a box and its target."""

    def __init__(self, boxes: Tensor, targets: Tensor) -> None:
        (x, y, w, h), (target_x, target_y, target_w, target_h) = boxes.unbind(0), targets.unbind(0)
        self.x, self.y = _Axis(x, w, target_x, target_w), _Axis(y, h, target_y, target_h)
        self.intersection = self.x.shared * self.y.shared
        self.union = w * h + target_w * target_h - self.intersection
        self.overlap = (self.x.shared > 0.0) & (self.y.shared > 0.0) & (self.union > 0.0)
        self.iou = torch.where(self.overlap, self.intersection / self.union, 0.0)


Part: TypeAlias = tuple[Tensor, Tensor]
"""The direction on an axis: of the center and of the side."""


def _of_areas(axis: _Axis, other: _Axis) -> tuple[Part, Part]:
    """Slopes of intersection and union by an axis's lower and upper edge."""
    of_shared = torch.where(axis.inside_low, -other.shared, 0.0), torch.where(axis.inside_high, other.shared, 0.0)
    return of_shared, (-other.side - of_shared[0], other.side - of_shared[1])


def _by_center_and_side(low: Tensor, high: Tensor) -> Part:
    """From slopes by edges; that by a side lacks its factor ½."""
    return low + high, high - low


def _iou(p: _Published, axis: _Axis, other: _Axis) -> Part:
    square = p.union * p.union
    low, high = (
        torch.where(p.overlap, (p.union * of_shared - p.intersection * of_union) / square, 0.0)
        for of_shared, of_union in zip(*_of_areas(axis, other), strict=True)
    )
    return _by_center_and_side(low, high)


def _giou(p: _Published, axis: _Axis, other: _Axis) -> Part:
    area = axis.hull * other.hull
    of_hull = torch.where(axis.below, -other.hull, 0.0), torch.where(axis.above, other.hull, 0.0)
    low, high = (
        (area * of_union - p.union * of_area) / (area * area)
        for of_union, of_area in zip(_of_areas(axis, other)[1], of_hull, strict=True)
    )
    return _sums(_iou(p, axis, other), _by_center_and_side(low, high))


def _diou(p: _Published, axis: _Axis, other: _Axis) -> Part:
    distance = axis.shift * axis.shift + other.shift * other.shift
    diagonal = axis.hull * axis.hull + other.hull * other.hull
    square = diagonal * diagonal
    beyond = torch.where(axis.above, 1.0, 0.0) - torch.where(axis.below, 1.0, 0.0)
    by_center = (2 * axis.shift * diagonal - 2 * (axis.hull + other.hull) * beyond * distance) / square
    half = 0.5 * (torch.where(axis.above, 1.0, 0.0) + torch.where(axis.below, 1.0, 0.0))
    # Where the box reaches beyond both edges its own axis counts with the other sign.
    against = torch.where(axis.above & axis.below, -1.0, half)
    by_side = (2 * axis.hull * against + 2 * other.hull * half) * distance / square
    return _sums(_iou(p, axis, other), (by_center, by_side))


def _ciou(p: _Published, axis: _Axis, other: _Axis) -> Part:
    by_center, by_side = _diou(p, axis, other)
    angle = torch.atan(p.x.target_side / p.y.target_side) - torch.atan(p.x.side / p.y.side)
    v = 4 / math.pi**2 * angle * angle
    pull = v / (1 - p.iou + v + 1e-7) * (8 / math.pi**2) * angle * other.side
    return by_center, by_side + pull if axis is p.x else by_side - pull


def _sums(first: Part, second: Part) -> Part:
    return first[0] + second[0], first[1] + second[1]


PUBLISHED: dict[str, Callable[[_Published, _Axis, _Axis], Part]] = {
    "iou": _iou,
    "giou": _giou,
    "diou": _diou,
    "ciou": _ciou,
}
"""The direction on an axis, of which the other is also given: the four losses that have a published rule."""


def published(name: str, boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The published rule of a loss, a key of `PUBLISHED`."""
    p, part = _Published(boxes, targets), PUBLISHED[name]
    (x, w), (y, h) = part(p, p.x, p.y), part(p, p.y, p.x)
    return torch.stack((x, y, w, h)), p.iou
