"""Training runs: configuration, loop, checkpoints, evaluation by COCO's rules."""

from .config import (
    PATHS,
    Detect,
    Match,
    Network,
    Optimizer,
    Subset,
    Terms,
    TrainConfig,
    config_parser,
    parsed_config,
    read_config,
    write_config,
)
from .evaluate import EVALUATORS, FIGURES, coco_figures
from .loop import Trainer, TrainingError
from .report import Report
from .run import evaluate_detections, evaluate_run, figures_text, train

__all__ = [
    "EVALUATORS",
    "FIGURES",
    "PATHS",
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
    "config_from",
    "config_parser",
    "evaluate_detections",
    "evaluate_run",
    "figures_text",
    "parsed_config",
    "read_config",
    "train",
    "write_config",
]
