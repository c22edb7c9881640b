"""The questions, and the folder and page of their answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from .. import page
from ..errors import nearest
from ..page import aligned, fixed, listed, number, percent
from ..plots import require_matplotlib
from ..plots_advice import plot_fits
from .answer import Answer
from .classes import cross_entropy_or_dice, focal_gamma, mse_or_cross_entropy
from .imbalance import Fit, Task, try_losses
from .overlap import eiou_moving_away, ranges, which_iou_loss
from .regression import l1_or_l2, smooth_l1_regimes

PAGE = "advice.html"
Tell = Callable[[str], None]


class Question(NamedTuple):
    text: str
    answer: Callable[[Tell], Answer]
    """It is told what is done meanwhile, where that takes seconds."""


def imbalance(tell: Tell, task: Task | None = None) -> Answer:
    share, fits = try_losses(task or Task(), tell)
    plain, weighted, dice = fits["cross-entropy"], fits["weighted cross-entropy"], fits["Dice"]
    at_half = {name: fit.scores.dice for name, fit in fits.items()}
    moved = {name: fit.best.dice for name, fit in fits.items()}
    early = len(plain.steps) // 5
    return Answer(
        (
            f"Foreground is {number(100 * share, 2)} % of the pixels here. A classifier of pixels that is fitted with"
            f" plain cross-entropy finds {percent(plain.scores.recall)} of it, and {percent(plain.scores.precision)} of"
            f" what it finds is right. Weighted by the frequencies it finds {percent(weighted.scores.recall)}, of which"
            f" {percent(weighted.scores.precision)} is right. Dice asks for both at once:"
            f" {percent(dice.scores.recall)} and {percent(dice.scores.precision)}.",
            f"Early on, after {plain.steps[early]} of {plain.steps[-1]} steps,"
            f" {listed([f'{name} finds {percent(fit.recall[early])}' for name, fit in fits.items()])}.",
            f"With the threshold ½ the Dice of what is found is {_ranked(at_half)}. A threshold can be moved"
            f" afterwards: with the one that is best on the pictures it was fitted to, it is {_ranked(moved)}."
            f" That of weighted cross-entropy goes from {fixed(weighted.scores.dice)} to {fixed(weighted.best.dice)} at"
            f" {fixed(weighted.threshold, 2)}: a weight changes what a probability means, more than what is known.",
            "One seed, one small classifier, drawn pictures: this shows what the losses are after, not which is best"
            " for your data.",
        ),
        partial(plot_fits, fits),
        "On pictures that the classifiers were not fitted to. Losses are scaled to 1 at the start, since they are"
        " numbers of different kinds.",
        {"share": share, "fits": fits},
        table=_fit_table(fits),
    )


def _fit_table(fits: Mapping[str, Fit]) -> list[list[str]]:
    head = ["fitted with", "precision", "recall", "Dice", "best threshold", "Dice with it"]
    rows = [
        [name, *(fixed(score) for score in fit.scores), fixed(fit.threshold, 2), fixed(fit.best.dice)]
        for name, fit in fits.items()
    ]
    return [head, *rows]


def _ranked(values: Mapping[str, float]) -> str:
    """
    >>> _ranked({"a": 0.5, "b": 0.75, "c": 0.6})
    '0.500 (a) to 0.750 (b)'
    """
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return f"{fixed(values[least])} ({least}) to {fixed(values[most])} ({most})"


def _at_once(answer: Callable[[], Answer]) -> Callable[[Tell], Answer]:
    return lambda tell: answer()


QUESTIONS: dict[str, Question] = {
    "cross-entropy-or-dice": Question("Cross-entropy or Dice?", _at_once(cross_entropy_or_dice)),
    "mse-or-cross-entropy": Question(
        "Squared error or cross-entropy, behind a sigmoid?", _at_once(mse_or_cross_entropy)
    ),
    "imbalance": Question("What if one pixel in a hundred is foreground?", imbalance),
    "focal-gamma": Question("Which γ has the focal loss, and what does it do?", _at_once(focal_gamma)),
    "l1-or-l2": Question("L1 or L2, with outliers?", _at_once(l1_or_l2)),
    "smooth-l1": Question("What does smooth L1 do, and what is β?", _at_once(smooth_l1_regimes)),
    "which-iou-loss": Question(
        "Which IoU loss still moves a box that lies apart, is contained, or has the right center?",
        _at_once(which_iou_loss),
    ),
    "ranges": Question("What are IoU loss and GIoU of boxes that do not overlap?", _at_once(ranges)),
    "eiou-moving-away": Question("Can EIoU fall while a box moves away?", _at_once(eiou_moving_away)),
}


def advise(
    keys: Sequence[str], folder: Path, tell: Callable[[str], None] = print, *, progress: Tell | None = None
) -> None:
    """Answer questions: the text is told, the figures and a page of all of it are written.

    Args:
        keys: of `QUESTIONS`; none: all.
        folder: gets ``advice.html``, and a PNG of each question's name.
        tell: is given the text of each answer as soon as it is there.
        progress: is told what is being done, where that takes seconds.

    Raises:
        ValueError: there is no such question.
    """
    chosen = [find(key) for key in dict.fromkeys(keys)] or list(QUESTIONS)
    require_matplotlib()  # what is used last is missed first
    page.environment()
    answers: dict[str, Answer] = {}
    figures: dict[str, Path] = {}
    for key in chosen:
        answers[key] = QUESTIONS[key].answer(progress or (lambda _: None))
        figures[key] = folder / f"{key}.png"
        answers[key].draw(figures[key])
        tell(answer_text(key, answers[key]) + "\n")
    page.write_page(
        folder / PAGE,
        "advice.html.jinja",
        questions=QUESTIONS,
        answers=answers,
        figures=figures,
        unbroken=unbroken,
    )


def find(key: str) -> str:
    """The key; or an error that names the nearest."""
    if key not in QUESTIONS:
        hint = nearest(key.lower(), QUESTIONS) or f"known: {', '.join(QUESTIONS)}"
        raise ValueError(f"no question named {key!r}; {hint}")
    return key


def answer_text(key: str, answer: Answer) -> str:
    """For a terminal."""
    parts = [f"{key}: {QUESTIONS[key].text}"]
    parts += map(_filled, answer.sentences)
    if answer.wrong:
        parts.append(_filled(f"Often read, and wrong: {answer.wrong}"))
    if answer.table:
        parts += ["", *(f"  {line}" for line in aligned(answer.table))]
    if answer.caption:
        parts.append(_filled(answer.caption))
    return "\n".join(parts)


def _filled(text: str) -> str:
    return fill(unbroken(text), 100, initial_indent="  ", subsequent_indent="  ").replace(_NO_BREAK, " ")


_NO_BREAK = "\u00a0"


def unbroken(text: str) -> str:
    """With no line broken inside a formula, or before a %."""
    return re.sub(r" (?=[−=×%] ?)|(?<=[−=×]) ", _NO_BREAK, text)
