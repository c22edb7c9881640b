"""The report of a simulation: figures, an animation for each rule, and one page that holds them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..losses import LOSSES
from ..page import fixed, number, write_page
from ..plots import Walk, animate_walks, draw_if_possible, plot_descents, plot_groups, plot_shares, plot_surfaces
from .cases import CENTER, PER_CENTER, RADIUS
from .config import Descent, SimulationConfig
from .descent import FARTHEST, LEVELS, UNIT, steps
from .summary import GROUPS

REPORT = "report.html"
FIGURES = "figures"
_MOST_DRAWN = 10_000
"""Anchor centers in a surface."""

# Center x, center y, width, height; the targets are centered at 0.
_WALKS = {
    "diagonal": ((2.2, 1.8, 1.2, 0.7), (0.0, 0.0, 0.71, 1.41)),
    "horizontal": ((2.6, 0.0, 1.0, 0.8), (0.0, 0.0, 1.41, 0.71)),
    "vertical": ((0.0, 2.6, 0.8, 1.0), (0.0, 0.0, 1.0, 1.0)),
    "contained": ((0.3, -0.2, 2.4, 2.2), (0.0, 0.0, 0.71, 1.41)),
}


def write_report(
    folder: Path,
    config: SimulationConfig,
    summary: Mapping[str, Any],
    at: Tensor,
    finals: Mapping[Descent, Tensor],
) -> None:
    """The page, and its figures beside it.

    Args:
        folder: of the simulation.
        config: of it.
        summary: of it.
        at: the anchors' centers.
        finals: of each descent the error of each center at the end, in `UNIT`.
    """
    by_rule: dict[str, dict[str, Any]] = defaultdict(dict)
    for descent in summary["descents"]:
        by_rule[descent["rule"]][descent["loss"]] = descent
    figures = _figures(folder / FIGURES, summary["cases"], by_rule)
    for rule, of_rule in by_rule.items():
        figures[f"surface-{rule}"] = folder / FIGURES / f"surface-{rule}.png"
        shown = torch.linspace(0, len(at) - 1, min(len(at), _MOST_DRAWN)).long()
        errors = {loss: finals[Descent(rule, loss)][shown].numpy() * (UNIT / PER_CENTER) for loss in of_rule}
        draw_if_possible(figures[f"surface-{rule}"], partial(plot_surfaces, at[shown].numpy(), errors, CENTER))
        figures[f"walks-{rule}"] = folder / FIGURES / f"walks-{rule}.gif"
        draw_if_possible(figures[f"walks-{rule}"], partial(animate_walks, _walks(config, rule, list(of_rule))))
    write_page(
        folder / REPORT,
        "simulation.html.jinja",
        config=config,
        summary=summary,
        by_rule=by_rule,
        findings=findings(config.wh_factor, by_rule),
        figures=figures,
        levels=LEVELS,
        radius=RADIUS,
        definitions={loss: (LOSSES[loss].definition, config.parameters.get(loss, {})) for loss in config.losses},
        folder=folder,
    )


def _figures(folder: Path, cases: int, by_rule: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    def each(of: Callable[[Any], Any]) -> dict[str, dict[str, Any]]:
        return {rule: {loss: of(descent) for loss, descent in of_rule.items()} for rule, of_rule in by_rule.items()}

    def of_group(name: str) -> Callable[[Any], list[tuple[str, float]]]:
        return lambda descent: [
            (_label(group["value"]), group["error_over_iterations"])
            for group in descent["groups"][name]
            if group["cases"]
        ]

    paths = {name: folder / f"{name}.png" for name in ("errors", "shares", "groups")}
    draw_if_possible(paths["errors"], partial(plot_descents, each(lambda descent: descent["error"]), cases))
    draw_if_possible(paths["shares"], partial(plot_shares, each(lambda descent: descent["shares"]), LEVELS))
    titles = {name: f"{name} of the anchor" for name in GROUPS} | {
        "start": "at the start",
        "target aspect": "aspect of the target",
    }
    draw_if_possible(paths["groups"], partial(plot_groups, {titles[name]: each(of_group(name)) for name in GROUPS}))
    return paths


_GROUPS = {
    "start": "how the anchor lies at the start",
    "area": "area of the anchor",
    "aspect": "aspect of the anchor",
    "target aspect": "aspect of the target",
}


def _label(value: float | str) -> str:
    """
    >>> [_label(value) for value in ("disjoint", 0.25, 1 / 3, 1.33, 4.0)]
    ['disjoint', '1/4', '1/3', '1.33', '4']
    """
    if isinstance(value, str):
        return value
    return f"1/{round(1 / value)}" if value < 0.5 or value in (1 / 2, 1 / 3) else f"{value:g}"


def _walks(config: SimulationConfig, rule: str, losses: list[str]) -> list[Walk]:
    anchors, targets = (torch.tensor(boxes, dtype=torch.float64).T for boxes in zip(*_WALKS.values(), strict=True))
    ways = {}
    for loss in losses:
        way = torch.stack([boxes for boxes, _ in steps(config, Descent(rule, loss), anchors, targets)])
        ways[loss] = way.nan_to_num(FARTHEST).clamp(-FARTHEST, FARTHEST)  # a lost box is far out of the picture
    return [
        Walk(
            title,
            targets[:, k].tolist(),
            anchors[:, k].tolist(),
            {loss: way[:, :, k].tolist() for loss, way in ways.items()},
        )
        for k, title in enumerate(_WALKS)
    ]


def findings(wh_factor: float, by_rule: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The order of the losses under each rule, and whether it is the same."""
    names = {
        "published": "As published",
        "exact": f"With exact gradients, those of width and height times {wh_factor:g}",
    }
    sentences, orders = [], {}
    for rule, of_rule in by_rule.items():
        over = {loss: descent["error_over_iterations"] for loss, descent in of_rule.items()}
        end = {loss: descent["error"][-1] for loss, descent in of_rule.items()}
        orders[rule] = sorted(over, key=over.__getitem__)
        sentences.append(
            f"{names[rule]}: error per case summed over the iterations: {_ranked(over, 1)}; at the end: {_ranked(end)}."
        )
    if len(orders) == 2:
        published, exact = orders.values()
        common = [loss for loss in exact if loss in published]
        if common == published:
            sentences.append("Both put the losses that they share in the same order.")
        else:
            order = " < ".join(common)
            sentences.append(
                f"With exact gradients the order of these losses is {order}: what the published curves show is the"
                " hand-written directions, not the losses they are named for."
            )
    sentences.append(
        "All losses have one learning rate: one with larger gradients goes faster, and may never settle. An order holds"
        " for this rate and schedule."
    )
    return sentences


def _ranked(errors: Mapping[str, float], decimals: int | None = None) -> str:
    """From the smallest on; what differs by less than 2 % is called about equal.

    >>> _ranked({"a": 2.0, "b": 1.0, "c": 1.01}, 2)
    'b 1.00 ≈ c 1.01 < a 2.00'
    """
    ranked = sorted(errors.items(), key=lambda item: item[1])
    texts = [f"{loss} {number(error) if decimals is None else fixed(error, decimals)}" for loss, error in ranked]
    signs = [" ≈ " if after <= 1.02 * before else " < " for (_, before), (_, after) in itertools.pairwise(ranked)]
    return "".join(part for pair in zip(texts, [*signs, ""], strict=True) for part in pair)
