"""torchvision's FCOS and RetinaNet, trained by boxloss's own loop: it goes on after a kill, to the same weights."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection

from ...data import Batch, CocoImages, change_truths
from ...errors import nearest
from ...integrations.torchvision import attach
from ...training import Report, Trainer
from ...training.checkpoint import PREVIOUS
from ...training.predict import Detect
from ...training.run import keep_detections
from ...yolo import Detections, Truths, YoloTerms
from .config import DetectorConfig, refuse_given

BUILDERS: dict[str, Any] = {"fcos": detection.fcos_resnet50_fpn, "retinanet": detection.retinanet_resnet50_fpn}
_CLASSES_OF = {"fcos": detection.FCOS, "retinanet": detection.RetinaNet}
_BOX, _CLASSES, _CENTERNESS = "bbox_regression", "classification", "bbox_ctrness"


def check(config: DetectorConfig, train: CocoImages) -> None:
    build(config, len(train.annotations.categories))


def train(config: DetectorConfig, folder: Path) -> dict[str, Any]:
    trainer = DetectorTrainer(config, folder, Report())
    trainer.run()
    figures = keep_detections(folder, trainer.data.val, trainer.detections(), pictures=False)
    (folder / PREVIOUS).unlink(missing_ok=True)  # hundreds of MB, times the trials of a study
    return figures


def build(config: DetectorConfig, classes: int) -> nn.Module:
    """The detector, its weights drawn from the seed, for images that need no resizing."""
    if config.model not in BUILDERS:
        known = ", ".join(f"torchvision:{name}" for name in BUILDERS)
        raise ValueError(f"detector: expected one of {known}, got {config.detector!r}")
    torch.manual_seed(config.seed)
    how = config.detect
    own = {
        "weights": None,
        "weights_backbone": None,
        "num_classes": classes,
        "min_size": min(config.input_size),
        "max_size": max(config.input_size),
        "score_thresh": how.score_threshold,
        "nms_thresh": how.iou_threshold,
        "detections_per_img": how.limit,
    }
    refuse_given(config.detector_options, own)
    names = inspect.signature(_CLASSES_OF[config.model]).parameters.keys() - own - {"backbone", "kwargs"}
    names |= {"trainable_backbone_layers"}
    for name in config.detector_options.keys() - names:  # torchvision passes over what it doesn't know
        hint = nearest(name, names) or f"known: {', '.join(sorted(names))}"
        raise ValueError(f"detector_options: {config.detector} has no {name}; {hint}")
    try:
        model: nn.Module = BUILDERS[config.model](**own | config.detector_options)
    except Exception as error:  # torchvision's checks are of many kinds
        raise ValueError(f"detector_options: {config.detector}: {type(error).__name__}: {error}") from error
    return model


class DetectorTrainer(Trainer):
    """A `Trainer` of a torchvision detector. Of its terms, ``objectness`` is FCOS's centerness."""

    config: DetectorConfig

    def _build(self) -> None:
        self.anchors = ()
        self.model: Any = build(self.config, len(self.data.train.annotations.categories)).to(self.device)
        self._box_loss = self.config.box_loss(self.config.loss, self.config.loss_parameters)
        self._attached = attach(self.model, self._box_loss) if self._box_loss else None
        self.loss = self._box_loss or nn.Identity()  # whose state is saved

    def _apply_gain(self, gain: float) -> None:
        self._factor = gain

    def _terms(self, epoch: int, step: int, batch: Batch) -> YoloTerms:
        losses = self._losses(epoch, step, batch)
        zero = losses[_BOX].new_zeros(())
        box, objectness = self._factor * losses[_BOX], losses.get(_CENTERNESS, zero)
        total = box + losses[_CLASSES] + objectness
        return YoloTerms(total, zero, zero, box, objectness, losses[_CLASSES], 0, zero.new_zeros(0))

    def _losses(self, epoch: int, step: int, batch: Batch) -> dict[str, Tensor]:
        draws = self._draws(epoch, step)
        truths = change_truths(batch.truths, draws, self.config.input_size).to(self.device)
        found: dict[str, Tensor] = self.network(list(self._inputs(batch, draws)), _targets(truths, len(batch.place)))
        return found

    def _norms(self, step: int, batch: Batch) -> tuple[float, float]:
        match = self.config.match
        assert match.loss is not None
        other = self._norm(self.config.box_loss(match.loss, match.parameters), step, batch)
        return self._norm(self._box_loss, step, batch), other  # this one stays attached

    def _norm(self, loss: Any, step: int, batch: Batch) -> float:
        """The L2 norm of the box term's gradient at the raw outputs, with a loss; None: torchvision's own."""
        raw: list[Tensor] = []
        if self._attached:
            self._attached.detach()
        self._attached = attach(self.model, loss) if loss else None
        # One output a scale; FCOS then cuts them off at 0, and what lies there has no gradient.
        last = self.model.head.regression_head.bbox_reg
        hook = last.register_forward_hook(lambda module, given, output: raw.append(output))
        slopes = torch.autograd.grad(self._losses(0, step, batch)[_BOX], raw)
        hook.remove()
        return float(torch.linalg.vector_norm(torch.cat([slope.double().flatten() for slope in slopes])))

    def _detector(self) -> Detect:
        def found(batch: Batch) -> list[Detections]:
            results = self.model(list(batch.images.to(self.device).float() / 255))
            return [Detections(one["boxes"], one["scores"], one["labels"]) for one in results]

        return found


def _targets(truths: Truths, images: int) -> list[dict[str, Tensor]]:
    """As torchvision has them; it takes no crowds, and no boxes without area."""
    counts = ~truths.crowd & (truths.box[:, 2:] > truths.box[:, :2]).all(1)
    return [
        {"boxes": truths.box[of_image], "labels": truths.label[of_image]}
        for of_image in (counts & (truths.image == k) for k in range(images))
    ]
