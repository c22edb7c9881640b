"""Questions about losses of coordinates: which value they settle on, and how hard they push."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..losses import l1_loss, l2_loss, smooth_l1_loss
from ..losses._define import LossFunction
from ..page import fixed, number
from ..plots_advice import Panel, plot_panels
from .answer import Answer

_NAMES: dict[str, LossFunction] = {"L1": l1_loss, "smooth L1": smooth_l1_loss, "L2": l2_loss}
_DATA = torch.tensor([1000.0] * 95 + [10.0] * 5, dtype=torch.float64)


def of_coordinate(loss: LossFunction, prediction: Tensor, target: Tensor) -> Tensor:
    """A loss of boxes of which all coordinates but one are right."""
    apart = prediction - target  # of both shapes together
    return loss(_as_box(prediction + 0 * apart), _as_box(target + 0 * apart))


def _as_box(x2: Tensor) -> Tensor:
    return torch.nn.functional.pad(x2[..., None], (2, 1))


def settles(loss: LossFunction, data: Tensor) -> float:
    """The one number with the least sum of losses; found by ternary search, since the sum has one valley."""
    low, high = data.min(), data.max()
    for _ in range(100):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if of_coordinate(loss, left, data).sum() <= of_coordinate(loss, right, data).sum():
            high = right
        else:
            low = left
    return float(low + high) / 2


def l1_or_l2() -> Answer:
    found = {name: settles(loss, _DATA) for name, loss in _NAMES.items()}
    at = torch.linspace(0, 1010, 405, dtype=torch.float64)
    means = {name: of_coordinate(loss, at[:, None], _DATA).mean(1) for name, loss in _NAMES.items()}
    # Each from 0 at its valley to 1 at the highest, since they have other units.
    lines = {
        name: (at.tolist(), ((mean - mean.min()) / (mean.max() - mean.min())).tolist()) for name, mean in means.items()
    }
    near = at >= 900
    closer = {
        name: (at[near].tolist(), ((mean - mean.min()) / (mean.max() - mean.min()))[near].tolist())
        for name, mean in means.items()
    }
    abscissa, ordinate = "one prediction for all", "mean loss, scaled to 0 … 1"
    marks = {name: x for name, x in found.items() if name != "smooth L1"}  # next to L1's
    return Answer(
        (
            "L1 or smooth L1 if some targets are wrong; L2 if none is, and large errors are what costs.",
            "Of 100 targets 95 are 1000 and 5 are 10. The one prediction with the least loss is"
            f" {fixed(found['L1'], 1)} under L1, {fixed(found['smooth L1'], 1)} under smooth L1 and"
            f" {fixed(found['L2'], 1)} under L2: L1 settles on the median, L2 on the mean, which the 5 outliers drag"
            f" by {fixed(1000 - found['L2'], 1)}.",
            "The reason is the slope: under L1 each target pulls alike, under L2 in proportion to its distance.",
        ),
        partial(
            plot_panels,
            [
                Panel("95 targets at 1000, 5 at 10", abscissa, ordinate, lines),
                Panel("the same, from 900 on", abscissa, ordinate, closer, y_range=(-0.001, 0.03), marks=marks),
            ],
        ),
        "The mean loss of one prediction for all 100 targets. Right: where L1 and L2 settle.",
        {"settles": found},
        "L2 is robust to outliers, L1 is sensitive to them. It is the other way round.",
    )


def smooth_l1_regimes() -> Answer:
    d = torch.linspace(-3, 3, 241, dtype=torch.float64)
    zero = torch.zeros_like(d)
    value: dict[str, Tensor] = {}
    slope: dict[str, Tensor] = {}
    for name, loss in _NAMES.items():
        at = d.clone().requires_grad_()
        found = of_coordinate(loss, at, zero)
        (slope[name],) = torch.autograd.grad(found.sum(), at)
        value[name] = found.detach()
    regimes = {x: float(slope["smooth L1"][round(120 + 40 * x)]) for x in (-2.0, 0.5, 2.0)}
    ends = {name: last_errors(loss) for name, loss in _NAMES.items()}
    # Boxes in [0, 1]: no difference is beyond β = 1.
    inside = torch.linspace(0.01, 1, 100, dtype=torch.float64)
    ratio = float(
        (of_coordinate(smooth_l1_loss, inside, 0 * inside) / of_coordinate(l2_loss, inside, 0 * inside)).mean()
    )
    panels = [
        Panel("β = 1", "d, prediction − target", "loss", _lines(d, value), y_range=(0, 4)),
        Panel("β = 1", "d, prediction − target", "slope", _lines(d, slope), y_range=(-4, 4)),
    ]
    return Answer(
        (
            f"Its slope has three regimes: −1 below −β ({number(regimes[-2])} at d = −2), d/β between"
            f" ({number(regimes[0.5])} at d = 0.5), and 1 above β ({number(regimes[2])} at d = 2), here with β = 1.",
            "Far away it pushes no harder than L1, so an outlier does no harm; nearby it fades out as L2, so it"
            " settles. From an error of 10, after 200 steps of 0.3 times the slope, L1 still jumps between errors of"
            f" {number(min(ends['L1']), 1)} and {number(max(ends['L1']), 1)}; smooth L1 is at"
            f" {number(max(ends['smooth L1']), 1)}.",
            "β is a length. For boxes in [0, 1] no difference is beyond β = 1, and smooth L1 is nothing but"
            f" {number(ratio, 2)} times L2: choose β for the unit of your boxes. β = 0 is L1.",
        ),
        partial(plot_panels, panels),
        "Losses and slopes of one coordinate.",
        {"regimes": regimes, "ends": ends, "ratio": ratio},
    )


def last_errors(loss: LossFunction, start: float = 10.0, rate: float = 0.3, steps: int = 200) -> tuple[float, float]:
    """The errors of a coordinate after the last two of so many steps down the slope."""
    at, zero = torch.tensor(start, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    errors = []
    for _ in range(steps):
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(of_coordinate(loss, at, zero), at)
        at = at.detach() - rate * slope
        errors.append(abs(float(at)))
    return errors[-2], errors[-1]


def _lines(x: Tensor, of: dict[str, Tensor]) -> dict[str, tuple[list[float], list[float]]]:
    return {name: (x.tolist(), y.tolist()) for name, y in of.items()}
