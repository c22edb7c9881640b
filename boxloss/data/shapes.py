"""Drawn scenes to try things on without a download: shapes of many sizes and proportions, on textured ground.

Each picture depends on the seed and its number alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..files import making_folder, write_json

Color = np.ndarray[Any, np.dtype[np.float64]]

CLASSES = ("rectangle", "ellipse", "triangle", "cross")
_VERSION = 1  # raised when pictures change
_CONTRAST = 70.0  # of a shape and the ground, in some channel, at least; of 255
_VISIBLE = 0.7  # of every shape, at least, is not covered by later ones


def shapes_folder(cache: Path, *, train: int = 400, val: int = 100, side: int = 128, seed: int = 0) -> Path:
    """A folder with ``train.json``, ``val.json`` and ``images``, drawn if it is not there yet.

    Args:
        cache: the folder it is in.
        train, val: how many images.
        side: of the square images, in pixels.
        seed: of all that is drawn.
    """
    folder = cache / f"shapes-{_VERSION}-{train}-{val}-{side}-{seed}"
    if folder.is_dir():
        return folder
    with making_folder(folder) as part:
        (part / "images").mkdir()
        write_json(part / "train.json", _draw_all(part / "images", range(train), side, seed))
        write_json(part / "val.json", _draw_all(part / "images", range(train, train + val), side, seed))
    return folder


def draw_scene(side: int, rng: np.random.Generator) -> tuple[Image.Image, list[tuple[int, list[float]]]]:
    """A picture, and the class and box (x, y, width, height) of each shape in it."""
    ground = rng.uniform(80, 170) + rng.uniform(-20, 20, 3)
    image = _ground(side, ground, rng)
    owner = np.zeros((side, side), dtype=np.int32)  # which shape shows at each pixel; 0: the ground
    areas: dict[int, int] = {}
    found: list[tuple[int, list[float]]] = []
    wanted = int(rng.integers(1, 6))
    for _ in range(4 * wanted):  # a place that hides too much of another shape is drawn anew
        if len(found) == wanted:
            break
        label, outline = int(rng.integers(len(CLASSES))), _size_and_place(side, rng)
        mask = _mask(CLASSES[label], outline, side)
        rows, columns = np.where(mask)
        if len(rows) < 16:
            continue
        covered = np.where(mask, 0, owner)
        if any((covered == k).sum() < _VISIBLE * area for k, area in areas.items()):
            continue
        number = len(found) + 1
        owner[mask] = number
        areas[number] = len(rows)
        x, y = float(columns.min()), float(rows.min())
        found.append((label, [x, y, float(columns.max()) + 1 - x, float(rows.max()) + 1 - y]))
        image = Image.composite(_paint(side, ground, rng), image, Image.fromarray(mask))
    return image, found


def _draw_all(folder: Path, numbers: range, side: int, seed: int) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in numbers:
        image, found = draw_scene(side, np.random.default_rng((seed, number)))
        name = f"{number:06d}.png"
        image.save(folder / name, compress_level=1)  # noise hardly shrinks
        images.append({"id": number + 1, "file_name": name, "width": side, "height": side})
        for label, box in found:
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
    return {"info": {"description": "boxloss shapes"}, "images": images, "annotations": boxes, "categories": categories}


def _size_and_place(side: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Corners: sizes and aspect ratios, up to 1 : 4, spread evenly on a logarithmic scale; a fifth may lie outside."""
    size = side * math.exp(rng.uniform(math.log(0.12), math.log(0.7)))
    stretch = math.exp(rng.uniform(-math.log(2), math.log(2)))
    width, height = min(size * stretch, 0.9 * side), min(size / stretch, 0.9 * side)
    x, y = rng.uniform(-0.2 * width, side - 0.8 * width), rng.uniform(-0.2 * height, side - 0.8 * height)
    return x, y, x + width, y + height


def _mask(shape: str, box: tuple[float, float, float, float], side: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    image = Image.new("1", (side, side))
    _PENS[shape](ImageDraw.Draw(image), box)
    return np.asarray(image)


def _triangle(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = box
    pen.polygon([((x1 + x2) / 2, y1), (x2, y2), (x1, y2)], fill=1)


def _cross(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = box
    width, height = (x2 - x1) / 3, (y2 - y1) / 3
    pen.rectangle((x1 + width, y1, x2 - width, y2), fill=1)
    pen.rectangle((x1, y1 + height, x2, y2 - height), fill=1)


_PENS: dict[str, Callable[[ImageDraw.ImageDraw, tuple[float, float, float, float]], None]] = {
    "rectangle": lambda pen, box: pen.rectangle(box, fill=1),
    "ellipse": lambda pen, box: pen.ellipse(box, fill=1),
    "triangle": _triangle,
    "cross": _cross,
}


def _ground(side: int, color: Color, rng: np.random.Generator) -> Image.Image:
    """Noise of two sizes of grain around a color."""
    coarse = rng.uniform(-30, 30, (side // 16 + 1, side // 16 + 1, 1)).repeat(3, 2)
    fine = rng.normal(0, 10, (side, side, 3))
    smooth = Image.fromarray((128 + coarse).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return _as_image(color + np.asarray(smooth, dtype=float) - 128 + fine)


def _paint(side: int, ground: Color, rng: np.random.Generator) -> Image.Image:
    """A color unlike the ground's, with a gradient and some grain."""
    color = ground
    while abs(color - ground).max() < _CONTRAST:
        color = rng.uniform(20, 235, 3)
    slope = rng.uniform(-40, 40, 2)
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    shade = slope[0] * x + slope[1] * y + rng.normal(0, 6, (side, side))
    return _as_image(color + shade[..., None])


def _as_image(values: np.ndarray[Any, np.dtype[Any]]) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))
