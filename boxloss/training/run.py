"""`boxloss train` and `boxloss evaluate`: a run from its configuration to its figures."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..data import Annotations, Batch, CocoImages, find_source, read_sources
from ..files import check_there, visible, write_json
from ..folders import locked, read_recorded
from ..page import aligned, fixed
from ..plots import Scene, draw_if_possible, plot_curves, plot_scenes, require_matplotlib
from ..yolo import Grid, Yolo
from .checkpoint import load_checkpoint
from .config import TrainConfig
from .evaluate import FIGURES, MAX_DETECTIONS, check_max_detections, coco_figures
from .folder import CONFIG, CURVES, DETECTIONS, EVALUATION, SHEET, add_metrics, read_copy, read_detections, read_metrics
from .loop import Trainer, load_weights
from .predict import of_outputs, predict
from .report import Report
from .setup import find_device, make_model, read_images, sources

_SHOWN = 12  # images of the sheet
_TITLE = 31  # letters
_CONFIDENT = 0.3  # score of the boxes drawn on it


def train(
    config: TrainConfig, folder: Path, *, tensorboard: bool = False, pictures: bool = True
) -> dict[str, Any] | None:
    """Train, evaluate, and leave everything in ``folder``.

    Under torchrun, the processes train together. A run that was cut off goes on from its checkpoint.

    Returns:
        COCO's figures, of the first process; None of the others.

    Raises:
        ValueError, FileNotFoundError: the data, or what the folder holds; another process works in it.
        FolderGoneError: the folder was moved or deleted meanwhile.
        TrainingError: the loss is not finite.
    """
    if pictures:
        require_matplotlib()  # what is used last is missed first
    with process_group(config):
        report = Report(folder / "tensorboard" if tensorboard else None)
        if not report.first:
            Trainer(config, folder, report).run()
            return None
        with locked(folder):
            Trainer(config, folder, report).run()
            return evaluate_run(folder, report=report, pictures=pictures)


def evaluate_run(
    folder: Path,
    *,
    evaluator: str = "pycocotools",
    max_detections: int = MAX_DETECTIONS,
    report: Report | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """Detections, COCO's figures and pictures of a run's validation images, into its folder.

    Args:
        max_detections: as of `coco_figures`. With another limit than COCO's the detector gives as many, whatever its
            ``detect.limit``, and the folder stays as it is, so that its figures can be compared with other runs'.

    Raises:
        FileNotFoundError: no run in ``folder``, or nothing trained in it yet.
        ValueError: ``max_detections`` is not a whole number of 10 or more; a file of the run is damaged; another
            process works in the folder.
        FolderGoneError: the folder was moved or deleted meanwhile.
    """
    check_max_detections(max_detections)
    check_there(folder)
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(f"{folder} holds no run: expected {CONFIG} in it, as boxloss train writes it")
    with locked(folder):
        return _evaluate_run(folder, evaluator, max_detections, report or Report(), pictures)


def _evaluate_run(folder: Path, evaluator: str, max_detections: int, report: Report, pictures: bool) -> dict[str, Any]:
    config = read_recorded(folder / CONFIG, TrainConfig)
    read_metrics(folder)  # damage is an error before the work, not after it
    annotations = read_copy(folder)
    if not annotations.coco["images"]:
        raise ValueError(f"{annotations.path} has no images")
    folder_of_pictures = sources(config)[1].folder_of(annotations.coco["images"][0]["file_name"])
    annotations = replace(annotations, pictures=folder_of_pictures)
    images = read_images(config, annotations, report.progress("validation images"))
    model = load_model(config, folder, len(annotations.categories), report)
    device = find_device(config)
    model.to(device).eval()

    def outputs(batch: Batch) -> list[Tensor]:
        return list(model(batch.images.to(device).float() / 255))

    standard = max_detections == MAX_DETECTIONS
    limit = config.detect.limit if standard else max_detections * len(annotations.categories)
    config = replace(config, detect=replace(config.detect, limit=limit))
    found = predict(images, images, of_outputs(outputs, model.grid, config), report.progress("detections"))
    if not standard:
        return coco_figures(annotations.coco, found, evaluator=evaluator, max_detections=max_detections)
    return keep_detections(folder, images, found, evaluator=evaluator, pictures=pictures)


def keep_detections(
    folder: Path,
    images: CocoImages,
    found: list[dict[str, Any]],
    *,
    evaluator: str = "pycocotools",
    pictures: bool = True,
) -> dict[str, Any]:
    """COCO's figures of detections; they, the detections and pictures are left in a run's folder."""
    figures = coco_figures(images.annotations.coco, found, evaluator=evaluator)
    write_json(folder / DETECTIONS, images.annotations.with_own_ids(found))
    write_json(folder / EVALUATION, figures, indent=2)
    rows = read_metrics(folder)
    if rows:
        add_metrics(folder, rows[-1] | {name: figures[name] for name in FIGURES})
    if pictures:
        label = f"predicted, score ≥ {_CONFIDENT}"
        draw_if_possible(folder / SHEET, lambda path: plot_scenes(scenes(images, found), path, label))
        if rows:
            draw_if_possible(folder / CURVES, lambda path: plot_curves(read_metrics(folder), path))
    return figures


def evaluate_detections(
    detections: Path,
    annotations: Path,
    *,
    evaluator: str = "pycocotools",
    max_detections: int = MAX_DETECTIONS,
    format: str = "auto",
    part: str = "val",
    val_share: float | None = None,
    voc_origin: int = 0,
    skip_bad_boxes: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """COCO's figures of any detections, a file of COCO results.

    Args:
        detections: the file; its ids are those of the annotations, or plainly mean them.
        annotations: a COCO file, or any other data set.
        evaluator, max_detections: as for `coco_figures`.
        format, part, val_share, voc_origin, skip_bad_boxes: as for `boxloss.data.read_annotations`.
        say: is told what was recognized.
    """
    check_max_detections(max_detections)
    source = replace(find_source(annotations, format, part, val_share), voc_origin=voc_origin)
    (truth,) = read_sources([source], skip_bad_boxes=skip_bad_boxes, as_it_is=True)
    if detections.is_dir():
        raise ValueError(f"{detections} is a folder; expected a file of results, such as a run's {DETECTIONS}")
    results = read_detections(detections, truth)
    if (source.format, source.annotations) != ("coco", annotations):  # which says all that there is to say
        say(f"images: {truth.summary}")
    _warn_of_unseen(detections, truth, results)
    return coco_figures(truth.coco, results, evaluator=evaluator, max_detections=max_detections)


def _warn_of_unseen(detections: Path, truth: Annotations, results: list[dict[str, Any]]) -> None:
    """Of results that may be of a part of the images only, such as those of a data set that a run has divided."""
    seen = {box["image_id"] for box in results}
    there = {box["image_id"] for box in truth.coco["annotations"]}
    missed = len(there - seen)
    if seen and 2 * missed > len(there):
        text = f"{detections} has no detection in {missed} of {len(there)} images with objects, which count as missed"
        warnings.warn(f"{text}; if it is of a part of them, name that part", stacklevel=2)


def load_model(config: TrainConfig, folder: Path, classes: int, report: Report) -> Yolo:
    """The detector of a run's checkpoint, which holds all weights: those it started from are not looked for."""
    config = replace(config, network=replace(config.network, weights="none"))
    made: list[Yolo] = []

    def use(state: dict[str, Any]) -> None:
        grid = Grid(state["anchors"], classes, config.network.stretch)
        model = make_model(config, grid)
        load_weights(model, state["model"])
        made[:] = [model]

    if not load_checkpoint(folder, use, report.warn):
        raise FileNotFoundError(f"{folder} has no checkpoint yet")
    return made[0]


def figures_text(figures: dict[str, Any]) -> str:
    """COCO's twelve in two lines of a table, and a table of AP and AP50 by category."""
    limit = f"AR{figures.get('max_detections', MAX_DETECTIONS)}"
    lines = []
    for part in (FIGURES[:6], FIGURES[6:]):
        heads = [limit if name == "AR100" else name for name in part]
        widths = [max(len(head), 5) for head in heads]
        for row in (heads, [fixed(figures[name]) for name in part]):
            lines.append("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    if len(figures["by_category"]) > 1:
        of_50 = figures.get("AP50_by_category", {})  # which older versions did not have
        rows = [[visible(name), fixed(ap), fixed(of_50.get(name))] for name, ap in figures["by_category"].items()]
        lines += ["", *aligned([["category", "AP", "AP50"], *rows])]
    return "\n".join(lines)


def scenes(images: CocoImages, found: list[dict[str, Any]]) -> list[Scene]:
    """The first images of a data set, their true boxes and the confident detections."""
    names = images.annotations.categories
    true, predicted = images.annotations.by_image(), defaultdict(list)
    for box in found:
        if box["score"] >= _CONFIDENT:
            name = _shortened(names[box["category_id"] - 1])
            predicted[box["image_id"]].append((box["bbox"], f"{name} {box['score']:.2f}"))
    return [
        Scene(
            images.pictures.preview(k),
            (record["width"], record["height"]),
            _shortened(record["file_name"]),
            [box["bbox"] for box in true[record["id"]] if not box["iscrowd"]],
            predicted[record["id"]],
        )
        for k, record in enumerate(images.records[:_SHOWN])
    ]


def _shortened(name: str) -> str:
    """As long as a title or a label may be.

    >>> _shortened("BloodImage_00000_jpg.rf.0123456789abcdef.jpg")
    'BloodImage_00000_jp…9abcdef.jpg'
    """
    return name if len(name) <= _TITLE else f"{name[:19]}…{name[-11:]}"


@contextmanager
def process_group(config: TrainConfig) -> Iterator[None]:
    """That of torchrun, if it started this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    device = find_device(config)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
