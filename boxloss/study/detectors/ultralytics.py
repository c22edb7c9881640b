"""ultralytics's detectors, trained by ultralytics: its loop, its augmentation, its defaults.

A trial that was cut off begins anew. Nothing is downloaded, and nothing asked of the network.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ...boxes import convert
from ...data import CocoImages
from ...files import making_folder
from ...integrations.ultralytics import Replaced, attach, criterions, stand_in, unwrapped
from ...training import Report
from ...training.folder import add_metrics, keep_annotations, open_folder
from ...training.gain import matching_gain
from ...training.predict import coco_results
from ...training.run import keep_detections
from ...training.setup import Data, read_data
from ...yolo import Detections
from .config import DetectorConfig, refuse_given

_GIVEN = (
    *("data", "epochs", "batch", "imgsz", "seed", "device", "project", "name", "exist_ok", "save_dir", "resume", "val"),
    *("model", "task", "mode", "cfg", "time", "fraction", "classes", "single_cls"),
)
"""Options of ultralytics that come from the configuration, or would be another training than it says."""
_LEAST = 10
"""Pixels of a side, below which ultralytics leaves an image out."""
_LINKED = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",)}
_ORIENTATION = 0x0112  # of EXIF
_BATCH = 32  # images of a prediction


def check(config: DetectorConfig, train: CocoImages) -> None:
    refuse_given(config.detector_options, _GIVEN)
    if config.input_size[0] != config.input_size[1]:
        raise ValueError(f"size: ultralytics trains on squares; expected one number, got {config.size}")
    small = [record for record in train.records if min(record["width"], record["height"]) < _LEAST]
    if small:
        name = small[0]["file_name"]
        raise ValueError(
            f"{name}: ultralytics leaves images below {_LEAST} pixels out; expected none, got {len(small)}"
        )
    weights = config.detector_options.get("pretrained")
    if isinstance(weights, str) and not os.path.isfile(weights):
        raise FileNotFoundError(f"detector_options: pretrained: no file {weights}, and nothing is downloaded")
    model = yolo(config)
    if model.task != "detect":
        raise ValueError(f"detector: expected a model that detects upright boxes, got {config.detector}: {model.task}")
    from ultralytics.cfg import get_cfg

    try:
        get_cfg(overrides=dict(config.detector_options))
    except (SyntaxError, TypeError, ValueError) as error:
        raise ValueError(f"detector_options: {_first_line(error)}") from error


def train(config: DetectorConfig, folder: Path) -> dict[str, Any]:
    report = Report()
    open_folder(folder, config)
    data = read_data(config, report.progress)
    keep_annotations(folder, data)
    weights, gain = _train(config, data, folder / "ultralytics")
    images = sorted((folder / "ultralytics/data/images/val").iterdir())
    found = predict(config, weights, data.val, images)
    add_metrics(folder, {"epoch": config.epochs - 1, "iou": None, "gain": gain})
    return keep_detections(folder, data.val, found, pictures=False)


def _train(config: DetectorConfig, data: Data, scratch: Path) -> tuple[Path, float]:
    """The file of the last epoch's weights, and the gain of the box term."""
    scratch = scratch.resolve()  # a relative one ultralytics would look for in a folder of its own
    shutil.rmtree(scratch, ignore_errors=True)  # of a trial that was cut off
    if {"'", '"'} & set(str(scratch)):
        raise ValueError(f"{scratch}: ultralytics loses quotes in paths; expected a folder without any")
    yaml = write_yolo(scratch / "data", {"train": data.train, "val": data.val})
    model = yolo(config)
    loss = config.box_loss(config.loss, config.loss_parameters)
    if loss:
        attach(model, loss)
    start = Start(config, len(data.train))
    model.add_callback("on_train_start", start)
    fixed: dict[str, Any] = {"val": False, "plots": False, "verbose": False, "workers": 0, "amp": False}
    model.train(
        **fixed | config.detector_options,
        data=str(yaml),
        epochs=config.epochs,
        batch=config.batch,
        imgsz=config.input_size[0],
        seed=config.seed,
        device=_device(config),
        project=str(scratch),
        name="run",
        exist_ok=True,
    )
    return Path(model.trainer.last), start.gain


def _device(config: DetectorConfig) -> str | None:
    return None if config.device == "auto" else config.device


def predict(config: DetectorConfig, weights: Path, images: CocoImages, files: Sequence[Path]) -> list[dict[str, Any]]:
    """COCO results, by the weights of the last epoch: which epoch is best is not for the validation images to say.

    Args:
        files: the images as ultralytics was given them.
    """
    from ultralytics import YOLO

    model = YOLO(weights)
    found = []
    for first in range(0, len(files), _BATCH):  # of a list ultralytics makes one batch
        results = _predicted(model, files[first : first + _BATCH], config)
        for record, result in zip(images.records[first : first + _BATCH], results, strict=True):
            boxes = result.boxes.cpu()
            detections = Detections(boxes.xyxy.double(), boxes.conf, boxes.cls.long())
            found += coco_results(detections, record)
    return found


def _predicted(model: Any, files: Sequence[Path], config: DetectorConfig) -> Any:
    how = config.detect
    return model.predict(
        [str(file) for file in files],
        imgsz=config.input_size[0],
        conf=how.score_threshold,
        iou=how.iou_threshold,
        max_det=how.limit,
        device=_device(config),
        verbose=False,
    )


def write_yolo(folder: Path, parts: Mapping[str, CocoImages]) -> Path:
    """A data set as ultralytics reads it: links to the images, a file of boxes for each; its YAML."""
    import yaml

    with making_folder(folder) as making:
        for part, images in parts.items():
            (making / "images" / part).mkdir(parents=True)
            (making / "labels" / part).mkdir(parents=True)
            lines = _label_lines(images)
            for k in range(len(images)):
                _give_image(images, k, making / "images" / part / f"{k:09d}")
                (making / "labels" / part / f"{k:09d}.txt").write_text("".join(lines[k]))
        # Not the categories' own names, for whose letters ultralytics might look for a font on the network.
        names = {k: f"class {k}" for k in range(len(next(iter(parts.values())).annotations.categories))}
        text = {"path": str(folder.resolve()), "train": "images/train", "val": "images/val", "names": names}
        (making / "data.yaml").write_text(yaml.safe_dump(text, allow_unicode=True), encoding="utf-8")
    return folder / "data.yaml"


def _label_lines(images: CocoImages) -> list[list[str]]:
    """Of each image: class, center, width and height of every box but crowds, in shares of the image."""
    by_image = images.annotations.by_image()
    found = []
    for record in images.records:
        boxes = [box for box in by_image[record["id"]] if not box["iscrowd"]]
        edge = torch.tensor([record["width"], record["height"]] * 2, dtype=torch.float64)
        corners = convert(torch.tensor([box["bbox"] for box in boxes], dtype=torch.float64).view(-1, 4), "xywh", "xyxy")
        shares = convert(torch.minimum(corners.clamp(min=0), edge) / edge, "xyxy", "cxcywh").tolist()
        found.append(
            [
                f"{box['category_id'] - 1} {' '.join(f'{n:.9g}' for n in share)}\n"
                for box, share in zip(boxes, shares, strict=True)
                if min(share[2:]) > 0
            ]
        )
    return found


def _give_image(images: CocoImages, k: int, place: Path) -> None:
    """A link to an image; or, where ultralytics would pass it over, turn it or mend it, a PNG of what boxloss reads.

    ultralytics goes by the suffix, turns an image as its EXIF says, and rewrites a JPEG that lacks its end: the user's.
    """
    path = images.path(k)
    with Image.open(path) as image:
        plain = path.suffix.lower() in _LINKED.get(str(image.format), ()) and image.getexif().get(_ORIENTATION, 1) == 1
        plain = plain and (image.format != "JPEG" or _ends(path))
    if plain:
        place.with_suffix(path.suffix.lower()).symlink_to(path.resolve())
    else:
        Image.fromarray(np.asarray(images.pictures.open(k))).save(place.with_suffix(".png"))


def _ends(jpeg: Path) -> bool:
    with jpeg.open("rb") as file:
        file.seek(-2, os.SEEK_END)
        return file.read() == b"\xff\xd9"


class Start:
    """Before the first step: the number of threads, and the gain of the box term."""

    def __init__(self, config: DetectorConfig, images: int) -> None:
        self.config, self.images, self.gain = config, images, config.gain

    def __call__(self, trainer: Any) -> None:
        if len(trainer.train_loader.dataset) != self.images:
            raise ValueError(f"ultralytics took {len(trainer.train_loader.dataset)} of {self.images} training images")
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        if self.config.match.loss is not None:
            self.gain *= matching_gain(*_norms(trainer, self.config))
        for hyperparameters in {id(c.hyp): c.hyp for c in criterions(trainer.model)}.values():
            hyperparameters.box *= self.gain


def _norms(trainer: Any, config: DetectorConfig) -> tuple[list[float], list[float]]:
    """Of the first batches: L2 norms of the box term's gradient at the decoded boxes, of this loss and of the other."""
    other = config.box_loss(str(config.match.loss), config.match.parameters)
    model = unwrapped(trainer.model)
    found: tuple[list[float], list[float]] = ([], [])
    with _as_it_was(model):
        changed = [(criterion, criterion.bbox_loss) for criterion in criterions(model)]
        for criterion, term in changed:
            own = term.own if isinstance(term, Replaced) else term
            criterion.bbox_loss = _Measuring(term, stand_in(own, other) if other else own, found)
        model.train()
        for batch in itertools.islice(trainer.train_loader, config.match.batches):
            model(trainer.preprocess_batch(batch))
        for criterion, term in changed:
            criterion.bbox_loss = term
    return found


class _Measuring(nn.Module):
    """Stands in for a criterion's ``bbox_loss`` and measures two of them."""

    def __init__(self, term: nn.Module, other: nn.Module, found: tuple[list[float], list[float]]) -> None:
        super().__init__()
        self.terms, self.found = (term, other), found
        self.own = term.own if isinstance(term, Replaced) else term

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(self.own.forward).bind(*args, **kwargs).arguments
        for term, norms in zip(self.terms, self.found, strict=True):
            boxes = given["pred_bboxes"].detach().requires_grad_()
            (slope,) = torch.autograd.grad(term(**given | {"pred_bboxes": boxes})[0], boxes)
            norms.append(float(torch.linalg.vector_norm(slope.double())))
        return self.own(*args, **kwargs)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Weights, normalization layers and random numbers after it are those before it."""
    weights = copy.deepcopy(model.state_dict())
    drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    model.load_state_dict(weights)
    random.setstate(drawn[0])
    np.random.set_state(drawn[1])
    torch.set_rng_state(drawn[2])


def yolo(config: DetectorConfig) -> Any:
    """The model, not trained. ultralytics must not look for what is not there on the network."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise ImportError(
            f"{config.detector} needs ultralytics: pip install ultralytics (AGPL-3.0, which then holds for what you"
            f" make of both; {error})"
        ) from error
    if not config.model.endswith((".yaml", ".yml")):
        raise ValueError(
            f"detector: expected a model's YAML, such as ultralytics:yolo11n.yaml, got {config.detector!r}"
        )
    try:
        return YOLO(config.model)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"detector: {config.detector}: {_first_line(error)}") from error
    except Exception as error:  # a bad YAML fails in many ways, RT-DETR's in one
        what = f"{type(error).__name__}: {_first_line(error)}"
        raise ValueError(f"detector: {config.detector} is none that YOLO can train: {what}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
