"""Figures. The only file that imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .extras import needs
from .files import replacing

TRUE, PREDICTED = "#2ca02c", "#d62728"
_TERMS = ("xy", "wh", "box", "objectness", "classification")


class Scene(NamedTuple):
    """An image file with boxes: x, y, width, height in its pixels."""

    image: Path
    title: str
    true: Sequence[Sequence[float]]
    predicted: Sequence[tuple[Sequence[float], str]]
    """Boxes with what is written at them, which may be nothing."""


def plot_curves(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The terms of the loss, the positives' IoU, and AP, by epoch."""
    from matplotlib.ticker import LogFormatter, MaxNLocator

    figure, axes = _subplots(1, 3, (12, 3.4))
    loss, iou, ap = axes[0]
    epochs = [row["epoch"] + 1 for row in rows]
    for name in ("total", *_TERMS):
        values = [row[name] for row in rows]
        if any(values):
            loss.plot(epochs, values, label=name, marker="." if len(rows) == 1 else None)
    loss.set(title="loss", yscale="log")
    loss.yaxis.set_major_formatter(LogFormatter())
    loss.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    loss.legend(fontsize=8)
    _line(iou, rows, {"iou": "positives"}, "IoU with the truth, training")
    _line(ap, rows, {"AP50": "AP50", "AP": "AP", "AP75": "AP75"}, "validation")
    for axis in axes[0]:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
    _save(figure, path)


def plot_scenes(scenes: Sequence[Scene], path: Path, predicted: str, *, columns: int = 4) -> None:
    """A sheet of images with their true and predicted boxes; ``predicted`` says which those are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from PIL import Image

    rows = -(-len(scenes) // columns)
    figure, axes = _subplots(rows, columns, (3.2 * columns, 2.7 * rows + 0.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, scene in zip(axes.flat, scenes, strict=False):
        with Image.open(scene.image) as image:
            axis.imshow(image.convert("RGB"))
        axis.set_title(scene.title, fontsize=8, parse_math=False)
        for x, y, w, h in scene.true:
            axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=TRUE, linewidth=1.6))
        for (x, y, w, h), text in scene.predicted:
            axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=PREDICTED, linewidth=1, linestyle="--"))
            if text:
                axis.text(x, y, text, fontsize=5, color="white", va="bottom", clip_on=True, bbox=_label())
    handles = [Line2D([], [], color=TRUE, label="true"), Line2D([], [], color=PREDICTED, ls="--", label=predicted)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    _save(figure, path)


def require_matplotlib() -> None:
    """An error now, not when there is something to show."""
    with needs("study", "a figure"):
        import matplotlib.figure  # noqa: F401


def _label() -> dict[str, Any]:
    return {"facecolor": PREDICTED, "alpha": 0.7, "pad": 0.4, "linewidth": 0}


def _line(axis: Any, rows: Sequence[dict[str, Any]], names: dict[str, str], title: str) -> None:
    for name, label in names.items():
        known = [(row["epoch"] + 1, row[name]) for row in rows if row.get(name) is not None]
        if known:
            axis.plot(*zip(*known, strict=True), label=label, marker=".")
    if axis.lines:
        axis.legend(fontsize=8)
    axis.set(title=title, ylim=(0, 1))


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure that belongs to no window and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, dpi=130, format=path.suffix[1:])


# -- pairs of boxes ---------------------------------------------------------------------------------------------------

_OVERLAPPING, _APART = "#1f5fa8", "#d1571b"
_FLOOR = 0.24
"""The share of a logarithmic panel that is left below for what is 0."""


def plot_pair_values(iou: Any, values: Mapping[str, Any], path: Path) -> None:
    """Each loss's values against IoU, arrays ``(N,)``, a panel per loss, each with its own scale."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure, axes = _pair_panels(list(values), "value")
    for axis, of_loss in zip(axes, values.values(), strict=True):
        _dots(axis, iou, of_loss)
        axis.yaxis.set_major_locator(MaxNLocator(4))
        if abs(of_loss).max() >= 10_000:
            axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    _save(figure, path)


def plot_pair_gradients(
    iou: Any, norms: Mapping[str, Any], means: Mapping[str, Sequence[tuple[float, float, float]]], path: Path
) -> None:
    """Each loss's gradient norms against IoU, arrays ``(N,)``, with their means over ranges of IoU (from, to, mean).

    A logarithmic axis has no 0: gradients that vanish are marks below a line, and counted there.
    """
    from matplotlib.ticker import NullLocator

    figure, axes = _pair_panels(list(norms), "gradient norm", "mean")
    for axis, (name, of_loss) in zip(axes, norms.items(), strict=True):
        zero = of_loss == 0
        axis.set_yscale("log")
        _dots(axis, iou[~zero], of_loss[~zero])
        for low, high, mean in means[name]:
            axis.plot((low, high), (mean, mean), color="black", linewidth=1.8)
        low, high = axis.get_ylim()
        wider = max(1.0, 10 / math.sqrt(high / low))  # two powers of ten, or there is nothing to read it by
        low, high = low / wider, high * wider
        axis.set_ylim(low * (low / high) ** (_FLOOR / (1 - _FLOOR)) if zero.any() else low, high)
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        axis.set_yticks([10.0**power for power in powers[:: -(-len(powers) // 4)]])
        axis.yaxis.set_minor_locator(NullLocator())
        if zero.any():
            _mark_zeros(axis, iou[zero])
    _save(figure, path)


def _mark_zeros(axis: Any, iou: Any) -> None:
    axis.plot((0, 1), (_FLOOR * 0.9,) * 2, transform=axis.transAxes, color="0.7", linewidth=0.8)
    below = axis.get_xaxis_transform()
    _dots(axis, iou, 0 * iou + _FLOOR * 0.22, transform=below, marker="|", markersize=6, markeredgewidth=1)
    text = f"no gradient: {len(iou):,}"
    axis.text(0.97, _FLOOR * 0.62, text, transform=axis.transAxes, ha="right", va="center", fontsize=8)


def _pair_panels(names: Sequence[str], ordinate: str, line: str = "") -> tuple[Any, list[Any]]:
    """A panel for each name, three in a row, IoU below: narrow enough for a phone to show them together."""
    from matplotlib.lines import Line2D

    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, grid = _subplots(rows, columns, (0.6 + 2.1 * max(2, columns), 1.1 + 1.45 * rows))
    axes = list(grid.flat)
    for axis in axes[len(names) :]:
        axis.remove()
    for i, (axis, name) in enumerate(zip(axes, names, strict=False)):
        axis.set_title(name, fontsize=10, parse_math=False)
        axis.set(xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
        axis.set_xticklabels(("0", ".5", "1") if i + columns >= len(names) else ())
        axis.tick_params(labelsize=9)
        axis.grid(alpha=0.3)
    kinds = {"the boxes overlap": _OVERLAPPING, "they lie apart": _APART}
    handles = [Line2D([], [], color=color, marker="o", ls="", ms=5, label=label) for label, color in kinds.items()]
    if line:
        handles.append(Line2D([], [], color="black", linewidth=1.8, label=line))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=10)
    figure.supxlabel("IoU", fontsize=10)
    figure.supylabel(ordinate, fontsize=10)
    return figure, axes[: len(names)]


def _dots(axis: Any, iou: Any, numbers: Any, **options: Any) -> None:
    """One for each pair, in another color where the boxes lie apart; fainter where they are many."""
    alpha = min(0.6, max(0.05, 200 / max(1, len(iou))))
    look = {"marker": "o", "markersize": 3.2, "markeredgewidth": 0, **options}
    for color, chosen in ((_OVERLAPPING, iou > 0), (_APART, iou == 0)):
        axis.plot(iou[chosen], numbers[chosen], linestyle="", color=color, alpha=alpha, **look)


# -- a study ----------------------------------------------------------------------------------------------------------


def _loss_colors(names: Sequence[str]) -> dict[str, Any]:
    """A color for each loss of a study, the reference first."""
    from matplotlib import colormaps

    others = colormaps["tab10" if len(names) <= 11 else "tab20"]
    return {name: "black" if k == 0 else others((k - 1) % others.N) for k, name in enumerate(names)}


def plot_differences(differences: Mapping[str, dict[str, Any]], reference: str, path: Path) -> None:
    """Differences from the reference in AP, by loss: each seed's, their mean, its 95 % interval."""
    figure, axes = _subplots(1, 1, (7, 1.3 + 0.42 * len(differences)))
    axis = axes[0, 0]
    for row, difference in enumerate(differences.values()):
        ap, color = difference["metrics"]["AP"], PREDICTED if difference["significant"] else _OVERLAPPING
        axis.plot(ap["values"], [row + 0.18] * len(ap["values"]), ".", color="0.6", markersize=5)
        if ap["low"] is not None:
            axis.plot((ap["low"], ap["high"]), (row, row), color=color)
        axis.plot(ap["mean"], row, "o", color=color)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(differences)), list(differences), parse_math=False)
    axis.set(ylim=(len(differences) - 0.4, -0.6), xlabel=f"AP – AP of {reference}")
    axis.margins(x=0.06)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, path)


def plot_learning(curves: Mapping[str, Sequence[Sequence[dict[str, Any]]]], path: Path) -> None:
    """AP of the validation images and IoU of the training positives by epoch; a band from the worst seed to the best.

    Args:
        curves: by loss, the reference first; of each seed the rows of its epochs.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _subplots(1, 2, (9, 4))
    for (name, seeds), color in zip(curves.items(), _loss_colors(list(curves)).values(), strict=True):
        for axis, figure_name in zip(axes[0], ("AP", "iou"), strict=True):
            epochs = [row["epoch"] for row in seeds[0] if row[figure_name] is not None] if seeds else []
            by_seed = [[row[figure_name] for row in rows if row[figure_name] is not None] for rows in seeds]
            if not epochs or any(len(rows) != len(epochs) for rows in by_seed):
                continue
            columns = list(zip(*by_seed, strict=True))
            means = [sum(column) / len(column) for column in columns]
            axis.plot(epochs, means, color=color, label=name, linewidth=1.4, marker="." if len(epochs) == 1 else None)
            axis.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=color, alpha=0.1, lw=0)
    axes[0, 0].set(title="AP, validation", xlabel="epoch")
    axes[0, 1].set(title="IoU of the positives with the truth, training", xlabel="epoch")
    for axis in axes[0]:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    _legend_below(figure, axes[0, 0])
    _save(figure, path)


def plot_thresholds(curves: Mapping[str, Sequence[float | None]], reference: str, path: Path) -> None:
    """AP at IoU .5:.05:.95, means over seeds: as it is, and less that of the reference, which comes first."""
    thresholds = [0.5 + 0.05 * k for k in range(10)]
    figure, axes = _subplots(1, 2, (9, 4))
    base = curves[reference]
    for (name, values), color in zip(curves.items(), _loss_colors(list(curves)).values(), strict=True):
        known = [
            (t, v, b) for t, v, b in zip(thresholds, values, base, strict=False) if v is not None and b is not None
        ]
        if known:
            axes[0, 0].plot([t for t, _, _ in known], [v for _, v, _ in known], color=color, label=name, marker=".")
            axes[0, 1].plot([t for t, _, _ in known], [v - b for _, v, b in known], color=color, marker=".")
    axes[0, 0].set(title="AP at an IoU threshold", xlabel="IoU threshold", ylim=(0, None))
    axes[0, 1].set(title=f"the same, minus that of {reference}", xlabel="IoU threshold")
    for axis in axes[0]:
        axis.grid(alpha=0.3)
    _legend_below(figure, axes[0, 0])
    _save(figure, path)


def _legend_below(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False)
