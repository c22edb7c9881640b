"""A simulation from configuration to report. Its folder keeps what is done: the same command goes on from there."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import page
from ..config import write_config
from ..extras import needs
from ..files import replacing, write_csv, write_json
from ..folders import environment, locked, refuse_others, remove_parts
from ..plots import require_matplotlib
from ..threads import one_thread
from .cases import PER_CENTER, centers
from .config import Descent, SimulationConfig
from .descent import Tally, descend
from .report import FIGURES, write_report
from .summary import curves_table, describe, groups_table

CONFIG = "simulation.yaml"
SUMMARY = "summary.json"
CURVES = "curves.csv"
GROUPS = "groups.csv"
DESCENTS = "descents"
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
        chunk: centers computed at a time by a thread. Nor do they depend on this. Memory is some 40 kB an iteration for
            each of two chunks a thread, and little for a center.

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
        for kind in (DESCENTS, FIGURES):
            remove_parts(folder / kind)
        found, finals = [], {}
        for descent, progress in _run(config, folder, at, threads or torch.get_num_threads(), chunk):
            found.append(describe(descent, progress.tally))
            finals[descent] = progress.final
        summary = {"cases": config.centres * PER_CENTER, "iterations": config.iterations, "descents": found}
        write_json(folder / SUMMARY, {"config": asdict(config), **summary, "environment": environment()}, indent=1)
        write_csv(folder / CURVES, curves_table(summary))
        write_csv(folder / GROUPS, groups_table(summary))
        write_report(folder, config, summary, at, finals)
    return summary


def _keys(config: SimulationConfig) -> set[str]:
    return {_key(config, descent) for descent in config.descents()}


def _key(config: SimulationConfig, descent: Descent) -> str:
    return json.dumps(config.of_descent(descent), sort_keys=True)


def _run(
    config: SimulationConfig, folder: Path, at: Tensor, threads: int, chunk: int
) -> Iterator[tuple[Descent, Progress]]:
    """Each descent when nothing is left of it, on threads of one core each."""
    with needs("study", "a simulation"):
        from tqdm import tqdm
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        for descent in config.descents():
            path = folder / DESCENTS / f"{descent.name}.npz"
            progress = Progress(path, _key(config, descent), config)
            total, before = config.centres * PER_CENTER, int(progress.done.sum()) * PER_CENTER
            bar = tqdm(total=total, initial=before, desc=descent.name, unit="case", unit_scale=True, disable=None)
            with bar:
                for cases in _descend(pool, threads, config, descent, at, progress, chunk):
                    bar.update(cases)
            yield descent, progress


def _descend(
    pool: ThreadPoolExecutor,
    threads: int,
    config: SimulationConfig,
    descent: Descent,
    at: Tensor,
    progress: Progress,
    chunk: int,
) -> Iterator[int]:
    """What is missing of a descent; how many cases each chunk has that is done."""
    stop, before = threading.Event(), progress.done.sum()
    left = progress.missing(chunk)
    running: dict[Future[tuple[Tally, Tensor]], slice] = {}
    try:
        while True:
            # No more than the threads need, since what they find takes more memory than what they look at.
            for part in itertools.islice(left, 2 * threads - len(running)):
                running[pool.submit(copy_context().run, descend, config, descent, at[part], stop.is_set)] = part
            if not running:
                return
            for finished in wait(running, return_when=FIRST_COMPLETED).done:
                part = running.pop(finished)
                progress.add(part, *finished.result())
                yield (part.stop - part.start) * PER_CENTER
    except BaseException:
        stop.set()
        raise
    finally:
        if progress.done.sum() > before:
            progress.save()


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
        """What is damaged, in whichever way, or of another configuration, is computed again."""
        kept = {"done": self.done, "final": self.final, **self.tally._asdict()}
        try:
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["key"]) != self.key:
                    return
                found = {name: torch.from_numpy(file[name]) for name in kept}
        except Exception:  # of the file, zip, zlib or array format
            return
        counted = found["above"].flatten(1).sum(1)
        fits = all(found[name].shape == like.shape and found[name].dtype == like.dtype for name, like in kept.items())
        if fits and (counted == found["done"].sum() * PER_CENTER).all():
            self.done, self.final = found["done"], found["final"]
            self.tally = Tally(found["errors"], found["above"])

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
