"""The cases of the DIoU paper's experiment: boxes of 7 areas and 7 shapes around targets of one area and 7 shapes.

Boxes are held here as columns ``(4, N)``: center x, center y, width, height, float64, in units of the targets' side.
Source: Zheng et al., AAAI 2020, arXiv:1911.08287, section 3.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

CENTER = 10.0
"""Of every target, on both axes."""
RADIUS = 3.0
"""Of the disc around it in which the anchors' centers lie."""
AREAS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
"""Of the anchors; that of the targets is 1."""
ASPECTS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
"""Width over height, of anchors and targets."""
PER_CENTER = len(AREAS) * len(ASPECTS) * len(ASPECTS)
"""Cases of one center: area × aspect of the anchor × aspect of the target, the last the fastest."""
LAYOUTS = ("random", "sunflower")
STARTS = ("contained", "overlapping", "disjoint")
"""How an anchor lies to its target at the start; contained: one of the two is inside the other."""


def centers(count: int, layout: str, seed: int = 0) -> Tensor:
    """Where anchors lie, ``(count, 2)``: drawn uniformly from the disc, or spread evenly over it on a spiral.

    >>> centers(2, "sunflower")[0].tolist()  # the first lies 3·√(½/2) = 1.5 to the right
    [11.5, 10.0]
    """
    if layout == "random":
        radius, angle = np.random.default_rng(seed).random((2, count))
        radius, angle = RADIUS * np.sqrt(radius), 2 * math.pi * angle
    else:
        k = np.arange(count)
        radius, angle = RADIUS * np.sqrt((k + 0.5) / count), k * math.pi * (3 - math.sqrt(5))
    return torch.from_numpy(CENTER + np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=1))


def cases(at: Tensor) -> tuple[Tensor, Tensor]:
    """All cases of some centers ``(n, 2)``: anchors and targets ``(4, 343·n)``, center by center."""
    area, aspect, shape = torch.meshgrid(
        *(torch.tensor(v, dtype=at.dtype) for v in (AREAS, ASPECTS, ASPECTS)), indexing="ij"
    )
    anchor = torch.stack(((area * aspect).sqrt(), (area / aspect).sqrt())).reshape(2, 1, -1)
    target = torch.stack((shape.sqrt(), (1 / shape).sqrt())).reshape(2, 1, -1)
    everywhere = (2, len(at), PER_CENTER)
    anchors = torch.cat((at.T[:, :, None].expand(everywhere), anchor.expand(everywhere)))
    targets = torch.cat((torch.full(everywhere, CENTER, dtype=at.dtype), target.expand(everywhere)))
    return anchors.reshape(4, -1), targets.reshape(4, -1)


def edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper edges ``(2, N)`` of columns, x first."""
    center, half = boxes[:2], boxes[2:] * 0.5
    return center - half, center + half


def starts(anchors: Tensor, targets: Tensor) -> Tensor:
    """Of each case its place in `STARTS`, ``(N,)``.

    >>> targets = torch.tensor([[10.0] * 3, [10.0] * 3, [1.0] * 3, [1.0] * 3])
    >>> anchors = torch.tensor([[10.5, 12.0, 10.0], [10.0] * 3, [1.0, 1.0, 3.0], [1.0, 1.0, 3.0]])
    >>> [STARTS[k] for k in starts(anchors, targets)]
    ['overlapping', 'disjoint', 'contained']
    """
    (low, high), (target_low, target_high) = edges(anchors), edges(targets)
    apart = ((low >= target_high) | (high <= target_low)).any(0)
    inside = ((low >= target_low) & (high <= target_high)).all(0) | ((low <= target_low) & (high >= target_high)).all(0)
    return torch.where(apart, 2, torch.where(inside, 0, 1))
