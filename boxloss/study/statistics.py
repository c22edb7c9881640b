"""What a study of losses can claim: intervals over seeds and images, tests over seeds, corrected for how many."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .matches import METRICS, Floats, Matches, Whole

LEVEL = 0.05
"""Of the tests; intervals are of 95 %."""

_EXACT = 20  # values whose sign patterns are all tried
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float
    left_out: int
    """Replicates that had nothing to find."""


def bootstrap_weights(images: int, replicates: int, seed: int) -> Whole:
    """How often each replicate has each image, ``(B, I)``: I drawn with replacement.

    >>> bootstrap_weights(4, 2, seed=0).sum(axis=1).tolist()
    [4, 4]
    """
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=replicates)


def t_quantile(probability: float, freedom: float) -> float:
    """What Student's t stays below with a probability.

    With t = √v·sinh(y) the density is proportional to cosh(y)^−v, for any real number v of degrees of freedom a
    smooth function without a heavy tail: one Gauss-Legendre rule integrates it, Newton's method finds the y.

    Args:
        probability: between 0 and 1.
        freedom: v >= 1.

    Returns:
        To a relative error of 1e-9, if the probability is between 1e-5 and 1 − 1e-5.

    Raises:
        ValueError: a number outside its range.

    >>> round(t_quantile(0.75, 1), 9)  # Cauchy's: tan(π/4)
    1.0
    >>> round(t_quantile(0.975, 2), 6)  # .95·√(2 / (1 − .95²))
    4.302653
    """
    if not (0 < probability < 1 and 1 <= freedom < math.inf):
        raise ValueError(f"expected 0 < probability < 1 and freedom >= 1, got {probability!r} and {freedom!r}")
    end = math.asinh(math.sqrt(math.expm1(90 / freedom)))  # cosh(y)^−v is e^−45
    wanted = abs(2 * probability - 1) * _area(end, freedom)
    y = 0.0
    for _ in range(100):  # from below, as the area bends down; the step before the last bits is the last
        step = (wanted - _area(y, freedom)) / math.exp(-freedom / 2 * math.log1p(math.sinh(y) ** 2))
        y = min(y + step, end)
        if abs(step) <= 1e-14 * y:
            break
    return math.copysign(math.sqrt(freedom) * math.sinh(y), probability - 0.5)


def _area(y: float, freedom: float) -> float:
    """∫ cosh^−v from 0 to y."""
    heights = np.exp(-freedom / 2 * np.log1p(np.sinh(y / 2 * (1 + _NODES)) ** 2))
    return y / 2 * float(_WEIGHTS @ heights)


def interval(values: ArrayLike, replicates: ArrayLike, images: int) -> Interval | None:
    """Mean over seeds, with what other seeds and other images could have made of it.

    ::

        mean ± t(ν) · √(Vs + Vi)
        Vs = variance of the values / n
        Vi = variance over the replicates of their mean over seeds
        ν  = (Vs + Vi)² / (Vs² / (n − 1) + Vi² / (images − 1))           Satterthwaite 1946

    Args:
        values: a figure by seed, ``(n,)``.
        replicates: the same of bootstrapped images, ``(B, n)``, a row of the same images for all seeds; rows with NaN
            are left out and counted.
        images: how many were drawn from.

    Returns:
        None with fewer than 2 seeds, with a value of NaN, or with fewer than 2 replicates that are not left out.

    >>> found = interval([1, 3], [[1, 3], [2, 4]], images=2)  # Vs = 2/2, Vi = 1/2, ν = 1.5² / (1 + 1/4) = 1.8
    >>> found.mean, round((found.high - found.mean) / t_quantile(0.975, 1.8), 9)  # √1.5
    (2.0, 1.224744871)
    """
    by_seed, drawn = np.asarray(values, dtype=np.float64), np.asarray(replicates, dtype=np.float64)
    if len(by_seed) < 2 or np.isnan(by_seed).any():
        return None
    means = drawn.mean(axis=1)
    known = means[~np.isnan(means)]
    if len(known) < 2:
        return None
    mean = float(by_seed.mean())
    of_seeds, of_images = float(by_seed.var(ddof=1)) / len(by_seed), float(known.var(ddof=1))
    half = 0.0
    if of_seeds + of_images > 0:
        share = of_seeds / (of_seeds + of_images)
        freedom = 1 / (share**2 / (len(by_seed) - 1) + (1 - share) ** 2 / max(images - 1, 1))
        half = t_quantile(1 - LEVEL / 2, freedom) * math.sqrt(of_seeds + of_images)
    return Interval(mean, mean - half, mean + half, len(means) - len(known))


def sign_flip(differences: Sequence[float]) -> float:
    """Two-sided test that paired differences are as likely of one sign as of the other.

    The share of the 2^n ways to sign them whose mean is as far from 0 as theirs, or farther. Of more than 20, 2^20 ways
    are drawn, always the same, and their own is added. It takes the images as given: other seeds, not other images.

    Raises:
        ValueError: no difference, or one that is not finite.

    >>> sign_flip([1, 2, 3])  # 6 is the largest sum of 8, −6 the smallest
    0.25
    >>> sign_flip([1, 2, -1])  # 2, −2: of ±1 ±2 ±1 all but the two sums of 0
    0.75
    """
    sizes = np.abs(np.asarray(differences, dtype=np.float64))
    if not len(sizes) or not np.isfinite(sizes).all():
        raise ValueError(f"differences: expected at least one, all finite, got {differences!r}")
    # A sum's rounding must not make a tie of two ways into a greater and a smaller one.
    bar = abs(math.fsum(differences)) - 1e-9 * math.fsum(sizes)
    if len(sizes) <= _EXACT:
        sums = np.zeros(1)
        for size in sizes:
            sums = np.concatenate([sums + size, sums - size])
        return float(np.mean(np.abs(sums) >= bar))
    rng, sums = np.random.default_rng(0), np.zeros(2**_EXACT)
    for size in sizes:
        sums += np.where(rng.integers(0, 2, len(sums), dtype=bool), size, -size)
    return float((1 + np.count_nonzero(np.abs(sums) >= bar)) / (1 + len(sums)))


def holm(ps: Sequence[float]) -> list[float]:
    """P values adjusted for how many they are, each to be held against the level (Holm 1979).

    >>> holm([0.04, 0.01, 0.03])  # 3 · .01; 2 · .03; 1 · .04 is not below the one before
    [0.06, 0.03, 0.06]
    """
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, k in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[k]))
        adjusted[k] = least
    return adjusted


def smallest_p(seeds: int, comparisons: int) -> float:
    """The least that `sign_flip` and then `holm` can give: above the level, nothing can be found.

    >>> smallest_p(seeds=5, comparisons=1), smallest_p(seeds=8, comparisons=4)
    (0.0625, 0.03125)
    """
    ways = 2.0 ** (1 - seeds) if seeds <= _EXACT else 1 / (1 + 2**_EXACT)
    return min(1.0, comparisons * ways)


def probability_of_improvement(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Share of all pairs of a value ``(n,)`` and another ``(m,)`` in which ours is greater; a tie is half a win.

    >>> probability_of_improvement([3, 2], [2, 1])  # 3 > 2, 3 > 1, 2 = 2, 2 > 1
    0.875
    """
    above = np.subtract.outer(np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64))
    return float((1 + np.sign(above)).mean() / 2)


def analyse(
    matches: Mapping[str, Mapping[str, Mapping[int, Matches]]],
    reference: str,
    *,
    replicates: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that a report of a study tells, as JSON has it (None for NaN); the same bytes for the same matches.

    Args:
        matches: by data set, loss and seed of the training. Seeds may be missing, of trials that failed.
        reference: the loss that the others are compared with, by the seeds that both have.
        replicates: of the images, the same for all losses and seeds of a data set.
        seed: of the replicates.

    Returns:
        ::

            reference, replicates
            comparisons         how many tests of AP there are, over losses and data sets
            smallest_p          that any of them can give, adjusted
            exploratory         whether that is above .05: nothing can be significant
            datasets
                name
                    images
                    losses
                        name
                            seeds
                            metrics         by name of `METRICS`: mean, low, high, left_out, values (by seed)
                            thresholds      AP at .5:.05:.95, means over seeds
                            difference      from the reference, whose own is None
                                seeds           that both have
                                metrics         as above, of the differences
                                p, p_holm       `sign_flip` of AP; adjusted by `holm` over the whole study
                                smallest_p      that so many seeds can give, not adjusted
                                improvement     `probability_of_improvement` in AP
                                significant     p_holm <= .05

    Raises:
        ValueError: a data set without the reference, or with detectors of different numbers of images.
    """
    datasets = {name: _dataset(losses, reference, replicates, seed) for name, losses in matches.items()}
    differences = [loss["difference"] for dataset in datasets.values() for loss in dataset["losses"].values()]
    tested = [difference for difference in differences if difference and difference["p"] is not None]
    for difference, p in zip(tested, holm([difference["p"] for difference in tested]), strict=True):
        difference |= {"p_holm": p, "significant": p <= LEVEL}
    seeds = max((len(difference["seeds"]) for difference in tested), default=1)
    least = smallest_p(seeds, len(tested) or 1)
    return {
        "reference": reference,
        "replicates": replicates,
        "comparisons": len(tested),
        "smallest_p": least,
        "exploratory": least > LEVEL,
        "datasets": datasets,
    }


class _Trials(NamedTuple):
    """Those of one loss on one data set."""

    seeds: list[int]
    figures: dict[str, Floats]
    """By metric, ``(1 + B, n)``: of the images, then of the replicates."""
    thresholds: list[float | None]

    def of(self, seeds: Sequence[int]) -> dict[str, Floats]:
        """The figures of some seeds."""
        columns = [self.seeds.index(seed) for seed in seeds]
        return {metric: figures[:, columns] for metric, figures in self.figures.items()}


def _dataset(losses: Mapping[str, Mapping[int, Matches]], reference: str, replicates: int, seed: int) -> dict[str, Any]:
    if reference not in losses:
        raise ValueError(f"reference: expected one of {', '.join(losses)}, got {reference!r}")
    counts = {found.images for by_seed in losses.values() for found in by_seed.values()}
    if len(counts) > 1:
        raise ValueError(f"expected detectors of the same images, got {', '.join(map(str, sorted(counts)))} of them")
    images = max(counts, default=1)
    weights = np.concatenate([np.ones((1, images), dtype=np.int64), bootstrap_weights(images, replicates, seed)])
    trials = {loss: _trials(by_seed, weights) for loss, by_seed in losses.items()}
    return {
        "images": images if counts else None,
        "losses": {
            loss: {
                "seeds": ours.seeds,
                "metrics": _metrics(ours.figures, images, least=0.0),
                "thresholds": ours.thresholds,
                "difference": None if loss == reference else _difference(ours, trials[reference], images),
            }
            for loss, ours in trials.items()
        },
    }


def _trials(by_seed: Mapping[int, Matches], weights: Whole) -> _Trials:
    found = [by_seed[seed] for seed in sorted(by_seed)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets threads work side by side
        rows = list(pool.map(lambda matches: matches.figures(weights), found))
    none = [np.empty((len(weights), 0))]  # stands for no seed at all
    figures = {metric: np.concatenate(none + [row[metric][:, None] for row in rows], axis=1) for metric in METRICS}
    curves = np.array([matches.thresholds(weights[:1])[0] for matches in found])
    return _Trials(sorted(by_seed), figures, [_plain(curve.mean()) for curve in curves.T])


def _metrics(figures: Mapping[str, Floats], images: int, least: float) -> dict[str, Any]:
    """Of figures between ``least`` and 1, beyond which no interval reaches."""
    return {metric: _summary(rows[0], rows[1:], images, least) for metric, rows in figures.items()}


def _summary(values: Floats, replicates: Floats, images: int, least: float) -> dict[str, Any]:
    found = interval(values, replicates, images)
    return {
        "mean": _plain(values.mean()) if len(values) else None,
        "low": found and max(found.low, least),
        "high": found and min(found.high, 1.0),
        "left_out": found and found.left_out,
        "values": list(map(_plain, values)),
    }


def _difference(ours: _Trials, theirs: _Trials, images: int) -> dict[str, Any]:
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds]
    mine, other = ours.of(seeds), theirs.of(seeds)
    figures = {metric: mine[metric] - other[metric] for metric in METRICS}
    by_seed = figures["AP"][0]
    known = bool(seeds) and not np.isnan(by_seed).any()
    return {
        "seeds": seeds,
        "metrics": _metrics(figures, images, least=-1.0),
        "p": sign_flip(by_seed.tolist()) if known else None,
        "p_holm": None,
        "smallest_p": smallest_p(len(seeds), 1) if known else None,
        "improvement": probability_of_improvement(mine["AP"][0], other["AP"][0]) if known else None,
        "significant": False,
    }


def _plain(number: float) -> float | None:
    return None if math.isnan(number) else float(number)
