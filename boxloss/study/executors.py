"""Where trials run: on this machine, or on the nodes of a Ray cluster.

An executor takes the folders of trials and gives each back as it ends, with what went wrong, if anything did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

from ..extras import needs
from .trial import Processes, attempt


class Executor(Protocol):
    """Where trials run."""

    def run(self, folders: Sequence[Path], threads: int, imports: Sequence[str] = ()) -> Iterator[tuple[Path, str]]:
        """Each folder as its trial ends, with what went wrong; trials take ``threads`` cores and import ``imports``."""
        ...


class Local:
    """Some trials at a time on this machine.

    Args:
        workers: how many at a time.
        retries: how often a trial that dies is started again, from its checkpoint.
    """

    def __init__(self, workers: int, retries: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        self.workers, self.retries = workers, retries

    def run(self, folders: Sequence[Path], threads: int, imports: Sequence[str] = ()) -> Iterator[tuple[Path, str]]:
        running = Processes()
        with ThreadPoolExecutor(max(1, min(self.workers, len(folders)))) as pool:
            try:
                waiting = {
                    pool.submit(attempt, folder, threads, self.retries, running, imports): folder for folder in folders
                }
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            finally:
                running.stop()
                pool.shutdown(cancel_futures=True)


class Ray:
    """Tasks of Ray: on an existing cluster, or one started here.

    The study's folder must be the same on all nodes. A trial whose node is lost goes on from its checkpoint on another.

    Args:
        address: of a cluster; None: that of RAY_ADDRESS, or one on this machine.
        gpus: how many a trial takes.
        retries: how often a trial is started again, when it dies or its node does.
    """

    def __init__(self, address: str | None = None, gpus: float = 0.0, retries: int = 2) -> None:
        self.address, self.gpus, self.retries = address, gpus, retries
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with needs("ray", "the executor ray"):
            import ray
        self._ray: Any = ray

    def run(self, folders: Sequence[Path], threads: int, imports: Sequence[str] = ()) -> Iterator[tuple[Path, str]]:
        ray = self._ray
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False)
        task = ray.remote(num_cpus=threads, num_gpus=self.gpus, max_retries=self.retries)(attempt)
        waiting = {task.remote(folder, threads, self.retries, None, imports): folder for folder in folders}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(done), self._outcome(done)
        finally:
            for left in waiting:
                ray.cancel(left, force=True)
            if ours:
                ray.shutdown()

    def _outcome(self, done: Any) -> str:
        try:
            return str(self._ray.get(done))
        except self._ray.exceptions.RayError as error:
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


EXECUTORS = ("local", "ray")
_MOST = 256  # trials at a time


def make_executor(
    name: str, threads: int, *, workers: int | None, retries: int, address: str | None = None, gpus: float = 0.0
) -> Executor:
    """An executor by name; ``workers`` None: as many as the cores allow."""
    if retries < 0:
        raise ValueError(f"retries: expected 0 or more, got {retries}")
    if name == "ray":
        return Ray(address, gpus, retries)
    if workers is not None and workers > _MOST:
        raise ValueError(f"workers: expected at most {_MOST}, got {workers}; this machine has {_cores()} cores")
    return Local(max(1, _cores() // threads) if workers is None else workers, retries)


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
