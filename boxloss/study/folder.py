"""The folder of a study: its configuration, the data that it is judged by, its trials, and what came out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import PARTS, write_json
from ..training import read_config, write_config
from ..training.folder import ENVIRONMENT, differences, environment
from .config import StudyConfig, Trial
from .trial import read_result

STUDY = "study.yaml"
SUMMARY = "summary.json"
TABLE = "summary.csv"
REPORT = "report.html"


def open_study(folder: Path, config: StudyConfig) -> None:
    """Make a study's folder, or go on in one that holds this study, or a part of it.

    Raises:
        ValueError: it holds another study, or something else.
    """
    path = folder / STUDY
    if path.exists():
        other = read_config(path, StudyConfig)
        before, now = ({trial.name: trial.config.hash() for trial in c.trials()} for c in (other, config))
        if not before.items() <= now.items():
            changed = "; ".join(differences(asdict(other), asdict(config)))
            raise ValueError(
                f"{folder} holds another study ({changed}): choose another folder with --out, or remove it. A study may"
                " grow in its folder, by losses, seeds and data sets, and lose none"
            )
    elif folder.exists() and any(not entry.match(PARTS) for entry in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no study: choose another folder with --out")
    write_config(path, config)
    if not (folder / ENVIRONMENT).exists():
        write_json(folder / ENVIRONMENT, environment(), indent=2)


def data_folder(folder: Path, dataset: str) -> Path:
    return folder / "data" / dataset


def result_of(folder: Path, trial: Trial) -> dict[str, Any] | None:
    return read_result(trial_folder(folder, trial), trial.config.hash())


def trial_folder(folder: Path, trial: Trial) -> Path:
    return folder / "trials" / trial.name
