"""COCO annotation files: read, checked before anything trains on them, cut to a subset, written back."""

from __future__ import annotations

import math
import random
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import nearest
from ..files import read_json, write_json

SKIP = "--skip-bad-boxes leaves such boxes out"
_LEAST = 1e-3  # pixels of a side
_SLACK = 1.0  # pixels: COCO's own boxes end up to that far outside their image
_KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Annotations:
    """A checked COCO data set."""

    path: Path
    """The file it came from, for messages."""
    coco: dict[str, Any]
    """As in the file: ``images``, ``annotations``, ``categories`` and whatever else; area and iscrowd are filled in."""

    @property
    def categories(self) -> list[str]:
        """Names by class: class 0 is the category of the lowest id."""
        return [category["name"] for category in self._by_id()]

    @property
    def category_ids(self) -> list[int]:
        """Ids by class."""
        return [category["id"] for category in self._by_id()]

    def _by_id(self) -> list[dict[str, Any]]:
        return sorted(self.coco["categories"], key=lambda category: int(category["id"]))

    def by_image(self) -> dict[int, list[dict[str, Any]]]:
        """The boxes of each image, by its id; none for any other."""
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for box in self.coco["annotations"]:
            found[box["image_id"]].append(box)
        return found

    def write(self, path: Path) -> None:
        """As a COCO file."""
        write_json(path, self.coco)


@dataclass(frozen=True)
class CocoSubset:
    """Which images and boxes of a data set count; the same for the same numbers, everywhere.

    Args:
        images: how many, drawn with ``seed``; a smaller subset is part of a larger one. None: all.
        categories: names; images that hold a box of one of them count, with only these boxes. None: all images.
        seed: of the draw.
    """

    images: int | None = None
    categories: Sequence[str] | None = None
    seed: int = 0

    def of(self, annotations: Annotations) -> Annotations:
        """The subset, with images, annotations and categories in the order of the file.

        Raises:
            ValueError: an unknown category, no image left, or fewer than asked for.
        """
        coco = annotations.coco
        categories, boxes = coco["categories"], coco["annotations"]
        eligible = {image["id"] for image in coco["images"]}
        if self.categories is not None:
            categories = self._named(annotations)
            ids = {category["id"] for category in categories}
            boxes = [box for box in boxes if box["category_id"] in ids]
            eligible = {box["image_id"] for box in boxes if not box["iscrowd"]}
        chosen = set(self._drawn(sorted(eligible), annotations.path))
        return Annotations(
            annotations.path,
            coco
            | {
                "images": [image for image in coco["images"] if image["id"] in chosen],
                "annotations": [box for box in boxes if box["image_id"] in chosen],
                "categories": categories,
            },
        )

    def _named(self, annotations: Annotations) -> list[dict[str, Any]]:
        known = annotations.categories
        for name in self.categories or ():
            if name not in known:
                hint = nearest(name, known) or "no name is like it."
                raise ValueError(
                    f"categories: {annotations.path} has no category {name!r}; {hint} It has: {', '.join(known)}"
                )
        return [category for category in annotations.coco["categories"] if category["name"] in (self.categories or ())]

    def _drawn(self, ids: list[int], path: Path) -> list[int]:
        of = f" with a box of {', '.join(self.categories)}" if self.categories is not None else ""
        if not ids or (self.images is not None and not 1 <= self.images <= len(ids)):
            raise ValueError(
                f"images: {path} has {len(ids)} images{of}; asked for: {'all' if self.images is None else self.images}"
            )
        return ids if self.images is None else random.Random(self.seed).sample(ids, len(ids))[: self.images]


def read_annotations(path: Path, *, skip_bad_boxes: bool = False) -> Annotations:
    """A COCO annotation file, checked.

    Args:
        path: the file.
        skip_bad_boxes: leave out boxes that are not finite, have no area or lie outside their image, with a warning
            that counts them. (An unknown image or category, or a bad id, is always an error.)

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not COCO, or a bad annotation: the message names file, annotation id and reason.
    """
    coco = read_json(path, "annotation file")
    if not isinstance(coco, dict) or any(not isinstance(coco.get(key), list) for key in _KEYS):
        raise ValueError(f"{path} is not a COCO file: expected an object with the lists {', '.join(_KEYS)}")
    try:
        boxes = list(_check(coco))
    except _FaultError as fault:
        raise ValueError(f"{path}: {fault}") from None
    bad = [(box, reason) for box, reason in boxes if reason]
    if bad:
        text = f"{path}: annotation {bad[0][0]['id']}: {bad[0][1]}" + (f" (and {len(bad) - 1} more)" if bad[1:] else "")
        if not skip_bad_boxes:
            raise ValueError(f"{text}; {SKIP}")
        warnings.warn(f"left out {len(bad)} bad box{'es' if bad[1:] else ''}: {text}", stacklevel=2)
    kept = [_filled(box) for box, reason in boxes if not reason]
    return Annotations(path, coco | {"annotations": kept})


class _FaultError(Exception):
    """What is wrong with a file as a whole."""


def _check(coco: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every annotation with what is wrong with its box, which may be nothing."""
    images = _index("image", coco["images"], {"file_name": str, "width": int, "height": int})
    categories = _index("category", coco["categories"], {"name": str})
    if not categories:
        raise _FaultError("expected at least one category")
    names = [category["name"] for category in categories.values()]
    if len(set(names)) < len(names):
        raise _FaultError(f"two categories have the same name: {', '.join(sorted(names))}")
    for image in images.values():
        if image["width"] < 1 or image["height"] < 1:
            raise _FaultError(f"image {image['id']}: expected a positive width and height")
    for box in _index("annotation", coco["annotations"], {"image_id": int, "category_id": int}).values():
        # pycocotools takes id 0 for "matched with nothing".
        if box["id"] == 0:
            raise _FaultError("annotation 0: expected another id; the COCO evaluation takes 0 for no match")
        if box["image_id"] not in images:
            raise _FaultError(f"annotation {box['id']}: no image has the id {box['image_id']}")
        if box["category_id"] not in categories:
            known = ", ".join(f"{c['id']} ({c['name']})" for c in categories.values())
            raise _FaultError(f"annotation {box['id']}: no category has the id {box['category_id']}; there are {known}")
        if box.get("iscrowd", 0) not in (0, 1) or not isinstance(box.get("iscrowd", 0), int):
            raise _FaultError(f"annotation {box['id']}: expected iscrowd 0 or 1, got {box['iscrowd']!r}")
        if not _number(box.get("area", 0)) or box.get("area", 0) < 0:
            raise _FaultError(f"annotation {box['id']}: expected a finite area >= 0, got {box['area']!r}")
        yield box, _box_fault(box.get("bbox"), images[box["image_id"]])


def _index(kind: str, records: list[Any], fields: dict[str, type]) -> dict[int, dict[str, Any]]:
    """Records by id, which is theirs alone, with the fields they need."""
    found: dict[int, dict[str, Any]] = {}
    for place, record in enumerate(records):
        if not isinstance(record, dict) or not _is(record.get("id"), int):
            raise _FaultError(f"{kind} number {place}: expected an object with an integer id")
        for name, wanted in fields.items():
            if not _is(record.get(name), wanted):
                raise _FaultError(
                    f"{kind} {record['id']}: expected {name} of type {wanted.__name__}, got {record.get(name)!r}"
                )
        if record["id"] in found:
            raise _FaultError(f"{kind} {record['id']}: the id is there twice")
        found[record["id"]] = record
    return found


def _is(value: Any, wanted: type) -> bool:
    return isinstance(value, wanted) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    """A finite one; whole numbers of any length are JSON too."""
    try:
        return (_is(value, int) or _is(value, float)) and math.isfinite(value)
    except OverflowError:
        return False


def _box_fault(box: Any, image: dict[str, Any]) -> str:
    if not isinstance(box, list) or len(box) != 4 or not all(_is(n, int) or _is(n, float) for n in box):
        return f"expected bbox [x, y, width, height], got {box!r}"
    if not all(map(_number, box)):
        return f"bbox {box} is not finite"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"bbox {box} has no area: expected a positive width and height"
    low, right, bottom = -_SLACK, image["width"] + _SLACK, image["height"] + _SLACK
    # A box of less than a thousandth of a pixel, or of which no more is inside, has no area either.
    inside = min(x + width, image["width"]) - max(x, 0), min(y + height, image["height"]) - max(y, 0)
    if x < low or y < low or x + width > right or y + height > bottom or min(inside) < _LEAST:
        return f"bbox {box} lies outside its image {image['file_name']} of {image['width']} × {image['height']} pixels"
    return ""


def _filled(box: dict[str, Any]) -> dict[str, Any]:
    return {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0} | box
