"""A simulation from configuration to report. Its folder keeps what is done: the same command goes on from there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from .. import page
from ..config import write_config
from ..extras import needs
from ..files import replacing, write_csv, write_json
from ..folders import environment, locked, refuse_others
from ..plots import require_matplotlib
from .cases import PER_CENTER, centers
from .config import Descent, SimulationConfig
from .descent import Tally, descend
from .report import write_report
from .summary import curves_table, groups_table, summarize

CONFIG = "simulation.yaml"
SUMMARY = "summary.json"
CURVES = "curves.csv"
GROUPS = "groups.csv"
CHUNK = 64
"""Centers. Few enough that a chunk's numbers stay in a core's cache."""
_SAVE_EVERY = 10.0
"""Seconds."""


def simulate(
    config: SimulationConfig, folder: Path, *, threads: int | None = None, chunk: int = CHUNK
) -> dict[str, Any]:
    """Let all cases descend, and write the report: ``report.html``, ``summary.json``, ``curves.csv``, ``groups.csv``.

    Args:
        config: the simulation.
        folder: for it; if it holds it already, nothing finished is computed twice.
        threads: how many chunks at a time; torch's number if None. The results don't depend on it.
        chunk: centers computed at a time by a thread, 0.1 MB of memory each. Nor do they depend on this.

    Returns:
        The summary.

    Raises:
        ValueError: the folder holds another simulation, or something else.
    """
    require_matplotlib()  # what is used last is missed first
    page.environment()
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected 1 or more, got {threads}")
    if not 1 <= chunk <= 2048:  # sums of the farthest errors stay below 2^53
        raise ValueError(f"chunk: expected 1 to 2048 centers, got {chunk}")
    at = centers(config.centres, config.centres_layout, config.seed)
    with locked(folder):
        hint = ". A simulation may grow in its folder, by losses and rules, and lose none"
        refuse_others(folder / CONFIG, config, lambda other: _keys(other) <= _keys(config), "simulation", hint)
        write_config(folder / CONFIG, config)
        done = _run(config, folder, at, threads or torch.get_num_threads(), chunk)
        summary = summarize(config, {descent: progress.tally for descent, progress in done.items()})
        write_json(folder / SUMMARY, {**summary, "environment": environment()}, indent=1)
        write_csv(folder / CURVES, curves_table(summary))
        write_csv(folder / GROUPS, groups_table(summary))
        write_report(folder, config, summary, at, {descent: progress.final for descent, progress in done.items()})
    return summary


def _keys(config: SimulationConfig) -> set[str]:
    return {_key(config, descent) for descent in config.descents()}


def _key(config: SimulationConfig, descent: Descent) -> str:
    return json.dumps(config.of_descent(descent), sort_keys=True)


def _run(config: SimulationConfig, folder: Path, at: Tensor, threads: int, chunk: int) -> dict[Descent, Progress]:
    """What is left of every descent, on threads of one core each."""
    with needs("study", "a simulation"):
        from tqdm import tqdm
    done: dict[Descent, Progress] = {}
    with _one_core_each(), ThreadPoolExecutor(threads) as pool:
        for descent in config.descents():
            path = folder / "descents" / f"{descent.name}.npz"
            progress = done[descent] = Progress(path, _key(config, descent), config)
            total, before = config.centres * PER_CENTER, int(progress.done.sum()) * PER_CENTER
            bar = tqdm(total=total, initial=before, desc=descent.name, unit="case", unit_scale=True, disable=None)
            with bar:
                for cases in _descend(pool, config, descent, at, progress, chunk):
                    bar.update(cases)
    return done


def _descend(
    pool: ThreadPoolExecutor, config: SimulationConfig, descent: Descent, at: Tensor, progress: Progress, chunk: int
) -> Iterator[int]:
    """What is missing of a descent; how many cases each chunk has that is done."""
    stop = threading.Event()
    left = list(progress.missing(chunk))
    running = {pool.submit(copy_context().run, descend, config, descent, at[part], stop.is_set): part for part in left}
    try:
        for finished in as_completed(running):
            part = running.pop(finished)  # with its result, which would pile up
            progress.add(part, *finished.result())
            yield (part.stop - part.start) * PER_CENTER
    except BaseException:
        stop.set()
        for future in running:
            future.cancel()
        raise
    finally:
        if left:
            progress.save()


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Chunks run side by side instead of each operation on all cores: small operations gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Progress:
    """What is known of a descent: the sums over the centers that are done, and which these are."""

    def __init__(self, path: Path, key: str, config: SimulationConfig) -> None:
        self.path, self.key = path, key
        self.done = torch.zeros(config.centres, dtype=torch.bool)
        self.final = torch.zeros(config.centres, dtype=torch.int64)
        self.tally = Tally.empty(config.iterations)
        self.saved = time.monotonic()
        if path.exists():
            self._load()

    def _load(self) -> None:
        try:
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["key"]) == self.key:
                    self.tally = Tally(torch.from_numpy(file["errors"]), torch.from_numpy(file["above"]))
                    self.done, self.final = torch.from_numpy(file["done"]), torch.from_numpy(file["final"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            pass  # damaged: it is computed again

    def save(self) -> None:
        with replacing(self.path) as file:
            arrays = {"done": self.done, "final": self.final, **self.tally._asdict()}
            np.savez_compressed(file, key=self.key, **{name: array.numpy() for name, array in arrays.items()})
        self.saved = time.monotonic()

    def add(self, at: slice, tally: Tally, final: Tensor) -> None:
        self.tally, self.final[at], self.done[at] = self.tally.add(tally), final, True
        if time.monotonic() - self.saved > _SAVE_EVERY:
            self.save()

    def missing(self, chunk: int) -> Iterator[slice]:
        """Runs of centers that are not done, of at most so many."""
        edges = np.flatnonzero(np.diff(np.pad(self.done.numpy(), 1, constant_values=True)))
        for first, last in edges.reshape(-1, 2).tolist():
            yield from (slice(k, min(k + chunk, last)) for k in range(first, last, chunk))
