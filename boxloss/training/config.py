"""What a training run depends on. Read from YAML and the command line, written into the run's folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ..data import FORMATS, SHAPES, Augment, CocoSubset
from ..imports import split
from ..losses import LOSSES, find_loss
from ..modules import BoxLoss
from ..yolo import Grid, YoloLoss
from ..yolo.model import coarsest

PATHS = ("data", "train_json", "train_images", "val_json", "val_images")
"""The fields of a `TrainConfig` that are paths; ``data`` may also be shapes."""
READING = ("format", "val_share", "voc_origin")
"""The fields that say how a data set is read."""
_ADDED = (*READING, "imports")
"""Fields that older configurations lack: at their defaults they do not count in the hash."""


_MOST = {"size": 8192, "network.width": 4096, "network.anchors": 1000, "detect.limit": 100_000}
"""Beyond it a number is a slip, and would end in a failed allocation."""


@dataclass(frozen=True)
class Subset:
    """The part of the data that counts.

    Args:
        images: how many training images, drawn with subset.seed; null: all.
        val_images: how many validation images; null: all.
        categories: names; only images that hold one of them, and only their boxes. null: all.
        seed: of the draw.
    """

    images: int | None = None
    val_images: int | None = None
    categories: list[str] | None = None
    seed: int = 0

    @property
    def train(self) -> CocoSubset:
        return CocoSubset(self.images, self.categories, self.seed)

    @property
    def val(self) -> CocoSubset:
        return CocoSubset(self.val_images, self.categories, self.seed)


@dataclass(frozen=True)
class Network:
    """The detector.

    Args:
        backbone: tiny, a plain network trained from scratch; efficientnet_lite0; or a classifier of torchvision.
        weights: of a backbone other than tiny: default (ImageNet), none, or a file with a state dict.
        freeze: train the head alone, on features computed once; a backbone other than tiny.
        width: channels: of tiny at half the resolution, of any other backbone's head.
        dropout: share of a backbone's channels that the head does without in each step; not of tiny.
        scales: two or three, from 8 pixels a cell.
        anchors: how many per scale; their sizes are clustered from the training boxes.
        stretch: 1: a center stays in its cell, as in Darknet; 2: it reaches from -1/2 to 3/2 (box losses only).
    """

    backbone: str = "tiny"
    weights: str = "default"
    freeze: bool = False
    width: int = 16
    dropout: float = 0.0
    scales: int = 3
    anchors: int = 3
    stretch: float = 1.0

    def __post_init__(self) -> None:
        if self.freeze and self.backbone == "tiny":
            raise ValueError("network.freeze: the tiny backbone has no pretrained weights; expected another backbone")
        if not 0 <= self.dropout < 1 or (self.dropout and self.backbone == "tiny"):
            raise ValueError(f"network.dropout: expected 0, or with another backbone than tiny < 1, got {self.dropout}")
        if self.scales not in (2, 3) or self.anchors < 1:
            raise ValueError(f"network: expected 2 or 3 scales of 1 anchor or more, got {self.scales}, {self.anchors}")
        for name in ("width", "anchors"):
            if not 1 <= getattr(self, name) <= _MOST[f"network.{name}"]:
                most = _MOST[f"network.{name}"]
                raise ValueError(f"network.{name}: expected 1 to {most:,}, got {getattr(self, name)}")
        if not 1 <= self.stretch <= 4:
            raise ValueError(f"network.stretch: expected a number in [1, 4], got {self.stretch!r}")


@dataclass(frozen=True)
class Terms:
    """How the loss's terms are formed and weighed; see boxloss.yolo.YoloLoss.

    Args:
        box_unit: pixel, cell or image.
        reduction: sum, batch or positives.
        objectness: one or iou.
        classification: bce, focal or softmax.
        ignore_threshold: IoU above which a prediction that is no positive is not told that it is wrong.
        label_smoothing: classes become 1 - e/2 and e/2.
        gains: factors of xy, wh, box, objectness, classification; 1 where not given.
    """

    box_unit: str = "pixel"
    reduction: str = "positives"
    objectness: str = "one"
    classification: str = "bce"
    ignore_threshold: float = 0.7
    label_smoothing: float = 0.0
    gains: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """A gain from the gradients: that with which the coordinate terms start as strong as those of another loss.

    It is the ratio of the mean L2 norms of their gradients at the raw outputs, over the first batches, at the initial
    weights; then it stays.

    Args:
        loss: the other one; null: no such gain.
        parameters: its own, if it is a box loss.
        batches: how many.
    """

    loss: str | None = None
    parameters: dict[str, float | bool | str] = field(default_factory=dict)
    batches: int = 10

    def __post_init__(self) -> None:
        if self.batches < 1:
            raise ValueError(f"match.batches: expected at least 1, got {self.batches}")


@dataclass(frozen=True)
class Optimizer:
    """AdamW, warmed up, then falling along a half cosine to a hundredth.

    Args:
        lr: the highest learning rate.
        weight_decay: of weights, not of biases and norms.
        warmup: steps of rising learning rate.
        clip: the longest gradient over all parameters; longer ones are shortened to it.
    """

    lr: float = 4e-3
    weight_decay: float = 5e-4
    warmup: int = 50
    clip: float = 10.0

    def __post_init__(self) -> None:
        if not (self.lr > 0 and self.weight_decay >= 0 and self.warmup >= 0 and self.clip > 0):
            raise ValueError(f"optimizer: expected lr and clip > 0, weight_decay and warmup >= 0, got {self}")


@dataclass(frozen=True)
class Detect:
    """How detections are made from outputs.

    Args:
        score_threshold: lower scores are dropped.
        iou_threshold: of boxes of one class that overlap by more, the best stays.
        limit: the most detections of an image.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.5
    limit: int = 100

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"detect.{name}: expected a number in [0, 1], got {getattr(self, name)!r}")
        if not 1 <= self.limit <= _MOST["detect.limit"]:
            raise ValueError(f"detect.limit: expected 1 to {_MOST['detect.limit']:,}, got {self.limit}")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Args:
        data: shapes, drawn on first use; or a data set in COCO's, YOLO's or Pascal VOC's format, a folder or its file.
        format: of the data set: coco, yolo or voc; auto recognizes it.
        val_share: share of the images for validation, of a data set that is not divided; by a hash of the file names.
        voc_origin: 1 for the VOC challenge's own files, whose pixels count from 1.
        train_json: annotations, if not from data; then all four files are given.
        train_images: folder of the training images.
        val_json: annotations to evaluate on.
        val_images: folder of these images.
        subset: the part of the data that counts.
        skip_bad_boxes: leave bad boxes out, with a warning, instead of stopping.
        loss: darknet, paper, or a box loss, as in boxloss losses.
        loss_parameters: of a box loss, such as {beta: 2.0}.
        gain: factor of the coordinate terms (xy, wh, box), besides those of terms.gains and match.
        match: a gain from the gradients.
        network: the detector.
        terms: how the loss's terms are formed and weighed.
        size: of the network's input, one side or height and width; multiples of 16 (two scales) or 32.
        augment: random changes of training images.
        epochs: passes over the training images.
        batch: images of a step, of all processes together.
        optimizer: learning rates.
        detect: how detections are made.
        evaluate_every: epochs from one evaluation to the next; 0: only at the end.
        seed: of weights, order and changes.
        threads: of each process; 0: as torch finds.
        workers: processes that read images, if they do not fit in memory.
        memory_gb: what the images may take.
        device: auto, cpu, cuda, …
        checkpoint_seconds: from one checkpoint to the next, besides those at the end of each epoch.
        imports: files and modules that define losses of your own.
    """

    data: str = "shapes"
    format: str = "auto"
    val_share: float | None = None
    voc_origin: int = 0
    train_json: str | None = None
    train_images: str | None = None
    val_json: str | None = None
    val_images: str | None = None
    subset: Subset = field(default_factory=Subset)
    skip_bad_boxes: bool = False
    loss: str = "darknet"
    loss_parameters: dict[str, float | bool | str] = field(default_factory=dict)
    gain: float = 1.0
    match: Match = field(default_factory=Match)
    network: Network = field(default_factory=Network)
    terms: Terms = field(default_factory=Terms)
    size: int | tuple[int, int] = 160
    augment: Augment = field(default_factory=Augment)
    epochs: int = 40
    batch: int = 16
    optimizer: Optimizer = field(default_factory=Optimizer)
    detect: Detect = field(default_factory=Detect)
    evaluate_every: int = 10
    seed: int = 0
    threads: int = 0
    workers: int = 0
    memory_gb: float = 4.0
    device: str = "auto"
    checkpoint_seconds: float = 60.0
    imports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("evaluate_every", 0), ("threads", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.threads > 1024:
            raise ValueError(f"threads: expected at most 1024, got {self.threads}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected a number in [0, 2^63), got {self.seed}")
        multiple = coarsest(self.network.scales)
        if any(side < 1 or side % multiple for side in self.input_size):
            raise ValueError(
                f"size: expected multiples of {multiple} for {self.network.scales} scales, got {self.size}"
            )
        if max(self.input_size) > _MOST["size"]:
            raise ValueError(f"size: expected at most {_MOST['size']:,}, got {self.size}")
        if self.network.freeze and not self.augment.only_flips:
            raise ValueError(
                "augment: cached features (network.freeze) can be mirrored left to right, nothing else; expected"
                " flip_vertical, zoom, shift and color to be 0"
            )
        own = [getattr(self, name) for name in PATHS[1:]]
        if any(own) and not all(own):
            raise ValueError("train_json, train_images, val_json, val_images: expected all four or none")
        if self.format not in FORMATS:
            raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.voc_origin not in (0, 1):
            raise ValueError(f"voc_origin: expected 0 or 1, got {self.voc_origin}")
        if self.val_share is not None and (not 0 < self.val_share < 1 or any(own)):
            raise ValueError(
                f"val_share: expected a number between 0 and 1, of a data set given by data, got {self.val_share}"
            )
        if not 0 <= self.gain < float("inf"):
            raise ValueError(f"gain: expected a finite number >= 0, got {self.gain}")
        self.check_loss()

    def check_loss(self) -> None:
        """Find an unknown loss, parameter or gain here, before any data is read."""
        grid = Grid((((1.0, 1.0),),), 1, self.network.stretch)
        self.yolo_loss(grid)
        self.matched_loss(grid)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def matched_loss(self, grid: Grid) -> YoloLoss | None:
        """The loss whose gradients those of this one are to match."""
        if self.match.loss is None:
            return None
        other = replace(self, loss=self.match.loss, loss_parameters=self.match.parameters, match=Match())
        return other.yolo_loss(grid)

    def yolo_loss(self, grid: Grid) -> YoloLoss:
        terms = self.terms
        if self.loss in ("darknet", "paper"):
            if self.loss_parameters:
                raise ValueError(f"loss_parameters: {self.loss!r} has none, got {self.loss_parameters}")
            coordinates: str | BoxLoss = self.loss
        else:
            own: dict[str, Any] = dict(self.loss_parameters)
            others = "" if self.loss in LOSSES else "; and 'darknet', 'paper'"
            try:
                find_loss(self.loss).check_parameters(own)
                coordinates = BoxLoss(self.loss, **own)
            except (TypeError, ValueError) as error:
                raise ValueError(f"loss: {error}{others}") from error
        return YoloLoss(
            grid,
            coordinates=coordinates,
            box_unit=terms.box_unit,
            reduction=terms.reduction,
            objectness=terms.objectness,
            classification=terms.classification,
            ignore_threshold=terms.ignore_threshold,
            label_smoothing=terms.label_smoothing,
            gains=terms.gains,
        )

    def same_run(self, other: TrainConfig) -> bool:
        """Whether both lead to the same weights: where and how fast does not matter."""
        return self._what() == other._what()

    def hash(self) -> str:
        """The same for two configurations that lead to the same weights."""
        values = asdict(self._what())
        for added in fields(self):
            if added.name in _ADDED and values[added.name] in (added.default, []):
                del values[added.name]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def absolute(self) -> TrainConfig:
        """With paths as they are found from anywhere."""
        paths: dict[str, Any] = {name: absolute_path(name, getattr(self, name)) for name in PATHS}
        return replace(self, **paths)

    def _what(self) -> TrainConfig:
        contents = sorted(split(name)[1] for name in self.imports)
        return replace(self, workers=0, memory_gb=0.0, checkpoint_seconds=0.0, imports=contents)


def absolute_path(name: str, path: str | None) -> str | None:
    """The value of a field of `PATHS` as it is found from anywhere."""
    return os.path.abspath(path) if path and (name, path) != ("data", SHAPES) else path
