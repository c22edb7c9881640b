"""`boxloss compare`: a study from its configuration to its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import page
from ..config import write_config
from ..errors import BoxlossError
from ..extras import needs
from ..files import check_there, read_if_whole, write_csv, write_json
from ..folders import environment, locked
from ..imports import copied, import_losses, is_importable, refuse_what_others_cannot
from ..losses import LOSSES
from ..plots import require_matplotlib
from ..training import Report, TrainConfig
from ..training.features import cached_features
from ..training.folder import CONFIG, ENVIRONMENT, TRAIN, VAL, missing_annotations
from ..training.setup import find_device, make_grid, make_model, read_data, without_boxes
from .config import StudyConfig, Trial
from .detectors import DetectorConfig, check_detector
from .executors import Executor, Local
from .folder import IMPORTS, STUDY, SUMMARY, TABLE, Finished, data_folder, refuse_other_studies, result_of, trial_folder
from .report import write_report
from .summary import counted, summarize, table, too_few_seeds


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
    config = replace(config, imports=import_losses(config.imports)).absolute()
    _refuse_losses_of_this_process(config)
    with locked(folder):
        refuse_other_studies(folder, config)
        trials = list(config.trials())
        left = [trial for trial in trials if result_of(folder, trial) is None]
        imports = copied(config.imports, folder / IMPORTS) if left else []
        refuse_what_others_cannot(imports)
        prepare(folder, config, left, here=isinstance(executor, Local))
        _announce(config, len(trials), len(left))
        failed = run_trials(folder, left, len(trials), config.threads, executor, imports) if left else {}
        if len(failed) == len(trials):
            raise StudyError(f"all {len(trials)} trials failed: {failures_text(failed)}")
        Report().say("statistics and report")
        finished = [Finished(trial, result) for trial in trials if (result := result_of(folder, trial))]
        summary = summarize(folder, config, finished, failed)
        write_json(folder / SUMMARY, summary, indent=1)
        write_csv(folder / TABLE, table(summary))
        write_report(folder, config, finished, summary)
    return summary


def _refuse_losses_of_this_process(config: StudyConfig) -> None:
    """See that trials, processes of their own, know every loss.

    Raises:
        ValueError: one is known to this process alone.
    """
    for entrant in config.entrants:
        loss = LOSSES.get(entrant.loss)
        if loss and not is_importable(loss.formula, config.imports):
            raise ValueError(
                f"losses: {entrant.loss} is defined in {loss.formula.__module__}, which trials, processes of their own,"
                " do not import: put it into a file of its own, and name that by --import FILE.py, or imports=[…]"
            )


def _announce(config: StudyConfig, trials: int, left: int) -> None:
    """What is to be done, and what it cannot show, before hours are spent on it."""
    losses, seeds, datasets = len(config.entrants), len(config.seed_list), len(config.bases())
    sizes = [counted(losses, "loss", "losses"), counted(seeds, "seed"), counted(datasets, "data set")]
    report = Report()
    report.say(f"{' × '.join(sizes)}: {counted(trials, 'trial')}, {left} to train")
    comparisons = (losses - 1) * datasets
    if not comparisons:
        report.warn("one loss alone: the study will compare nothing")
    elif text := too_few_seeds(seeds, comparisons):
        report.warn(f"exploratory, no difference will be significant: {text}")


def failures_text(failed: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {failure}" for name, failure in failed.items())


def prepare(folder: Path, config: StudyConfig, left: Sequence[Trial], *, here: bool) -> None:
    """See to it that the trials that are left can run, and that the folder holds all that they and the report need.

    Args:
        folder: of the study. Nothing is written before all is found to be in order.
        config: the study.
        left: the trials.
        here: whether they run on this machine.

    Raises:
        FileNotFoundError, ValueError: a file of a data set is missing or bad, or the network or device can't be had.
    """
    wanted = {trial.dataset for trial in left}
    missing = []
    for name, base in config.bases().items():
        kept = data_folder(folder, name)
        if name in wanted or any(read_if_whole(kept / part) is None for part in (TRAIN, VAL)):
            try:
                missing += _check(base, kept, here)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{name}: {error}") from error
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    write_config(folder / STUDY, config)
    if left:
        write_json(folder / ENVIRONMENT, environment(), indent=2)
    for path, value in missing:
        write_json(path, value)
    for trial in left:
        write_config(trial_folder(folder, trial) / CONFIG, trial.config)


def _check(base: TrainConfig, kept: Path, here: bool) -> list[tuple[Path, Any]]:
    """Do what a trial does before its first step; the files of annotations that a folder lacks."""
    report = Report()
    progress = report.progress
    device = find_device(base) if here else None
    data = read_data(base, progress)
    report.say(data.about)
    missing = missing_annotations(kept, data)
    if text := without_boxes(data.val):
        raise ValueError(text)
    if isinstance(base, DetectorConfig):
        check_detector(base, data.train)
        return missing
    model = make_model(base, make_grid(base, data.train))
    if device and base.network.freeze:  # once, instead of by each of the first trials
        cached_features(base, data, model.to(device), device, progress)
    return missing


def run_trials(
    folder: Path, left: Sequence[Trial], total: int, threads: int, executor: Executor, imports: Sequence[str] = ()
) -> dict[str, str]:
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
        more = (imports,) if imports else ()  # an executor of one's own need not know them
        for done, (where, failure) in enumerate(executor.run(list(by_folder), threads, *more), 1):
            check_there(folder)
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
