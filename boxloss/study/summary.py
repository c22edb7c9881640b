"""What came out of a study: figures, intervals, tests, and a conclusion in words. It holds no times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import as_values
from ..files import read_json
from ..page import aligned, fixed, listed, number, signed
from ..training.folder import DETECTIONS, TRAIN, read_copy, read_detections
from .config import Entrant, StudyConfig
from .detectors import OWN
from .folder import Finished, data_folder, trial_folder
from .matches import METRICS, match
from .statistics import LEVEL, analyse, smallest_p

HARDLY = 0.01
"""An AP below which nothing was learned."""


def summarize(
    folder: Path, config: StudyConfig, finished: Sequence[Finished], failed: Mapping[str, str]
) -> dict[str, Any]:
    """As JSON has it.

    Args:
        folder: of the study.
        config: the study.
        finished: the trials that left a result.
        failed: what went wrong, by name of trial.
    """
    bases = config.bases()
    truths = {name: read_copy(data_folder(folder, name)) for name in bases}
    trained = {name: _count(data_folder(folder, name) / TRAIN) for name in bases}
    matches: dict[str, dict[str, dict[int, Any]]] = {
        name: {entrant.called: {} for entrant in config.entrants} for name in bases
    }
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trial, result in finished:
        path, truth = trial_folder(folder, trial) / DETECTIONS, truths[trial.dataset]
        try:
            matched = match(truth.coco, read_detections(path, truth))
        except ValueError as error:
            raise ValueError(f"{error}; remove it to have the trial evaluated again") from None
        matches[trial.dataset][trial.loss][trial.seed] = matched
        gains[trial.dataset, trial.loss].append(result["gain"])
    found = analyse(matches, config.reference_entrant.called, replicates=config.replicates)
    for name, dataset in found["datasets"].items():
        dataset |= {"train_images": trained[name], "box_unit": bases[name].terms.box_unit}
        for entrant in config.entrants:
            figures = dataset["losses"][entrant.called]
            figures |= {
                "definition": describe(entrant),
                "gain": entrant.gain * bases[name].gain,
                "gains": gains[name, entrant.called],
            }
    return {
        "study": _of_json(as_values(config)),
        "conclusion": conclusion(found, config, failed),
        **found,
        "failed": dict(failed),
    }


def _count(path: Path) -> int:
    """The images of a file of annotations."""
    found = read_json(path, "annotations")
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        raise ValueError(f"{path} is not a COCO file: expected an object with the list images; remove it")
    return len(found["images"])


def _of_json(value: Any) -> Any:
    """JSON has no infinity, which YAML has: a limit that does not hold."""
    if isinstance(value, dict):
        return {key: _of_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_of_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def describe(entrant: Entrant) -> str:
    """What a loss is, whatever it is called.

    >>> describe(Entrant("smooth_l1", "soft", {"beta": 2.0}, seed_offset=100))
    'smooth_l1, beta = 2.0, seeds + 100'
    """
    what = "the library's own" if entrant.loss == OWN else entrant.loss
    parts = [what, *(f"{key} = {value}" for key, value in entrant.parameters.items())]
    return ", ".join(parts + [f"seeds + {entrant.seed_offset}"] * bool(entrant.seed_offset))


def conclusion(found: Mapping[str, Any], config: StudyConfig, failed: Mapping[str, str]) -> list[str]:
    """What can be said, and what can't, in sentences."""
    sentences: list[str] = []
    for name, dataset in found["datasets"].items():
        differences = tested(dataset["losses"])
        of_dataset = [*_unlearned(dataset), *_differences(differences, found["reference"], found["exploratory"])]
        sentences += [f"{name}: {sentence}" if len(found["datasets"]) > 1 else sentence for sentence in of_dataset]
    if not found["comparisons"]:
        sentences.append("Nothing was compared: the study has results of one loss only.")
    elif found["exploratory"]:
        seeds = max(
            len(one["seeds"]) for dataset in found["datasets"].values() for one in tested(dataset["losses"]).values()
        )
        sentences.append(f"Exploratory: it cannot be significant. {too_few_seeds(seeds, found['comparisons'])}")
    unpaired = [entrant.called for entrant in config.entrants if entrant.seed_offset]
    if unpaired:
        sentences.append(f"Trained with other seeds on purpose, so not paired: {listed(unpaired)}.")
    if failed:
        sentences.append(
            f"{len(failed)} trial{'s' if len(failed) > 1 else ''} failed, and losses are compared over the seeds that"
            " both have: a loss that fails where it would have been bad looks better than it is."
        )
    return sentences


def tested(losses: Mapping[str, Any]) -> dict[str, Any]:
    """The differences that were tested, by loss, in the order of the losses."""
    differences = {loss: figures["difference"] for loss, figures in losses.items()}
    return {loss: found for loss, found in differences.items() if found and found["p"] is not None}


def too_few_seeds(seeds: int, comparisons: int) -> str:
    """Why nothing can be significant; nothing if something can."""
    least = smallest_p(seeds, comparisons)
    if least <= LEVEL:
        return ""
    needed = next(n for n in range(1, 100) if smallest_p(n, comparisons) <= LEVEL)
    return (
        f"With {counted(seeds, 'seed')} and {counted(comparisons, 'comparison')} the smallest attainable p is"
        f" {least:.2g}, above {LEVEL}; {needed} seeds could be significant."
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _unlearned(dataset: Mapping[str, Any]) -> Iterator[str]:
    best = max((figures["metrics"]["AP"]["mean"] or 0.0 for figures in dataset["losses"].values()), default=0.0)
    if best < HARDLY:
        yield (
            f"The detectors hardly learned to find anything: no loss has an AP above {fixed(best)}. This says nothing"
            " about the losses; train longer, or look at the data."
        )


def _differences(differences: Mapping[str, Any], reference: str, exploratory: bool) -> Iterator[str]:
    for loss, difference in differences.items():
        if difference["significant"]:
            yield _significant(loss, reference, difference)
    same = [loss for loss, difference in differences.items() if not difference["significant"]]
    if same:
        between = f"between {reference} and {listed(same, 'or')}"
        seeds = max(len(differences[loss]["seeds"]) for loss in same)
        yield (
            f"Not testable with {counted(seeds, 'seed')}: a difference in AP {between}."
            if exploratory
            else f"No difference in AP can be told apart from noise {between}."
        )
        intervals = {loss: differences[loss]["metrics"]["AP"] for loss in same}
        yield from _intervals({loss: ap for loss, ap in intervals.items() if ap["low"] is not None}, exploratory)


def _intervals(intervals: Mapping[str, Any], exploratory: bool) -> Iterator[str]:
    """What those of differences that are not significant leave open."""
    if not intervals:
        return
    low, high = min(ap["low"] for ap in intervals.values()), max(ap["high"] for ap in intervals.values())
    of = "intervals of these differences" if len(intervals) > 1 else "interval of this difference"
    yield (
        f"95 % {of}: from {signed(low)} to {signed(high)}. A difference in that range the study may have missed: it is"
        " no proof that the losses are equal."
    )
    clear = [loss for loss, ap in intervals.items() if not holds_zero(ap)]
    if clear:
        then = "a reason for a study with more seeds, not a result" if exploratory else "the test is what counts"
        yield (
            f"0 lies outside the interval of {listed(clear)}, but intervals are not corrected for how many there are:"
            f" {then}."
        )


def holds_zero(interval: Mapping[str, Any]) -> bool:
    return bool(interval["low"] <= 0 <= interval["high"])


def _significant(loss: str, reference: str, difference: Mapping[str, Any]) -> str:
    ap = difference["metrics"]["AP"]
    interval, more = "", ""
    if ap["low"] is not None:
        interval = f" (95 % interval {signed(ap['low'])} to {signed(ap['high'])})"
        if holds_zero(ap):
            more = " The interval holds 0: it is about other images too, the test about other seeds on these."
    return (
        f"{loss} reaches a {'higher' if ap['mean'] > 0 else 'lower'} AP than {reference}:"
        f" {signed(ap['mean'])}{interval}, p = {difference['p_holm']:.2g} after Holm's correction.{more}"
    )


def table(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each data set, loss and metric."""
    return [
        {"dataset": name, "loss": loss, "metric": metric} | _row(figures, metric)
        for name, dataset in summary["datasets"].items()
        for loss, figures in dataset["losses"].items()
        for metric in METRICS
    ]


def _row(figures: Mapping[str, Any], metric: str) -> dict[str, Any]:
    own, gains = figures["metrics"][metric], figures["gains"]
    difference = figures["difference"] or {}
    of_metric = difference.get("metrics", {}).get(metric, {})
    test = difference if metric == "AP" else {}
    return (
        {"definition": figures["definition"], "seeds": len(figures["seeds"])}
        | {key: own[key] for key in ("mean", "low", "high")}
        | {"difference": of_metric.get("mean")}
        | {f"difference_{key}": of_metric.get(key) for key in ("low", "high")}
        | {key: test.get(key) for key in ("p", "p_holm", "improvement")}
        | {"gain": figures["gain"], "total_gain": sum(gains) / len(gains) if gains else None}
    )


def summary_text(summary: Mapping[str, Any]) -> str:
    """The ranking of each data set, and the conclusion, for a terminal."""
    blocks = []
    for name, dataset in summary["datasets"].items():
        rows: list[tuple[str, ...]] = [
            ("", "AP", "95 %", "AP50", "AP75", f"AP – {summary['reference']}", "95 %", "p, Holm")
        ]
        for loss in order(dataset["losses"]):
            own, difference = dataset["losses"][loss]["metrics"], dataset["losses"][loss]["difference"]
            row = [
                loss,
                fixed(own["AP"]["mean"]),
                _range(own["AP"]),
                fixed(own["AP50"]["mean"]),
                fixed(own["AP75"]["mean"]),
            ]
            if difference:
                ap = difference["metrics"]["AP"]
                rows.append((*row, signed(ap["mean"]), _range(ap, signed), number(difference["p_holm"], 2)))
            else:
                rows.append((*row, "", "", ""))
        if dataset["images"]:
            title = f"{name}, {dataset['images']} validation images, means over seeds"
            blocks.append("\n".join([title, *aligned(rows)]))
        else:
            blocks.append(f"{name}: no trial is finished")
    return "\n\n".join([*blocks, "\n".join(summary["conclusion"])])


def _range(found: Mapping[str, Any], text: Callable[[float], str] = fixed) -> str:
    return "–" if found["low"] is None else f"{text(found['low'])} … {text(found['high'])}"


def order(losses: Mapping[str, Any]) -> list[str]:
    """By AP, the best first; losses without any last."""
    return sorted(losses, key=lambda name: -(losses[name]["metrics"]["AP"]["mean"] or -1.0))
