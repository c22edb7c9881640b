"""An honest comparison of losses: paired trainings, intervals, tests, a report."""

from .config import Entrant, StudyConfig, Trial
from .executors import EXECUTORS, Executor, Local, Ray, make_executor
from .pairs import compare_pairs, every_loss, pairs_text
from .run import StudyError, compare, failures_text
from .statistics import analyse
from .summary import summary_text

__all__ = [
    "EXECUTORS",
    "Entrant",
    "Executor",
    "Local",
    "Ray",
    "StudyConfig",
    "StudyError",
    "Trial",
    "analyse",
    "compare",
    "compare_pairs",
    "every_loss",
    "failures_text",
    "make_executor",
    "pairs_text",
    "summary_text",
]
