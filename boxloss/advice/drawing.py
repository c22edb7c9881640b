"""Figures on demand, of the losses and boxes one is asked about: what ``boxloss plot`` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ..errors import nearest
from ..losses import LOSSES
from ..modules import BoxLoss
from ..plots import require_matplotlib
from ..plots_advice import Panel, plot_fields, plot_landscapes, plot_panels
from .classes import class_panels
from .fields import CASES, Case, Size, along, gradient_field, landscape

ENDINGS = (".png", ".svg")


def draw_gradients(losses: Mapping[str, BoxLoss], cases: Sequence[str], path: Path) -> None:
    """Maps of the negative gradients: a row for each case, a column for each loss.

    Args:
        losses: of boxes as center, width, height, one number per pair; by what they are called.
        cases: of `CASES`.
        path: of the figure, PNG or SVG.

    Raises:
        ValueError: an unknown case; another kind of file.
    """
    check_figure(path)
    chosen = [find_case(name) for name in cases]
    plot_fields(
        {case.title: {name: gradient_field(loss, case) for name, loss in losses.items()} for case in chosen},
        {case.title: case.axes for case in chosen},
        path,
    )


def draw_landscape(losses: Mapping[str, BoxLoss], pred: Size, target: Size, path: Path) -> None:
    """Losses of a prediction of one size: along x, and over the plane around its target."""
    check_figure(path)
    touching = (pred[0] + target[0]) / 2
    distance = torch.linspace(0, 3 * touching, 301, dtype=torch.float64)
    by_unit: dict[str, dict[str, BoxLoss]] = {}  # what has another unit has another scale
    for name, loss in losses.items():
        by_unit.setdefault(LOSSES[loss.name].unit, {})[name] = loss
    panels = [
        Panel(
            f"prediction {_sides(pred)}, target {_sides(target)}",
            "distance of the centers along x",
            f"loss, unit: {unit}" if unit in ("length", "area") else "loss",
            {name: (distance.tolist(), along(loss, distance, pred, target)[0].tolist()) for name, loss in of.items()},
            notes={touching: "touching"},
        )
        for unit, of in by_unit.items()
    ]
    plot_landscapes(panels, {name: landscape(loss, pred, target) for name, loss in losses.items()}, path)


def draw_classification(path: Path) -> None:
    """Losses of a probability whose target is 1, and their slopes."""
    check_figure(path)
    plot_panels(class_panels(), path)


def check_figure(path: Path) -> None:
    """Refuse a file that would be no figure, before anything is computed."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"out: expected a file that ends in {' or '.join(ENDINGS)}, got {str(path)!r}")
    require_matplotlib()


def find_case(name: str) -> Case:
    """The case of that name; or an error that names the nearest."""
    if name not in CASES:
        raise ValueError(f"no case named {name!r}; {nearest(name, CASES) or 'known: ' + ', '.join(CASES)}")
    return CASES[name]


def _sides(size: Size) -> str:
    return f"{size[0]:g} × {size[1]:g}"
