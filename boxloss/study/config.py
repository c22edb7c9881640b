"""What a study compares: losses × seeds × data sets, and how each of its trials is trained."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..config import config_from
from ..training import Match, TrainConfig
from ..training.config import PATHS, absolute_path
from .detectors.config import KINDS, OWN, DetectorConfig, absolute_detector

GAINS = ("matched", "fixed")
_STUDYS = ("loss", "loss_parameters", "match", "seed", "imports")
"""The fields of a `TrainConfig` that are the study's to give."""
_MOST = {"seeds": 1000, "replicates": 10_000}


@dataclass(frozen=True)
class Entrant:
    """A loss that takes part.

    Args:
        loss: darknet, paper, or a box loss, as in boxloss losses; with another detector, own or a box loss.
        name: what the report calls it; null: as the loss.
        parameters: of a box loss, such as {beta: 2.0}.
        gain: factor of its coordinate terms, on top of a matched gain.
        seed_offset: added to its seeds, so that nothing is paired any more: for controls.
    """

    loss: str
    name: str | None = None
    parameters: dict[str, float | bool | str] = field(default_factory=dict)
    gain: float = 1.0
    seed_offset: int = 0

    @property
    def called(self) -> str:
        return self.name or self.loss


class Trial(NamedTuple):
    """One training."""

    dataset: str
    loss: str
    """What the study calls it."""
    seed: int
    """That of the study, by which trials are paired."""
    config: TrainConfig

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.loss}/{self.seed}"


@dataclass(frozen=True)
class StudyConfig:
    """A study: every loss on every data set with every seed, which gives weights, order and changes.

    Args:
        losses: names, or entries with loss, name, parameters, gain.
        reference: the loss that the others are compared with, as it is called; null: the first.
        seeds: how many, or a list of them. 8 can show that one of six losses differs from the reference; 5 or fewer
            nothing.
        gain: matched: coordinate terms as strong as the reference's at the start; fixed: as given.
        train: how each trial is trained, as for boxloss train; loss, seed and match come from the study.
        datasets: what to change in train, by name of data set; none: the data of train.
        detector: of another library: torchvision:fcos, torchvision:retinanet, or ultralytics: and a model's YAML, such
            as ultralytics:yolo11n.yaml; null: boxloss's own.
        detector_options: of that library: keywords of torchvision's builder, or of ultralytics's train.
        replicates: of the image bootstrap.
        imports: files and modules that define losses of your own.
    """

    losses: list[str | Entrant]
    reference: str | None = None
    seeds: int | list[int] = 8
    gain: str = "matched"
    train: TrainConfig = field(default_factory=TrainConfig)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    detector: str | None = None
    detector_options: dict[str, Any] = field(default_factory=dict)
    replicates: int = 500
    imports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.gain not in GAINS:
            raise ValueError(f"gain: expected one of {', '.join(GAINS)}, got {self.gain!r}")
        if not 2 <= self.replicates <= _MOST["replicates"]:
            raise ValueError(f"replicates: expected 2 to {_MOST['replicates']}, got {self.replicates}")
        if not self.losses:
            raise ValueError("losses: expected at least one")
        for loss in self.losses:
            if not isinstance(loss, str | Entrant):
                raise ValueError(f"losses: expected names, or Entrant(loss, …), got {loss!r}")
        seeds = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        if not 1 <= seeds <= _MOST["seeds"]:
            raise ValueError(f"seeds: expected at least one and at most {_MOST['seeds']}, got {self.seeds}")
        _distinct("losses", [entrant.called for entrant in self.entrants])
        _distinct("seeds", self.seed_list)
        for name in (*self.datasets, *(entrant.called for entrant in self.entrants)):
            if not re.fullmatch(r"[^\W_][\w.+=-]*", name):
                raise ValueError(
                    "a name of a loss or data set: expected letters, digits and . _ + - =, a letter or digit first, got"
                    f" {name!r}"
                )
        self.reference_entrant  # noqa: B018 – an unknown one is an error
        if self.detector is None and any(entrant.loss == OWN for entrant in self.entrants):
            raise ValueError(
                f"losses: {OWN!r} is the loss of another library's detector; expected a detector, such as"
                " torchvision:fcos, or another loss"
            )
        if self.detector_options and not self.detector:
            raise ValueError("detector_options: they are of another library's detector; expected one as detector")
        for name, base in self._bases().items():
            _refuse_studys(f"datasets.{name}." if self.datasets else "train.", base)
        for _ in self.trials():  # as is an unknown loss, parameter or field
            pass

    @property
    def entrants(self) -> list[Entrant]:
        return [Entrant(loss) if isinstance(loss, str) else loss for loss in self.losses]

    @property
    def reference_entrant(self) -> Entrant:
        by_name = {entrant.called: entrant for entrant in self.entrants}
        if self.reference is None:
            return self.entrants[0]
        if self.reference not in by_name:
            raise ValueError(f"reference: expected one of {', '.join(by_name)}, got {self.reference!r}")
        return by_name[self.reference]

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    def bases(self) -> dict[str, TrainConfig]:
        """How each data set is trained on, apart from loss and seed."""
        found = self._bases()
        if self.detector is None:
            return found
        return {name: DetectorConfig.of(base, self.detector, self.detector_options) for name, base in found.items()}

    def _bases(self) -> dict[str, TrainConfig]:
        base = replace(self.train, threads=self.train.threads or 1)
        if not self.datasets:
            stem = re.sub(r"\W", "_", Path(base.train_json or base.data).stem)
            return {stem.lstrip("_") or "data": base}
        found = {}
        for name, changes in self.datasets.items():
            try:
                found[name] = config_from(_merged(asdict(base), changes), TrainConfig)
            except ValueError as error:
                raise ValueError(f"datasets.{name}: {error}") from None
        return found

    def trials(self) -> Iterator[Trial]:
        """Seed by seed, so that a study that is looked at early is balanced."""
        reference = self.reference_entrant
        match = Match(reference.loss, reference.parameters) if self.gain == "matched" else Match()
        bases = self.bases()
        for seed in self.seed_list:
            for dataset, base in bases.items():
                for entrant in self.entrants:
                    config = replace(
                        base,
                        loss=entrant.loss,
                        loss_parameters=entrant.parameters,
                        gain=entrant.gain * base.gain,
                        match=match,
                        seed=seed + entrant.seed_offset,
                        imports=self.imports,
                    )
                    yield Trial(dataset, entrant.called, seed, config)

    @property
    def unused(self) -> tuple[str, ...]:
        """What means nothing to the detector, and is not written."""
        return tuple(f"train.{name}" for name in KINDS.get((self.detector or "").partition(":")[0], ()))

    @property
    def threads(self) -> int:
        """Of a trial; the most, if data sets differ."""
        return max(base.threads for base in self.bases().values())

    def absolute(self) -> StudyConfig:
        """With paths as they are found from anywhere, and the threads that trials take."""
        datasets = {
            name: {key: absolute_path(key, value) if key in PATHS else value for key, value in changes.items()}
            for name, changes in self.datasets.items()
        }
        train = replace(self.train.absolute(), threads=self.train.threads or 1)
        detector = self.detector and absolute_detector(self.detector)
        return replace(self, train=train, datasets=datasets, detector=detector)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(base.get(key), dict)
        found[key] = _merged(base[key], value) if inner else value
    return found


def _distinct(what: str, names: list[Any]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what}: {name!r} stands there twice; expected different names (name: …) and seeds")


def _refuse_studys(where: str, base: TrainConfig) -> None:
    default = TrainConfig()
    for name in _STUDYS:
        if getattr(base, name) != getattr(default, name):
            raise ValueError(
                f"{where}{name}: a study gives it, from its own losses, seeds and gain; expected it not to be given"
            )
