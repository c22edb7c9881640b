"""Training runs: configuration, loop, checkpoints, evaluation by COCO's rules."""

from .config import (
    PATHS,
    READING,
    Detect,
    Match,
    Network,
    Optimizer,
    Subset,
    Terms,
    TrainConfig,
)
from .evaluate import EVALUATORS, FIGURES, MAX_DETECTIONS, coco_figures
from .loop import Trainer, TrainingError
from .report import Report
from .run import evaluate_detections, evaluate_run, figures_text, train

__all__ = [
    "EVALUATORS",
    "FIGURES",
    "MAX_DETECTIONS",
    "PATHS",
    "READING",
    "Detect",
    "Match",
    "Network",
    "Optimizer",
    "Report",
    "Subset",
    "Terms",
    "TrainConfig",
    "Trainer",
    "TrainingError",
    "coco_figures",
    "evaluate_detections",
    "evaluate_run",
    "figures_text",
    "train",
]
