"""From a configuration to what trains: the data, read and checked, the detector and its loss."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data import (
    Annotations,
    CocoImages,
    Source,
    find_data,
    find_source,
    read_sources,
    shared_files,
    with_orientations,
)
from ..data.fields import counted, named
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

    @property
    def about(self) -> str:
        """What was recognized, in a line."""
        train, val = self.train.annotations.summary, self.val.annotations.summary
        return f"images for training: {train}; for validation: {val}"


def sources(config: TrainConfig) -> tuple[Source, Source]:
    if config.train_json and config.train_images and config.val_json and config.val_images:
        given = (("train", config.train_json, config.train_images), ("val", config.val_json, config.val_images))
        train, val = (_coco_source(config, Path(path), Path(folder), part) for part, path, folder in given)
        return train, val
    return find_data(config.data, format=config.format, val_share=config.val_share, voc_origin=config.voc_origin)


def _coco_source(config: TrainConfig, path: Path, folder: Path, part: str) -> Source:
    source = find_source(path, config.format, part)
    if source.format != "coco":
        raise ValueError(f"{part}_json: expected a COCO file, got {path}, {source.format}; name that data set by data")
    return replace(source, folders=(folder,))


def read_data(config: TrainConfig, progress: Progress = silent) -> Data:
    """The images of both parts, all of them read once.

    Raises:
        FileNotFoundError, ValueError: a file is missing or bad, or the parts have different categories.
    """
    train, val = read_sources(sources(config), skip_bad_boxes=config.skip_bad_boxes)
    train, val = with_orientations([config.subset.train.of(train), config.subset.val.of(val)])
    _warn_of_more(val, config.detect.limit)
    data = Data(
        read_images(config, train, progress("training images")),
        read_images(config, val, progress("validation images")),
    )
    both = shared_files(data.train.pictures.paths, data.val.pictures.paths)
    if both:
        names = named(path.name for path in both)
        text = f"{counted(both, 'picture')} of the training images in the validation images, too: {names}"
        warnings.warn(f"{text}; AP then says little about new pictures", stacklevel=2)
    return data


def without_boxes(val: CocoImages) -> str:
    """What is wrong with validation images that have nothing to find; nothing if they have."""
    lacking = not len(val.sizes())
    return f"{val.annotations.path}: no box in the validation images, so that AP is not defined" if lacking else ""


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
    config: TrainConfig, part: Annotations, progress: Callable[[Iterable[Any]], Iterable[Any]]
) -> CocoImages:
    assert part.pictures
    return CocoImages(part, part.pictures, config.input_size, memory=config.memory_gb * 1e9, progress=progress)


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
