"""`boxloss compare`: a study from its configuration to its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BoxlossError
from ..extras import needs
from ..files import write_csv, write_json
from ..plots import require_matplotlib
from ..training import Report, write_config
from ..training.folder import CONFIG, keep_annotations, locked
from ..training.setup import make_grid, read_data
from . import page
from .config import StudyConfig, Trial
from .executors import Executor
from .folder import SUMMARY, TABLE, Finished, data_folder, open_study, result_of, trial_folder
from .report import write_report
from .summary import summarize, table


class StudyError(BoxlossError):
    """Trials of a study failed."""


def compare(config: StudyConfig, folder: Path, executor: Executor) -> dict[str, Any]:
    """Run what is left of a study, and write its report: ``report.html``, ``summary.json``, ``summary.csv``, figures.

    Args:
        config: the study.
        folder: of the study; if it holds it already, nothing finished is run twice.
        executor: where the trials run.

    Returns:
        The summary. It names the trials that failed; the same study again tries them again.

    Raises:
        ValueError, FileNotFoundError: the data, or what the folder holds; before anything is trained.
        StudyError: all trials failed.
    """
    require_matplotlib()  # what is used last is missed first
    page.environment()
    config = config.absolute()
    open_study(folder, config)
    with locked(folder):
        trials = list(config.trials())
        left = [trial for trial in trials if result_of(folder, trial) is None]
        prepare(folder, config, left)
        failed = run_trials(folder, left, len(trials), config.threads, executor) if left else {}
        if len(failed) == len(trials):
            raise StudyError(f"all {len(trials)} trials failed: {failures_text(failed)}")
        Report().say("statistics and report")
        finished = [Finished(trial, result) for trial in trials if (result := result_of(folder, trial))]
        summary = summarize(folder, config, finished, failed)
        write_json(folder / SUMMARY, summary, indent=1)
        write_csv(folder / TABLE, table(summary))
        write_report(folder, config, finished, summary)
    return summary


def failures_text(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {failure}" for name, failure in failed.items())


def prepare(folder: Path, config: StudyConfig, left: Sequence[Trial]) -> None:
    """Write the configuration of every trial that is left, and see to it that they can run.

    Raises:
        FileNotFoundError, ValueError: a file of a data set is missing or bad.
    """
    report = Report()
    for name, base in config.bases().items():
        if any(trial.dataset == name for trial in left):
            data = read_data(base, report.progress)
            make_grid(base, data.train)
            keep_annotations(data_folder(folder, name), data)
    for trial in left:
        path = trial_folder(folder, trial) / CONFIG
        if not path.exists():
            write_config(path, trial.config)


def run_trials(folder: Path, left: Sequence[Trial], total: int, threads: int, executor: Executor) -> dict[str, str]:
    """Run the trials that are left.

    Returns:
        What went wrong, by name of trial.
    """
    with needs("study", "a study"):
        from tqdm import tqdm
    by_folder = {trial_folder(folder, trial): trial for trial in left}
    failed = {}
    started = time.monotonic()
    with tqdm(total=total, initial=total - len(left), desc="trials", unit="trial", disable=None) as bar:
        for done, (where, failure) in enumerate(executor.run(list(by_folder), threads), 1):
            trial = by_folder[where]
            result = result_of(folder, trial)
            if result is None:
                failed[trial.name] = failure or "left no result"
            seconds = (time.monotonic() - started) / done * (len(left) - done)
            text = _text(result["figures"]["AP"], result["seconds"]) if result else f"failed: {failed[trial.name]}"
            bar.update()
            to_go = f"{len(left) - done} to go, about {tqdm.format_interval(seconds)}"
            tqdm.write(f"{trial.name}: {text}; {to_go}" if done < len(left) else f"{trial.name}: {text}")
    return failed


def _text(ap: float | None, seconds: float) -> str:
    return f"AP {'–' if ap is None else format(ap, '.3f')}, {seconds:.0f} s"
