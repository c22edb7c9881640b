"""Losses compared on pairs of boxes that a detector predicted and should have: no training, seconds.

It shows which losses rank predictions as IoU does, which give no gradient where boxes lie apart, and how hard each
pulls, from which follows the gain that puts it on a par with another.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .. import plots
from .._version import __version__
from ..boxes import as_pair
from ..files import read_text, write_csv, write_json
from ..folders import refuse_foreign
from ..geometry import BoxPair
from ..losses import LOSSES
from ..modules import BoxLoss
from ..page import agreement, aligned, environment, fixed, listed, number, percent, write_page

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

FIGURES = "pairs.json"
"""The file that marks a folder as ours."""

PRED = ("px1", "py1", "px2", "py2")
TARGET = ("gx1", "gy1", "gx2", "gy2")

RANGES = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
"""Of IoU, each with its upper end; pairs of IoU 0 are counted by themselves."""


WEAK = 0.9
"""A rank agreement below it is worth a word."""
STEADY = 1.5
"""So is a mean gradient that changes by more than this factor."""


class Measured(NamedTuple):
    """What a loss gives each pair, ``(N,)``."""

    values: Array
    norms: Array
    """Euclidean norms of the gradient with respect to pred: unit of the loss, per unit of length."""


class Comparison(NamedTuple):
    figures: dict[str, Any]
    """What ``pairs.json`` holds."""
    iou: Array
    """Of each pair, ``(N,)``."""
    measured: dict[str, Measured]


def every_loss() -> dict[str, BoxLoss]:
    """All of `LOSSES` that need no parameter, with their defaults, as `compare_pairs` takes them."""
    needless = (name for name, loss in LOSSES.items() if not any(p.required for p in loss.parameters.values()))
    return {name: BoxLoss(name, reduction="none") for name in needless}


def compare_pairs(path: Path, losses: Mapping[str, BoxLoss], folder: Path) -> dict[str, Any]:
    """Compare losses on the pairs of a file, in float64.

    Args:
        path: a file as `read_pairs` takes it.
        losses: modules with reduction ``"none"`` and boxes as corners, by the name they are shown under. The first is
            the reference that gradients are compared with.
        folder: gets ``pairs.json``, ``pairs_summary.csv``, ``pairs.html``, ``values.png`` and ``gradients.png``. It
            must be new or empty, or hold an earlier comparison, which is replaced.

    Returns:
        What ``pairs.json`` holds. Values and gradients are in the loss's unit, gradients per unit of length.

    Raises:
        ImportError: a package of the extra ``study`` is missing.
        ValueError: no losses; a loss that reduces or takes other boxes than corners; a bad file; a value or gradient
            that is not finite; a folder that holds something else.
        OSError: the file can't be read or the folder not be written.
    """
    refuse_foreign(folder / FIGURES, "comparison of pairs")
    plots.require_matplotlib()
    environment()
    comparison = measure_pairs(path, losses)
    _write(comparison, folder)
    return comparison.figures


def measure_pairs(path: Path, losses: Mapping[str, BoxLoss]) -> Comparison:
    """What `compare_pairs` computes, with the same errors; nothing is written."""
    _check_losses(losses)
    pred, target = read_pairs(path)
    measured = {name: _measure(name, loss, pred, target) for name, loss in losses.items()}
    iou = BoxPair(*as_pair(pred, target)).iou.numpy()
    sizes = (target[:, 2:] - target[:, :2]).prod(1).sqrt().numpy()
    rows = [_row(name, losses[name], one, iou, sizes) for name, one in measured.items()]
    _compare_gradients(rows)
    figures: dict[str, Any] = {
        "boxloss": __version__,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "pairs": len(iou),
        "pairs_by_iou": {key: int(chosen.sum()) for key, chosen in _by_iou(iou).items()},
        "reference": next(iter(losses)),
        "losses": rows,
    }
    figures["findings"] = _findings(figures)
    return Comparison(figures, iou, measured)


def read_pairs(path: Path) -> tuple[Tensor, Tensor]:
    """Predicted boxes and their targets from a CSV file with a header.

    Args:
        path: UTF-8; columns ``px1, py1, px2, py2`` and ``gx1, gy1, gx2, gy2`` (or ``tx1, …``, but not both), in any
            order and any one unit of length; other columns are ignored.

    Returns:
        pred and target, corners ``(N, 4)`` in float64.

    Raises:
        ValueError: not text, columns missing or there twice, no rows; a coordinate that is not a finite number, or an
            inverted box: the message names the line and the column.
        OSError: the file can't be read.
    """
    rows = _rows(path)
    line, header = next(rows, (1, []))
    columns = [name.strip() for name in header]
    wanted = _wanted(columns, f"{path}, line {line}")
    numbers = []
    for line, cells in rows:
        where = f"{path}, line {line}"
        if len(cells) != len(columns):
            raise ValueError(f"{where}: {len(cells)} cells under a header of {len(columns)}")
        found = dict(zip(columns, cells, strict=True))
        box = [_coordinate(found[name], f"{where}, column {name}") for name in wanted]
        for low in (0, 1, 4, 5):
            if box[low + 2] < box[low]:
                names = f"{wanted[low]}, {wanted[low + 2]}"
                raise ValueError(f"{where}, columns {names}: the box is inverted: {box[low]:g} > {box[low + 2]:g}")
        numbers.append(box)
    if not numbers:
        raise ValueError(f"{path}: no rows under the header")
    boxes = torch.tensor(numbers, dtype=torch.float64)
    return boxes[:, :4], boxes[:, 4:]


def rank_agreement(a: Array, b: Array) -> float | None:
    """Spearman's correlation of two sequences ``(N,)``, ties ranked by their mean; None where one is constant.

    >>> rank_agreement(np.array([1, 2, 2, 9]), np.array([0.1, 0.2, 0.4, 0.8]))  # 4.5 / sqrt(4.5 · 5)
    0.9486832980505138
    """
    ranks_a, ranks_b = _centered_ranks(a), _centered_ranks(b)
    scale = math.sqrt((ranks_a @ ranks_a) * (ranks_b @ ranks_b))
    return float(ranks_a @ ranks_b) / scale if scale else None


def pairs_text(figures: Mapping[str, Any]) -> str:
    """The figures of `compare_pairs` as a table for a terminal, a row per loss, and what it shows."""
    rows = [["loss", "ranks as IoU", "overlapping", "no gradient", "apart", "gradient", "relative", "matching gain"]]
    for row in figures["losses"]:
        ranks, gradient = row["agreement"], row["gradient"]
        rows.append(
            [
                row["name"],
                *(agreement(ranks[key]) for key in ("all", "overlapping")),
                *(percent(gradient[key]) for key in ("zero_share", "zero_share_apart")),
                *(number(gradient[key]) for key in ("mean", "ratio", "gain")),
            ]
        )
    return "\n".join([*aligned(rows), "", *figures["findings"]])


# -- reading ----------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines with their numbers; empty ones are passed over."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no file of pairs {path}") from None
    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 text: it holds a NUL")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if cells)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def _wanted(columns: Sequence[str], where: str) -> list[str]:
    """The columns of the coordinates; each must be there, once."""
    others = tuple("t" + name[1:] for name in TARGET)
    if {*TARGET, *others} <= {*columns}:
        raise ValueError(
            f"{where}: expected columns {', '.join(TARGET)} or {', '.join(others)}, got both; rename those that are"
            " not the targets"
        )
    wanted = [*PRED, *(others if "tx1" in columns and "gx1" not in columns else TARGET)]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ValueError(f"{where}: no column {', '.join(missing)}; found: {', '.join(columns) or 'nothing'}")
    twice = [name for name in wanted if columns.count(name) > 1]
    if twice:
        raise ValueError(f"{where}: expected each column once, got {', '.join(twice)} more than once")
    return wanted


def _coordinate(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"{where}: expected a number, got {cell!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {cell!r}")
    return value


def _check_losses(losses: Mapping[str, BoxLoss]) -> None:
    if not losses:
        raise ValueError("no losses to compare")
    for name, loss in losses.items():
        box_format = loss.box_format or "xyxy"
        if loss.reduction != "none" or box_format != "xyxy":
            raise ValueError(
                f"{name}: expected reduction 'none' and box_format 'xyxy', got {loss.reduction!r}, {box_format!r}"
            )


# -- measuring --------------------------------------------------------------------------------------------------------


def _measure(name: str, loss: BoxLoss, pred: Tensor, target: Tensor) -> Measured:
    pred = pred.clone().requires_grad_()
    values = loss(pred, target)
    (gradient,) = torch.autograd.grad(values.sum(), pred)
    measured = Measured(values.detach().numpy(), gradient.norm(dim=1).numpy())
    for what, numbers in zip(("value", "gradient"), measured, strict=True):
        if not np.isfinite(numbers).all():
            first = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise ValueError(f"{name}: its {what} is not finite at pair {first + 1}, {pred[first].tolist()}")
    return measured


def _row(name: str, loss: BoxLoss, measured: Measured, iou: Array, sizes: Array) -> dict[str, Any]:
    values, norms = measured
    apart = iou == 0
    gradient = _spread(norms)
    gradient["zero_share"] = float((norms == 0).mean())
    gradient["zero_share_apart"] = float((norms[apart] == 0).mean()) if apart.any() else None
    gradient["rank_with_size"] = rank_agreement(norms, sizes)
    gradient["by_iou"] = {key: float(norms[at].mean()) if at.any() else None for key, at in _by_iou(iou).items()}
    return {
        "name": name,
        "loss": loss.name,
        "parameters": dict(loss.loss_parameters),
        "gain": loss.gain,
        "agreement": {
            "all": rank_agreement(-values, iou),
            "overlapping": rank_agreement(-values[~apart], iou[~apart]),
        },
        "value": _spread(values),
        "gradient": gradient,
    }


def _spread(numbers: Array) -> dict[str, Any]:
    q05, median, q95 = np.quantile(numbers, (0.05, 0.5, 0.95)).tolist()
    return {"mean": float(numbers.mean()), "median": median, "q05": q05, "q95": q95}


def _by_iou(iou: Array) -> dict[str, Array]:
    """Which pairs lie in each range."""
    return {"0": iou == 0} | {f"{low:g}-{high:g}": (iou > low) & (iou <= high) for low, high in RANGES}


def _compare_gradients(rows: Sequence[dict[str, Any]]) -> None:
    """Add how hard each loss pulls beside the first, and the gain with which it would pull as hard."""
    reference = rows[0]["gradient"]["mean"]
    for row in rows:
        gradient = row["gradient"]
        gradient["ratio"] = gradient["mean"] / reference if reference else None
        gradient["gain"] = row["gain"] * reference / gradient["mean"] if gradient["mean"] else None


def _centered_ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return ranks - (len(values) + 1) / 2


# -- saying -----------------------------------------------------------------------------------------------------------


def _findings(figures: Mapping[str, Any]) -> list[str]:
    """What the figures show, in sentences."""
    return [text for text in (say(figures) for say in (_apart, _ranking, _pull, _course)) if text]


def _apart(figures: Mapping[str, Any]) -> str:
    pairs, apart = figures["pairs"], figures["pairs_by_iou"]["0"]
    if not apart:
        return "All pairs overlap."
    shares = {row["name"]: row["gradient"]["zero_share_apart"] for row in figures["losses"]}
    without = [name if share == 1 else f"{name} ({percent(share)} of them)" for name, share in shares.items() if share]
    then = (
        f"There {listed(without)} {_verb(without, 'give')} no gradient: nothing pulls such a prediction to its target."
        if without
        else "Every loss gives a gradient there."
    )
    return f"{apart:,} of {pairs:,} pairs ({percent(apart / pairs)}) do not overlap. {then}"


def _ranking(figures: Mapping[str, Any]) -> str:
    found = {row["name"]: row["agreement"] for row in figures["losses"]}
    known = {name: ranks["overlapping"] for name, ranks in found.items() if ranks["overlapping"] is not None}
    if not known:
        return "IoU does not rank these pairs: fewer than two overlap, or all by the same share."
    exact = [name for name in known if known[name] == 1]
    weak = sorted((name for name in known if known[name] < WEAK), key=known.__getitem__)
    texts = []
    if exact:
        texts.append(f"{listed(exact)} {_verb(exact, 'rank')} the pairs that overlap exactly as IoU does.")
    if weak:
        texts.append(f"Least like IoU: {listed([f'{name} ({agreement(known[name])})' for name in weak])}.")
    elif not exact:
        texts.append(f"Every loss ranks the pairs that overlap nearly as IoU does (at least {fixed(WEAK, 1)}).")
    for name, overlapping in known.items():
        overall = found[name]["all"]
        if overall < overlapping - 0.1:
            texts.append(
                f"Over all pairs {name} falls from {agreement(overlapping)} to {agreement(overall)}: it rates some that"
                " lie apart as better than some that overlap."
            )
    return " ".join(texts)


def _pull(figures: Mapping[str, Any]) -> str:
    known = {row["name"]: row["gradient"]["ratio"] for row in figures["losses"] if row["gradient"]["ratio"] is not None}
    if len(known) < 2:
        return ""
    least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return (
        f"Mean gradient norms reach from {number(known[least])} ({least}) to {number(known[most])} ({most}) times that"
        f" of {figures['reference']}: a loss put in another's place needs another gain."
    )


def _course(figures: Mapping[str, Any]) -> str:
    poor, *_, good = (key for key in figures["pairs_by_iou"] if key != "0")
    by_iou = {row["name"]: row["gradient"]["by_iou"] for row in figures["losses"]}
    change = {name: means[good] / means[poor] for name, means in by_iou.items() if means[good] and means[poor]}
    if not change:
        return ""
    ordered = sorted(change, key=change.__getitem__)
    groups = {
        "weakens under": [name for name in ordered if change[name] < 1 / STEADY],
        "grows under": [name for name in reversed(ordered) if change[name] > STEADY],
    }
    texts = [
        f"{verb} {listed([f'{name} (× {number(change[name], 2)})' for name in names])}"
        for verb, names in groups.items()
        if names
    ]
    return (
        f"From pairs of IoU up to {RANGES[0][1]:g} to those over {RANGES[-1][0]:g} the mean gradient"
        f" {'; it '.join(texts) or 'keeps its strength under every loss'}."
    )


def _verb(names: Sequence[str], plural: str) -> str:
    return plural if len(names) > 1 else f"{plural}s"


# -- writing ----------------------------------------------------------------------------------------------------------


def _write(comparison: Comparison, folder: Path) -> None:
    figures, iou, measured = comparison
    # pairs.json first: a folder that holds it may be written again after this was stopped.
    write_json(folder / FIGURES, figures, indent=2)
    write_csv(folder / "pairs_summary.csv", [dict(_flat(_without(row, "parameters"))) for row in figures["losses"]])
    means = {row["name"]: _steps(row["gradient"]["by_iou"]) for row in figures["losses"]}
    values, gradients = folder / "values.png", folder / "gradients.png"
    by_name, norms = ({name: getattr(one, what) for name, one in measured.items()} for what in ("values", "norms"))
    plots.draw_if_possible(values, partial(plots.plot_pair_values, iou, by_name))
    plots.draw_if_possible(gradients, partial(plots.plot_pair_gradients, iou, norms, means))
    write_page(folder / "pairs.html", "pairs.html.jinja", figures=figures, values=values, gradients=gradients)


def _steps(by_iou: Mapping[str, float | None]) -> list[tuple[float, float, float]]:
    means = list(by_iou.values())[1:]
    return [(low, high, mean) for (low, high), mean in zip(RANGES, means, strict=True) if mean]


def _without(row: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != left_out}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping's numbers, their names joined by underscores."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}_")
        else:
            yield prefix + key, value
