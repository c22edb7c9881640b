"""What came out of a simulation: curves, groups of cases, tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..page import aligned, fixed, number
from .cases import AREAS, ASPECTS, STARTS
from .config import Descent
from .descent import LEVELS, UNIT, Tally

GROUPS = {"start": STARTS, "area": AREAS, "aspect": ASPECTS, "target aspect": ASPECTS}
"""By what cases are told apart, and the values it has; the axes of ``(3, 7, 7, 7)``."""
_SHAPE = tuple(len(values) for values in GROUPS.values())


def describe(descent: Descent, tally: Tally) -> dict[str, Any]:
    """All curves of a descent, as plain values.

    Errors are means over cases, of |x − X| + |y − Y| + |w − W| + |h − H| in units of a square target's side; shares are
    of the cases with an IoU above each level. The first value of a curve is that of the start.
    """
    errors = tally.errors.numpy().reshape(-1, *_SHAPE)
    above = tally.above.numpy()[:, ::-1].cumsum(1)[:, ::-1]  # that level, or a higher one
    above = above.reshape(-1, len(LEVELS) + 1, *_SHAPE)
    curves = _curves(errors, above)
    groups = {
        name: [
            {"value": value, **_curves(errors.take([k], axis), above.take([k], axis + 1))}
            for k, value in enumerate(values)
        ]
        for axis, (name, values) in enumerate(GROUPS.items(), 1)
    }
    return {**descent._asdict(), **curves, "groups": groups}


def _curves(errors: np.ndarray, above: np.ndarray) -> dict[str, Any]:
    """Of some cases: how many, their mean error by iteration, and the shares above each level. None of no cases."""
    totals = errors.sum((1, 2, 3, 4)).tolist()  # whole numbers: whatever their order
    counts = above.sum((2, 3, 4, 5)).T.tolist()
    cases = counts[0][0]
    curve = [total * UNIT / cases for total in totals] if cases else []
    return {
        "cases": cases,
        "error": curve,
        "error_over_iterations": sum(curve[1:]) if cases else None,
        "shares": [[count / cases for count in at_level] if cases else [] for at_level in counts[1:]],
    }


def curves_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each descent and iteration."""
    return list(_rows(summary, lambda descent: [({}, descent)]))


def groups_table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each descent, group and iteration."""
    return list(
        _rows(
            summary,
            lambda descent: [
                ({"group": name, "value": group["value"]}, group)
                for name, groups in descent["groups"].items()
                for group in groups
            ],
        )
    )


def _rows(summary: Mapping[str, Any], parts: Any) -> Iterator[dict[str, Any]]:
    for descent in summary["descents"]:
        for named, curves in parts(descent):
            for k, error in enumerate(curves["error"]):
                yield {
                    "rule": descent["rule"],
                    "loss": descent["loss"],
                    **named,
                    "iteration": k,
                    "cases": curves["cases"],
                    "error_sum": error * curves["cases"],
                    "error": error,
                    **{f"iou_above_{level}": shares[k] for level, shares in zip(LEVELS, curves["shares"], strict=True)},
                }


def simulation_text(summary: Mapping[str, Any]) -> str:
    """A table for a terminal."""
    iterations = summary["iterations"]
    heads = ["rule", "loss", "error", f"over {iterations} iterations", *(f"IoU > {level}" for level in LEVELS)]
    rows = [heads]
    for descent in summary["descents"]:
        shares = [fixed(shares[-1]) for shares in descent["shares"]]
        error, over = number(descent["error"][-1]), fixed(descent["error_over_iterations"], 1)
        rows.append([descent["rule"], descent["loss"], error, over, *shares])
    about = f"{summary['cases']:,} cases, {iterations} iterations. Error: L1 of x, y, w, h, mean over cases at the end;"
    return "\n".join([about, "shares of cases with an IoU above a level.", "", *aligned(rows)])
