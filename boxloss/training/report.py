"""What a run says of itself: bars on a terminal, lines elsewhere, nothing from any but the first process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ..extras import needs


class Report:
    """Progress of a run.

    Args:
        tensorboard: a folder for TensorBoard's files, or None.
    """

    def __init__(self, tensorboard: Path | None = None) -> None:
        with needs("study", "training"):
            from tqdm import tqdm
        self._tqdm: Any = tqdm
        self.first = not dist.is_initialized() or dist.get_rank() == 0
        self._bar: Any = None
        self._tensorboard = tensorboard if self.first else None
        if tensorboard:
            with needs("tb", "TensorBoard"):
                from torch.utils.tensorboard import SummaryWriter
            self._new_writer: Any = SummaryWriter
        self._writer: Any = None

    def progress(self, description: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
        quiet = None if self.first else True  # None: only on a terminal
        return lambda loop: self._tqdm(loop, desc=description, disable=quiet, leave=False)

    def start(self, step: int, steps: int) -> None:
        if self._tensorboard:
            self._writer = self._new_writer(str(self._tensorboard))
        self._started, self._steps = time.monotonic(), 0
        self._bar = self._tqdm(total=steps, initial=step, desc="steps", disable=None if self.first else True)

    def step(self, *, total: float, iou: float) -> None:
        self._steps += 1
        self._bar.set_postfix_str(f"loss {total:.3f}, IoU {iou:.3f}", refresh=False)
        self._bar.update()

    def epoch(self, row: dict[str, Any]) -> None:
        if self._writer:
            for name, value in row.items():
                if value is not None and name not in ("epoch", "step"):
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()
        figures = "" if row.get("AP") is None else f", AP {row['AP']:.3f}, AP50 {row['AP50']:.3f}"
        if figures or not sys.stderr.isatty():  # where the bar does not show
            self.say(f"epoch {row['epoch'] + 1}: loss {row['total']:.3f}{figures}")

    def stop(self) -> None:
        self._bar.close()
        if self._steps:
            self.say(f"{self._steps} steps in {time.monotonic() - self._started:.0f} s")
        if self._writer:
            self._writer.close()

    def say(self, text: str) -> None:
        if self.first:
            self._tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def warn(self, text: str) -> None:
        if self.first:
            print(f"warning: {text}", file=sys.stderr)
