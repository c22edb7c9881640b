"""The folder of a run: its configuration, environment, metrics, checkpoints, detections and figures."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ..config import write_config
from ..data import Annotations, ids_beside, read_annotations
from ..files import read_if_whole, replacing, write_json
from ..folders import environment, refuse_others
from .config import TrainConfig
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
        ValueError: it holds another run, or something else.
    """
    path = folder / CONFIG
    refuse_others(path, config, config.same_run, "run")
    if not path.exists():
        write_config(path, config)
    keep_environment(folder)


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
    """Whole rows; one that was cut off as it was written is none."""
    path = folder / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or "epoch" not in row:
            break
        rows.append(row)
    return rows


def add_metrics(folder: Path, row: dict[str, Any]) -> None:
    """The row of an epoch; rows of this and later ones, of a run that was cut off, make way."""
    rows = [r for r in read_metrics(folder) if r["epoch"] < row["epoch"]]
    with replacing(folder / METRICS) as file:
        file.write("".join(json.dumps(r, allow_nan=False) + "\n" for r in [*rows, row]).encode())
