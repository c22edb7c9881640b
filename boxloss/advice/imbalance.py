"""Rare foreground, tried: a classifier of pixels fitted to the same drawn pictures with one loss after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..classification import binary_cross_entropy_loss, class_weights, focal_loss
from ..region import dice_loss, tversky_loss
from ..threads import one_thread

_CONTRAST = 1.2
"""Of a shape and the ground, in standard deviations of the noise: single pixels can't tell, a neighborhood can."""
_AROUND = 7
"""Pixels, each way, that a pixel is judged by."""


@dataclass(frozen=True)
class Task:
    """How much is drawn and how long is fitted."""

    images: int = 12
    side: int = 48
    steps: int = 250
    rate: float = 0.02
    seed: int = 0


class Scores(NamedTuple):
    precision: float
    recall: float
    dice: float


@dataclass(frozen=True)
class Fit:
    """What one loss made of the classifier, on pictures that it was not fitted to."""

    scores: Scores
    """With what is above probability ½ as foreground."""
    best: Scores
    """With the threshold that gives the highest Dice on the pictures it was fitted to."""
    threshold: float
    losses: tuple[float, ...]
    """By step."""
    steps: tuple[int, ...]
    dice: tuple[float, ...]
    """At these steps."""
    recall: tuple[float, ...]


def losses(weight: float) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Of logits and masks, one number.

    Args:
        weight: of foreground in the weighted cross-entropy.
    """

    def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
        return binary_cross_entropy_loss(logits, masks, reduction="mean")

    def dice(logits: Tensor, masks: Tensor) -> Tensor:
        return dice_loss(logits, masks, reduction="mean")

    return {
        "cross-entropy": cross_entropy,
        "weighted cross-entropy": lambda x, t: binary_cross_entropy_loss(
            x, t, positive_weight=weight, reduction="mean"
        ),
        "Dice": dice,
        "cross-entropy + Dice": lambda x, t: cross_entropy(x, t) + dice(x, t),
        "focal": lambda x, t: focal_loss(x, t, reduction="mean"),
        "Tversky": lambda x, t: tversky_loss(x, t, reduction="mean"),
    }


def draw(task: Task, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one ellipse or rectangle in each picture, about 1 % of it; and the masks, both ``(N, 1, H, W)``."""
    random = torch.Generator().manual_seed(seed)
    count, side = task.images, task.side

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=random)

    radius, stretch = side * drawn(0.047, 0.066), drawn(0.7, 1.4)
    middle_x, middle_y = side * drawn(0.1, 0.9), side * drawn(0.1, 0.9)
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    off_x, off_y = (x - middle_x) / (radius * stretch), (y - middle_y) / (radius / stretch)
    ellipse = off_x.square() + off_y.square() <= 1
    rectangle = torch.maximum(off_x.abs(), off_y.abs()) <= 0.886  # as large as the ellipse
    masks = torch.where(drawn(0, 1) < 0.5, ellipse, rectangle).float()
    return _CONTRAST * masks + torch.randn(count, 1, side, side, generator=random), masks


def neighborhoods(images: Tensor) -> Tensor:
    """What the classifier sees of each pixel: itself and those around, ``(N, 1, H·W, features)``."""
    return torch.nn.functional.unfold(images, _AROUND, padding=_AROUND // 2).mT[:, None]


def try_losses(task: Task, tell: Callable[[str], None]) -> tuple[float, dict[str, Fit]]:
    """The share of foreground, and what each loss gave. All start from the same weights.

    Args:
        tell: is told of each loss before it is tried.
    """
    images, masks, unseen, truth = (
        change(part)
        for number in (2 * task.seed, 2 * task.seed + 1)
        for change, part in zip((neighborhoods, _flat), draw(task, number), strict=True)
    )
    rare, common = float(masks.sum()), float((1 - masks).sum())
    of_ground, of_shapes = class_weights([common, rare]).tolist()
    fits = {}
    with one_thread():
        for name, loss in losses(of_shapes / of_ground).items():
            tell(f"fitting with {name}")
            fits[name] = _fit(task, loss, images, masks, unseen, truth)
    return rare / (rare + common), fits


def _fit(
    task: Task, loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, masks: Tensor, unseen: Tensor, truth: Tensor
) -> Fit:
    network = _network(task.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=task.rate)
    values: list[float] = []
    course: dict[int, Scores] = {}
    for step in range(task.steps):
        if step % max(1, task.steps // 20) == 0:
            course[step] = score(_probabilities(network, unseen), truth)
        optimizer.zero_grad()
        value = loss(network(images), masks)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(value.item())
    found = _probabilities(network, unseen)
    course[task.steps] = score(found, truth)
    threshold = best_threshold(_probabilities(network, images), masks)
    return Fit(
        course[task.steps],
        score(found, truth, threshold),
        threshold,
        tuple(values),
        tuple(course),
        tuple(scores.dice for scores in course.values()),
        tuple(scores.recall for scores in course.values()),
    )


def _flat(masks: Tensor) -> Tensor:
    return masks.flatten(2)


def _network(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(_AROUND**2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Flatten(2)
        )


@torch.no_grad()
def _probabilities(network: torch.nn.Module, images: Tensor) -> Tensor:
    found: Tensor = network(images).sigmoid()
    return found


def score(probability: Tensor, truth: Tensor, threshold: float = 0.5) -> Scores:
    """Of all pixels of all pictures; of nothing found the precision is 0.

    >>> score(torch.tensor([0.9, 0.8, 0.1, 0.2]), torch.tensor([1.0, 0, 1, 0]))
    Scores(precision=0.5, recall=0.5, dice=0.5)
    """
    found = (probability > threshold).float()
    right, all_found, there = float((found * truth).sum()), float(found.sum()), float(truth.sum())
    return Scores(right / max(1.0, all_found), right / max(1.0, there), 2 * right / max(1.0, all_found + there))


def best_threshold(probability: Tensor, truth: Tensor) -> float:
    """The threshold, in steps of .01, that gives the highest Dice."""
    levels = [level / 100 for level in range(1, 100)]
    return max(levels, key=lambda level: score(probability, truth, level).dice)
