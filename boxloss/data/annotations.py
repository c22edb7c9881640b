"""A checked data set, what the file it came from calls its images and categories, and subsets of it."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import nearest
from ..files import write_json
from .fields import Id, Ids, is_id, number, shown


class OwnIds(NamedTuple):
    """What a file itself calls its images and categories, in the order of our numbers."""

    image_ids: list[Id]
    category_ids: list[Id]
    """By class."""
    left_out: list[Id]
    """Root categories, which no box has: what was detected of them counts for nothing."""

    @property
    def are_numbers(self) -> bool:
        """The file counts as we do."""
        return not self.left_out and all(ids == list(range(1, len(ids) + 1)) for ids in self[:2])


def ids_beside(path: Path) -> Path:
    """Where the ids of the file that a copy was made of are kept, beside the copy."""
    return path.with_name(f"{path.stem}_ids.json")


@dataclass(frozen=True)
class Annotations:
    """A checked data set, or a part of one.

    Images, categories and annotations are numbered 1 … N: images by file name, categories as their file orders them.
    What the file itself calls them appears in messages, and in results that are read or written for others.
    """

    path: Path
    """The file or folder it came from, for messages."""
    coco: dict[str, Any] = field(repr=False)
    """As a COCO file: ``images``, ``annotations``, ``categories``, with the fields that count and no other."""
    own: OwnIds = field(repr=False)
    """The file's own ids."""
    pictures: Path | None = None
    """The folder that ``file_name`` counts from, if it is known."""
    about: str = "COCO"
    """The format that was recognized."""

    @property
    def categories(self) -> list[str]:
        """Names by class."""
        return [category["name"] for category in self.coco["categories"]]

    @property
    def category_ids(self) -> list[int]:
        """Our numbers by class: 1 … C."""
        return [category["id"] for category in self.coco["categories"]]

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        return f"{len(self.coco['images']):,} from {self.path} ({self.about})"

    def by_image(self) -> dict[int, list[dict[str, Any]]]:
        """The boxes of each image, by its number; none for any other."""
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for box in self.coco["annotations"]:
            found[box["image_id"]].append(box)
        return found

    def part(self, wanted: Callable[[dict[str, Any]], bool]) -> Annotations:
        """The images that are wanted, numbered anew."""
        places = [k for k, image in enumerate(self.coco["images"]) if wanted(image)]
        numbers = {self.coco["images"][place]["id"]: k for k, place in enumerate(places, 1)}
        boxes = [box for box in self.coco["annotations"] if box["image_id"] in numbers]
        coco = self.coco | {
            "images": [self.coco["images"][place] | {"id": k} for k, place in enumerate(places, 1)],
            "annotations": [box | {"id": k, "image_id": numbers[box["image_id"]]} for k, box in enumerate(boxes, 1)],
        }
        return replace(
            self, coco=coco, own=self.own._replace(image_ids=[self.own.image_ids[place] for place in places])
        )

    def with_images(self, images: list[dict[str, Any]]) -> Annotations:
        """With other fields of its images."""
        return replace(self, coco=self.coco | {"images": images})

    def write(self, path: Path) -> None:
        """As a COCO file, with our numbers; the own ids beside it, if they are others."""
        if self.own.are_numbers:
            ids_beside(path).unlink(missing_ok=True)  # of another file that was there
        else:
            write_json(ids_beside(path), self.own._asdict())
        write_json(path, self.coco)

    def with_own_ids(self, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """COCO results with the file's own ids in place of our numbers, for whoever has the file."""
        images, categories, _ = self.own
        return [
            box | {"image_id": images[box["image_id"] - 1], "category_id": categories[box["category_id"] - 1]}
            for box in found
        ]

    def with_numbers(self, found: Any) -> list[dict[str, Any]]:
        """COCO results as others write them, with our numbers in place of the file's own ids.

        Raises:
            ValueError: something that is not a COCO result, or of an image or a category that the file does not have.
        """
        if not isinstance(found, list):
            raise ValueError(f"expected COCO results, a list of detections, got {type(found).__name__}")
        places = {"image_id": Ids(self.own.image_ids), "category_id": Ids(self.own.category_ids)}
        roots = Ids(self.own.left_out)
        numbered = []
        for place, box in enumerate(found):
            if not isinstance(box, dict) or not {"image_id", "category_id", "bbox", "score"} <= box.keys():
                raise ValueError(f"detection {place}: expected image_id, category_id, bbox and score, got {shown(box)}")
            key = box["category_id"]
            if not is_id(key) or roots.place(key) is None or places["category_id"].place(key) is not None:
                numbered.append(self._numbered(place, box, places))
        return numbered

    def _numbered(self, place: int, box: dict[str, Any], places: dict[str, Ids]) -> dict[str, Any]:
        numbers: dict[str, Any] = {}
        for name, ids in places.items():
            known = ids.place(box[name]) if is_id(box[name]) else None
            if known is None:
                kind = name.removesuffix("_id")
                raise ValueError(f"detection {place}: {self.path} has no {kind} with the id {shown(box[name])}")
            numbers[name] = known + 1
        bbox = [_plain(n) for n in box["bbox"]] if isinstance(box["bbox"], list) else box["bbox"]
        return numbers | {"bbox": bbox, "score": _plain(box["score"])}


def _plain(value: Any) -> Any:
    """The number that a value plainly is; anything else stays, for the evaluation to refuse."""
    found = number(value) if isinstance(value, str) else None
    return value if found is None else found


def divided(annotations: Annotations, part: str, share: float) -> Annotations:
    """The training or the validation part of a data set that is not divided.

    Which part an image belongs to depends on its file name alone, so more images move none of them.

    Args:
        annotations: all of it.
        part: ``"train"`` or ``"val"``.
        share: of the images, about, for validation.

    Raises:
        ValueError: no image would be left in the part.
    """

    def is_val(image: dict[str, Any]) -> bool:
        digest = hashlib.sha256(image["file_name"].encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    found = annotations.part(lambda image: is_val(image) == (part == "val"))
    if not found.coco["images"]:
        raise ValueError(
            f"val_share {share:g} of the {len(annotations.coco['images'])} images of {annotations.path}"
            f" leaves none for {part}; expected another share, or more images"
        )
    return found


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
        """The subset, its images, annotations and categories numbered anew, in the order they had.

        Raises:
            ValueError: an unknown category, no image left, or fewer than asked for.
        """
        eligible = {image["id"] for image in annotations.coco["images"]}
        if self.categories is not None:
            annotations = self._of_categories(annotations)
            eligible = {box["image_id"] for box in annotations.coco["annotations"] if not box["iscrowd"]}
        chosen = set(self._drawn(sorted(eligible), annotations.path))
        return annotations.part(lambda image: image["id"] in chosen)

    def _of_categories(self, annotations: Annotations) -> Annotations:
        """With these categories and their boxes only, numbered anew."""
        known = annotations.categories
        for name in self.categories or ():
            if name not in known:
                hint = nearest(name, known) or "no name is like it."
                raise ValueError(
                    f"categories: {annotations.path} has no category {name!r}; {hint} It has: {', '.join(known)}"
                )
        kept = [k for k, name in enumerate(known) if name in (self.categories or ())]
        numbers = {place + 1: k for k, place in enumerate(kept, 1)}
        boxes = [box for box in annotations.coco["annotations"] if box["category_id"] in numbers]
        coco = annotations.coco | {
            "categories": [{"id": k, "name": known[place]} for k, place in enumerate(kept, 1)],
            "annotations": [box | {"category_id": numbers[box["category_id"]]} for box in boxes],
        }
        own = annotations.own._replace(category_ids=[annotations.own.category_ids[place] for place in kept])
        return replace(annotations, coco=coco, own=own)

    def _drawn(self, ids: list[int], path: Path) -> list[int]:
        of = f" with a box of {', '.join(self.categories)}" if self.categories is not None else ""
        if not ids and self.images is None:
            raise ValueError(f"images: {path} has no images{of}")
        if not ids or (self.images is not None and not 1 <= self.images <= len(ids)):
            raise ValueError(
                f"images: {path} has {len(ids)} images{of}; asked for: {'all' if self.images is None else self.images}"
            )
        return ids if self.images is None else random.Random(self.seed).sample(ids, len(ids))[: self.images]
