"""The folder of a run: its configuration, environment, metrics, checkpoints, detections and figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..data import Annotations
from ..extras import version_of
from ..files import PARTS, read_if_whole, replacing, write_json
from .config import Config, TrainConfig, read_config, write_config
from .setup import Data

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
DETECTIONS = "detections.json"
EVALUATION = "evaluation.json"
TRAIN = "train.json"
VAL = "val.json"
CURVES = "curves.png"
SHEET = "images.png"
_PACKAGES = ("boxloss", "torch", "torchvision", "numpy", "pycocotools", "pillow")


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


def refuse_others(path: Path, config: Config, fits: Callable[[Config], bool], what: str, hint: str = "") -> None:
    """See that a configuration in a folder fits, or that nothing is there.

    Raises:
        ValueError: it does not fit, or there is something else.
    """
    if not path.exists():
        return refuse_foreign(path, what)
    other = read_config(path, type(config))
    if not fits(other):
        changed = "; ".join(differences(asdict(other), asdict(config)))  # type: ignore[call-overload]  # dataclasses
        where = "choose another folder with --out, or remove it"
        raise ValueError(f"{path.parent} holds another {what} ({changed}): {where}{hint}")


def refuse_foreign(path: Path, what: str) -> None:
    """See that a folder without the file that marks it as ours is new or empty.

    Raises:
        ValueError: it is not.
    """
    folder = path.parent
    if not path.exists() and folder.is_dir() and any(not entry.match(PARTS) for entry in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {what}: choose another folder with --out")


def keep_environment(folder: Path) -> None:
    """Write it, if it is not there."""
    if not (folder / ENVIRONMENT).exists():
        write_json(folder / ENVIRONMENT, environment(), indent=2)


def keep_annotations(folder: Path, data: Data) -> None:
    """Write the annotations that count, or see that they are those written before.

    Raises:
        ValueError: they have changed.
    """
    for path, part in missing_annotations(folder, data):
        part.write(path)


def missing_annotations(folder: Path, data: Data) -> list[tuple[Path, Annotations]]:
    """Those of the annotations that count which a folder lacks, or holds damaged.

    Raises:
        ValueError: it holds others.
    """
    missing = []
    for name, images in ((TRAIN, data.train), (VAL, data.val)):
        path, annotations = folder / name, images.annotations
        kept = read_if_whole(path)
        if kept is None:
            missing.append((path, annotations))
        elif kept != annotations.coco:
            source = annotations.path
            raise ValueError(f"{source} has changed since {path} was written: choose another folder with --out")
    return missing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A folder, made if need be, in which one process at a time trains, where the system has such locks.

    Raises:
        ValueError: another process trains in it, or it is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder} is a file, or in one; expected a folder: choose another with --out") from None
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is training in it") from None
        for left in folder.glob(PARTS):  # of a run that was killed as it wrote
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in old:
        if isinstance(old[key], dict) and isinstance(new[key], dict) and old[key].keys() == new[key].keys():
            found += differences(old[key], new[key], f"{prefix}{key}.")
        elif old[key] != new[key]:
            found.append(f"{prefix}{key} is {old[key]!r} there and {new[key]!r} here")
    return found


def environment() -> dict[str, Any]:
    """What figures may depend on beside the configuration."""
    return {
        "command": ["boxloss", *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """Of boxloss itself, where it runs from a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


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
