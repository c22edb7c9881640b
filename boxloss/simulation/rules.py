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

Rule: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Of boxes as columns ``(4, N)``: the direction in which each improves, ``(4, N)``, and its IoU with its target."""


def exact(name: str, parameters: Mapping[str, Any], targets: Tensor, wh_factor: float) -> Rule:
    """Against the gradient of a loss.

    Args:
        name: of the loss.
        parameters: its own.
        targets: columns ``(4, N)``.
        wh_factor: of the components of width and height; 2 makes them comparable with the published rules.
    """
    kernel = LOSSES[name].kernel(parameters, targets, targets)
    if kernel:
        at, targets = (kernel.place, kernel.numbers), targets.contiguous()
        return lambda boxes: kernel.library.columns(*at, boxes.contiguous(), targets, wh_factor)
    loss: LossFunction = LOSSES[name].function
    target_rows = _rows(targets)

    def rule(boxes: Tensor) -> tuple[Tensor, Tensor]:
        rows = _rows(boxes)
        iou = 1.0 - iou_loss(rows, target_rows)
        rows.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(rows, target_rows, reduction="sum", **parameters), rows)
        low, high = gradient.T[:2], gradient.T[2:]
        return torch.cat((-(low + high), (low - high) * 0.5 * wh_factor)), iou

    return rule


def _rows(boxes: Tensor) -> Tensor:
    """``(N, 4)``, x1, y1, x2, y2."""
    return torch.cat(edges(boxes)).T.contiguous()


# -- as published -----------------------------------------------------------------------------------------------------


class _Published:
    """What the published rules know of boxes and targets. An axis at a time, x first, lower edge before the upper."""

    def __init__(self, targets: Tensor) -> None:
        self.targets = targets
        self.target_edges = edges(targets)
        self.target_area = _product(targets[2:])

    def look(self, boxes: Tensor) -> None:
        self.center, self.sides = boxes[:2], boxes[2:]
        (low, high), (target_low, target_high) = edges(boxes), self.target_edges
        self.beyond_low, self.beyond_high = low < target_low, high > target_high
        self.inside_low, self.inside_high = low > target_low, high < target_high
        # Not held at 0: the product of two negative lengths is an intersection too.
        self.shared = torch.minimum(high, target_high) - torch.maximum(low, target_low)
        self.hull = torch.maximum(high, target_high) - torch.minimum(low, target_low)
        self.intersection = _product(self.shared)
        self.union = _product(self.sides) + self.target_area - self.intersection
        positive = self.shared > 0.0
        self.overlap = positive[0] & positive[1] & (self.union > 0.0)
        self.iou = torch.where(self.overlap, self.intersection / self.union, 0.0)

    def slopes_of_areas(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Of intersection and union, by lower and by upper edges, each ``(2, N)``."""
        across, other = self.shared.flip(0), self.sides.flip(0)
        of_shared = torch.where(self.inside_low, -across, 0.0), torch.where(self.inside_high, across, 0.0)
        return of_shared, (-other - of_shared[0], other - of_shared[1])


def _product(pair: Tensor) -> Tensor:
    x, y = pair.unbind(0)
    return x * y


def _sum(pair: Tensor) -> Tensor:
    x, y = pair.unbind(0)
    return x + y


def _by_center_and_side(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """From slopes by edges; that by a side lacks its factor ½."""
    return low + high, high - low


def _iou(p: _Published) -> tuple[Tensor, Tensor]:
    of_shared, of_union = p.slopes_of_areas()
    square = p.union * p.union
    low, high = (
        torch.where(p.overlap, (p.union * s - p.intersection * u) / square, 0.0)
        for s, u in zip(of_shared, of_union, strict=True)
    )
    return _by_center_and_side(low, high)


def _giou(p: _Published) -> tuple[Tensor, Tensor]:
    _, of_union = p.slopes_of_areas()
    area, across = _product(p.hull), p.hull.flip(0)
    of_hull = torch.where(p.beyond_low, -across, 0.0), torch.where(p.beyond_high, across, 0.0)
    low, high = ((area * u - p.union * h) / (area * area) for u, h in zip(of_union, of_hull, strict=True))
    by_center, by_side = _by_center_and_side(low, high)
    of_iou = _iou(p)
    return of_iou[0] + by_center, of_iou[1] + by_side


def _diou(p: _Published) -> tuple[Tensor, Tensor]:
    shift = p.targets[:2] - p.center
    distance, diagonal, perimeter = (_sum(pair) for pair in (shift * shift, p.hull * p.hull, 2 * p.hull))
    low, high = p.beyond_low.to(shift.dtype), p.beyond_high.to(shift.dtype)
    square = diagonal * diagonal
    by_center = (2 * shift * diagonal - perimeter * (high - low) * distance) / square
    half = 0.5 * (high + low)
    # Its own axis counts against a side where the box reaches beyond both edges of its target.
    against = torch.where(p.beyond_low & p.beyond_high, -1.0, half)
    (half_w, half_h), (against_w, against_h), (hull_w, hull_h) = half, against, p.hull
    by_width = (2 * hull_w * against_w + 2 * hull_h * half_w) * distance / square
    by_height = (2 * hull_w * half_h + 2 * hull_h * against_h) * distance / square
    of_iou = _iou(p)
    return of_iou[0] + by_center, of_iou[1] + torch.stack((by_width, by_height))


def _ciou(p: _Published) -> tuple[Tensor, Tensor]:
    by_center, by_side = _diou(p)
    (width, height), (target_width, target_height) = p.sides, p.targets[2:]
    angle = torch.atan(target_width / target_height) - torch.atan(width / height)
    v = 4 / math.pi**2 * angle * angle
    pull = v / (1 - p.iou + v + 1e-7) * (8 / math.pi**2) * angle
    return by_center, by_side + torch.stack((pull * height, -pull * width))


PUBLISHED: dict[str, Callable[[_Published], tuple[Tensor, Tensor]]] = {
    "iou": _iou,
    "giou": _giou,
    "diou": _diou,
    "ciou": _ciou,
}
"""Directions by centers and by sides, each ``(2, N)``: the four losses that have a published rule."""


def published(name: str, targets: Tensor) -> Rule:
    """The published rule of a loss.

    Args:
        name: a key of `PUBLISHED`.
        targets: columns ``(4, N)``.
    """
    seen, direction = _Published(targets), PUBLISHED[name]

    def rule(boxes: Tensor) -> tuple[Tensor, Tensor]:
        seen.look(boxes)
        return torch.cat(direction(seen)), seen.iou

    return rule
