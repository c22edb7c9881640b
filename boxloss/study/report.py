"""The report of a study: figures, and one page that holds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from ..data import Pictures
from ..files import read_if_whole, read_text
from ..page import write_page
from ..plots import Scene, draw_if_possible, plot_differences, plot_learning, plot_scenes, plot_thresholds
from ..training import TrainConfig
from ..training.folder import DETECTIONS, ENVIRONMENT, read_copy, read_detections
from ..training.setup import sources
from .config import StudyConfig
from .folder import REPORT, STUDY, Finished, data_folder, trial_folder
from .matches import METRICS
from .summary import order, tested

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
                "train_images": dataset["train_images"],
                "box_unit": dataset["box_unit"],
                "base": bases[name],
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
        environment=_environment(folder),
        mixed=_mixed_environments(folder, finished),
        study=read_text(folder / STUDY),
        folder=folder,
    )


def _mixed_environments(folder: Path, finished: Sequence[Finished]) -> dict[str, list[str]]:
    """What was not the same for all trials, such as the version of a package, and what it was."""
    found: dict[str, set[str]] = defaultdict(set)
    for trial, _ in finished:
        environment = _environment(trial_folder(folder, trial))
        for name in ("python", "commit", "platform", "gpu"):
            found[name].add(str(environment.get(name)))
        for name, version in environment["packages"].items():
            found[name].add(str(version))
    return {name: sorted(values) for name, values in found.items() if len(values) > 1}


def _environment(folder: Path) -> dict[str, Any]:
    """What a folder says it was made with; None for what it does not say, or not as text and numbers."""
    found = read_if_whole(folder / ENVIRONMENT)
    known = found if isinstance(found, dict) else {}
    packages, command = known.get("packages"), known.get("command")
    return {
        **{name: _plain(known.get(name)) for name in ("python", "commit", "platform", "gpu", "cores")},
        "packages": {name: _plain(version) for name, version in packages.items()} if isinstance(packages, dict) else {},
        "command": [_plain(word) for word in command] if isinstance(command, list) else [],
    }


def _plain(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def _figures(
    folder: Path,
    dataset: str,
    base: TrainConfig,
    finished: Sequence[Finished],
    losses: Mapping[str, Any],
    reference: str,
) -> dict[str, Path]:
    draw: dict[str, Callable[[Path], None]] = {}
    compared = tested(losses)
    if compared:
        draw["differences"] = partial(plot_differences, compared, reference)
    curves: dict[str, list[Any]] = {name: [] for name in losses}
    for trial, result in finished:
        curves[trial.loss].append(result["curve"])
    thresholds = {name: figures["thresholds"] for name, figures in losses.items()}
    draw["learning"] = partial(plot_learning, curves)
    draw["thresholds"] = partial(plot_thresholds, thresholds, reference)
    for k, scenes in enumerate(_examples(folder, dataset, base, finished, list(losses)), 1):
        draw[f"example{k}"] = partial(plot_scenes, scenes, predicted="predicted", columns=_columns(len(scenes)))
    paths = {name: folder / "figures" / f"{dataset}-{name}.png" for name in draw}
    for name, path in paths.items():
        draw_if_possible(path, draw[name])
    return paths


def _examples(
    folder: Path, dataset: str, base: TrainConfig, finished: Sequence[Finished], losses: Sequence[str]
) -> list[list[Scene]]:
    """Some validation images: the truth, and the surest boxes of each loss's first seed, as many as there are true."""
    annotations = read_copy(data_folder(folder, dataset))
    boxes, records = annotations.by_image(), annotations.coco["images"]
    try:
        pictures = Pictures(records, sources(base)[1].folder_of(records[0]["file_name"]), annotations.path)
    except (OSError, ValueError):  # the data may be gone, or others, when the trials are done
        return []
    shown = [k for k, record in enumerate(records) if boxes[record["id"]]]
    shown = shown[:: max(1, len(shown) // _EXAMPLES)][:_EXAMPLES]
    found = {}
    for trial, _ in finished:
        if trial.loss not in found:
            found[trial.loss] = _by_image(read_detections(trial_folder(folder, trial) / DETECTIONS, annotations))
    rows = []
    for k in shown:
        picture, number = pictures.preview(k), records[k]["id"]
        size = records[k]["width"], records[k]["height"]
        true = [box["bbox"] for box in boxes[number] if not box["iscrowd"]]
        scenes = [
            Scene(picture, size, loss, true, found[loss][number][: len(true)]) for loss in losses if loss in found
        ]
        rows.append([Scene(picture, size, "truth", true, []), *scenes])
    return rows


def _columns(scenes: int) -> int:
    """Three or four, with the fewest places left empty."""
    return min((4, 3), key=lambda columns: -scenes % columns) if scenes > 4 else scenes


def _by_image(detections: list[dict[str, Any]]) -> dict[int, list[tuple[list[float], str]]]:
    """Boxes by falling score, as `Scene` has them."""
    found = defaultdict(list)
    for box in sorted(detections, key=lambda box: -box["score"]):
        found[box["image_id"]].append((box["bbox"], ""))
    return found


def _seconds(finished: Sequence[Finished]) -> dict[str, tuple[int, float]]:
    """Of a trial of each loss: how many, and the median."""
    by_loss = defaultdict(list)
    for trial, result in finished:
        by_loss[trial.loss].append(result["seconds"])
    return {loss: (len(times), median(times)) for loss, times in by_loss.items()}
