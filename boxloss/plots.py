"""Figures. With plots_advice.py the only files that import matplotlib."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .colors import LOSS_COLORS, MORE_COLORS
from .extras import needs
from .files import FolderGoneError, check_there, replacing, visible

if TYPE_CHECKING:
    from PIL import Image

TRUE, PREDICTED = "#2ca02c", "#d62728"
_TERMS = ("xy", "wh", "box", "objectness", "classification")


class Scene(NamedTuple):
    """A picture with boxes: x, y, width, height in its pixels."""

    image: Image.Image
    """Perhaps reduced."""
    size: tuple[float, float]
    """Width and height of the picture itself."""
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
        values = [row.get(name) for row in rows]
        if any(values):
            loss.plot(epochs, values, label=name, marker="." if len(rows) == 1 else None)
    loss.set(title="loss", yscale="log")
    loss.yaxis.set_major_formatter(LogFormatter())
    loss.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    if loss.lines:
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

    rows = -(-len(scenes) // columns)
    figure, axes = _subplots(rows, columns, (3.2 * columns, 2.7 * rows + 0.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, scene in zip(axes.flat, scenes, strict=False):
        axis.imshow(scene.image, extent=(0, scene.size[0], scene.size[1], 0))
        axis.set_title(scene.title, fontsize=8)
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


def _subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure that belongs to no window and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_if_possible(path: Path, draw: Callable[[Path], None]) -> None:
    """Draw a figure of work that is done, which a failure does not undo: it is a warning, and an old figure goes."""
    try:
        draw(path)
    except FolderGoneError:
        raise
    except Exception as error:  # matplotlib's own are of many kinds
        check_there(path)
        if not path.is_dir():
            path.unlink(missing_ok=True)
        warnings.warn(f"{path} could not be drawn ({type(error).__name__}: {error})", stacklevel=2)


@contextmanager
def as_text(figure: Any) -> Iterator[None]:
    """Draw text as it stands: nothing in it is a formula, and a letter that no font has is a box, without a word.

    Labels of ticks are left alone, since powers of ten are formulas; see `name_rows`.
    """
    from matplotlib.axis import Tick
    from matplotlib.text import Text

    of_ticks = {label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text not in of_ticks:
            text.set_parse_math(False)
            text.set_text("\n".join(map(visible, text.get_text().split("\n"))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def name_rows(axis: Any, names: Collection[str]) -> None:
    """Names at the rows 0, 1, … of a panel, as they stand."""
    axis.set_yticks(range(len(names)), list(map(visible, names)), parse_math=False)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    ending = path.suffix[1:].lower()
    # The same figure is the same SVG.
    with as_text(figure), rc_context({"svg.hashsalt": "boxloss"}), replacing(path) as file:
        figure.savefig(file, dpi=130, format=ending, metadata={"Date": None} if ending == "svg" else None)


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
        axis.set_title(name, fontsize=10)
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
    name_rows(axis, differences)
    axis.set(ylim=(len(differences) - 0.4, -0.6), xlabel=f"AP – AP of {reference}")
    axis.margins(x=0.06)
    axis.grid(axis="x", alpha=0.3)
    _save(figure, path)


def plot_learning(curves: Mapping[str, Sequence[Sequence[dict[str, Any]]]], path: Path) -> None:
    """AP of the validation images and IoU of the training positives, where known, by epoch; a band from the worst seed
    to the best.

    Args:
        curves: by loss, the reference first; of each seed the rows of its epochs.
    """
    from matplotlib.ticker import MaxNLocator

    titles = {"AP": "AP, validation", "iou": "IoU of the positives with the truth, training"}
    shown = [
        key
        for key in titles
        if any(row[key] is not None for seeds in curves.values() for rows in seeds for row in rows)
    ]
    shown = shown or ["AP"]
    figure, axes = _subplots(1, len(shown), (4.5 * len(shown), 4))
    for (name, seeds), color in zip(curves.items(), _loss_colors(list(curves)).values(), strict=True):
        for axis, figure_name in zip(axes[0], shown, strict=True):
            epochs = [row["epoch"] for row in seeds[0] if row[figure_name] is not None] if seeds else []
            by_seed = [[row[figure_name] for row in rows if row[figure_name] is not None] for rows in seeds]
            if not epochs or any(len(rows) != len(epochs) for rows in by_seed):
                continue
            columns = list(zip(*by_seed, strict=True))
            means = [sum(column) / len(column) for column in columns]
            axis.plot(epochs, means, color=color, label=name, linewidth=1.4, marker="." if len(epochs) == 1 else None)
            axis.fill_between(epochs, list(map(min, columns)), list(map(max, columns)), color=color, alpha=0.1, lw=0)
    for axis, figure_name in zip(axes[0], shown, strict=True):
        axis.set(title=titles[figure_name], xlabel="epoch")
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


def _legend_below(figure: Any, *axes: Any) -> None:
    """Of what is drawn in any of these axes, each name once."""
    named = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if named:
        labels = list(named)
        rows = -(-len(labels) // 5)
        figure.legend(named.values(), labels, loc="outside lower center", ncols=-(-len(labels) // rows), frameon=False)


# -- a simulation -----------------------------------------------------------------------------------------------------

_DASHES = ("-", "--", "-.", ":")


def _descent_looks(losses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Color and dashes of each loss, so that they differ in gray too."""
    others = [loss for loss in losses if loss not in LOSS_COLORS]
    colors = LOSS_COLORS | {loss: MORE_COLORS[k % len(MORE_COLORS)] for k, loss in enumerate(others)}
    return {loss: {"color": colors[loss], "ls": _DASHES[k % len(_DASHES)]} for k, loss in enumerate(losses)}


def plot_descents(errors: Mapping[str, Mapping[str, Sequence[float]]], cases: int, path: Path) -> None:
    """The sum of errors over all cases by iteration; the rules side by side, below on a logarithmic scale.

    Args:
        errors: by rule and loss, mean errors over cases, from the start on.
        cases: how many.
    """
    figure, axes = _subplots(2, len(errors), (1.5 + 4.2 * len(errors), 6.6), sharex=True, sharey="row")
    looks = _descent_looks(_losses_of(errors))
    for column, (rule, of_rule) in zip(axes.T, errors.items(), strict=True):
        for axis, unit in zip(column, (1e6, 1.0), strict=True):
            for loss, curve in of_rule.items():
                axis.plot([error * cases / unit for error in curve], label=loss, linewidth=1.5, **looks[loss])
            axis.grid(alpha=0.3)
        column[0].set_title(_RULE_TITLES[rule])
        column[0].set_ylim(bottom=0)
        column[1].set(yscale="log", xlabel="iteration")
    axes[0, 0].set_ylabel("sum of errors, millions")
    axes[1, 0].set_ylabel("sum of errors, logarithmic")
    _legend_below(figure, *axes[0])
    _save(figure, path)


_RULE_TITLES = {"published": "as published: hand-written directions", "exact": "exact gradients of the losses"}


def _losses_of(by_rule: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(loss for of_rule in by_rule.values() for loss in of_rule))


def plot_shares(
    shares: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], levels: Sequence[float], path: Path
) -> None:
    """The share of cases with an IoU above each level, by iteration: a row for each rule."""
    figure, axes = _subplots(len(shares), len(levels), (1 + 3 * len(levels), 0.8 + 2.6 * len(shares)), sharey=True)
    looks = _descent_looks(_losses_of(shares))
    for row, (rule, of_rule) in zip(axes, shares.items(), strict=True):
        for k, (axis, level) in enumerate(zip(row, levels, strict=True)):
            for loss, curves in of_rule.items():
                axis.plot([100 * share for share in curves[k]], label=loss, linewidth=1.5, **looks[loss])
            axis.set_title(f"IoU above {level}", fontsize=10)
            axis.set(ylim=(-2, 102), xlabel="iteration")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(f"{rule}\n% of cases")
    _legend_below(figure, *axes[:, 0])
    _save(figure, path)


def plot_groups(groups: Mapping[str, Mapping[str, Mapping[str, Sequence[tuple[str, float]]]]], path: Path) -> None:
    """Errors summed over the iterations, means over the cases of each group: a column of panels for each rule.

    Args:
        groups: by what the cases are told apart; then by rule, loss: each value's name and error.
    """
    rules = list(next(iter(groups.values())))
    figure, axes = _subplots(len(groups), len(rules), (1 + 4.4 * len(rules), 0.6 + 2.1 * len(groups)), sharey="row")
    looks = _descent_looks(_losses_of(next(iter(groups.values()))))
    for row, (name, by_rule) in zip(axes, groups.items(), strict=True):
        for axis, (rule, of_rule) in zip(row, by_rule.items(), strict=True):
            for loss, values in of_rule.items():
                labels, errors = zip(*values, strict=True)
                axis.plot(labels, errors, label=loss, marker="o", markersize=4, linewidth=1.2, **looks[loss])
            axis.set(xlabel=name, ylim=(0, None))
            axis.grid(alpha=0.3)
            if axis in axes[0]:
                axis.set_title(_RULE_TITLES[rule], fontsize=10)
    figure.supylabel("error, summed over the iterations")
    _legend_below(figure, *axes[0])
    _save(figure, path)


def plot_surfaces(at: Any, errors: Mapping[str, Any], center: float, path: Path) -> None:
    """The error at the end by where the anchor lay: a surface and a map for each loss, all on one scale.

    Heights are linear, colors logarithmic, so that what is next to 0 can be told apart too.

    Args:
        at: the anchors' centers, ``(n, 2)``.
        errors: by loss, means over the cases of each center, ``(n,)``.
        center: of the targets, on both axes.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.tri import Triangulation

    figure = Figure(figsize=(2.9 * len(errors) + 0.6, 5.4), layout="constrained")
    highest = max(max(values.max() for values in errors.values()), 1e-3)
    look: dict[str, Any] = {"cmap": "viridis", "norm": LogNorm(highest / 1e4, highest, clip=True)}
    x, y = (at - center).T
    ticks = {"xticks": (-3, 0, 3), "yticks": (-3, 0, 3)}
    for k, (loss, values) in enumerate(errors.items()):
        solid = figure.add_subplot(2, len(errors), k + 1, projection="3d")
        flat = figure.add_subplot(2, len(errors), len(errors) + k + 1, aspect="equal")
        if len(at) > 3:
            net = Triangulation(x, y)
            solid.plot_trisurf(net, values, linewidth=0, antialiased=False, **look)
            drawn: Any = flat.tripcolor(net, values, shading="gouraud", rasterized=True, **look)
        else:
            drawn = flat.scatter(x, y, c=values, **look)
        solid.set(title=loss, zlim=(0, highest), **ticks)
        solid.tick_params(labelsize=7, pad=-2)
        flat.set(xlabel="x − target’s", ylabel="" if k else "y − target’s", **ticks)
    figure.colorbar(drawn, ax=figure.axes, shrink=0.6, extend="min", label="error at the end, mean of 343 cases")
    _save(figure, path)


class Walk(NamedTuple):
    """A box on its way under several losses, as center x, center y, width, height."""

    title: str
    target: Sequence[float]
    anchor: Sequence[float]
    boxes: Mapping[str, Sequence[Sequence[float]]]
    """By loss, at every iteration."""


def animate_walks(walks: Sequence[Walk], path: Path, *, frames: int = 60) -> None:
    """A GIF: a panel for each walk, the targets filled, the anchors dotted, a box in its color for each loss."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch, Rectangle
    from PIL import Image

    losses = list(walks[0].boxes)
    looks = _descent_looks(losses)
    figure, axes = _subplots(1, len(walks), (2.7 * len(walks), 3.5))
    moving = []
    for axis, walk in zip(axes[0], walks, strict=True):
        axis.add_patch(Rectangle(*_corner(walk.target), facecolor="0.85", edgecolor="black", linewidth=1.2))
        axis.add_patch(Rectangle(*_corner(walk.anchor), fill=False, edgecolor="0.45", linestyle=":", linewidth=1.2))
        for loss in losses:
            box = Rectangle(*_corner(walk.anchor), fill=False, linewidth=1.8, **looks[loss])
            axis.add_patch(box)
            moving.append((box, walk.boxes[loss]))
        axis.set(title=walk.title, aspect="equal", xticks=(), yticks=(), **_limits(walk))
    handles: list[Any] = [Patch(facecolor="0.85", edgecolor="black", label="target")]
    handles.append(Line2D([], [], color="0.45", ls=":", label="anchor"))
    handles += [Line2D([], [], linewidth=1.8, label=loss, **looks[loss]) for loss in losses]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    last = len(moving[0][1]) - 1
    # Boxes move fast at first: half of the frames show the first fifth.
    shown = sorted({round(last * (k / (frames - 1)) ** 2.3) for k in range(frames)})
    canvas: Any = FigureCanvasAgg(figure)
    title = figure.suptitle("iteration 0", fontsize=10)
    canvas.draw()
    figure.set_layout_engine("none")  # it stays as it was laid out for the first picture
    pictures = []
    for iteration in shown:
        for box, way in moving:
            (x, y), width, height = _corner(way[iteration])
            box.set_bounds(x, y, width, height)
        title.set_text(f"iteration {iteration}")
        canvas.draw()
        picture = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
        pictures.append(picture.convert("RGB").quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    times = [1000] + [80] * (len(pictures) - 2) + [2500]  # milliseconds
    with replacing(path) as file:
        first, *others = pictures
        first.save(file, format="GIF", save_all=True, append_images=others, duration=times[: len(pictures)], loop=0)


def _corner(box: Sequence[float]) -> tuple[tuple[float, float], float, float]:
    x, y, width, height = box
    return (x - width / 2, y - height / 2), width, height


def _limits(walk: Walk) -> dict[str, tuple[float, float]]:
    """A square around target and anchor, with room for what grows on its way; a box may leave it."""
    ends = (walk.target, walk.anchor)
    spans = [
        (min(box[k] - box[2 + k] / 2 for box in ends), max(box[k] + box[2 + k] / 2 for box in ends)) for k in (0, 1)
    ]
    half = 0.7 * max(high - low for low, high in spans)
    (x, y) = ((low + high) / 2 for low, high in spans)
    return {"xlim": (x - half, x + half), "ylim": (y - half, y + half)}
