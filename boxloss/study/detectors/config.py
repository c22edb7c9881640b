"""What the training of a detector of another library depends on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ...losses import LOSSES
from ...modules import BoxLoss
from ...training import TrainConfig

OWN = "own"
"""As a loss: that of the library."""

KINDS: dict[str, tuple[str, ...]] = {
    "torchvision": ("network", "terms"),
    "ultralytics": ("network", "terms", "augment", "optimizer", "workers"),
}
"""The libraries, and the fields of a `TrainConfig` that mean nothing to them: they have their own, as
``detector_options``."""


@dataclass(frozen=True)
class DetectorConfig(TrainConfig):
    """A training run of a detector of another library. `TrainConfig` has the other arguments.

    Args:
        loss: own, the library's, or a box loss.
        detector: torchvision:fcos, torchvision:retinanet, or ultralytics: and a model's YAML.
        detector_options: of the library: keywords of torchvision's builder, or of ultralytics's train.
    """

    loss: str = OWN
    detector: str = ""
    detector_options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, base: TrainConfig, detector: str, options: Mapping[str, Any]) -> DetectorConfig:
        """With the data and the training of ``base``.

        Raises:
            ValueError: no such detector; ``base`` says something that means nothing to it.
        """
        kind, _, model = detector.partition(":")
        if kind not in KINDS or not model:
            raise ValueError(
                "detector: expected torchvision:fcos, torchvision:retinanet or ultralytics:<model.yaml>, got"
                f" {detector!r}"
            )
        default = TrainConfig()
        for name in KINDS[kind]:
            if getattr(base, name) != getattr(default, name):
                raise ValueError(
                    f"train.{name}: it is of boxloss's own detector, and {detector} has another; expected it not to be"
                    " given (detector_options: what the library calls it)"
                )
        values = {known.name: getattr(base, known.name) for known in fields(TrainConfig)}
        return cls(**values | {"loss": OWN}, detector=detector, detector_options=dict(options))

    @property
    def unused(self) -> tuple[str, ...]:
        """What means nothing to the library, and is not written."""
        return KINDS[self.kind]

    @property
    def kind(self) -> str:
        """The library."""
        return self.detector.partition(":")[0]

    @property
    def model(self) -> str:
        """What the library calls the detector."""
        return self.detector.partition(":")[2]

    def check_loss(self) -> None:
        self.box_loss(self.loss, self.loss_parameters)
        if self.match.loss is not None:
            self.box_loss(self.match.loss, self.match.parameters)

    @staticmethod
    def box_loss(loss: str, parameters: Mapping[str, Any]) -> BoxLoss | None:
        """A loss that is attached; None for the library's own.

        Raises:
            ValueError: no such loss, or parameters that it doesn't have.
        """
        if loss == OWN:
            if parameters:
                raise ValueError(f"loss_parameters: {OWN!r} has none, got {parameters}")
            return None
        others = "" if loss in LOSSES else f"; and {OWN!r}, the library's"
        try:
            return BoxLoss(loss, reduction="none", **parameters)
        except (TypeError, ValueError) as error:
            raise ValueError(f"loss: {error}{others}") from error

    def hash(self) -> str:
        """The same for two configurations that lead to the same weights; a model in a file counts by its content."""
        found = super().hash()
        if not os.path.isfile(self.model):
            return found
        content = Path(self.model).read_bytes()
        return hashlib.sha256(found.encode() + content).hexdigest()


def absolute_detector(detector: str) -> str:
    """A file of one's own as it is found from anywhere."""
    kind, colon, model = detector.partition(":")
    return f"{kind}{colon}{os.path.abspath(model)}" if model and os.path.isfile(model) else detector


def refuse_given(options: Mapping[str, Any], own: Collection[str]) -> None:
    """See that options of a library do not say what the study says.

    Raises:
        ValueError: they do.
    """
    given = [name for name in options if name in own]
    if given:
        raise ValueError(f"detector_options: {', '.join(given)}: the study gives it; expected it not to be given")
