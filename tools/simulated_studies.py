"""Studies whose truth is known, put through the statistics of `boxloss compare`: how often do these err?

    python tools/simulated_studies.py                       minutes on one core
    python tools/simulated_studies.py --repetitions 50      a glance

Three tables: findings where there is nothing to find; how often the 95 % interval holds the truth, for figures that are
means over images; and the same for AP, of simulated detections.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np

from boxloss.study.matches import Category, Floats, Matches, Whole
from boxloss.study.statistics import Interval, bootstrap_weights, interval, sign_flip

IMAGES = 87
SEED_NOISE = {"large": 3.0, "equal": 1.0, "small": 1 / 3}  # over the noise of the mean of the images

Rng = np.random.Generator


def normal(rng: Rng, seeds: int) -> Floats:
    return rng.standard_normal(seeds)


def skewed(rng: Rng, seeds: int) -> Floats:
    """Mostly a little luck, sometimes a training that falls far behind: a lognormal's long tail."""
    return -np.exp(1.5 * rng.standard_normal(seeds))


def false_positives(draw: Callable[[Rng, int], Floats], studies: int, *, seeds: int = 8, seed: int = 0) -> float:
    """Share of studies that find a difference between two losses which are the same."""
    rng = np.random.default_rng(seed)
    return float(np.mean([sign_flip((draw(rng, seeds) - draw(rng, seeds)).tolist()) <= 0.05 for _ in range(studies)]))


def covered(found: Interval | None, truth: float) -> bool:
    assert found is not None
    return found.low <= truth <= found.high


def mean_coverage(
    seeds: int, ratio: float, repetitions: int, *, paired: bool, seed: int = 0, replicates: int = 500
) -> float:
    """Of figures that are means over images: a trial's value on image i is mu + a_s + b_i + e_si.

    Paired, the truth is the difference of two losses, whose b_i are the same but for a part of their own.

    Args:
        seeds: of a loss.
        ratio: the deviation of a_s over that of the mean of b_i, of the difference if paired.
        repetitions: studies.
        paired: the difference of two losses instead of one loss.
        seed: of the luck of trainings and images.
        replicates: of the images, in each study.
    """
    rng = np.random.default_rng(seed)
    hits = []
    for repetition in range(repetitions):
        luck = rng.standard_normal((2, seeds, 1)) * ratio / math.sqrt(IMAGES)
        images = 3 * paired * rng.standard_normal(IMAGES) + rng.standard_normal((2, 1, IMAGES))
        values = luck + images + rng.standard_normal((2, seeds, IMAGES))
        trials = 0.1 + values[0] - values[1] if paired else 0.1 + values[0]
        weights = bootstrap_weights(IMAGES, replicates, repetition)
        found = interval(trials.mean(axis=1), weights @ trials.T / IMAGES, IMAGES)
        hits.append(covered(found, 0.1))
    return float(np.mean(hits))


def scenes(rng: Rng, images: int) -> tuple[Whole, Floats]:
    """The image of each object, and how hard it is to find, which is in part its image's doing."""
    image = np.repeat(np.arange(images), rng.integers(1, 4, images))
    return image, rng.standard_normal(images)[image] + 0.7 * rng.standard_normal(len(image))


def detector(rng: Rng, image: Whole, hardness: Floats, images: int, skill: float) -> Matches:
    """One of that skill: an IoU with each object, a score that hints at it, and false boxes, 3 an image."""
    quality = skill - hardness + 0.7 * rng.standard_normal(len(image))
    iou = 0.45 + 0.5 / (1 + np.exp(-quality))
    false = rng.integers(0, images, 3 * images)
    place = np.concatenate([image, false])
    score = np.concatenate([quality, rng.normal(-1.5, 1.0, len(false))]) + rng.standard_normal(len(place))
    order = np.argsort(-score, kind="stable")
    tp = np.concatenate([iou, np.zeros(len(false))])[order] >= np.linspace(0.5, 0.95, 10)[:, None]
    areas = np.broadcast_to(tp, (4, *tp.shape))
    truths = np.broadcast_to(np.bincount(image, minlength=images), (4, images))
    category = Category(place[order], score[order], areas, np.zeros_like(areas), truths)
    return Matches(images, [category], np.zeros((2, images)))


def average_precision(matches: Matches, weights: Whole) -> Floats:
    return matches.thresholds(weights).mean(axis=1)


SKILLS = 0.5, 0.3  # of the two losses
LUCK = 0.1  # deviation of a training's skill


def true_aps(seed: int = 0, *, images: int = 2000, seeds: int = 200) -> tuple[float, float]:
    """AP of the two losses over images and trainings without end, or nearly so."""
    rng = np.random.default_rng([seed, 1])
    once = np.ones((1, images), dtype=np.int64)
    found = [
        [
            float(average_precision(detector(rng, *scenes(rng, images), images, skill + LUCK * luck), once)[0])
            for skill in SKILLS
        ]
        for luck in rng.standard_normal(seeds)
    ]
    first, second = np.mean(found, axis=0)
    return float(first), float(second)


def ap_coverage(
    seeds: int, repetitions: int, truth: tuple[float, float], *, seed: int = 0, replicates: int = 200
) -> tuple[float, float]:
    """Of AP: of one loss, and of its difference from the other on the same images."""
    rng = np.random.default_rng(seed)
    hits = []
    for repetition in range(repetitions):
        image, hardness = scenes(rng, IMAGES)
        once, drawn = np.ones((1, IMAGES), dtype=np.int64), bootstrap_weights(IMAGES, replicates, repetition)
        weights = np.concatenate([once, drawn])
        ours, theirs = (
            np.stack(
                [
                    average_precision(detector(rng, image, hardness, IMAGES, skill + LUCK * luck), weights)
                    for luck in rng.standard_normal(seeds)
                ],
                axis=1,
            )
            for skill in SKILLS
        )
        cases = (ours, truth[0]), (ours - theirs, truth[0] - truth[1])
        hits.append([covered(interval(rows[0], rows[1:], IMAGES), wanted) for rows, wanted in cases])
    single, difference = np.mean(hits, axis=0)
    return float(single), float(difference)


def report(repetitions: int, seed: int) -> Iterator[str]:
    yield f"Findings in {repetitions} studies of two equal losses, 8 seeds (to be at most 7 %)\n"
    yield "| seed noise | p <= .05 |\n|---|---|"
    for draw in (normal, skewed):
        yield f"| {draw.__name__} | {false_positives(draw, repetitions, seed=seed):.1%} |"
    yield f"\nCoverage of the 95 % interval in {repetitions} studies, {IMAGES} images (to be 92 to 98 %)\n"
    yield "| seeds | seed noise over image noise | one loss | paired difference |\n|---|---|---|---|"
    for seeds in (3, 5, 8):
        for name, ratio in SEED_NOISE.items():
            both = [mean_coverage(seeds, ratio, repetitions, paired=paired, seed=seed) for paired in (False, True)]
            yield f"| {seeds} | {name} | {both[0]:.1%} | {both[1]:.1%} |"
    fewer = max(1, repetitions // 4)
    truth = true_aps(seed)
    yield f"\nThe same for AP, in {fewer} studies; truly {truth[0]:.4f}, by {truth[0] - truth[1]:.4f} the better one\n"
    yield "| seeds | one loss | paired difference |\n|---|---|---|"
    for seeds in (3, 5, 8):
        single, difference = ap_coverage(seeds, fewer, truth, seed=seed)
        yield f"| {seeds} | {single:.1%} | {difference:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=500, help="studies per row")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for line in report(options.repetitions, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
