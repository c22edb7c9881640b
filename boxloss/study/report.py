"""The report of a study: figures, and one page that holds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..data import read_annotations
from ..files import read_json
from ..plots import Scene, plot_differences, plot_learning, plot_scenes, plot_thresholds
from ..training import TrainConfig
from ..training.folder import DETECTIONS, ENVIRONMENT, VAL
from ..training.setup import sources
from .config import StudyConfig
from .folder import REPORT, STUDY, Finished, data_folder, trial_folder
from .matches import METRICS
from .page import write_page
from .summary import order

CONFIDENT = 0.3
"""Score of the boxes drawn on example images."""
_EXAMPLES = 2


def write_report(folder: Path, config: StudyConfig, finished: Sequence[Finished], summary: Mapping[str, Any]) -> None:
    """The page, and its figures beside it."""
    reference = summary["reference"]
    sections = []
    bases = config.bases()
    for name, dataset in summary["datasets"].items():
        ranked = order(dataset["losses"])
        compared = [loss for loss in ranked if loss != reference]
        colored = {loss: dataset["losses"][loss] for loss in (reference, *compared)}
        here = [each for each in finished if each.trial.dataset == name]
        sections.append(
            {
                "name": name,
                "images": dataset["images"],
                "box_unit": dataset["box_unit"],
                "losses": {loss: dataset["losses"][loss] for loss in ranked},
                "compared": compared,
                "figures": _figures(folder, name, bases[name], here, colored, reference),
                "seconds": _seconds(here),
            }
        )
    write_page(
        folder / REPORT,
        "report.html.jinja",
        summary=summary,
        sections=sections,
        metrics=METRICS,
        seeds=config.seed_list,
        environment=read_json(folder / ENVIRONMENT, "environment"),
        study=(folder / STUDY).read_text(),
        folder=folder,
        confident=CONFIDENT,
    )


def _figures(
    folder: Path,
    dataset: str,
    base: TrainConfig,
    finished: Sequence[Finished],
    losses: Mapping[str, Any],
    reference: str,
) -> dict[str, Path]:
    paths = {name: folder / "figures" / f"{dataset}-{name}.png" for name in ("differences", "learning", "thresholds")}
    compared = {name: figures["difference"] for name, figures in losses.items() if figures["difference"]}
    compared = {name: difference for name, difference in compared.items() if difference["p"] is not None}
    if compared:
        plot_differences(compared, reference, paths["differences"])
    else:
        del paths["differences"]
    curves: dict[str, list[Any]] = {name: [] for name in losses}
    for trial, result in finished:
        curves[trial.loss].append(result["curve"])
    plot_learning(curves, paths["learning"])
    plot_thresholds({name: figures["thresholds"] for name, figures in losses.items()}, reference, paths["thresholds"])
    for k, scenes in enumerate(_examples(folder, dataset, base, finished, list(losses)), 1):
        paths[f"example{k}"] = folder / "figures" / f"{dataset}-example{k}.png"
        plot_scenes(scenes, paths[f"example{k}"], f"predicted, score ≥ {CONFIDENT}")
    return paths


def _examples(
    folder: Path, dataset: str, base: TrainConfig, finished: Sequence[Finished], losses: Sequence[str]
) -> list[list[Scene]]:
    """Some validation images: the truth, and the boxes of each loss's first seed."""
    annotations = read_annotations(data_folder(folder, dataset) / VAL)
    boxes, images = annotations.by_image(), sources(base)[1].images
    shown = [record for record in annotations.coco["images"] if boxes[record["id"]]]
    shown = shown[:: max(1, len(shown) // _EXAMPLES)][:_EXAMPLES]
    found = {}
    for trial, _ in finished:
        if trial.loss not in found:
            found[trial.loss] = _by_image(read_json(trial_folder(folder, trial) / DETECTIONS, "detections"))
    rows = []
    for record in shown:
        path = images / record["file_name"]
        true = [box["bbox"] for box in boxes[record["id"]] if not box["iscrowd"]]
        scenes = [Scene(path, loss, true, found[loss][record["id"]]) for loss in losses if loss in found]
        if path.is_file():
            rows.append([Scene(path, "truth", true, []), *scenes])
    return rows


def _by_image(detections: list[dict[str, Any]]) -> dict[int, list[tuple[list[float], str]]]:
    found = defaultdict(list)
    for box in detections:
        if box["score"] >= CONFIDENT:
            found[box["image_id"]].append((box["bbox"], ""))
    return found


def _seconds(finished: Sequence[Finished]) -> dict[str, tuple[int, float]]:
    """Of a trial of each loss: how many, and the median."""
    by_loss = defaultdict(list)
    for trial, result in finished:
        by_loss[trial.loss].append(result["seconds"])
    return {loss: (len(times), median(times)) for loss, times in by_loss.items()}
