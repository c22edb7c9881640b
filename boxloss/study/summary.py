"""What came out of a study: figures, intervals, tests, and a conclusion in words. It holds no times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import read_json
from ..training.config import plain
from ..training.folder import DETECTIONS, VAL
from .config import StudyConfig
from .folder import Finished, data_folder, trial_folder
from .matches import METRICS, match
from .page import aligned, fixed, listed, number, signed
from .statistics import LEVEL, analyse, smallest_p


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
    truths = {name: read_json(data_folder(folder, name) / VAL, "annotations") for name in bases}
    matches: dict[str, dict[str, dict[int, Any]]] = {
        name: {entrant.called: {} for entrant in config.entrants} for name in bases
    }
    gains: dict[tuple[str, str], list[float]] = defaultdict(list)
    for trial, result in finished:
        found = read_json(trial_folder(folder, trial) / DETECTIONS, "detections")
        matches[trial.dataset][trial.loss][trial.seed] = match(truths[trial.dataset], found)
        gains[trial.dataset, trial.loss].append(result["gain"])
    found = analyse(matches, config.reference_entrant.called, replicates=config.replicates)
    for name, dataset in found["datasets"].items():
        dataset["box_unit"] = bases[name].terms.box_unit
        for loss, figures in dataset["losses"].items():
            figures["gains"] = gains[name, loss]
    return {
        "study": plain(asdict(config)),
        "conclusion": conclusion(found, config, failed),
        **found,
        "failed": dict(failed),
    }


def conclusion(found: Mapping[str, Any], config: StudyConfig, failed: Mapping[str, str]) -> list[str]:
    """What can be said, and what can't, in sentences."""
    sentences = []
    reference, several = found["reference"], len(found["datasets"]) > 1
    for name, dataset in found["datasets"].items():
        where = f"On {name}, " if several else ""
        differences = {
            loss: figures["difference"]
            for loss, figures in dataset["losses"].items()
            if figures["difference"] and figures["difference"]["p"] is not None
        }
        for loss, difference in differences.items():
            if difference["significant"]:
                sentences.append(f"{where}{_significant(loss, reference, difference)}")
        same = [loss for loss, difference in differences.items() if not difference["significant"]]
        if same:
            sentences.append(
                f"{where}{'no' if where else 'No'} difference in AP can be told apart from noise between"
                f" {reference} and {listed(same, 'or')}."
            )
        widest = _widest(differences[loss] for loss in same)
        if widest:
            sentences.append(
                f"The 95 % intervals of these differences reach up to ±{widest:.3f}: smaller effects this study need"
                " not have seen, so it is no proof that the losses are equal."
            )
    sentences += _exploratory(found)
    unpaired = [entrant.called for entrant in config.entrants if entrant.seed_offset]
    if unpaired:
        sentences.append(f"Trained with other seeds on purpose, so not paired: {listed(unpaired, 'or')}.")
    if failed:
        sentences.append(
            f"{len(failed)} trial{'s' if len(failed) > 1 else ''} failed, and losses are compared over the seeds that"
            " both have: a loss that fails where it would have been bad looks better than it is."
        )
    return sentences


def _significant(loss: str, reference: str, difference: Mapping[str, Any]) -> str:
    ap = difference["metrics"]["AP"]
    interval = "" if ap["low"] is None else f" (95 % interval {signed(ap['low'])} to {signed(ap['high'])})"
    return (
        f"{loss} reaches a {'higher' if ap['mean'] > 0 else 'lower'} AP than {reference}:"
        f" {signed(ap['mean'])}{interval}, p = {difference['p_holm']:.2g} after Holm's correction."
    )


def _widest(differences: Iterable[Mapping[str, Any]]) -> float | None:
    halves = [(d["metrics"]["AP"]["high"] - d["metrics"]["AP"]["low"]) / 2 for d in differences if _has_interval(d)]
    return max(halves, default=None)


def _has_interval(difference: Mapping[str, Any]) -> bool:
    return difference["metrics"]["AP"]["low"] is not None


def _exploratory(found: Mapping[str, Any]) -> Iterator[str]:
    comparisons, least = found["comparisons"], found["smallest_p"]
    if not comparisons:
        yield "Nothing was compared: the study has results of one loss only."
    elif found["exploratory"]:
        needed = next(n for n in range(1, 100) if smallest_p(n, comparisons) <= LEVEL)
        yield (
            f"Exploratory: it cannot be significant. With this number of seeds and {comparisons}"
            f" comparison{'s' if comparisons > 1 else ''} the smallest attainable p is {least:.2g}, above {LEVEL};"
            f" {needed} seeds could be significant."
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
        {"seeds": len(figures["seeds"])}
        | {key: own[key] for key in ("mean", "low", "high")}
        | {"difference": of_metric.get("mean")}
        | {f"difference_{key}": of_metric.get(key) for key in ("low", "high")}
        | {key: test.get(key) for key in ("p", "p_holm", "improvement")}
        | {"gain": sum(gains) / len(gains) if gains else None}
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
        blocks.append(f"{name}, {dataset['images']} validation images, means over seeds\n" + "\n".join(aligned(rows)))
    return "\n\n".join([*blocks, "\n".join(summary["conclusion"])])


def _range(found: Mapping[str, Any], text: Callable[[float], str] = fixed) -> str:
    return "–" if found["low"] is None else f"{text(found['low'])} … {text(found['high'])}"


def order(losses: Mapping[str, Any]) -> list[str]:
    """By AP, the best first; losses without any last."""
    return sorted(losses, key=lambda name: -(losses[name]["metrics"]["AP"]["mean"] or -1.0))
