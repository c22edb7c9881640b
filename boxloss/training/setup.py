"""From a configuration to what trains: the data, read and checked, the detector and its loss."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data import Annotations, CocoImages, Source, find_data, read_annotations
from ..yolo import Grid, TinyYolo, Yolo, kmeans_anchors, pretrained_yolo
from .config import TrainConfig

Progress = Callable[[str], Callable[[Iterable[Any]], Iterable[Any]]]
"""A description → what wraps a loop to show how far it is."""


def silent(_: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    return iter


@dataclass(frozen=True)
class Data:
    """The training and validation images of a configuration."""

    train: CocoImages
    val: CocoImages


def sources(config: TrainConfig) -> tuple[Source, Source]:
    if config.train_json and config.train_images and config.val_json and config.val_images:
        return (
            Source(Path(config.train_json), Path(config.train_images)),
            Source(Path(config.val_json), Path(config.val_images)),
        )
    return find_data(config.data)


def read_data(config: TrainConfig, progress: Progress = silent) -> Data:
    """The images of both parts, all of them read once.

    Raises:
        FileNotFoundError, ValueError: a file is missing or bad, or the parts have different categories.
    """
    (train_source, val_source), subset = sources(config), config.subset
    train = subset.train.of(read_annotations(train_source.annotations, skip_bad_boxes=config.skip_bad_boxes))
    val = subset.val.of(read_annotations(val_source.annotations, skip_bad_boxes=config.skip_bad_boxes))
    if (train.category_ids, train.categories) != (val.category_ids, val.categories):
        raise ValueError(f"{train.path} and {val.path} have different categories: {_listed(train)}, and {_listed(val)}")
    _warn_of_more(val, config.detect.limit)
    return Data(
        read_images(config, train, train_source.images, progress("training images")),
        read_images(config, val, val_source.images, progress("validation images")),
    )


def _warn_of_more(val: Annotations, limit: int) -> None:
    """Of images with more to find than the detector gives."""
    objects = Counter(box["image_id"] for box in val.coco["annotations"] if not box["iscrowd"])
    more = {image["file_name"]: n for image in val.coco["images"] if (n := objects[image["id"]]) > limit}
    if not more:
        return
    file = max(more, key=more.__getitem__)
    warnings.warn(
        f"{val.path}: {len(more):,} image{'s have' if len(more) > 1 else ' has'} more objects than detect.limit,"
        f" {limit:,}, detections of an image of all categories: {file} has {more[file]:,}. Not all of them can be found"
        f" with a detect.limit below {more[file]}",
        stacklevel=2,
    )


def read_images(
    config: TrainConfig, part: Annotations, folder: Path, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> CocoImages:
    return CocoImages(part, folder, config.input_size, memory=config.memory_gb * 1e9, progress=progress)


def _listed(annotations: Annotations) -> str:
    return ", ".join(f"{k} {name}" for k, name in zip(annotations.category_ids, annotations.categories, strict=True))


def make_grid(config: TrainConfig, train: CocoImages) -> Grid:
    """Anchors clustered from the training boxes."""
    network = config.network
    sizes = train.sizes()
    wanted = network.scales * network.anchors
    if not len(sizes):
        raise ValueError(
            f"{train.annotations.path}: no boxes but crowds; expected some, whose sizes become the anchors"
        )
    anchors = kmeans_anchors(sizes, wanted, seed=config.seed)
    different = len(torch.unique(anchors, dim=0))
    if different < wanted:
        warnings.warn(
            f"{train.annotations.path}: the boxes have {different} size{'s' * (different > 1)}, fewer than the {wanted}"
            " anchors of the network; the anchors that repeat a size learn nothing",
            stacklevel=2,
        )
    scales = anchors.view(network.scales, network.anchors, 2).tolist()
    return Grid(
        tuple(tuple((w, h) for w, h in scale) for scale in scales), len(train.annotations.categories), network.stretch
    )


def make_model(config: TrainConfig, grid: Grid) -> Yolo:
    """The detector, with its weights drawn from the seed."""
    network = config.network
    torch.manual_seed(config.seed)
    if network.backbone == "tiny":
        model: Yolo = TinyYolo(grid, network.width)
    else:
        model = pretrained_yolo(
            grid, network.backbone, width=network.width, dropout=network.dropout, weights=network.weights
        )
    if network.freeze:
        model.backbone.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)  # a fifth faster on CPU


def find_device(config: TrainConfig) -> torch.device:
    if config.device != "auto":
        try:
            probe = torch.zeros(1, device=config.device)
            probe.cpu()  # meta has nothing to give back
            return probe.device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device: expected auto, cpu, cuda, …, got {config.device!r} ({reason})") from error
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
