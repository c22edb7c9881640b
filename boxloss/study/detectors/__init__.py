"""Detectors of other libraries in a study: same data, seeds, detections and statistics, another network and loop."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ...data import CocoImages
from .config import KINDS, OWN, DetectorConfig

__all__ = ["KINDS", "OWN", "DetectorConfig", "check_detector", "train_detector"]


def check_detector(config: DetectorConfig, train: CocoImages) -> None:
    """See that a detector can be had, before anything is trained.

    Raises:
        ImportError: its library is not installed.
        FileNotFoundError, ValueError: no such model, or options that it doesn't have.
    """
    if not len(train.sizes()):
        raise ValueError(f"{train.annotations.path}: no box in the training images")
    _library(config).check(config, train)


def train_detector(config: DetectorConfig, folder: Path) -> dict[str, Any]:
    """Train, evaluate, and leave what a run of boxloss leaves in ``folder``: metrics, detections, figures.

    Returns:
        COCO's figures.
    """
    figures: dict[str, Any] = _library(config).train(config, folder)
    return figures


def _library(config: DetectorConfig) -> Any:
    return import_module(f"{__name__}.{config.kind}")  # each imports its framework
