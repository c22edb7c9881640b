"""The gain with which a loss's coordinate terms start as strong as those of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..yolo import Truths, YoloLoss

COORDINATES = ("xy", "wh", "box")
"""The terms that move boxes."""


def coordinate_gradient(loss: YoloLoss, outputs: Sequence[Tensor], truths: Truths, size: tuple[int, int]) -> float:
    """The L2 norm of the coordinate terms' gradient at the raw outputs of a batch."""
    leaves = [output.detach().requires_grad_() for output in outputs]
    terms = loss(leaves, truths, size)
    gradients = torch.autograd.grad(terms.xy + terms.wh + terms.box, leaves)
    return float(torch.linalg.vector_norm(torch.cat([g.double().flatten() for g in gradients])))


def matching_gain(own: Iterable[float], other: Iterable[float]) -> float:
    """The ratio of the means of two lists of norms.

    >>> matching_gain([1.0, 3.0], [4.0, 12.0])  # (16 / 2) / (4 / 2)
    4.0

    Raises:
        ValueError: a mean is 0 or not finite.
    """
    own, other = list(own), list(other)
    ratio = sum(other) / sum(own) if sum(own) else float("inf")
    if not 0 < ratio < float("inf"):
        raise ValueError(
            f"match: no gain makes gradients of {sum(own) / len(own):g} (this loss, mean over the first batches) as"
            f" long as {sum(other) / len(other):g} (match.loss); expected both to be positive and finite"
        )
    return ratio


def multiply(loss: YoloLoss, factor: float) -> None:
    """Let the coordinate terms count ``factor`` times as much."""
    loss.gains |= {name: factor * loss.gains[name] for name in COORDINATES}
