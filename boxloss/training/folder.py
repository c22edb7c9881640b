"""The folder of a run: its configuration, environment, metrics, checkpoints, detections and figures."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import write_config
from ..data import Annotations, ids_beside, read_annotations
from ..data.fields import shown
from ..files import FolderGoneError, check_there, read_if_whole, read_json, read_text, replacing, write_json
from ..folders import environment, refuse_others
from .config import TrainConfig
from .evaluate import check_detections, finite
from .setup import Data

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
DETECTIONS = "detections.json"
EVALUATION = "evaluation.json"
TRAIN = "train.json"
VAL = "val.json"
IDS = ids_beside(Path(VAL)).name
"""What the file that ``val.json`` came from calls its images and categories, as ``detections.json`` does."""
CURVES = "curves.png"
SHEET = "images.png"


def open_folder(folder: Path, config: TrainConfig) -> None:
    """Make a run's folder, or go on in one that holds the same run.

    Raises:
        ValueError: it holds another run, or something else; or its metrics are damaged.
    """
    path = folder / CONFIG
    refuse_others(path, config, config.same_run, "run")
    if not path.exists():
        write_config(path, config)
    read_metrics(folder)  # damage that would show later is an error now
    keep_environment(folder)


def check_kept(folder: Path) -> None:
    """See that a run's folder is still there and a run's, also where what deletes it was held up by what is written.

    Raises:
        FolderGoneError: it is not.
    """
    check_there(folder)
    if not (folder / CONFIG).exists():
        raise FolderGoneError(
            f"{folder / CONFIG} was deleted while this command worked there; nothing more was written"
        )


def keep_environment(folder: Path) -> None:
    """Write it, if it is not there."""
    if not (folder / ENVIRONMENT).exists():
        write_json(folder / ENVIRONMENT, environment(), indent=2)


def keep_annotations(folder: Path, data: Data) -> None:
    """Write the annotations that count, or see that they are those written before.

    Raises:
        ValueError: they have changed.
    """
    for path, value in missing_annotations(folder, data):
        write_json(path, value)


def missing_annotations(folder: Path, data: Data) -> list[tuple[Path, Any]]:
    """Files, with what is to be in them, of the annotations that count and that a folder lacks or holds damaged.

    Raises:
        ValueError: it holds others.
    """
    missing: list[tuple[Path, Any]] = []
    train, val = data.train.annotations, data.val.annotations
    own = None if val.own.are_numbers else val.own._asdict()
    wanted = ((TRAIN, train.path, train.coco), (IDS, val.path, own), (VAL, val.path, val.coco))
    for name, source, value in wanted:
        path = folder / name
        kept = read_if_whole(path)
        if kept is None and value is not None:
            missing.append((path, value))
        elif kept != value:
            raise ValueError(f"{source} has changed since {path} was written: choose another folder with --out")
    return missing


def read_copy(folder: Path) -> Annotations:
    """The validation part that a folder keeps; where the pictures are, it does not say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say was said of the data set
        return read_annotations(folder / VAL, part="val", pictures=folder)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Whole rows; the last one, if it was cut off as it was written, is none.

    Raises:
        ValueError: any other row that is none.
    """
    path = folder / METRICS
    *lines, rest = read_text(path).split("\n") if path.exists() else [""]
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1)]
    with suppress(ValueError):
        rows += [_row(path, len(lines) + 1, rest)] if rest else []
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    sound = isinstance(row, dict) and all(value is None or finite(value) for value in row.values())
    if not sound or type(row.get("epoch")) is not int or row["epoch"] < 0:
        raise ValueError(
            f"{path}, line {number}: expected the numbers of an epoch, an object with epoch and finite numbers, got"
            f" {shown(line)}; remove the line to go on without it"
        )
    found: dict[str, Any] = row
    return found


def read_detections(path: Path, truth: Annotations) -> list[dict[str, Any]]:
    """The COCO results of a file, with our numbers in place of the ids of ``truth``.

    Raises:
        FileNotFoundError, ValueError: it is not there, or holds something else.
    """
    found = read_json(path, "file of detections")
    try:
        results = truth.with_numbers(found)
        check_detections(truth.coco, results)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return results


def add_metrics(folder: Path, row: dict[str, Any]) -> None:
    """The row of an epoch; rows of this and later ones, of a run that was cut off, make way."""
    rows = [r for r in read_metrics(folder) if r["epoch"] < row["epoch"]]
    with replacing(folder / METRICS) as file:
        file.write("".join(json.dumps(r, allow_nan=False) + "\n" for r in [*rows, row]).encode())
