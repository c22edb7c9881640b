"""Anchors: the box sizes that predictions start from. Sizes are ``(..., 2)``, width and height in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

DARKNET_ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
"""YOLOv3's nine, by scale from the finest, in pixels of a 416 × 416 input."""

_ROUNDING = 1e-3  # of a side: as much as rounding a letterboxed picture to whole pixels changes a box


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes that share their center: ``(N, 2)`` and ``(M, 2)`` sizes → ``(N, M)``.

    >>> shape_iou(torch.tensor([[2.0, 4.0]]), torch.tensor([[4.0, 2.0], [2.0, 2.0]]))  # 4/(8 + 8 - 4), 4/8
    tensor([[0.3333, 0.5000]])
    """
    smaller = torch.minimum(a[:, None], b).prod(-1)
    return smaller / (a.prod(-1)[:, None] + b.prod(-1) - smaller)


def kmeans_anchors(sizes: Tensor, k: int, *, seed: int = 0, iterations: int = 300) -> Tensor:
    """The sizes of ``k`` anchors that fit a data set: k-means under the distance 1 − shape IoU.

    Where the boxes have fewer than ``k`` sizes, these are the anchors, each repeated about as often as any other. Of
    equal anchors `assign` takes the first, so that those which repeat it learn nothing.

    Args:
        sizes: widths and heights of the boxes, ``(N, 2)``, in pixels of the network's input.
        k: how many.
        seed: the first centers are drawn with it, each next one far from those before (k-means++).
        iterations: the most; it stops when no box changes its cluster.

    Returns:
        ``(k, 2)``, by growing area.

    Raises:
        ValueError: sizes are not ``(N, 2)``, finite and positive, or there are none; ``k`` is not positive.

    >>> kmeans_anchors(torch.tensor([[10.0, 10.0], [12.0, 10.0], [90.0, 50.0], [110.0, 50.0]]), 2)  # two means
    tensor([[ 11.,  10.],
            [100.,  50.]])
    >>> kmeans_anchors(torch.tensor([[10.0, 10.0], [90.0, 50.0], [90.001, 50.0]]), 3)  # two sizes
    tensor([[10.0000, 10.0000],
            [10.0000, 10.0000],
            [90.0005, 50.0000]])
    """
    if sizes.ndim != 2 or sizes.shape[-1] != 2 or not (sizes.isfinite() & (sizes > 0)).all():
        raise ValueError(f"sizes: expected finite positive widths and heights (N, 2), got {tuple(sizes.shape)}")
    if not len(sizes) or k < 1:
        raise ValueError(f"sizes, k: expected at least one size and one anchor, got {len(sizes)} and {k}")
    sizes = sizes.double()
    different = _different(sizes, k)
    if len(different) < k:
        return _by_area(different)[torch.arange(k) * len(different) // k].float()
    centers = _spread(sizes, k, torch.Generator().manual_seed(seed))
    cluster = torch.full((len(sizes),), -1)
    for _ in range(iterations):
        nearest = shape_iou(sizes, centers).argmax(1)
        if torch.equal(nearest, cluster):
            break
        cluster = nearest
        count = torch.bincount(cluster, minlength=k)[:, None]
        total = torch.zeros_like(centers).index_add_(0, cluster, sizes)
        centers = torch.where(count > 0, total / count.clamp(min=1), centers)  # an empty cluster stays where it is
    return _by_area(centers).float()


def _by_area(sizes: Tensor) -> Tensor:
    return sizes[sizes.prod(1).argsort(stable=True)]


def _different(sizes: Tensor, most: int) -> Tensor:
    """Up to ``most`` sizes that differ by more than rounding, each the mean of those that do not differ from it."""
    found: list[Tensor] = []
    while len(sizes) and len(found) < most:
        same = ((sizes - sizes[0]).abs() <= _ROUNDING * sizes[0]).all(1)
        found.append(sizes[same].mean(0))
        sizes = sizes[~same]
    return torch.stack(found)


def _spread(sizes: Tensor, k: int, g: torch.Generator) -> Tensor:
    """k-means++: each next center is drawn with a probability that grows with its squared distance from the others."""
    chosen = sizes[torch.randint(len(sizes), (1,), generator=g)]
    while len(chosen) < k:
        distance = 1 - shape_iou(sizes, chosen).amax(1)
        chosen = torch.cat((chosen, sizes[torch.multinomial(distance.clamp(min=0) ** 2, 1, generator=g)]))
    return chosen
