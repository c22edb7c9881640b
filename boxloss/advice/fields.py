"""Box losses over a plane: their values and gradients while a prediction is moved, or grows, beside a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..losses import LOSSES, find_loss, spelled_losses
from ..modules import BoxLoss

Size = tuple[float, float]
"""Width and height."""
FAMILY = ("iou", "giou", "diou", "ciou", "eiou")


# -- which losses -----------------------------------------------------------------------------------------------------


def read_losses(text: str) -> dict[str, BoxLoss]:
    """Losses by what they were called: names with commas between them, parameters of a loss behind colons.

    Raises:
        ValueError: no such loss or parameter, one outside its domain, or a required one that is missing.

    >>> read_losses("giou, smooth_l1:beta=0.5")["smooth_l1:beta=0.5"].loss_parameters
    {'beta': 0.5}
    """
    return {entry: make_loss(name, parameters) for entry, (name, parameters) in spelled_losses(text).items()}


def make_loss(name: str, parameters: Mapping[str, Any]) -> BoxLoss:
    """A loss of boxes given as center, width, height, one number per pair."""
    try:
        find_loss(name).check_parameters(parameters)
    except TypeError as error:  # on a command line it is the user's, with no traceback
        raise ValueError(f"{error}; a parameter is given as {name}:NAME=VALUE") from error
    loss = BoxLoss(name, box_format="cxcywh", reduction="none", **parameters)
    return loss.eval()  # what is drawn is no training: a running mean stays as it is


def plain_losses() -> dict[str, BoxLoss]:
    """Those of the IoU family and its like: without unit, and complete without a number that only data can give."""
    return {
        name: make_loss(name, {})
        for name, loss in LOSSES.items()
        if loss.degree == 0 and not loss.lengths and not any(p.required for p in loss.parameters.values())
    }


def read_size(text: str) -> Size:
    """
    >>> read_size("10x1")
    (10.0, 1.0)
    """
    try:
        width, height = map(float, text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise ValueError(f"a size: expected WIDTHxHEIGHT, such as 10x1, got {text!r}") from None
    if not (1e-6 <= width <= 1e6 and 1e-6 <= height <= 1e6):
        raise ValueError(f"a size: expected sides in [1e-6, 1e6], got {text!r}")
    return width, height


# -- values and gradients ---------------------------------------------------------------------------------------------


def boxes(x: Tensor | float, y: Tensor | float, size: Size) -> Tensor:
    """Boxes of one size around places, ``(..., 4)`` as center, width, height, in float64."""
    return _stacked(x, y, *size)


def _stacked(*parts: Tensor | float) -> Tensor:
    tensors = [torch.as_tensor(part, dtype=torch.float64) for part in parts]
    return torch.stack(torch.broadcast_tensors(*tensors), -1)  # type: ignore[no-untyped-call]


def slopes(loss: BoxLoss, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each pair, ``(...)``, and its gradient by the prediction's center, width, height, ``(..., 4)``.

    What is left of a sum that cancels, a rounding error, counts as 0.
    """
    pred = pred.detach().clone().requires_grad_()
    value = loss(pred, target.expand_as(pred))
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    noise = gradient.abs() <= 1e-12 * gradient.abs().amax(-1, keepdim=True)
    return value.detach(), gradient.masked_fill(noise, 0.0)


@dataclass(frozen=True)
class Case:
    """How a prediction lies to its target, and what of it is varied."""

    title: str
    pred: Size
    target: Size
    place: tuple[float, float]
    """Of the one box whose numbers are quoted, from the target's center."""
    reach: float
    """How far the prediction's center is moved to each side; 0: it stays, and its sides grow and shrink instead."""

    @property
    def axes(self) -> tuple[str, str]:
        """What is varied, along the figure's axes."""
        return ("x", "y") if self.reach else ("width", "height")


CASES = {
    "apart": Case("next to the target", (1, 1), (1, 1), (2.0, 1.0), 2.5),
    "contained": Case("inside the target", (0.4, 0.4), (1, 1), (0.2, 0.1), 0.29),
    "around": Case("around the target", (2.5, 2.5), (1, 1), (0.4, 0.2), 0.74),
    "centered": Case("right center, wrong sides", (2, 0.5), (1, 1), (0.0, 0.0), 0.0),
}
_SPAN = 2
"""The maps of sizes reach from 2^-2 to 2^2 times the target's."""


class Field(NamedTuple):
    """A loss over a plane: of places of the prediction's center, or of its width and height."""

    x: Any
    y: Any
    value: Any
    """``(len(y), len(x))``, as the gradients."""
    along_x: Any
    along_y: Any


def gradient_field(loss: BoxLoss, case: Case, points: int = 61) -> Field:
    """The gradient by what the case varies: the center's place, or width and height."""
    if case.reach:
        x = y = case.reach * _from_minus_one(points)
        pred, parts = boxes(x[None, :], y[:, None], case.pred), (0, 1)
    else:
        factor = torch.exp2(_SPAN * _from_minus_one(points))
        x, y = factor * case.target[0], factor * case.target[1]
        pred, parts = _stacked(0.0, 0.0, x[None, :], y[:, None]), (2, 3)
    value, gradient = slopes(loss, pred, boxes(0.0, 0.0, case.target))
    return Field(x.numpy(), y.numpy(), value.numpy(), *(gradient[..., part].numpy() for part in parts))


def landscape(loss: BoxLoss, pred: Size, target: Size, points: int = 65) -> Field:
    """The loss by where the prediction's center is, as far as three times the distance at which they part."""
    far_x, far_y = (1.5 * (own + other) for own, other in zip(pred, target, strict=True))
    x, y = far_x * _from_minus_one(points), far_y * _from_minus_one(points)
    value, gradient = slopes(loss, boxes(x[None, :], y[:, None], pred), boxes(0.0, 0.0, target))
    return Field(x.numpy(), y.numpy(), value.numpy(), gradient[..., 0].numpy(), gradient[..., 1].numpy())


def along(loss: BoxLoss, distances: Tensor, pred: Size, target: Size) -> tuple[Tensor, Tensor]:
    """The loss of a prediction so far to the right of its target, and its slope by that distance."""
    value, gradient = slopes(loss, boxes(distances, 0.0, pred), boxes(0.0, 0.0, target))
    return value, gradient[..., 0]


def pull(loss: BoxLoss, case: Case) -> tuple[float, float]:
    """At the case's place: how strongly the loss pulls the center towards the target's, and how strongly the sides."""
    x, y = case.place
    _, gradient = slopes(loss, boxes(x, y, case.pred), boxes(0.0, 0.0, case.target))
    distance = max((x * x + y * y) ** 0.5, 1e-300)
    toward = (gradient[0] * x + gradient[1] * y) / distance
    wrong = [(own - other) for own, other in zip(case.pred, case.target, strict=True)]
    size = sum(part * (1 if off > 0 else -1 if off < 0 else 0) for part, off in zip(gradient[2:], wrong, strict=True))
    return float(toward), float(size)


def _from_minus_one(points: int) -> Tensor:
    """Evenly to 1; of an odd number the middle is 0 itself, where much is decided."""
    return torch.arange(1 - points, points, 2, dtype=torch.float64) / (points - 1)
