"""Box pairs of every kind that the library's promises name: drawn in float64, then rounded to the dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def _uniform(g: torch.Generator, n: int, columns: int, low: float, high: float) -> Tensor:
    return torch.rand(n, columns, generator=g, dtype=torch.float64) * (high - low) + low


def _boxes(g: torch.Generator, n: int, extent: float = 1.0) -> Tensor:
    """Boxes with sides from 1/100 of the extent to half of it."""
    sides = extent * 10 ** _uniform(g, n, 2, -2, -0.3)
    low = _uniform(g, n, 2, 0, 1) * (extent - sides)
    return torch.cat((low, low + sides), 1)


def _near(g: torch.Generator, boxes: Tensor, by: float | Tensor) -> Tensor:
    """Boxes whose edges are off by up to ``by`` of their sides, still with x1 < x2."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + _uniform(g, len(boxes), 4, -1, 1) * sides * by


def pixels(g: torch.Generator, n: int) -> Pair:
    """Integer and fractional pixels in an image of 2,000, off by up to 20 % of their sides; a third is unrelated."""
    boxes = _boxes(g, n, 2000)
    boxes[: n // 2] = boxes[: n // 2].round()
    other = _near(g, boxes, 0.2)
    other[n // 3 : n // 2] = other[n // 3 : n // 2].round()
    far = slice(2 * n // 3, n)
    other[far] = _boxes(g, n - 2 * n // 3, 2000)
    return boxes, other


def normalized(g: torch.Generator, n: int) -> Pair:
    """Coordinates in [0, 1], off by up to 20 % of their sides."""
    boxes = _boxes(g, n)
    return boxes, _near(g, boxes, 0.2)


def nearly_equal(g: torch.Generator, n: int) -> Pair:
    """Edges off by 1e-7 … 1e-2 of the sides, a third of them by nothing."""
    boxes = _boxes(g, n)
    off = _near(g, boxes, 10 ** _uniform(g, n, 1, -7, -2))
    return boxes, torch.where(_uniform(g, n, 4, 0, 1) < 1 / 3, boxes, off)


def any_scale(g: torch.Generator, n: int) -> Pair:
    """1e-30 … 1e30."""
    boxes = _boxes(g, n)
    scale = 10 ** _uniform(g, n, 1, -30, 30)
    return boxes * scale, _near(g, boxes, 0.3) * scale


def far_apart(g: torch.Generator, n: int) -> Pair:
    """Up to 1e6 sides apart, along an axis or both."""
    boxes, other = _boxes(g, n), _boxes(g, n)
    direction = _uniform(g, n, 2, -1, 1) * (_uniform(g, n, 2, 0, 1) < 0.7)
    return boxes, other + (direction * 10 ** _uniform(g, n, 1, 0, 6)).repeat(1, 2)


def contained(g: torch.Generator, n: int) -> Pair:
    """One in the other, down to 1/1000 of its sides; every other time pred is the outer one."""
    outer = _boxes(g, n)
    sides = outer[:, 2:] - outer[:, :2]
    inner_sides = sides * 10 ** _uniform(g, n, 2, -3, -0.1)
    low = outer[:, :2] + _uniform(g, n, 2, 0, 1) * (sides - inner_sides)
    inner = torch.cat((low, low + inner_sides), 1)
    swap = torch.arange(n)[:, None] % 2 == 0
    return torch.where(swap, inner, outer), torch.where(swap, outer, inner)


def touching(g: torch.Generator, n: int) -> Pair:
    """Edge against edge, or with a shared edge inside."""
    boxes, other = _boxes(g, n), _boxes(g, n)
    # float16 keeps edges equal; otherwise equal numbers stay equal in every dtype.
    other = torch.where(_uniform(g, n, 4, 0, 1) < 0.3, boxes, other)
    third = n // 3
    sides = other[:third, 2:] - other[:third, :2]
    other[:third, 0] = boxes[:third, 2]
    other[:third, 2] = boxes[:third, 2] + sides[:, 0].abs()
    low, high = torch.minimum(other[:, :2], other[:, 2:]), torch.maximum(other[:, :2], other[:, 2:])
    return boxes, torch.cat((low, high), 1)


def thin(g: torch.Generator, n: int) -> Pair:
    """Sides up to 1 : 1e4, lying along or across each other."""
    boxes = _boxes(g, n)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = 10 ** _uniform(g, n, 2, -4, 0)
    pred = torch.cat((center - half, center + half), 1)
    across = _uniform(g, n, 1, 0, 1) < 0.4
    target_half = torch.where(across, half.flip(1), half) * 10 ** _uniform(g, n, 2, -0.2, 0.2)
    moved = center + _uniform(g, n, 2, -0.7, 0.7) * half
    return pred, torch.cat((moved - target_half, moved + target_half), 1)


KINDS: dict[str, Callable[[torch.Generator, int], Pair]] = {
    kind.__name__: kind for kind in (pixels, normalized, nearly_equal, any_scale, far_apart, contained, touching, thin)
}

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)


def draw(kind: str, n: int, dtype: torch.dtype, seed: int = 0) -> Pair:
    """``n`` pairs of a kind as finite boxes of a dtype."""
    g = torch.Generator().manual_seed(1000 * list(KINDS).index(kind) + seed)
    pred, target = KINDS[kind](g, n)
    if dtype == torch.int64:
        # Integers as large as float64 holds exactly; smaller ones for the kinds that fit.
        largest = torch.cat((pred, target), 1).abs().amax(1, keepdim=True)
        pred, target = ((boxes / largest * 2.0**30).round() for boxes in (pred, target))
    elif dtype == torch.float16:
        pred, target = (torch.where(boxes.abs() < 6e4, boxes, boxes.sign() * 6e4) for boxes in (pred, target))
    return pred.to(dtype), target.to(dtype)


def ordinary(pred: Tensor, target: Tensor) -> Tensor:
    """Pairs with sides up to 1 : 100, IoU ≥ 0.01 and a hull of 1e-6 … 1e6: (n,) bool, for float64 boxes."""
    sides = torch.stack((pred[:, 2:] - pred[:, :2], target[:, 2:] - target[:, :2]))
    inner = (torch.minimum(pred, target)[:, 2:] - torch.maximum(pred, target)[:, :2]).clamp(min=0)
    hull = torch.maximum(pred, target)[:, 2:] - torch.minimum(pred, target)[:, :2]
    inter = inner.prod(1)
    union = sides.prod(2).sum(0) - inter
    square = (sides.amax(2) <= 100 * sides.amin(2)).all(0) & (sides > 0).all(2).all(0)
    return square & (inter >= 0.01 * union) & (hull.amin(1) >= 1e-6) & (hull.amax(1) <= 1e6)
