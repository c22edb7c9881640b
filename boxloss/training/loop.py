"""The training loop.

Everything random – order, changes, dropout – is drawn from the seed and the position, so the position, the weights and
the optimizer are all that a run needs to go on as if it had never stopped.
"""

from __future__ import annotations

import copy
import itertools
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..data import Batch, Draws, change_images, change_truths, collate, draw
from ..data.fields import shown
from ..distributed import mean_over_ranks, world_size
from ..errors import BoxlossError
from ..folders import locked
from ..yolo import Truths, YoloTerms
from .checkpoint import NAME, load_checkpoint, save_checkpoint
from .config import TrainConfig
from .evaluate import FIGURES, coco_figures, finite
from .features import CachedFeatures, cached_features
from .folder import add_metrics, check_kept, keep_annotations, open_folder
from .gain import coordinate_gradient, matching_gain, multiply
from .predict import Detect, of_outputs, predict
from .report import Report
from .setup import find_device, make_grid, make_model, read_data, without_boxes

TERMS = tuple(name for name in YoloTerms._fields if name not in ("positives", "iou"))


class TrainingError(BoxlossError):
    """The loss or its gradient is no longer finite."""


class Trainer:
    """One training run, in a folder.

    Args:
        config: what to train.
        folder: of the run; if it holds this run already, it goes on from its checkpoint.
        report: shows how far it is.
    """

    def __init__(self, config: TrainConfig, folder: Path, report: Report) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config, self.folder, self.report = config, folder, report
        self.device = find_device(config)
        self.rank, self.ranks = (dist.get_rank(), world_size()) if dist.is_initialized() else (0, 1)
        if config.batch < self.ranks:
            raise ValueError(
                f"batch: expected at least an image for each of {self.ranks} processes, got {config.batch}"
            )
        self.data = read_data(config, report.progress)
        report.say(self.data.about)
        if text := without_boxes(self.data.val):
            report.warn(text)
        self.batch = min(config.batch, len(self.data.train))
        self._build()
        if self.rank == 0:
            self._open()
        self._barrier()
        self.cached = self._cache() if config.network.freeze else None
        trained = self.model.head if self.cached else self.model
        self.network: nn.Module = DistributedDataParallel(trained) if self.ranks > 1 else trained
        self.optimizer = torch.optim.AdamW(_groups(trained, config.optimizer.weight_decay), lr=config.optimizer.lr)
        self.steps_per_epoch = len(self.data.train) // self.batch
        self.steps = config.epochs * self.steps_per_epoch
        self.step = 0
        self.gain: float | None = None  # of the coordinate terms; known when training starts
        self.sums = torch.zeros(len(TERMS) + 2, dtype=torch.float64)  # of this epoch: terms, IoU, positives

    def run(self) -> None:
        """Train to the end, from the checkpoint if there is one."""
        with nullcontext() if self.rank else locked(self.folder):
            self._run()

    def _run(self) -> None:
        if load_checkpoint(self.folder, self._restore, self.report.warn):
            done = self.step == self.steps
            self.report.say("already trained" if done else f"going on after step {self.step} of {self.steps}")
        if self.gain is None:
            self.gain = self._find_gain()
        self._apply_gain(self.gain)
        images, boxes = len(self.data.train), len(self.data.train.sizes())
        self.report.say(f"{self.folder}: {images:,} images with {boxes:,} boxes, on {self.device}")
        check_kept(self.folder)  # TensorBoard's writer would make it anew
        self.report.start(self.step, self.steps)
        try:
            with _interrupt_between_steps() as interrupted:
                while self.step < self.steps:
                    self._train_epoch(interrupted)
        finally:
            self.report.stop()

    def _train_epoch(self, interrupted: list[int]) -> None:
        """What is left of the current epoch."""
        epoch, first = divmod(self.step, self.steps_per_epoch)
        saved = time.monotonic()
        self._training_mode()  # an evaluation stands only between epochs
        for batch in self._batches(epoch, first):
            self._train_on(epoch, batch)
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch(epoch)
            elif interrupted or time.monotonic() - saved > self.config.checkpoint_seconds:
                self._save()
                saved = time.monotonic()
            if interrupted:
                raise KeyboardInterrupt

    # -- the detector; a subclass may have another -------------------------------------------------------------------

    def _build(self) -> None:
        self.grid = make_grid(self.config, self.data.train)
        self.anchors = self.grid.anchors
        self.model = make_model(self.config, self.grid).to(self.device)
        self.loss: Any = self.config.yolo_loss(self.grid)
        coarsest = math.prod(side // self.model.multiple for side in self.config.input_size)
        if self.batch // self.ranks * coarsest == 1:
            raise ValueError(
                "batch, size: a single cell of the coarsest scale has no spread to normalize by; enlarge one"
            )

    def _terms(self, epoch: int, step: int, batch: Batch) -> YoloTerms:
        """The loss of a batch."""
        outputs, truths = self._forward(epoch, step, batch)
        terms: YoloTerms = self.loss(outputs, truths, self.config.input_size)
        return terms

    def _norms(self, step: int, batch: Batch) -> tuple[float, float]:
        """Of the gradients of the coordinate terms of this loss and of the one that it is to match."""
        other = self.config.matched_loss(self.grid)
        assert other
        with torch.no_grad():
            outputs, truths = self._forward(0, step, batch)
        size = self.config.input_size
        return coordinate_gradient(self.loss, outputs, truths, size), coordinate_gradient(other, outputs, truths, size)

    def _apply_gain(self, gain: float) -> None:
        multiply(self.loss, gain)

    def _detector(self) -> Detect:
        return of_outputs(self._outputs, self.grid, self.config)

    # -- a step ------------------------------------------------------------------------------------------------------

    def _batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """This process's share of each batch of an epoch, from its ``first`` on."""
        order = torch.randperm(len(self.data.train), generator=_seeded(self.config.seed, epoch))
        order = order[: self.steps_per_epoch * self.batch].view(-1, self.batch)[first:, self.rank :: self.ranks]
        samples = self.cached["train"] if self.cached else self.data.train
        return iter(
            DataLoader(samples, batch_sampler=order.tolist(), collate_fn=collate, num_workers=self.config.workers)
        )

    def _forward(self, epoch: int, step: int, batch: Batch) -> tuple[list[Tensor], Truths]:
        """The raw outputs of a step, and what they should be."""
        draws = self._draws(epoch, step)
        outputs = self.network(self._inputs(batch, draws))
        return outputs, change_truths(batch.truths, draws, self.config.input_size).to(self.device)

    def _draws(self, epoch: int, step: int) -> Draws:
        """The random changes of this process's images of a step."""
        torch.manual_seed(_number(self.config.seed, step, self.rank))  # for dropout
        draws = draw(self.config.augment, self.batch, _seeded(self.config.seed, epoch, step))
        return draws.share(self.rank, self.ranks)

    def _find_gain(self) -> float:
        """That of the configuration, times what makes the first gradients match those of another loss."""
        if self.config.match.loss is None:
            return self.config.gain
        # Normalization layers count what passes, and so may a loss.
        before, loss_before = copy.deepcopy((self.model.state_dict(), self.loss.state_dict()))
        self._training_mode()
        first = itertools.islice(self._batches(0, 0), self.config.match.batches)
        norms = [self._norms(step, batch) for step, batch in enumerate(first)]
        self.model.load_state_dict(before)
        self.loss.load_state_dict(loss_before)
        own, wanted = mean_over_ranks(torch.tensor(norms, dtype=torch.float64, device=self.device)).T.tolist()
        return self.config.gain * matching_gain(own, wanted)

    def _train_on(self, epoch: int, batch: Batch) -> None:
        terms = self._terms(epoch, self.step, batch)
        means = mean_over_ranks(_row(terms))
        self._check(means[: len(TERMS)], "loss", batch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step, self.steps)
        self.optimizer.zero_grad()
        terms.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip)
        self._check(norm, "gradient", batch, means)
        self.optimizer.step()
        self.step += 1
        self.sums += means.cpu()
        self.report.step(total=float(means[0]), iou=float(means[-2] / means[-1].clamp(min=1)))

    def _inputs(self, batch: Batch, draws: Draws) -> Tensor | list[Tensor]:
        if self.cached:
            return [f.to(self.device) for f in self.cached["train"].of(batch.place, draws.mirrored[:, 0])]
        return change_images(batch.images.to(self.device), Draws(*(column.to(self.device) for column in draws)))

    def _training_mode(self) -> None:
        self.network.train()
        if self.config.network.freeze:
            self.model.backbone.eval()

    def _check(self, values: Tensor, what: str, batch: Batch, means: Tensor | None = None) -> None:
        if values.isfinite().all():
            return
        terms = (values if means is None else means)[: len(TERMS)].tolist()
        images = [self.data.train.annotations.own.image_ids[k] for k in batch.place.tolist()]
        raise TrainingError(
            f"the {what} of step {self.step} is not finite: "
            + ", ".join(f"{name} {value:g}" for name, value in zip(TERMS, terms, strict=True))
            + f"; image ids {images}."
            + (f" The last good checkpoint is kept in {self.folder}." if (self.folder / NAME).exists() else "")
            + " A lower optimizer.lr may help"
        )

    # -- an epoch ----------------------------------------------------------------------------------------------------

    def _end_epoch(self, epoch: int) -> None:
        if self.rank == 0:
            last = self.step == self.steps
            every = self.config.evaluate_every
            mean = self.sums / self.steps_per_epoch
            row: dict[str, Any] = {"epoch": epoch, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"]}
            row |= dict(zip(TERMS, mean[: len(TERMS)].tolist(), strict=True))
            row |= {"iou": float(mean[-2] / mean[-1]) if mean[-1] else None, "positives": float(mean[-1])}
            row["gain"] = self.gain
            if every and (epoch + 1) % every == 0 and not last:
                row |= self._evaluate()
            check_kept(self.folder)
            add_metrics(self.folder, row)
            self.report.epoch(row)
        self.sums.zero_()
        self._save()

    def _evaluate(self) -> dict[str, Any]:
        """Figures of the validation images as the network is now."""
        figures = coco_figures(self.data.val.annotations.coco, self.detections())
        return {name: figures[name] for name in FIGURES}

    def detections(self) -> list[dict[str, Any]]:
        """COCO results of the validation images as the network is now."""
        self.model.eval()
        samples = self.cached["val"] if self.cached else self.data.val
        return predict(self.data.val, samples, self._detector())

    def _outputs(self, batch: Batch) -> list[Tensor]:
        if self.cached:
            mirrored = torch.zeros(len(batch.place), dtype=torch.bool)
            features = [f.to(self.device) for f in self.cached["val"].of(batch.place, mirrored)]
            return list(self.model.head(features))
        return list(self.model(batch.images.to(self.device).float() / 255))

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        with locked(self.folder):
            open_folder(self.folder, self.config)
            keep_annotations(self.folder, self.data)

    def _cache(self) -> dict[str, CachedFeatures]:
        """The first process computes; the others wait and read."""
        if self.rank:
            self._barrier()
        found = cached_features(self.config, self.data, self.model, self.device, self.report.progress)
        if not self.rank:
            self._barrier()
        return found

    def _save(self) -> None:
        if self.rank:
            return
        if not_finite(self.model.state_dict()):
            raise TrainingError(f"the weights after step {self.step} are not finite; the last good checkpoint is kept")
        check_kept(self.folder)
        save_checkpoint(
            self.folder,
            {
                "step": self.step,
                "anchors": self.anchors,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "loss": self.loss.state_dict(),
                "sums": self.sums,
                "gain": self.gain,
            },
        )

    def _restore(self, state: dict[str, Any]) -> None:
        missing = {"step", "anchors", "model", "optimizer", "sums", "gain"} - state.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if type(state["step"]) is not int or not 0 <= state["step"] <= self.steps:
            raise ValueError(f"it is of step {state['step']!r}, of {self.steps}")
        if state["anchors"] != self.anchors:
            raise ValueError("its anchors are of other boxes than the training data holds now")
        _check_like(state["sums"], self.sums, "sums")
        if state["gain"] is not None and not (finite(state["gain"]) and state["gain"] >= 0):
            raise ValueError(f"its gain is {shown(state['gain'])}")
        _check_optimizer(state["optimizer"], self.optimizer)
        load_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "loss" in state:  # which older versions did not save; none of their losses had a state
            load_weights(self.loss, state["loss"])
        self.step = state["step"]
        self.sums = state["sums"]
        self.gain = state["gain"]

    def _barrier(self) -> None:
        if self.ranks > 1:
            dist.barrier()


@contextmanager
def _interrupt_between_steps() -> Iterator[list[int]]:
    """A list that SIGINT puts itself into: broken off within a step, the weights would be neither old nor new."""
    got: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield got  # no place for signals
        return
    before = signal.signal(signal.SIGINT, lambda number, _: got.append(number))
    try:
        yield got
    finally:
        signal.signal(signal.SIGINT, before)


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Weights into a model of the same architecture; else an error, and the model is as it was."""
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise ValueError(f"expected its weights by name, got {shown(weights)}")
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    other = {name: tuple(t.shape) for name, t in weights.items()}
    wrong = sorted(name for name in own.keys() | other.keys() if own.get(name) != other.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"it is of another architecture: {len(wrong)} of {len(own)} tensors differ, such as {name}:"
            f" {other.get(name, 'missing')} there, {own.get(name, 'missing')} here"
        )
    for name, tensor in model.state_dict().items():
        _check_like(weights[name], tensor, name)
    model.load_state_dict(weights)


def not_finite(weights: dict[str, Tensor]) -> str:
    """The name of the first of some tensors that holds NaN or an infinity; nothing if none does."""
    return next((name for name, tensor in weights.items() if not tensor.isfinite().all()), "")


def _check_like(found: Any, own: Tensor, name: str) -> None:
    """See that what a checkpoint holds can take the place of a tensor."""
    if not isinstance(found, Tensor) or found.layout != torch.strided:
        raise ValueError(f"its {name} is no tensor but {shown(found)}")
    if (found.shape, found.dtype) != (own.shape, own.dtype):
        there, here = (f"{tuple(t.shape)} of {t.dtype}" for t in (found, own))
        raise ValueError(f"its {name} is {there}; expected {here}")
    if not_finite({name: found}):
        raise ValueError(f"its {name} is not finite: it holds NaN or an infinity")


def _check_optimizer(state: Any, optimizer: torch.optim.Optimizer) -> None:
    """See that a checkpoint's state of the optimizer fits: its groups, and what it keeps of each parameter."""
    groups = optimizer.state_dict()["param_groups"]
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        raise ValueError(f"its optimizer is {shown(state)}")
    if [_kinds(group) for group in state["param_groups"]] != [_kinds(group) for group in groups]:
        raise ValueError("its optimizer has other groups or settings")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state["state"].items():
        own = parameters[number]
        for name in ("exp_avg", "exp_avg_sq"):
            _check_like(kept[name], own.detach(), f"optimizer's {name} of parameter {number}")
        _check_like(kept["step"], torch.zeros(()), f"optimizer's step of parameter {number}")


def _kinds(group: dict[str, Any]) -> dict[str, Any]:
    """The settings of a group, of which numbers may differ, and the numbers of its parameters."""
    return {key: "a number" if finite(value) else value for key, value in group.items()}


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Rising for the warmup, then along half a cosine to a hundredth."""
    o = config.optimizer
    rising = min(1.0, (step + 1) / (o.warmup + 1))
    return o.lr * rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _row(terms: YoloTerms) -> Tensor:
    values = [getattr(terms, name).detach() for name in TERMS]
    return torch.stack([*values, terms.iou.sum(), terms.total.new_tensor(float(terms.positives))]).double()


def _number(*parts: int) -> int:
    """One seed from several numbers."""
    found = 0
    for part in parts:
        found = (found * 1_000_003 + part + 1) % 2**63
    return found


def _seeded(*parts: int) -> torch.Generator:
    return torch.Generator().manual_seed(_number(*parts))
