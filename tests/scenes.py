"""A small data set in COCO's format: bright rectangles on a dark ground."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 7, "name": "red"}, {"id": 3, "name": "green"}]  # class 0 is green: the lower id
COLORS = {7: (250, 40, 40), 3: (40, 250, 40)}


def picture(width, height, boxes, ground=20):
    pixels = np.full((height, width, 3), ground, dtype=np.uint8)
    for category, (x, y, w, h) in boxes:
        pixels[y : y + h, x : x + w] = COLORS[category]
    return Image.fromarray(pixels)


def some_boxes(rng, width, height):
    """Up to three, side by side in thirds of the picture."""
    found = []
    for third in range(int(rng.integers(0, 4))):
        w, h = int(rng.integers(8, width // 3)), int(rng.integers(8, height // 2))
        x = third * (width // 3) + int(rng.integers(0, width // 3 - w + 1))
        found.append((int(rng.choice([7, 3])), (x, int(rng.integers(0, height - h + 1)), w, h)))
    return found


def write_part(folder, name, images, *, seed, size=(96, 64), suffix="png"):
    """``images`` pictures, and ``name``.json beside their folder."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records, annotations = [], []
    for k in range(1, images + 1):
        boxes = some_boxes(rng, *size)
        file = f"{name}{k}.{suffix}"
        picture(*size, boxes).save(folder / "images" / file)
        records.append({"id": 10 * k, "file_name": file, "width": size[0], "height": size[1]})
        for category, box in boxes:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 10 * k, "category_id": category, "bbox": list(map(float, box))}
            )
    coco = {"images": records, "annotations": annotations, "categories": CATEGORIES}
    (folder / f"{name}.json").write_text(json.dumps(coco))
    return coco


def write_data(folder, train=12, val=4):
    """A folder that `boxloss train --data` takes."""
    write_part(folder, "train", train, seed=1)
    write_part(folder, "val", val, seed=2)
    return folder


@contextmanager
def locked_elsewhere(folder):
    """As if another process worked in a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
