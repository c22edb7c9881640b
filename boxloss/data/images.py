"""Annotated images as samples of one size: read, letterboxed, kept in memory when they fit, and made into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..boxes import convert
from ..yolo import Truths
from .annotations import Annotations
from .pictures import Pictures

GRAY = 114
"""Of the bars of a letterboxed image."""


class Sample(NamedTuple):
    """An image of the network's input size with its boxes, in pixels of it."""

    place: int
    """In the data set."""
    image: Tensor
    """``(3, H, W)`` uint8."""
    box: Tensor
    """``(T, 4)``, x1, y1, x2, y2."""
    label: Tensor
    crowd: Tensor


class Batch(NamedTuple):
    """Samples side by side."""

    place: Tensor
    """``(B,)``, in the data set."""
    images: Tensor
    """``(B, 3, H, W)`` uint8."""
    truths: Truths


@dataclass(frozen=True)
class Letterbox:
    """How an image of some size lies in one of ``size``: enlarged or reduced to fit, in the middle of gray bars."""

    left: int
    top: int
    width: int
    height: int
    scale: tuple[float, float]
    """Pixels of the input per pixel of the image, by x and y; nearly equal: sides are rounded to whole pixels."""

    @classmethod
    def fit(cls, width: int, height: int, size: tuple[int, int]) -> Letterbox:
        """An image of ``width`` × ``height`` pixels in ``size``, height and width."""
        scale = min(size[0] / height, size[1] / width)
        inner = max(round(width * scale), 1), max(round(height * scale), 1)
        left, top = (size[1] - inner[0]) // 2, (size[0] - inner[1]) // 2
        return cls(left, top, *inner, (inner[0] / width, inner[1] / height))

    def place(self, boxes: Tensor) -> Tensor:
        """Corner boxes in pixels of the image → of the input."""
        return boxes * boxes.new_tensor(self.scale * 2) + boxes.new_tensor([self.left, self.top] * 2)

    def back(self, boxes: Tensor) -> Tensor:
        """Corner boxes in pixels of the input → of the image."""
        return (boxes - boxes.new_tensor([self.left, self.top] * 2)) / boxes.new_tensor(self.scale * 2)


class CocoImages(Dataset[Sample]):
    """The images of a COCO data set. (torchvision's CocoDetection reads them one by one, unchecked.)

    Args:
        annotations: checked.
        folder: of the images.
        size: height and width that every sample has.
        memory: bytes that the samples may take; above it they are read anew each time.
        progress: wraps the loop over the images that are read, such as tqdm.

    Raises:
        FileNotFoundError, ValueError: an image is missing, damaged, or of another size than its annotation says: all
            are read once before this returns.
    """

    def __init__(
        self,
        annotations: Annotations,
        folder: Path,
        size: tuple[int, int],
        *,
        memory: float = 4e9,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> None:
        self.annotations = annotations
        self.folder = folder = Path(folder)
        self.size = size
        self.records: list[dict[str, Any]] = annotations.coco["images"]
        self.pictures = Pictures(self.records, folder, annotations.path)
        self.letterboxes = [Letterbox.fit(r["width"], r["height"], size) for r in self.records]
        self._boxes = self._placed()
        fits = len(self.records) * 3 * size[0] * size[1] <= memory
        self._kept = torch.empty((len(self.records) if fits else 0, 3, *size), dtype=torch.uint8)
        for place, image in enumerate(progress(self.pictures.each(self._read if fits else self._check))):
            if fits:
                self._kept[place] = image

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample(self, index: int, *, with_image: bool = True) -> Sample:
        """One sample; without its image, an empty tensor stands in its place."""
        if not with_image:
            return Sample(index, self._kept.new_empty(0), *self._boxes[index])
        return Sample(index, self._kept[index] if len(self._kept) else self._read(index), *self._boxes[index])

    def path(self, index: int) -> Path:
        return self.pictures.paths[index]

    def sizes(self) -> Tensor:
        """Widths and heights of all boxes but crowds, in pixels of the input, ``(T, 2)``: what anchors fit."""
        return torch.cat([(box[:, 2:] - box[:, :2])[~crowd] for box, _, crowd in self._boxes])

    def _placed(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        by_image = self.annotations.by_image()
        placed = []
        for record, letterbox in zip(self.records, self.letterboxes, strict=True):
            boxes = by_image[record["id"]]
            corners = convert(torch.tensor([b["bbox"] for b in boxes], dtype=torch.float64).view(-1, 4), "xywh", "xyxy")
            edge = torch.tensor([record["width"], record["height"]] * 2, dtype=torch.float64)
            inside = torch.minimum(corners.clamp(min=0), edge)
            placed.append(
                (
                    letterbox.place(inside).float(),
                    torch.tensor([b["category_id"] - 1 for b in boxes], dtype=torch.long),
                    torch.tensor([bool(b["iscrowd"]) for b in boxes], dtype=torch.bool),
                )
            )
        return placed

    def _check(self, index: int) -> None:
        self.pictures.open(index, decode=False)

    def _read(self, index: int) -> Tensor:
        box = self.letterboxes[index]
        image = self.pictures.open(index).resize((box.width, box.height), Image.Resampling.BILINEAR)
        canvas = np.full((*self.size, 3), GRAY, dtype=np.uint8)
        canvas[box.top : box.top + box.height, box.left : box.left + box.width] = np.asarray(image)
        return torch.from_numpy(canvas).permute(2, 0, 1).contiguous()


def collate(samples: Sequence[Sample]) -> Batch:
    counts = torch.tensor([len(sample.box) for sample in samples])
    return Batch(
        torch.tensor([sample.place for sample in samples]),
        torch.stack([sample.image for sample in samples]),
        Truths(
            torch.repeat_interleave(torch.arange(len(samples)), counts),
            torch.cat([sample.box for sample in samples]),
            torch.cat([sample.label for sample in samples]),
            torch.cat([sample.crowd for sample in samples]),
        ),
    )
