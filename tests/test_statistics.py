"""The statistics of a study: bit for bit pycocotools', by hand, and on simulated studies whose truth is known."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest

from boxloss.study import matches as matches_module
from boxloss.study.matches import METRICS, Category, Matches, match
from boxloss.study.statistics import (
    Interval,
    analyse,
    bootstrap_weights,
    holm,
    interval,
    probability_of_improvement,
    sign_flip,
    smallest_p,
    t_quantile,
)
from boxloss.training.evaluate import EVALUATORS, coco_evaluation, coco_figures
from boxloss.training.evaluate import FIGURES as TWELVE

ROOT = Path(__file__).parent.parent
COCO = ROOT.parent / "shared" / "data" / "cocoapi_eval"
FIGURES = METRICS[:6]
CATEGORIES = [{"id": key, "name": str(key)} for key in (9, 2, 5, 4)]  # without truths: 4


# -- scenes ----------------------------------------------------------------------------------------------------------


def some_truth(seed, images=12, first=1):
    """Crowds, small boxes to large ones, images without a box, in no order of ids; ``first`` is the first box's id."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(images) * 3 + 2).tolist()
    boxes = []
    for image in ids:
        for _ in range(int(rng.integers(0, 9)) * (image % 4 > 0)):
            width, height = np.exp(rng.uniform(2, 5.5, 2)).round(1).tolist()
            x, y = rng.uniform(0, 300, 2).round(1).tolist()
            box = {"bbox": [x, y, width, height], "area": 0.8 * width * height, "iscrowd": int(rng.random() < 0.15)}
            boxes.append(box | {"image_id": image, "category_id": int(rng.choice([9, 2, 5]))})
    order = rng.permutation(len(boxes))
    boxes = [{"id": first + k} | boxes[i] for k, i in enumerate(order)]
    return {"images": [{"id": image} for image in ids], "categories": CATEGORIES, "annotations": boxes}


def detect(truth, seed, noise=0.15, decimals=15, false=20):
    """Most boxes, moved and found up to twice, and ``false`` ones; few ``decimals`` make scores equal."""
    rng = np.random.default_rng(seed)
    found = []
    for box in truth["annotations"]:
        for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
            x, y, width, height = box["bbox"]
            shift = noise * rng.standard_normal(4)
            moved = [x + shift[0] * width, y + shift[1] * height, *np.exp(shift[2:]) * (width, height)]
            category = box["category_id"] if rng.random() < 0.9 else 4
            found.append((box["image_id"], category, moved, rng.beta(3, 2)))
    ids = [image["id"] for image in truth["images"]]
    for image in [*rng.choice(ids[1:], false), *[ids[1]] * false]:  # one image has none
        box = [*rng.uniform(0, 300, 2), *rng.uniform(10, 200, 2)]
        found.append((image, rng.choice([9, 2]), box, rng.beta(1, 4)))
    return [
        {
            "image_id": int(image),
            "category_id": int(category),
            "bbox": [float(side) for side in box],
            "score": round(float(score), decimals),
        }
        for image, category, box, score in found
    ]


def copied(truth, detections, weights):
    """The same with each image as often as it weighs, copies beside each other in the order of the ids."""
    images, boxes, found = [], [], []
    for weight, image in zip(weights, sorted(image["id"] for image in truth["images"]), strict=True):
        for _ in range(weight):
            new = {"image_id": len(images) + 1}
            images.append({"id": len(images) + 1})
            boxes += [box | new for box in truth["annotations"] if box["image_id"] == image]
            found += [box | new for box in detections if box["image_id"] == image]
    boxes = [box | {"id": k} for k, box in enumerate(boxes, 1)]
    return truth | {"images": images, "annotations": boxes}, found


def assert_is_pycocotools(truth, detections):
    """To the last bit."""
    expected, found = coco_figures(truth, detections), match(truth, detections).figures(ones(len(truth["images"])))
    assert found.keys() == set(METRICS)
    for name in FIGURES:
        np.testing.assert_array_equal(found[name], [np.nan if expected[name] is None else expected[name]], name)
    return expected


def ones(images):
    return np.ones((1, images), dtype=int)


def some_weights(images, replicates, seed):
    """Drawn, and such as drawing makes seldom: few images, one of them often."""
    rng = np.random.default_rng(seed)
    odd = rng.integers(0, 5, (replicates, images)) * (rng.random((replicates, images)) < 0.3)
    return np.concatenate([bootstrap_weights(images, replicates, seed), odd])


# -- matches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [15, 1])
@pytest.mark.parametrize("first", [1, 0, 2**60])
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_of_one_are_pycocotools(seed, first, decimals):
    """With what it makes of a box of id 0, and of more detections in an image than count."""
    truth = some_truth(seed, first=first)
    expected = assert_is_pycocotools(truth, detect(truth, seed, decimals=decimals, false=220))
    assert 0.1 < expected["AP"] < 0.9
    assert None not in expected.values()


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("decimals", [15, 1])
@pytest.mark.parametrize("seed", range(6))
def test_the_twelve_figures_are_the_evaluators_own(seed, decimals, evaluator):
    """To the last bit, also where there is nothing to find or nothing found."""
    truth = some_truth(seed)
    large = truth | {"annotations": [box for box in truth["annotations"] if box["area"] > 96**2]}
    for given, found in (
        (truth, detect(truth, seed, decimals=decimals, false=220)),
        (large, detect(truth, seed, decimals=decimals)),
        (truth, []),
        (truth | {"annotations": []}, detect(truth, seed)),
    ):
        evaluation = coco_evaluation(given, found, evaluator=evaluator)
        assert evaluation.params.maxDets == [1, 10, 100]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        figures = coco_figures(given, found, evaluator=evaluator)
        assert [-1 if figures[name] is None else figures[name] for name in TWELVE] == list(evaluation.stats[:12])


def test_nothing_found_and_nothing_to_find():
    truth = some_truth(3)
    bare = truth | {"annotations": []}
    large = truth | {"annotations": [box for box in truth["annotations"] if box["area"] > 96**2]}
    assert assert_is_pycocotools(truth, [])["AP"] == 0
    assert assert_is_pycocotools(large, detect(truth, 3))["APs"] is None
    assert assert_is_pycocotools(bare, detect(truth, 3))["AP"] is None
    assert_is_pycocotools(bare, [])
    assert np.isnan(match(truth, []).figures(ones(12))["IoU"]).all()
    assert np.isnan(match(bare, []).thresholds(ones(12))).all()


@pytest.mark.parametrize("decimals", [15, 1, 0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_replicate_is_pycocotools_with_copied_images(seed, decimals):
    """With images left out, categories without a truth left, and equal scores within an image and between images."""
    truth = some_truth(seed, images=8)
    detections = detect(truth, seed, decimals=decimals)
    weights = some_weights(8, 6, seed)
    found = match(truth, detections)
    figures, thresholds = found.figures(weights), found.thresholds(weights)
    for k, row in enumerate(weights):
        more = copied(truth, detections, row)
        expected = coco_figures(*more) | {"IoU": match(*more).figures(ones(row.sum()))["IoU"][0]}
        for name in METRICS:
            wanted = np.nan if expected[name] is None else expected[name]
            np.testing.assert_allclose(figures[name][k], wanted, rtol=0, atol=1e-12, err_msg=f"{k} {name}")
        np.testing.assert_allclose(thresholds[k, 0], figures["AP50"][k], rtol=0, atol=1e-12)
        np.testing.assert_allclose(thresholds[k, 5], figures["AP75"][k], rtol=0, atol=1e-12)
        np.testing.assert_allclose(thresholds[k].mean(), figures["AP"][k], rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", [1, 0])
def test_iou_of_the_matches(first):
    """By the boxes themselves, not by the table that pycocotools has of them."""
    truth = some_truth(5, images=48, first=first)
    detections = detect(truth, 5)
    evaluation = coco_evaluation(truth, detections)
    true = {float(k): box for k, box in enumerate(truth["annotations"], 1)}  # whatever their ids
    by_image = {image["id"]: [] for image in truth["images"]}
    for cell in evaluation.evalImgs:
        if cell is not None and cell["aRng"] == evaluation.params.areaRng[0]:
            for key, matched in zip(cell["dtIds"], cell["dtMatches"][0], strict=True):
                if matched != 0 and not true[matched]["iscrowd"]:
                    by_image[cell["image_id"]].append(overlap(detections[key - 1]["bbox"], true[matched]["bbox"]))
    weights = some_weights(48, 5, 5)
    for row, found in zip(weights, match(truth, detections).figures(weights)["IoU"], strict=True):
        ious = [iou for weight, image in zip(row, sorted(by_image), strict=True) for iou in by_image[image] * weight]
        assert found == pytest.approx(np.mean(ious) if ious else np.nan, rel=1e-12, nan_ok=True)


def test_iou_of_boxes_whose_ids_are_equal_as_floats():
    found = [match(truth, detect(truth, 5)).overlap for truth in (some_truth(5), some_truth(5, first=2**60))]
    np.testing.assert_array_equal(*found)


def overlap(first, second):
    sides = [max(0, min(a + c, b + d) - max(a, b)) for a, b, c, d in zip(first, second, first[2:], second[2:])]  # noqa: B905
    shared = sides[0] * sides[1]
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


@pytest.mark.skipif(not COCO.is_dir(), reason="the published evaluation is not here")
def test_published_evaluation():
    truth = json.loads((COCO / "instances_val2014_100_boxonly.json").read_text())
    detections = json.loads((COCO / "instances_val2014_fakebbox100_results.json").read_text())
    found = match(truth, detections)
    figures, weights = found.figures(ones(found.images)), bootstrap_weights(found.images, 1, 0)
    expected = json.loads((COCO / "expected.json").read_text())["pycocotools_bbox"]
    assert {name: figures[name][0] for name in FIGURES} == {name: expected[name] for name in FIGURES}
    expected, figures = coco_figures(*copied(truth, detections, weights[0])), found.figures(weights)
    for name in FIGURES:
        assert figures[name][0] == pytest.approx(expected[name], abs=1e-12)


def test_parts_change_nothing(monkeypatch):
    truth = some_truth(1)
    found, weights = match(truth, detect(truth, 1, decimals=1)), some_weights(12, 4, 1)
    whole, thresholds = found.figures(weights), found.thresholds(weights)
    monkeypatch.setattr(matches_module, "_NUMBERS", 1)
    assert len(found._parts(weights)) == len(weights)
    for name, figures in found.figures(weights).items():
        np.testing.assert_array_equal(figures, whole[name])
    np.testing.assert_array_equal(found.thresholds(weights), thresholds)
    assert found.figures(weights[:0])["AP"].shape == (0,)
    assert found.thresholds(weights[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    "weights", [[[1, 1]], [1] * 12, [[0.5] * 12], [[-1] * 12], [[math.nan] * 12], [[math.inf] * 12]]
)
def test_bad_weights(weights):
    truth = some_truth(1)
    with pytest.raises(ValueError, match=r"expected whole numbers >= 0 of shape \(B, 12\)"):
        match(truth, []).figures(weights)


# -- intervals -------------------------------------------------------------------------------------------------------


def test_bootstrap_weights():
    weights = bootstrap_weights(87, 2000, 3)
    assert weights.shape == (2000, 87)
    assert (weights.sum(axis=1) == 87).all()
    assert (weights == bootstrap_weights(87, 2000, 3)).all()
    assert (weights != bootstrap_weights(87, 2000, 4)).any()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 87, abs=0.02)  # as often as drawn, not whether at all
    assert np.corrcoef(weights[:-1].ravel(), weights[1:].ravel())[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 3.7, 7, 86, 4321.5, 1e6])
@pytest.mark.parametrize("probability", [1e-5, 0.3, 0.75, 0.975, 0.9995, 1 - 1e-5])
def test_t_quantile(probability, freedom):
    """The exact distribution function there is the probability; a Newton step says by how much t is off."""
    found = t_quantile(probability, freedom)
    with mpmath.workdps(40):
        v, t = mpmath.mpf(freedom), mpmath.mpf(found)
        scale = mpmath.exp(mpmath.loggamma((v + 1) / 2) - mpmath.loggamma(v / 2)) / mpmath.sqrt(mpmath.pi * v)
        points = mpmath.linspace(0, t, 2) if abs(t) < 10 else [0, t / 1000, t / 100, t / 10, t]
        below = 0.5 + mpmath.quad(lambda x: scale * (1 + x**2 / v) ** (-(v + 1) / 2), points)
        off = (mpmath.mpf(probability) - below) / (scale * (1 + t**2 / v) ** (-(v + 1) / 2))
        assert abs(off / t) < 1e-9


def test_t_quantile_at_its_ends():
    assert t_quantile(0.5, 3) == 0
    assert t_quantile(0.975, 1e300) == pytest.approx(1.959963984540054, rel=1e-9)
    assert t_quantile(1 - 1e-16, 1) > t_quantile(1 - 1e-9, 1) > 1e8
    assert math.isfinite(t_quantile(1e-300, 1))


@pytest.mark.parametrize(("probability", "freedom"), [(0, 3), (1, 3), (0.9, 0.5), (math.nan, 3), (0.9, math.inf)])
def test_bad_quantile(probability, freedom):
    with pytest.raises(ValueError, match="expected 0 < probability < 1 and freedom >= 1"):
        t_quantile(probability, freedom)


def test_interval_by_hand():
    """Vs = 9 / 3; the means 0, 0, 3, 3 vary by Vi = 3; ν = 6² / (9 / 2 + 9 / 2) = 4; √6 · 2.776445."""
    rows = [[0, 0, 0], [-1, 0, 1], [3, 3, 3], [2, 3, 4], [1, math.nan, 2]]
    assert interval([0, 3, 6], rows, images=3) == pytest.approx((3, 3 - 6.800874, 3 + 6.800874, 1), abs=1e-6)
    # Without noise of images, and of seeds, the freedom is that of the other.
    assert interval([0, 3, 6], [[1, 1, 1]] * 3, images=3).high == pytest.approx(3 + 4.302653 * math.sqrt(3), abs=1e-6)
    assert interval([3, 3, 3], rows, images=5).high == pytest.approx(3 + 2.776445 * math.sqrt(3), abs=1e-6)


def test_interval_at_its_ends():
    rows = [[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]]
    assert interval([], np.zeros((9, 0)), 5) is None
    assert interval([1.0], [[1.0], [2.0]], 5) is None
    assert interval([1.0, math.nan], rows, 5) is None
    assert interval([1.0, 2.0], [[1.0, math.nan], [1.0, 1.0]], 5) is None
    assert interval([2.0, 2.0], [[1.0, 1.0], [1.0, 1.0]], 5) == Interval(2.0, 2.0, 2.0, 0)
    assert interval([2.0, 2.0], rows[:2], images=1) == Interval(2.0, 2.0, 2.0, 0)


# -- tests -----------------------------------------------------------------------------------------------------------


def test_sign_flip_by_hand():
    assert sign_flip([5]) == sign_flip([-5]) == 1  # of both signs as far
    assert sign_flip([1, 1]) == 0.5
    assert sign_flip([1, 2, 3]) == sign_flip([-1, -2, -3]) == 0.25
    assert sign_flip([1, 2, -3]) == 1  # a mean of 0: all are as far
    assert sign_flip([3, 2, -1]) == 0.5  # 6, 4 and their opposites
    assert sign_flip([0, 0, 0]) == 1
    assert sign_flip([0, 1, 1]) == 0.5
    assert sign_flip([1] * 8) == smallest_p(8, 1) == 2 / 256


def test_rounding_makes_no_ties_unequal():
    """In floats .1 + .2 > .3."""
    assert sign_flip([0.1, 0.2, -0.3, 1e-17]) == 1
    for order in itertools.permutations([0.1, 0.2, 0.3, -0.6, 0.7]):
        assert sign_flip(order) == sign_flip([1, 2, 3, -6, 7])


def test_sign_flip_of_many():
    """Drawn above 20 values; no draw can make it 0."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 1, 20).tolist()
    exact = sign_flip(values)
    assert sign_flip([*values, 0.0]) == pytest.approx(exact, abs=4 * math.sqrt(exact / 2**20))
    assert sign_flip([*values, 0.0]) != exact
    assert sign_flip([1.0] * 40) == 1 / (2**20 + 1)
    assert sign_flip([0.0] * 21) == 1


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_bad_differences(values):
    with pytest.raises(ValueError, match="expected at least one, all finite"):
        sign_flip(values)


def test_holm_by_hand():
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 3·.01, 1·.04 < 2·.03, 4·.005
    assert holm([0.6, 0.9, 0.6]) == [1, 1, 1]
    assert holm([0.02, 0.02]) == [0.04, 0.04]


def test_smallest_p():
    assert [smallest_p(seeds, 1) for seeds in (1, 3, 5, 6, 8)] == [1, 0.25, 0.0625, 0.03125, 0.0078125]
    assert smallest_p(5, 10) == 0.625
    assert smallest_p(3, 10) == 1
    assert smallest_p(30, 1) == sign_flip([1] * 30)  # of as many ways as are drawn


def test_probability_of_improvement():
    assert probability_of_improvement([2, 3], [0, 1]) == 1
    assert probability_of_improvement([0, 1], [2, 3]) == 0
    assert probability_of_improvement([1, 1], [1]) == 0.5
    assert probability_of_improvement([1, 5, 3], [3, 2]) == 3.5 / 6


# -- a study ---------------------------------------------------------------------------------------------------------

NOISE = {"giou": 0.12, "diou": 0.12, "poor": 0.3}


@pytest.fixture(scope="module")
def study():
    """Two data sets, three losses, six seeds; a few trials failed."""
    found = {}
    for name, part in (("one", 1), ("two", 2)):
        truth = some_truth(part, images=9)
        losses = list(NOISE.items())
        found[name] = {
            loss: {seed: match(truth, detect(truth, 100 * k + seed, noise)) for seed in range(6)}
            for k, (loss, noise) in enumerate(losses)
        }
    del found["one"]["diou"][4], found["two"]["giou"][0], found["two"]["giou"][3]
    return found


def test_analyse(study):
    result = analyse(study, "giou", replicates=30, seed=5)
    assert {key: result[key] for key in result if key != "datasets"} == {
        "reference": "giou",
        "replicates": 30,
        "comparisons": 4,
        "smallest_p": 4 / 32,
        "exploratory": True,
    }
    assert list(result["datasets"]) == ["one", "two"]
    ps = []
    for name, dataset in result["datasets"].items():
        assert list(dataset) == ["images", "losses"]
        assert dataset["images"] == 9
        assert list(dataset["losses"]) == list(NOISE)
        for loss, entry in dataset["losses"].items():
            assert entry["seeds"] == sorted(study[name][loss])
            assert list(entry["metrics"]) == list(METRICS)
            assert len(entry["thresholds"]) == 10
            assert entry["thresholds"][0] == pytest.approx(entry["metrics"]["AP50"]["mean"], abs=1e-12)
            assert np.mean(entry["thresholds"]) == pytest.approx(entry["metrics"]["AP"]["mean"], abs=1e-12)
            difference = entry["difference"]
            assert (difference is None) == (loss == "giou")
            if difference:
                assert difference["seeds"] == sorted(study[name][loss].keys() & study[name]["giou"].keys())
                assert difference["smallest_p"] == 2.0 ** (1 - len(difference["seeds"]))
                assert difference["significant"] == (difference["p_holm"] <= 0.05)
                ps.append((difference["p"], difference["p_holm"]))
    assert [adjusted for _, adjusted in ps] == holm([p for p, _ in ps])
    poor = result["datasets"]["one"]["losses"]["poor"]["difference"]
    assert poor["p"] == poor["smallest_p"] == 1 / 32
    assert poor["p_holm"] == 4 / 32
    assert poor["improvement"] == 0
    assert poor["metrics"]["IoU"]["mean"] < 0
    assert poor["metrics"]["AP"]["high"] < 0


@pytest.mark.parametrize("name", ["one", "two"])
def test_figures_of_analyse(study, name):
    """By one matrix of weights for all losses and seeds."""
    weights = bootstrap_weights(9, 30, 5)
    losses = analyse(study, "giou", replicates=30, seed=5)["datasets"][name]["losses"]
    of = {loss: {seed: found.figures(weights) for seed, found in study[name][loss].items()} for loss in NOISE}
    once = {loss: {seed: found.figures(ones(9)) for seed, found in study[name][loss].items()} for loss in NOISE}
    for loss, metric in itertools.product(NOISE, METRICS):
        entry = losses[loss]["metrics"][metric]
        values = [once[loss][seed][metric][0] for seed in sorted(once[loss])]
        expected = interval(values, np.stack([of[loss][seed][metric] for seed in sorted(of[loss])], axis=1), 9)
        within = {"low": max(expected.low, 0), "high": min(expected.high, 1)}  # AP and IoU are shares of 1
        assert entry == expected._asdict() | within | {"values": values}
        if loss != "giou":
            seeds = sorted(of[loss].keys() & of["giou"].keys())
            values = [once[loss][seed][metric][0] - once["giou"][seed][metric][0] for seed in seeds]
            rows = np.stack([of[loss][seed][metric] - of["giou"][seed][metric] for seed in seeds], axis=1)
            difference = losses[loss]["difference"]
            expected = interval(values, rows, 9)
            within = {"low": max(expected.low, -1), "high": min(expected.high, 1)}
            assert difference["metrics"][metric] == expected._asdict() | within | {"values": values}
            if metric == "AP":
                ours, theirs = ([once[one][seed]["AP"][0] for seed in seeds] for one in (loss, "giou"))
                assert difference["improvement"] == probability_of_improvement(ours, theirs)
                assert difference["p"] == sign_flip(values)


def test_intervals_stay_where_figures_can_be():
    """Of two seeds, one that finds everything and one that finds nothing, the interval would reach far beyond."""
    truth = some_truth(1, images=9)
    all_of_it = [
        {key: box[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0} for box in truth["annotations"]
    ]
    both = {0: match(truth, all_of_it), 1: match(truth, [])}
    found = {"all": {0: both[0], 1: both[0]}, "none": {0: both[1], 1: both[1]}, "mixed": both}
    result = analyse({"one": found}, "mixed", replicates=30)["datasets"]["one"]["losses"]
    ap = {loss: entry["metrics"]["AP"] for loss, entry in result.items()}
    assert (ap["mixed"]["mean"], ap["mixed"]["low"], ap["mixed"]["high"]) == (0.5, 0.0, 1.0)
    more, less = (result[loss]["difference"]["metrics"]["AP"] for loss in ("all", "none"))
    assert (more["mean"], more["low"], more["high"]) == (0.5, -1.0, 1.0)
    assert (less["mean"], less["low"], less["high"]) == (-0.5, -1.0, 1.0)


def test_analyse_is_json_and_always_the_same(study):
    first, second = (json.dumps(analyse(study, "giou", replicates=8), allow_nan=False) for _ in range(2))
    assert first == second
    shuffled = {name: {loss: dict(reversed(by.items())) for loss, by in d.items()} for name, d in study.items()}
    assert json.dumps(analyse(shuffled, "giou", replicates=8)) == first
    assert json.dumps(analyse(study, "giou", replicates=8, seed=1)) != first


def test_the_same_loss_twice_is_no_difference(study):
    one = study["one"]
    result = analyse({"one": {"giou": one["giou"], "again": one["giou"]}}, "giou", replicates=8)
    difference = result["datasets"]["one"]["losses"]["again"]["difference"]
    for entry in difference["metrics"].values():
        assert (entry["mean"], entry["low"], entry["high"]) == (0, 0, 0)
    assert (difference["p"], difference["improvement"], difference["significant"]) == (1, 0.5, False)


def test_a_poor_loss_is_found(study):
    one = {loss: study["one"][loss] for loss in ("giou", "poor")}
    result = analyse({"one": one}, "giou", replicates=8)
    difference = result["datasets"]["one"]["losses"]["poor"]["difference"]
    assert result["smallest_p"] == difference["p"] == difference["p_holm"] == 1 / 32
    assert difference["significant"]
    assert not result["exploratory"]


def test_reference_alone(study):
    result = analyse({"one": {"giou": study["one"]["giou"]}}, "giou", replicates=8)
    assert (result["comparisons"], result["smallest_p"], result["exploratory"]) == (0, 1.0, True)


NOTHING = {"mean": None, "low": None, "high": None, "left_out": None, "values": []}


def test_failed_trials(study):
    """A loss without any, one without a seed that the reference has, one seed alone, a data set without any."""
    trials = study["one"]["giou"]
    losses = {"giou": {0: trials[0], 1: trials[1]}, "none": {}, "other": {2: trials[2]}, "single": {1: trials[3]}}
    result = analyse({"one": losses, "lost": {"giou": {}, "single": {}}}, "giou", replicates=8)
    entries = result["datasets"]["one"]["losses"]
    untested = {"p": None, "p_holm": None, "smallest_p": None, "improvement": None, "significant": False}
    lacking = {"seeds": [], "metrics": dict.fromkeys(METRICS, NOTHING), **untested}
    assert entries["none"] == {
        "seeds": [],
        "metrics": dict.fromkeys(METRICS, NOTHING),
        "thresholds": [],
        "difference": lacking,
    }
    assert entries["other"]["difference"] == lacking
    single = entries["single"]["difference"]
    assert (single["seeds"], single["p"], single["p_holm"], single["smallest_p"]) == ([1], 1, 1, 1)
    assert single["metrics"]["AP"]["low"] is None
    assert single["metrics"]["AP"]["values"] == [single["metrics"]["AP"]["mean"]]
    assert (result["comparisons"], result["smallest_p"]) == (1, 1)
    assert result["datasets"]["lost"] == {
        "images": None,
        "losses": {"giou": {**entries["none"], "difference": None}, "single": entries["none"]},
    }


def test_replicates_left_out():
    """One image of three has a large box: 8 of 27 replicates lack it."""
    truth = some_truth(1, images=3)
    sizes = [(100, 2), (200, 5), (20, 8)]
    boxes = [
        {"id": k, "image_id": image, "category_id": 9, "bbox": [0, 0, side, side], "area": side**2, "iscrowd": 0}
        for k, (side, image) in enumerate(sizes, 1)
    ]
    truth |= {"images": [{"id": 2}, {"id": 5}, {"id": 8}], "annotations": boxes[1:]}
    found = {seed: match(truth, detect(truth, seed, 0.05)) for seed in (1, 2, 3)}
    result = analyse({"one": {"giou": found, "diou": found}}, "giou", replicates=400)
    for metrics in (entry["metrics"] for entry in result["datasets"]["one"]["losses"].values()):
        weights = bootstrap_weights(3, 400, 0)
        assert metrics["APl"]["left_out"] == (weights[:, 1] == 0).sum()
        assert metrics["APl"]["left_out"] == pytest.approx(400 * 8 / 27, abs=30)
        assert metrics["AP"]["left_out"] == (weights[:, 0] == 3).sum()
        assert metrics["APm"] == NOTHING | {"values": [None] * 3}


def test_a_study_of_other_images(study):
    other = some_truth(2, images=5)
    with pytest.raises(ValueError, match="expected detectors of the same images, got 5, 9 of them"):
        analyse({"one": study["one"] | {"eiou": {0: match(other, [])}}}, "giou")
    with pytest.raises(ValueError, match="reference: expected one of giou, diou, poor, got 'ciou'"):
        analyse(study, "ciou")


# -- simulated studies -----------------------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("simulated_studies")


def test_nothing_is_found_where_nothing_is(tool):
    for draw in (tool.normal, tool.skewed):
        assert tool.false_positives(draw, 1000) == pytest.approx(6 / 128, abs=0.02)  # of 128 pairs of opposites


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(("seeds", "noise"), [(3, "large"), (3, "small"), (5, "equal"), (8, "large"), (8, "small")])
def test_intervals_hold_the_truth(tool, seeds, noise, paired):
    found = tool.mean_coverage(seeds, tool.SEED_NOISE[noise], 200, paired=paired, replicates=100)
    assert 0.91 <= found <= 0.995


def test_intervals_hold_the_true_ap(tool):
    single, difference = tool.ap_coverage(5, 20, tool.true_aps(images=500, seeds=50), replicates=60)
    assert min(single, difference) >= 0.85


def test_a_simulated_detector_is_as_one_that_was_matched(tool):
    rng = np.random.default_rng(0)
    found = tool.detector(rng, *tool.scenes(rng, 20), 20, 1.0)
    assert isinstance(found, Matches)
    assert isinstance(found.categories[0], Category)
    worse = replace(found, categories=[replace(found.categories[0], tp=np.zeros_like(found.categories[0].tp))])
    assert found.figures(ones(20))["AP"] > worse.figures(ones(20))["AP"] == 0


def test_report_of_the_tool(tool, monkeypatch):
    monkeypatch.setattr(tool, "true_aps", lambda seed: (0.4, 0.3))
    lines = "\n".join(tool.report(2, 0)).splitlines()
    assert sum(line.startswith("|") for line in lines) == 2 + 2 + 2 + 9 + 2 + 3
