"""Some centers' cases, from the start to the end, and what is counted of them at every iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .cases import PER_CENTER, STARTS, cases, starts
from .config import PUBLISHED_RULE, Descent, SimulationConfig
from .rules import Rule, exact, published

LEVELS = (0.5, 0.75, 0.95)
"""Of IoU, above which cases are counted."""
UNIT = 2.0**-32
"""Errors are added as whole multiples of this: exact sums, which no order, chunk or thread can change."""
FARTHEST = 1024.0
"""A larger error counts as this, and so does one that is not a number: such a box is lost."""
_VECTOR = 64
"""Cases are computed in multiples of this, so that each stands in a whole vector, not in a rest, for which torch has
other functions. What is too many is not counted."""


class Tally(NamedTuple):
    """Sums over centers. T: iterations, and the start before them."""

    errors: np.ndarray
    """In `UNIT`, ``(T + 1, 3 starts, 343)``, int64."""
    above: np.ndarray
    """How many cases are above none, one, two and all of `LEVELS`, ``(T + 1, 4, 3 starts, 343)``, int64."""

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]  # not the tuples one after the other
        return Tally(self.errors + other.errors, self.above + other.above)

    @classmethod
    def empty(cls, iterations: int) -> Tally:
        of_all = (iterations + 1, len(STARTS), PER_CENTER)
        levels = (of_all[0], len(LEVELS) + 1, *of_all[1:])
        return cls(np.zeros(of_all, dtype=np.int64), np.zeros(levels, dtype=np.int64))


class Stopped(Exception):  # noqa: N818 – nothing went wrong
    """A descent was told to stop."""


def descend(
    config: SimulationConfig, descent: Descent, at: Tensor, stop: Callable[[], bool] = lambda: False
) -> tuple[Tally, np.ndarray]:
    """All cases of some centers.

    Args:
        config: of the simulation.
        descent: which loss and rule.
        at: centers ``(n, 2)``.
        stop: asked at every iteration.

    Returns:
        What was counted, and each center's error at the end, in `UNIT`, ``(n,)`` int64.

    Raises:
        Stopped: ``stop()`` was true.
    """
    wanted = len(at) * PER_CENTER
    boxes, targets = (torch.cat((c, c[:, -1:].expand(4, -wanted % _VECTOR)), 1) for c in cases(at))
    places = starts(boxes, targets)[:wanted] * PER_CENTER + torch.arange(PER_CENTER).repeat(len(at))
    found, errors = Tally.empty(config.iterations), torch.zeros(0)
    for k, (now, iou) in enumerate(steps(config, descent, boxes, targets)):
        if stop():
            raise Stopped
        errors = _errors(now, targets)[:wanted]
        found.errors[k] = _sums(places, errors, found.errors[k].size).reshape(found.errors[k].shape)
        levels = torch.zeros(wanted, dtype=torch.uint8)
        for level in LEVELS:
            levels += (iou[:wanted] > level).view(torch.uint8)
        bins = levels.to(torch.int64).mul_(found.errors[k].size).add_(places)
        counted = torch.bincount(bins, minlength=found.above[k].size)
        found.above[k] = counted.numpy().reshape(found.above[k].shape)
    return found, errors.reshape(len(at), PER_CENTER).sum(1).numpy().astype(np.int64)


def steps(
    config: SimulationConfig, descent: Descent, boxes: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Boxes ``(4, N)`` and their IoU with their targets, ``(N,)``, at the start and after every iteration."""
    rule, update = _rule(config, descent, targets), _optimizer(config.optimizer)
    for rate in config.rates():
        direction, iou = rule(boxes)
        yield boxes, iou
        boxes = boxes + update(direction.mul_(2.0 - iou)).mul_(rate)
    yield boxes, rule(boxes)[1]


def _rule(config: SimulationConfig, descent: Descent, targets: Tensor) -> Rule:
    """How a descent goes, towards targets ``(4, N)``."""
    if descent.rule == PUBLISHED_RULE:
        return published(descent.loss, targets)
    return exact(descent.loss, config.parameters.get(descent.loss, {}), targets, config.wh_factor)


def _errors(boxes: Tensor, targets: Tensor) -> Tensor:
    """|x − X| + |y − Y| + |w − W| + |h − H|, in whole `UNIT`, as float64."""
    x, y, w, h = (boxes - targets).abs_().unbind(0)
    errors = (x + y).add_(w).add_(h)
    return torch.fmin(errors, torch.tensor(FARTHEST, dtype=errors.dtype)).mul_(1 / UNIT).round_()


def _sums(places: Tensor, whole: Tensor, bins: int) -> np.ndarray:
    """Of whole numbers, by place; exact in float64 while a sum is below 2^53."""
    return torch.bincount(places, whole, bins).numpy().astype(np.int64)


class _Adam:
    """Steps by Adam, before the learning rate: Kingma and Ba, ICLR 2015, arXiv:1412.6980."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.k = 0
        self.mean = self.square = torch.zeros(())

    def __call__(self, direction: Tensor) -> Tensor:
        self.k += 1
        self.mean = self.beta1 * self.mean + (1 - self.beta1) * direction
        self.square = self.beta2 * self.square + (1 - self.beta2) * direction * direction
        root = (self.square / (1 - self.beta2**self.k)).sqrt()
        return self.mean / (1 - self.beta1**self.k) / (root + self.eps)


def _optimizer(name: str) -> Callable[[Tensor], Tensor]:
    """From a direction to a step, before the learning rate."""
    return _Adam() if name == "adam" else lambda direction: direction
