"""Figures. The only file that imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Boxes with what is written at them."""


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
        axis.set_title(scene.title, fontsize=8)
        for x, y, w, h in scene.true:
            axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=TRUE, linewidth=1.6))
        for (x, y, w, h), text in scene.predicted:
            axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=PREDICTED, linewidth=1, linestyle="--"))
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
