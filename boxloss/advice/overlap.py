"""Questions about box losses of the IoU family: which of them moves which box, and by what values."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ..losses import similarity
from ..page import fixed, listed, number
from ..plots_advice import Panel, plot_fields, plot_panels
from .answer import Answer
from .fields import CASES, FAMILY, along, boxes, gradient_field, make_loss, plain_losses, pull, slopes

Pulls = dict[str, dict[str, tuple[float, float]]]
"""By loss and case: how strongly the center is pulled, and the sides."""
_LONG, _SQUARE = (10.0, 1.0), (1.0, 1.0)
_TOUCHING = 5.5
"""The distance of their centers, the long box to the right."""


def which_iou_loss() -> Answer:
    losses = plain_losses()
    pulls = {name: {key: pull(loss, case) for key, case in CASES.items()} for name, loss in losses.items()}
    always = [name for name, of in pulls.items() if all(of[case][part] > 0 for case, part in _PULLS)]
    strongest = max(pulls, key=lambda name: pulls[name]["centered"][1])
    fields = {case.title: {name: gradient_field(losses[name], case) for name in FAMILY} for case in CASES.values()}
    return Answer(
        (
            f"Apart from the target: {_moved(pulls, 'apart', 0)}.",
            f"Inside it: {_moved(pulls, 'contained', 0)}. There the hull is the target, and so GIoU is IoU; both only"
            " make the sides grow.",
            f"Around it: {_moved(pulls, 'around', 0)}.",
            f"Right center, wrong sides: {_moved(pulls, 'centered', 1)}, most strongly {strongest}.",
            f"In all of these cases something pulls the right way under {listed(always)}. Which of them trains a better"
            " detector only trainings tell: boxloss compare.",
        ),
        partial(plot_fields, fields, {case.title: case.axes for case in CASES.values()}),
        "Against the gradient: arrows say where the prediction’s center is moved to, in the last row how its width and"
        " height change; colors how strongly, on one scale for all. White with a cross: no push.",
        {"pulls": pulls, "always": always},
        table=_pull_table(pulls),
        caption="Of one box for each case: the slope along the way to the target’s center; for sides, the slopes of"
        " width and height towards the target’s, added.",
    )


_PULLS = {
    ("apart", 0): "apart",
    ("contained", 0): "inside",
    ("around", 0): "around",
    ("contained", 1): "sides, inside",
    ("around", 1): "sides, around",
    ("centered", 1): "sides, centered",
}
"""By case and part, 0 the center, 1 the sides: the columns of the table."""


def _moved(pulls: Pulls, case: str, part: int) -> str:
    """Which losses pull the center or the sides towards the target's, and which push them away; the table has them all.

    >>> _moved({"a": {"apart": (1.0, 0.0)}, "b": {"apart": (0.0, 0.0)}}, "apart", 0)
    'a pulls the center; the others do not, b among them'
    >>> _moved({"a": {"apart": (1.0, 0.0)}, "b": {"apart": (2.0, 0.0)}}, "apart", 0)
    'all of them pull the center'
    """
    what = ("center", "sides")[part]
    strength = {name: of[case][part] for name, of in pulls.items()}
    toward, away = ([name for name in strength if strength[name] * sign > 0] for sign in (1, -1))
    idle = [name for name in strength if strength[name] == 0]
    if len(toward) == len(pulls):
        return f"all of them pull the {what}"
    parts = [f"{listed(toward)} pull{'s' * (len(toward) == 1)} the {what}" if toward else f"no loss pulls the {what}"]
    if away:
        parts.append(f"{listed(away)} push{'es' * (len(away) == 1)} the {what} away")
    if idle:
        known = [name for name in ("iou", "giou") if name in idle] or idle[:1]
        parts.append(f"the others do not, {listed(known)} among them")
    return "; ".join(parts)


def _pull_table(pulls: Pulls) -> list[list[str]]:
    rows = [[name, *(number(of[case][part], 2) for case, part in _PULLS)] for name, of in pulls.items()]
    return [["pull on the center", *_PULLS.values()], *rows]


def eiou_moving_away() -> Answer:
    distance = torch.linspace(_TOUCHING, 60, 5451, dtype=torch.float64)
    courses = {name: along(loss, distance, _LONG, _SQUARE) for name, loss in plain_losses().items()}
    falling = [name for name, (_, slope) in courses.items() if bool((slope < -1e-9).any())]
    value = courses["eiou"][0]
    lowest = int(value.argmin())
    farthest, steps = walk("eiou", _TOUCHING + 0.5)
    near = torch.linspace(0, 30, 601, dtype=torch.float64)
    lines = {
        name: (near.tolist(), along(make_loss(name, {}), near, _LONG, _SQUARE)[0].tolist())
        for name in ("giou", "diou", "ciou", "eiou")
    }
    return Answer(
        (
            "Yes, for boxes of unequal sides. A box of 10 × 1 beside a target of 1 × 1 has an EIoU loss of"
            f" {fixed(float(value[0]))} where they touch, and {fixed(float(value[lowest]))} when its center has moved"
            f" from {number(_TOUCHING, 2)} to {fixed(float(distance[lowest]), 1)} away; only then it rises, towards 2.",
            "The difference of the widths is divided by the width of the hull, which grows with the distance. The"
            f" losses here that fall while such a box moves away: {listed(falling)}.",
            f"It is no trap. Descending from a distance of {number(_TOUCHING + 0.5, 2)} in steps of half the slope"
            f" the box first goes as far as {fixed(farthest, 1)}, shrinks on the way, turns round, and overlaps its"
            f" target after {steps} steps. But a loss that falls does not always mean a box that gets nearer.",
        ),
        partial(
            plot_panels,
            [
                Panel(
                    "a box of 10 × 1 beside a target of 1 × 1",
                    "distance of the centers, in sides of the target",
                    "loss",
                    lines,
                    y_range=(0, 2.1),
                    notes={4.5: "contained", _TOUCHING: "touching"},
                )
            ],
        ),
        "Loss by distance, along the box’s long side.",
        {
            "touching": float(value[0]),
            "lowest": float(value[lowest]),
            "at": float(distance[lowest]),
            "falling": falling,
            "walk": (farthest, steps),
        },
    )


def walk(name: str, start: float, rate: float = 0.5, most: int = 20_000) -> tuple[float, int]:
    """A long box descends, all its sides free: how far away it went, and the steps till it overlaps the target."""
    loss, at, target = make_loss(name, {}), boxes(start, 0.0, _LONG), boxes(0.0, 0.0, _SQUARE)
    farthest = start
    for step in range(most):
        if at[0] - at[2] / 2 < _SQUARE[0] / 2:
            return farthest, step
        at = at - rate * slopes(loss, at, target)[1]
        farthest = max(farthest, float(at[0]))
    return farthest, most


def ranges() -> Answer:
    near = torch.linspace(0, 6, 241, dtype=torch.float64)[1:]  # at 0 a loss has a kink
    shown = {name: along(make_loss(name, {}), near, _SQUARE, _SQUARE) for name in ("iou", "giou", "diou")}
    apart = near > 1
    iou, slope = (part[apart] for part in shown["iou"])
    far = similarity("giou", torch.tensor([1e6, 0, 1e6 + 1, 1]).double(), torch.tensor([0, 0, 1, 1]).double())
    facts: dict[str, Any] = {
        "iou apart": (float(iou.min()), float(iou.max())),
        "slope apart": float(slope.abs().max()),
        "giou far": float(far),
        "giou loss at 6": float(shown["giou"][0][-1]),
    }
    panels = [
        Panel(f"two boxes of 1 × 1: {ordinate}", "distance of the centers", ordinate, lines)
        for ordinate, lines in (
            ("loss", {name: (near.tolist(), value.tolist()) for name, (value, _) in shown.items()}),
            ("slope by distance", {name: (near.tolist(), slope.tolist()) for name, (_, slope) in shown.items()}),
        )
    ]
    return Answer(
        (
            f"The IoU loss of boxes that do not overlap is {number(facts['iou apart'][1], 1)}, the largest there is,"
            f" however far apart they are. It is its gradient that is {number(facts['slope apart'])}, and so they"
            " stay where they are.",
            "GIoU is 1 for equal boxes, falls below 0 for boxes apart, and tends to −1: two boxes of 1 × 1 a million"
            f" apart have {fixed(facts['giou far'], 6)}. Its loss, 1 − GIoU, goes from 0 to 2"
            f" ({fixed(facts['giou loss at 6'])} at a distance of 6).",
            "The bounds of every loss: boxloss losses.",
        ),
        partial(plot_panels, panels),
        "A square moves away from one of its size; they part at a distance of 1. CIoU and EIoU are DIoU"
        " here, since the sides are equal.",
        facts,
        "an IoU loss of 0 for boxes apart (that is the IoU, and the gradient), and GIoU from 0 to −1 (it is −1 to 1).",
    )
