"""Questions about losses of classes and masks, where a probability p meets a target t."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..classification import binary_cross_entropy_loss, cross_entropy_loss, focal_loss
from ..page import fixed, number
from ..plots_advice import Map, Panel, plot_maps, plot_panels
from ..region import dice_loss
from .answer import Answer

Loss = Callable[[Tensor, Tensor], Tensor]


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Of a probability; the library has it for boxes only."""
    return (logits.sigmoid() - target).square()


def dice(logits: Tensor, target: Tensor) -> Tensor:
    """Each prediction is a mask of its own."""
    return dice_loss(logits.reshape(-1, 1), target.reshape(-1, 1), squared=True).reshape(logits.shape)


def dice_of(p: Tensor, target: Tensor, smooth: float = 0.0) -> Tensor:
    """The same of probabilities."""
    one, other = p.reshape(-1, 1), target.reshape(-1, 1)
    return dice_loss(one, other, squared=True, activation="none", smooth=smooth).reshape(p.shape)


LOSSES_OF_CLASSES: dict[str, Loss] = {
    "cross-entropy": binary_cross_entropy_loss,
    "squared error": squared_error,
    "focal, γ = 2": partial(focal_loss, alpha=None, gamma=2.0),
    "Dice, of one pixel": dice,
}
"""Of logits and targets."""


def slope(loss: Loss, at: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """A loss's values and slopes, by what it is given."""
    at = at.detach().clone().requires_grad_()
    value = loss(at, target)
    (found,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), found


def class_panels(points: int = 201) -> list[Panel]:
    """Each loss of a prediction whose target is 1: values, slopes by the probability, slopes by the logit."""
    p = torch.linspace(0.01, 0.99, points, dtype=torch.float64)
    found = {name: slope(loss, p.logit(), torch.ones_like(p)) for name, loss in LOSSES_OF_CLASSES.items()}
    values = {name: (p.tolist(), value.tolist()) for name, (value, _) in found.items()}
    by_p = {name: (p.tolist(), (by_logit / (p * (1 - p))).tolist()) for name, (_, by_logit) in found.items()}
    by_logit = {name: (p.tolist(), by_logit.tolist()) for name, (_, by_logit) in found.items()}
    return [
        Panel("target 1: loss", "p", "loss", values, y_range=(0, 4)),
        Panel("slope by the probability p", "p", "d loss / dp", by_p, y_range=(-6, 0.2)),
        Panel("slope by the logit x, p = σ(x)", "p", "d loss / dx", by_logit),
    ]


def cross_entropy_or_dice() -> Answer:
    points = torch.arange(1, 100, dtype=torch.float64) / 100
    t, p = torch.meshgrid(points, points, indexing="ij")
    _, of_entropy = slope(binary_cross_entropy_loss, p.logit(), t)
    _, by_p = slope(dice_of, p, t)
    _, by_logit = slope(dice, p.logit(), t)
    of_coefficient = 2 * t * (t**2 - p**2) / (p**2 + t**2) ** 2
    off = float(torch.maximum((of_entropy - (p - t)).abs(), (by_p + of_coefficient).abs() / (1 / t)).max())
    digits = min(12, int(-math.log10(max(off, 1e-16))))
    rare = torch.tensor([0.001, 0.01], dtype=torch.float64)
    explodes = float(slope(dice_of, *rare)[1])
    nothing = torch.tensor(0.3, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    empty, smoothed = (float(slope(partial(dice_of, smooth=smooth), *nothing)[1]) for smooth in (0.0, 1.0))
    missed, one = torch.tensor(0.001, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    pushes = {name: float(slope(loss, missed.logit(), one)[1]) for name, loss in LOSSES_OF_CLASSES.items()}
    entropy_missed, dice_missed = pushes["cross-entropy"], pushes["Dice, of one pixel"]
    titles = {
        "cross-entropy, by the logit:\np − t": of_entropy,
        "Dice loss, by p:\n−2t(t² − p²)/(p² + t²)²": by_p,
        "Dice loss, by the logit:\nthe same × p(1 − p)": by_logit,
    }
    maps = [Map(title, points.numpy(), points.numpy(), slopes.numpy()) for title, slopes in titles.items()]
    return Answer(
        (
            "Cross-entropy if every pixel or box counts alike: its slope by the logit is p − t, never beyond ±1, and"
            " largest where the answer is most wrong.",
            "Dice if the overlap of a rare region counts. The slope of the Dice coefficient by the probability is"
            " 2t(t² − p²)/(p² + t²)², that of the loss its negative; the gradients computed here agree with both"
            f" formulas to {digits} digits.",
            f"It explodes where p and t are both small: at t = 0.01, p = 0.001 it is {number(explodes)}.",
            f"It vanishes where nothing is there: at t = 0, p = 0.3 it is {number(empty)}, so an image without"
            " foreground teaches nothing; and by the logit where a prediction is confidently wrong: at t = 1,"
            f" p = 0.001 cross-entropy pushes with {number(entropy_missed)}, Dice with {number(dice_missed)}.",
            "This is one pixel. In an image Dice divides by sums over all pixels, which tames the explosion, not the"
            f" rest; smooth = 1 gives what is empty a slope again ({number(smoothed)} at p = 0.3). Their sum is a usual"
            " choice: cross-entropy always pushes, Dice asks for overlap. What comes of"
            " it: boxloss advise imbalance.",
        ),
        partial(plot_maps, maps, "p, predicted", "t, target", "slope"),
        "Slopes over prediction and target. Blue pushes p up, red down; white: hardly or not at all.",
        {"off": off, "explodes": explodes, "empty": empty, "smoothed": smoothed, **pushes},
        "the two formulas side by side, as if they were by the same variable. p − t is by the logit, the other one by"
        " the probability; by the logit Dice’s has a factor p(1 − p) more.",
    )


def mse_or_cross_entropy() -> Answer:
    x, one = torch.linspace(-10, 10, 201, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    pair: dict[str, Loss] = {"cross-entropy": binary_cross_entropy_loss, "squared error": squared_error}
    curves = {name: slope(loss, x, one.expand_as(x))[1].abs() for name, loss in pair.items()}
    stuck = {name: float(curve[0]) for name, curve in curves.items()}
    steps = {name: steps_to_half(loss, -6.0) for name, loss in pair.items()}
    shared = torch.linspace(0.005, 0.395, 79, dtype=torch.float64)  # of the first wrong class; the other has the rest
    p = torch.stack((torch.full_like(shared, 0.6), shared, 0.4 - shared), 1)
    right = torch.zeros(len(p), dtype=torch.int64)
    entropies = cross_entropy_loss(p.log(), right)
    errors = (p - torch.tensor([1.0, 0, 0])).square().sum(1)
    lopsided, level = 77, 39  # (0.6, 0.39, 0.01) and (0.6, 0.2, 0.2)
    quoted = {
        "cross-entropy": (float(entropies[lopsided]), float(entropies[level])),
        "squared error": (float(errors[lopsided]), float(errors[level])),
    }
    two = [
        Panel(
            "target 1, p = σ(x)",
            "logit x",
            "strength of the push, |d loss / dx|",
            {name: (x.tolist(), curve.tolist()) for name, curve in curves.items()},
            log=True,
        ),
        Panel(
            "target (1, 0, 0), p = (0.6, s, 0.4 − s)",
            "s, the probability of one wrong class",
            "loss",
            {
                "cross-entropy": (shared.tolist(), entropies.tolist()),
                "squared error": (shared.tolist(), errors.tolist()),
            },
            y_range=(0, 0.6),
        ),
    ]
    return Answer(
        (
            "Cross-entropy, for anything behind a sigmoid or softmax.",
            "The slope of the squared error by the logit is 2(p − t)·p(1 − p): it vanishes where the sigmoid is"
            f" saturated, also where it is wrong. At x = −10 and target 1 cross-entropy pushes with"
            f" {fixed(stuck['cross-entropy'])}, the squared error with {number(stuck['squared error'])}.",
            f"Descending in steps of the slope from x = −6, cross-entropy reaches p = ½ after"
            f" {steps['cross-entropy']} steps, the squared error after {steps['squared error']}.",
            "Of several classes cross-entropy looks at the right one alone: with target (1, 0, 0) it is"
            f" {fixed(quoted['cross-entropy'][0])} for (0.6, 0.39, 0.01) and {fixed(quoted['cross-entropy'][1])} for"
            f" (0.6, 0.2, 0.2). The squared error is {fixed(quoted['squared error'][0])} and"
            f" {fixed(quoted['squared error'][1])}: it also wants the wrong ones level.",
            "That is about values. By the logits cross-entropy too pushes each wrong class down, by its probability.",
        ),
        partial(plot_panels, two),
        "Left: how strongly a prediction is pushed, on a logarithmic scale. Right: losses while a fixed rest of 0.4"
        " moves between the two wrong classes.",
        {"stuck": stuck, "steps": steps, "three classes": quoted},
    )


def steps_to_half(loss: Loss, x: float, most: int = 100_000) -> int:
    """Steps of gradient descent, each as long as the slope, from a logit to 0 towards target 1."""
    at, one = torch.tensor(x, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for step in range(most):
        if at >= 0:
            return step
        at = at - slope(loss, at, one)[1]
    return most


def focal_gamma() -> Answer:
    gammas = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    one = torch.ones_like(p)

    def of_gamma(gamma: float) -> Tensor:
        return focal_loss(p.logit(), one, alpha=None, gamma=gamma)

    values = {gamma: of_gamma(gamma) for gamma in gammas}
    easy, hard = 89, 9  # p = 0.9 and 0.1 for what is right
    factor = {gamma: float(value[easy] / values[0.0][easy]) for gamma, value in values.items()}
    crowd = {gamma: 1000 * float(value[easy]) / float(value[hard]) for gamma, value in values.items()}
    lines = {f"γ = {gamma:g}": (p.tolist(), value.tolist()) for gamma, value in values.items()}
    weights = {f"γ = {gamma:g}": (p.tolist(), (value / values[0.0]).tolist()) for gamma, value in values.items()}
    panels = [
        Panel("focal loss, α left out", "p of the right answer", "loss", lines, y_range=(0, 3)),
        Panel("its factor (1 − p)^γ", "p of the right answer", "focal loss / cross-entropy", weights),
    ]
    return Answer(
        (
            "γ = 2 is the paper’s; it tries 0 to 5, and 0 is the cross-entropy.",
            f"An easy prediction, with p = 0.9 for what is right, keeps {number(factor[2.0])} of its cross-entropy with"
            f" γ = 2, and {number(factor[0.2])} with γ = 0.2.",
            f"A thousand such easy ones weigh {number(crowd[0.0])} times as much as one with p = 0.1 under"
            f" cross-entropy, {number(crowd[0.2])} times with γ = 0.2, and {number(crowd[2.0])} times with γ = 2."
            " That is what the focal loss is for.",
            f"It makes all losses smaller, so its sum wants another gain or learning rate. At p = ½ it is"
            f" {number(math.log(2) * 0.25)} with γ = 2, the cross-entropy {number(math.log(2))}.",
        ),
        partial(plot_panels, panels),
        "The focal loss and what it leaves of the cross-entropy.",
        {"factor": factor, "crowd": crowd},
        "γ = 0.2. That is next to the cross-entropy; it is α that is 0.25.",
    )
