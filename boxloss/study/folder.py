"""The folder of a study: its configuration, the data that it is judged by, its trials, and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..folders import refuse_others
from .config import StudyConfig, Trial
from .trial import read_result

STUDY = "study.yaml"
SUMMARY = "summary.json"
TABLE = "summary.csv"
REPORT = "report.html"
IMPORTS = "imports"
"""Copies of a user's own losses. Trials are told by name and digest which to import, and look for none themselves."""


class Finished(NamedTuple):
    """A trial, and what it left."""

    trial: Trial
    result: dict[str, Any]


def refuse_other_studies(folder: Path, config: StudyConfig) -> None:
    """See that a folder holds this study, a part of it, or nothing.

    Raises:
        ValueError: it holds another study, or something else.
    """
    hint = ". A study may grow in its folder, by losses, seeds and data sets, and lose none"
    refuse_others(folder / STUDY, config, lambda other: _hashes(other) <= _hashes(config), "study", hint)


def _hashes(config: StudyConfig) -> set[tuple[str, str]]:
    return {(trial.name, trial.config.hash()) for trial in config.trials()}


def data_folder(folder: Path, dataset: str) -> Path:
    return folder / "data" / dataset


def result_of(folder: Path, trial: Trial) -> dict[str, Any] | None:
    return read_result(trial_folder(folder, trial), trial.config.hash())


def trial_folder(folder: Path, trial: Trial) -> Path:
    return folder / "trials" / trial.name
