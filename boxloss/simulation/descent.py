"""Some centers' cases, from the start to the end, and what is counted of them at every iteration."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import kernels
from ..losses import LOSSES
from .cases import PER_CENTER, STARTS, cases, starts
from .config import PUBLISHED_RULE, Descent, SimulationConfig
from .rules import Rule, exact, published

LEVELS = (0.5, 0.75, 0.95)
"""Of IoU, above which cases are counted."""
UNIT = 2.0**-32
"""Errors are added as whole multiples of this: exact sums, which no order, chunk or thread can change."""
FARTHEST = 1024.0
"""A larger error counts as this, and so does one that is not a number: such a box is lost."""
_AT_ONCE = 5_000_000
"""Steps of cases in a call of the compiled loop, which can't be stopped: some tenths of a second."""
_VECTOR = 64
"""Cases are computed in multiples of this, so that each stands in a whole vector, not in a rest, for which torch has
other functions. What is too many is not counted."""


class Tally(NamedTuple):
    """Sums over centers, int64. T: iterations, and the start before them; a place: which start, which of the 343."""

    errors: Tensor
    """In `UNIT`, ``(T + 1, 3 · 343)``."""
    above: Tensor
    """How many cases are above none, one, two and all of `LEVELS`, ``(T + 1, 4, 3 · 343)``."""

    def add(self, other: Tally) -> Tally:
        return Tally(self.errors + other.errors, self.above + other.above)

    @classmethod
    def empty(cls, iterations: int) -> Tally:
        shape = (iterations + 1, len(LEVELS) + 1, len(STARTS) * PER_CENTER)
        return cls(torch.zeros(shape[0], shape[2], dtype=torch.int64), torch.zeros(shape, dtype=torch.int64))


class Stopped(Exception):  # noqa: N818 – nothing went wrong
    """A descent was told to stop."""


def descend(
    config: SimulationConfig, descent: Descent, at: Tensor, stop: Callable[[], bool] = lambda: False
) -> tuple[Tally, Tensor]:
    """All cases of some centers.

    Args:
        config: of the simulation.
        descent: which loss and rule.
        at: centers ``(n, 2)``.
        stop: asked now and then.

    Returns:
        What was counted, and each center's error at the end, in `UNIT`, ``(n,)`` int64.

    Raises:
        Stopped: ``stop()`` was true.
    """
    if stop():
        raise Stopped
    boxes, targets = cases(at)
    places = starts(boxes, targets) * PER_CENTER + torch.arange(PER_CENTER).repeat(len(at))
    tally = Tally.empty(config.iterations)
    last = _by_kernel(config, descent, boxes, targets, places, tally, stop)
    if last is None:
        last = _by_formula(config, descent, boxes, targets, places, tally, stop)
    return tally, last.reshape(len(at), PER_CENTER).sum(1)


def _by_kernel(
    config: SimulationConfig,
    descent: Descent,
    boxes: Tensor,
    targets: Tensor,
    places: Tensor,
    tally: Tally,
    stop: Callable[[], bool],
) -> Tensor | None:
    """In one pass, all iterations of a block of boxes after the other, if there is a kernel; not by Adam.

    Returns:
        The error of each case at the end; nothing if there is no such kernel.
    """
    library = kernels.library()
    if config.optimizer != "sgd" or isinstance(library, str) or kernels.why_not():
        return None
    found: tuple[int | None, Any]
    if descent.rule == PUBLISHED_RULE:
        found = library.kernels.get(f"published_{descent.loss}"), None
    else:
        kernel = LOSSES[descent.loss].kernel(config.parameters.get(descent.loss, {}), boxes, targets)
        found = (kernel.place, kernel.numbers) if kernel else (None, None)
    place, numbers = found
    if place is None:
        return None
    rates, bounds = (torch.tensor(v, dtype=boxes.dtype) for v in (config.rates(), LEVELS))
    last = []
    size = max(library.block, _AT_ONCE // config.iterations)
    for first in range(0, len(places), size):
        if stop():
            raise Stopped
        part = slice(first, first + size)
        errors = library.descend(
            place,
            numbers,
            boxes[:, part],
            targets[:, part],
            places[part],
            rates,
            published=descent.rule == PUBLISHED_RULE,
            wh_factor=config.wh_factor,
            unit=UNIT,
            farthest=FARTHEST,
            levels=bounds,
            **tally._asdict(),
        )
        last.append(errors)
    return torch.cat(last)


def _by_formula(
    config: SimulationConfig,
    descent: Descent,
    boxes: Tensor,
    targets: Tensor,
    places: Tensor,
    tally: Tally,
    stop: Callable[[], bool],
) -> Tensor:
    wanted = boxes.shape[1]
    boxes, targets = (torch.cat((c, c[:, -1:].expand(4, -wanted % _VECTOR)), 1) for c in (boxes, targets))
    errors, bounds = torch.zeros(0), torch.tensor(LEVELS, dtype=boxes.dtype)
    for k, (now, iou) in enumerate(steps(config, descent, boxes, targets)):
        if stop():
            raise Stopped
        errors = _errors(now, targets)[:wanted].to(torch.int64)
        tally.errors[k].index_add_(0, places, errors)
        levels = (iou[:wanted, None] > bounds).sum(1)
        counted = torch.bincount(levels * tally.errors.shape[1] + places, minlength=tally.above[k].numel())
        tally.above[k] = counted.view_as(tally.above[k])
    return errors


def steps(
    config: SimulationConfig, descent: Descent, boxes: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Boxes ``(4, N)`` and their IoU with their targets, ``(N,)``, at the start and after every iteration."""
    rule, update = _rule(config, descent), _optimizer(config.optimizer)
    for rate in config.rates():
        direction, iou = rule(boxes, targets)
        yield boxes, iou
        boxes = boxes + update(direction * (2.0 - iou)) * rate
    yield boxes, rule(boxes, targets)[1]


def _rule(config: SimulationConfig, descent: Descent) -> Rule:
    if descent.rule == PUBLISHED_RULE:
        return functools.partial(published, descent.loss)
    return functools.partial(exact, descent.loss, config.parameters.get(descent.loss, {}), config.wh_factor)


def _errors(boxes: Tensor, targets: Tensor) -> Tensor:
    """|x − X| + |y − Y| + |w − W| + |h − H|, in whole `UNIT`, as float64."""
    x, y, w, h = (boxes - targets).abs().unbind(0)
    errors = x + y + w + h
    return (errors.where(errors < FARTHEST, FARTHEST) / UNIT).round()


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
