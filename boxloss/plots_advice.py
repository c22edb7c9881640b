"""Figures of losses themselves: lines, maps, arrows. With plots.py the only files that import matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .files import replacing
from .plots import _descent_looks, _legend_below, _save, _subplots, as_text, name_rows

Line = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """Lines over one axis."""

    title: str
    abscissa: str
    ordinate: str
    lines: Mapping[str, Line]
    log: bool = False
    y_range: tuple[float, float] | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    """Places on the axis, in the color of the line of that name, with their number."""
    notes: Mapping[float, str] = field(default_factory=dict)
    """Places on the axis with what is there."""


class Map(NamedTuple):
    """A quantity over a plane."""

    title: str
    x: Any
    y: Any
    value: Any


def plot_panels(panels: Sequence[Panel], path: Path) -> None:
    """Panels side by side, with one legend below."""
    figure, axes = _subplots(1, len(panels), (max(5.2, 3.9 * len(panels)), 3.6))
    looks = _descent_looks(list(dict.fromkeys(name for panel in panels for name in panel.lines)))
    for axis, panel in zip(axes[0], panels, strict=True):
        _draw_panel(axis, panel, looks)
    _legend_below(figure, *axes[0])
    _save_small(figure, path)


def _draw_panel(axis: Any, panel: Panel, looks: Mapping[str, dict[str, Any]]) -> None:
    for name, (x, y) in panel.lines.items():
        axis.plot(x, y, label=name, linewidth=1.6, **looks[name])
    axis.set_title(panel.title, fontsize=10)
    axis.set(xlabel=panel.abscissa, ylabel=panel.ordinate)
    axis.margins(x=0)
    axis.grid(alpha=0.3)
    if panel.log:
        axis.set_yscale("log")
    if panel.y_range:
        axis.set_ylim(panel.y_range)
    for name, place in panel.marks.items():
        axis.axvline(place, color=looks[name]["color"], linewidth=1, linestyle=":")
        text = f"{name}: {place:.1f}"
        axis.annotate(
            text, (place, 0.93), (-4, 0), xycoords=_across(axis), textcoords="offset points", ha="right", size=9
        )
    for k, (place, text) in enumerate(panel.notes.items()):
        axis.axvline(place, color="0.4", linewidth=1, linestyle=":")
        last = k == len(panel.notes) - 1  # beside the outermost line, on the side where there is room
        offset, side = (3, "left") if last else (-3, "right")
        look: dict[str, Any] = {
            "xycoords": _across(axis),
            "textcoords": "offset points",
            "rotation": 90,
            "size": 8,
            "color": "0.3",
        }
        look["bbox"] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5}
        axis.annotate(text, (place, 0.03), (offset, 0), va="bottom", ha=side, **look)


def _across(axis: Any) -> Any:
    """Coordinates of the data along x, of the panel along y."""
    return axis.get_xaxis_transform()


def plot_maps(maps: Sequence[Map], abscissa: str, ordinate: str, meaning: str, path: Path) -> None:
    """Quantities with signs side by side, on one scale of steps, ever larger away from 0."""
    from matplotlib.colors import BoundaryNorm

    figure, axes = _subplots(1, len(maps), (3.1 * len(maps) + 1, 3.6), sharey=True)
    steps = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
    bounds = (*(-step for step in reversed(steps)), *steps)
    norm = BoundaryNorm(bounds, 256, extend="both")
    for axis, one in zip(axes[0], maps, strict=True):
        drawn = axis.pcolormesh(one.x, one.y, one.value, norm=norm, cmap="RdBu_r", rasterized=True)
        axis.set_title(one.title, fontsize=10)
        axis.set(xlabel=abscissa, aspect="equal")
    axes[0, 0].set_ylabel(ordinate)
    bar = figure.colorbar(drawn, ax=list(axes[0]), label=meaning)
    bar.set_ticks(bounds, labels=[f"{bound:g}".replace("-", "−") for bound in bounds], fontsize=8)
    _save_small(figure, path)


_ARROWS = 9
"""Along each side of a map."""


def plot_fields(fields: Mapping[str, Mapping[str, Any]], axes_of: Mapping[str, tuple[str, str]], path: Path) -> None:
    """Against the gradients of losses: a row for each case, a column for each loss.

    Args:
        fields: by case and loss, what has ``x``, ``y``, and the gradient ``along_x``, ``along_y``.
        axes_of: by case, what is along x and along y; of width and height the axes are logarithmic.
    """
    import numpy as np
    from matplotlib.colors import BoundaryNorm

    columns = max(len(row) for row in fields.values())
    figure, axes = _subplots(len(fields), columns, (1.7 + 1.75 * columns, 0.4 + 1.95 * len(fields)))
    norms = {(case, loss): np.hypot(f.along_x, f.along_y) for case, row in fields.items() for loss, f in row.items()}
    bounds = _decades(max(float(norm.max()) for norm in norms.values()) or 1.0)
    scale = BoundaryNorm(bounds, 256, extend="min")  # steps, so that equal colors can be found again
    drawn = None
    for row, (case, of_loss) in zip(axes, fields.items(), strict=True):
        names = axes_of[case]
        for axis, (loss, one) in zip(row, of_loss.items(), strict=False):
            drawn = _draw_field(axis, one, norms[case, loss], scale)
            if names != ("x", "y"):
                axis.set(xscale="log", yscale="log")
                _plain_sides(axis, one)
            axis.set_box_aspect(1)
            axis.tick_params(labelsize=8)
            if case == next(iter(fields)):
                axis.set_title(loss, fontsize=10)
            axis.set_xlabel(names[0], fontsize=9, labelpad=0)
        row[0].set_ylabel(f"{case}\n\n{names[1]}", fontsize=9)
    bar = figure.colorbar(drawn, ax=axes, shrink=min(1, 1.6 / len(fields)), aspect=30, label="length of the gradient")
    bar.set_ticks(bounds, labels=[f"{bound:g}" for bound in bounds])
    _save_small(figure, path)


def _decades(highest: float) -> list[float]:
    """1, 3, 10, … times a power of ten, from a thousandth of what is needed for the highest on.

    >>> _decades(0.4)
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    """
    power = math.ceil(math.log10(highest))
    found = [float(f"{digit}e{power + k}") for k in (-3, -2, -1) for digit in (1, 3)]
    return [*found, float(f"1e{power}")]


def _draw_field(axis: Any, one: Any, norm: Any, scale: Any) -> Any:
    import numpy as np

    shown = np.ma.masked_equal(norm, 0)
    drawn = axis.pcolormesh(one.x, one.y, shown, norm=scale, cmap="YlGnBu", rasterized=True, shading="nearest")
    inner = np.linspace(0, len(one.x) - 1, _ARROWS + 2).round().astype(int)[1:-1]
    grid = np.ix_(inner, inner)
    x, y = np.meshgrid(one.x[inner], one.y[inner])
    length = np.where(norm[grid] > 0, norm[grid], 1)
    moved = norm[grid] > 0
    u, v = -one.along_x[grid] / length, -one.along_y[grid] / length
    look = {"scale": 15, "width": 0.009, "headwidth": 4.5, "headlength": 4.5, "headaxislength": 4, "pivot": "mid"}
    axis.quiver(x[moved], y[moved], u[moved], v[moved], color="#b5400a", **look)
    axis.plot(x[~moved], y[~moved], "x", color="0.6", markersize=3, markeredgewidth=0.8)
    return drawn


def _plain_sides(axis: Any, one: Any) -> None:
    from matplotlib.ticker import NullLocator

    for side, values in ((axis.xaxis, one.x), (axis.yaxis, one.y)):
        ticks = (values[0], (values[0] * values[-1]) ** 0.5, values[-1])
        side.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        side.set_minor_locator(NullLocator())


def plot_landscapes(panels: Sequence[Panel], maps: Mapping[str, Any], path: Path) -> None:
    """Above losses along a line, below each of them over the plane; the maps have scales of their own.

    Args:
        panels: the lines, by loss.
        maps: by loss, what has ``x``, ``y``, ``value``.
    """
    from matplotlib.figure import Figure

    rows = -(-len(maps) // 4)
    columns = max(2, -(-len(maps) // rows))
    figure: Any = Figure(figsize=(0.6 + 2.9 * columns, 3.4 + 2.5 * rows), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3.4, 2.5 * rows))
    looks = _descent_looks(list(maps))
    tops = above.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(tops, panels, strict=True):
        _draw_panel(axis, panel, looks)
    _legend_below(above, *tops)
    axes = list(below.subplots(rows, columns, squeeze=False).flat)
    for axis, (loss, one) in zip(axes, maps.items(), strict=False):
        axis.set_title(loss, fontsize=10)
        axis.tick_params(labelsize=8)
        if one.value.min() == one.value.max():
            axis.set(xlim=one.x[[0, -1]], ylim=one.y[[0, -1]])
            axis.text(0, 0, f"{one.value.max():g} everywhere", ha="center", size=9)
            continue
        drawn = axis.contourf(one.x, one.y, one.value, levels=14, cmap="viridis")
        below.colorbar(drawn, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
    for axis in axes[len(maps) :]:
        axis.remove()
    below.supxlabel("prediction’s center, x − target’s", fontsize=9)
    below.supylabel("y − target’s", fontsize=9)
    _save(figure, path)  # so many colors that a palette would change those of the lines


def plot_fits(fits: Mapping[str, Any], path: Path) -> None:
    """What each loss made of a network: scores, and their course and that of the loss while it was fitted.

    Args:
        fits: by loss, what has ``scores``, ``best``, ``losses``, ``steps``, ``dice``, ``recall``.
    """
    figure, axes = _subplots(2, 2, (10, 6.6))
    bars, loss, recall, dice = axes.flat
    looks = _descent_looks(list(fits))
    _draw_scores(bars, fits)
    for name, fit in fits.items():
        loss.plot([value / fit.losses[0] for value in fit.losses], label=name, linewidth=1.4, **looks[name])
        recall.plot(fit.steps, fit.recall, label=name, linewidth=1.4, **looks[name])
        dice.plot(fit.steps, fit.dice, label=name, linewidth=1.4, **looks[name])
    loss.set(title="loss / loss at the start", xlabel="step", yscale="log")
    recall.set(title="recall, threshold ½", xlabel="step", ylim=(-0.02, 1.02))
    dice.set(title="Dice, threshold ½", xlabel="step", ylim=(-0.02, 1.02))
    for axis in (loss, recall, dice):
        axis.grid(alpha=0.3)
    _legend_below(figure, recall)
    _save_small(figure, path)


def _draw_scores(axis: Any, fits: Mapping[str, Any]) -> None:
    colors = {"precision": "#56b4e9", "recall": "#e69f00", "dice": "#0072b2"}
    rows = range(len(fits))
    for k, (name, color) in enumerate(colors.items()):
        lengths = [getattr(fit.scores, name) for fit in fits.values()]
        label = "Dice" if name == "dice" else name
        axis.barh([row + 0.26 * (k - 1) for row in rows], lengths, 0.24, color=color, label=label)
    best = [fit.best.dice for fit in fits.values()]
    axis.plot(best, [row + 0.26 for row in rows], "k|", markersize=9, label="Dice, threshold fitted")
    name_rows(axis, fits)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), title="threshold ½")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2, fontsize=8, frameon=False)
    axis.grid(axis="x", alpha=0.3)


def _save_small(figure: Any, path: Path) -> None:
    """A PNG with a palette, a third as large: pages hold many figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    if path.suffix.lower() != ".png":
        return _save(figure, path)
    figure.set_dpi(130)
    canvas: Any = FigureCanvasAgg(figure)
    with as_text(figure):
        canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    with replacing(path) as file:
        picture.quantize(128, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
