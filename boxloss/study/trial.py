"""A trial: a training run of its own process, from ``config.yaml`` in its folder to ``result.json``.

``python -m boxloss.study FOLDER`` runs it, or goes on with it; any scheduler can do that.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import check_is_file, read_if_whole, read_yaml, write_json
from ..folders import locked, read_recorded
from ..imports import own_process
from ..training import TrainConfig, train
from ..training.evaluate import finite
from ..training.folder import CONFIG, DETECTIONS, METRICS, read_metrics
from .detectors import DetectorConfig, train_detector

RESULT = "result.json"
_KEYS = ("hash", "gain", "figures", "curve", "seconds")
LOG = "log.txt"
REFUSED = 3
"""Exit status of an error that would only come again, such as a loss that is not finite."""


def read_result(folder: Path, config_hash: str) -> dict[str, Any] | None:
    """What a finished trial left; None if it is not finished, is of another configuration, or lost a part of it.

    A trial that is not finished is run again, which costs little where its checkpoint is left.
    """
    result = read_if_whole(folder / RESULT)
    whole = isinstance(result, dict) and all(key in result for key in _KEYS) and (folder / DETECTIONS).is_file()
    return result if whole and result["hash"] == config_hash and _is_sound(result) else None


def _is_sound(result: dict[str, Any]) -> bool:
    """Whether the fields that a report shows are of their types."""
    curve, figures = result["curve"], result["figures"]
    rows = curve if isinstance(curve, list) and all(isinstance(row, dict) for row in curve) else [{}]
    return (
        all(finite(row.get("epoch")) and all(_is_figure(row.get(name)) for name in ("AP", "iou")) for row in rows)
        and isinstance(figures, dict)
        and "AP" in figures
        and _is_figure(figures["AP"])
        and finite(result["gain"])
        and finite(result["seconds"])
    )


def _is_figure(value: Any) -> bool:
    return value is None or finite(value)


def run_trial(folder: Path) -> None:
    """Train, evaluate, and leave the result."""
    config = read_trial(folder / CONFIG)
    with locked(folder):
        _run_trial(folder, config)


def _run_trial(folder: Path, config: TrainConfig) -> None:
    if read_result(folder, config.hash()):
        return
    started = time.monotonic()
    figures = (
        train_detector(config, folder) if isinstance(config, DetectorConfig) else train(config, folder, pictures=False)
    )
    rows = read_metrics(folder)
    if not rows or rows[-1].get("gain") is None:
        raise ValueError(f"{folder / METRICS} has lost what belongs to the checkpoint; remove {folder} to train anew")
    curve = [{"epoch": row["epoch"] + 1, "AP": row.get("AP"), "iou": row.get("iou")} for row in rows]
    seconds = time.monotonic() - started  # of the last process, if there were several
    found = (config.hash(), rows[-1]["gain"], figures, curve, seconds)
    write_json(folder / RESULT, dict(zip(_KEYS, found, strict=True)), indent=1)


def read_trial(path: Path) -> TrainConfig:
    """A trial's configuration, of boxloss's own detector or of another library's."""
    values = read_yaml(path, "configuration")
    return read_recorded(path, DetectorConfig if isinstance(values, dict) and "detector" in values else TrainConfig)


def attempt(
    folder: Path, threads: int, retries: int, running: Processes | None = None, imports: Sequence[str] = ()
) -> str:
    """Run a trial in a process of its own, which imports ``imports``, again if it dies.

    Returns:
        What went wrong; nothing if it is done.
    """
    failure = ""
    if (folder / LOG).exists():
        check_is_file(folder / LOG)  # opening a pipe would wait for a reader
    for _ in range(retries + 1):
        with (folder / LOG).open("ab") as log:
            status = (running or Processes()).run(folder, threads, log, imports)
        if status == 0:
            return ""
        failure = _failure(folder, status)
        if status == REFUSED:
            return failure
    return f"{failure}, {retries + 1} times" if retries else failure


def _failure(folder: Path, status: int) -> str:
    lines = (folder / LOG).read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    if status == REFUSED:
        return last
    return f"killed by signal {-status}" if status < 0 else f"ended with status {status}: {last}"


class Processes:
    """The trials that run now. They end when this process does, whatever ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, folder: Path, threads: int, log: Any, imports: Sequence[str] = ()) -> int:
        """A trial to its end; its exit status."""
        command = [sys.executable, "-m", __package__, str(folder), "--until-eof"]
        command += [f"--import={name}" for name in imports]
        environment = own_process() | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        with self._lock:
            if self._stopped:
                return -1
            # A session of its own: Ctrl-C reaches this process alone, which then ends the trials.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)
            if process.stdin:
                process.stdin.close()

    def stop(self) -> None:
        """End them, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()
