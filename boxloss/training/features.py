"""Features of a frozen backbone, computed once per image and kept on disk for all runs that share them.

They are memory-mapped: what fits in memory stays there, what does not is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..data import Batch, CocoImages, Sample, cache_folder, collate
from ..files import check_is_file, making_folder, write_json
from ..yolo import PretrainedBackbone, Yolo
from .config import TrainConfig
from .setup import Data, Progress

_LARGEST = 65504.0  # of float16
_DONE = "done.json"


class CachedFeatures(Dataset[Sample]):
    """The data set without its images, and the features in their place.

    Args:
        images: the data set.
        backbone: frozen.
        cache: folder of all caches; this one's is named by what the features depend on.
        mirrored: also those of the images flipped left to right.
        progress: wraps the loop over the batches, such as tqdm.
    """

    def __init__(
        self,
        images: CocoImages,
        backbone: PretrainedBackbone,
        cache: Path,
        *,
        mirrored: bool,
        device: torch.device,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> None:
        self.images = images
        flips = (False, True) if mirrored else (False,)
        self.folder = cache / f"features-{_key(images, backbone, len(flips))}"
        try:
            self._features = _read(self.folder, len(backbone.channels))
        except (OSError, ValueError, EOFError):  # not there, or damaged
            shutil.rmtree(self.folder, ignore_errors=True)
            _compute(images, backbone.eval(), self.folder, flips, device, progress)
            self._features = _read(self.folder, len(backbone.channels))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return self.images.sample(index, with_image=False)

    def of(self, index: Tensor, mirrored: Tensor) -> list[Tensor]:
        """Features per scale, ``(B, C, h, w)`` float32, of the images at ``index``, flipped where ``mirrored``."""
        return [features[mirrored.long(), index].float() for features in self._features]


def cached_features(
    config: TrainConfig, data: Data, model: Yolo, device: torch.device, progress: Progress
) -> dict[str, CachedFeatures]:
    """Those of the training and validation images, ``train`` and ``val``; computed if they are not there."""
    assert isinstance(model.backbone, PretrainedBackbone)
    parts = {"train": (data.train, config.augment.flip > 0), "val": (data.val, False)}
    return {
        name: CachedFeatures(
            images,
            model.backbone,
            cache_folder(),
            mirrored=mirrored,
            device=device,
            progress=progress(f"features, {name}"),
        )
        for name, (images, mirrored) in parts.items()
    }


def _read(folder: Path, scales: int) -> list[Tensor]:
    paths = [folder / f"{k}.npy" for k in range(scales)]
    for path in (folder / _DONE, *paths):
        check_is_file(path)
    # Copy on write, since torch takes no array that is read-only; nothing is written.
    return [torch.from_numpy(np.load(path, mmap_mode="c")) for path in paths]


def _key(images: CocoImages, backbone: PretrainedBackbone, flips: int) -> str:
    found = hashlib.sha256(json.dumps([backbone.digest(), len(backbone.channels), images.size, flips]).encode())
    for index in range(len(images)):
        path = images.path(index).resolve()
        stat = path.stat()
        turned = "" if images.pictures.upright[index] else " as stored"
        found.update(os.fsencode(path) + f" {stat.st_size} {stat.st_mtime_ns}{turned}\n".encode())
    return found.hexdigest()[:16]


@torch.no_grad()
def _compute(
    images: CocoImages,
    backbone: torch.nn.Module,
    folder: Path,
    flips: tuple[bool, ...],
    device: torch.device,
    progress: Callable[[Iterable[Any]], Iterable[Any]],
) -> None:
    with making_folder(folder) as part:
        arrays: list[np.memmap[Any, Any]] = []
        batches: Iterable[Batch] = progress(DataLoader(images, 16, collate_fn=collate))
        for batch in batches:
            x = batch.images.to(device).float() / 255
            for flip, mirrored in enumerate(flips):
                found = [
                    f.clamp(-_LARGEST, _LARGEST).half().cpu().numpy() for f in backbone(x.flip(3) if mirrored else x)
                ]
                if not arrays:
                    arrays = [_array(part / f"{k}.npy", (len(flips), len(images)), f) for k, f in enumerate(found)]
                for array, features in zip(arrays, found, strict=True):
                    array[flip, batch.place.numpy()] = features
        for array in arrays:
            array.flush()
        write_json(part / _DONE, {"images": len(images), "flips": len(flips)})


def _array(path: Path, places: tuple[int, int], like: Any) -> np.memmap[Any, Any]:
    shape = (*places, *like.shape[1:])
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    return array
