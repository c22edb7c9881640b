"""From what a file says to a data set: ids looked up, numbers read, boxes checked, everything numbered 1 … N."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from .annotations import Annotations, OwnIds
from .fields import Id, Ids, counted, in_order, is_id, number, shown, switch, whole

UPRIGHT = "upright"
"""The field of an image that EXIF turns: whether its boxes mean the upright picture. Others have no such field."""
SKIP = "--skip-bad-boxes leaves such boxes out"
_LEAST = 1e-3  # pixels of a side
_ROUNDING = 0.02  # pixels that a box may stick out without a word: COCO rounds place and size to hundredths
_NAMED = 3  # of many in a message
_LONG = 200  # letters of a name in a message


@dataclass(frozen=True)
class Raw:
    """What one part of a data set says, as it says it: records as in a COCO file, nothing checked."""

    path: Path
    """The file or folder it came from, for messages."""
    images: list[Any]
    annotations: list[Any]
    categories: list[Any]
    pictures: Path | None = None
    """The folder that ``file_name`` counts from."""
    about: str = "COCO"
    """The format, and what else was recognized."""
    listed: bool = True
    """The file lists its categories; else they are those that its boxes have."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """What else the file holds, beside these lists."""


class _FaultError(Exception):
    """What is wrong with a file as a whole."""


class _Category(NamedTuple):
    id: Id
    name: str
    parent: str | None
    """Its ``supercategory``."""
    record: Mapping[str, Any]
    """All that the file says of it."""


class _Image(NamedTuple):
    id: Id
    name: str
    width: int | None
    height: int | None
    record: Mapping[str, Any]


class _Box(NamedTuple):
    called: str
    """How messages name it."""
    image: int
    """Its place in the list of images; and of categories."""
    category: int
    bbox: list[float]
    area: float | None
    crowd: bool
    fault: str
    """What is wrong with its bbox, which may be nothing."""
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _Part:
    """What a file says, looked up and read."""

    raw: Raw
    categories: list[_Category]
    images: list[_Image]
    boxes: list[_Box]
    left_out: tuple[Id, ...] = ()
    """Root categories."""


def checked(
    raws: Sequence[Raw], cut: Sequence[bool], *, skip_bad_boxes: bool, everything: bool = False
) -> list[Annotations]:
    """The parts of one data set, which get the same categories.

    Args:
        raws: what the parts say.
        cut: for each part, whether its boxes are cut to their image, as for training; a box of which nothing is left
            is then bad. Else they stay as they are, as for evaluation.
        skip_bad_boxes: leave bad boxes out, with a warning that counts them.
        everything: also keep the fields that mean nothing to us, such as ``segmentation``.

    Raises:
        ValueError: names the file, the record, and what is wrong with it.
    """
    parts = []
    for raw in raws:
        try:
            parts.append(_looked_up(raw))
        except _FaultError as fault:
            raise ValueError(f"{raw.path}: {fault}") from None
    parts = _without_roots(parts)
    names = _common_names(parts)
    sound = [replace(part, boxes=_sound(part, edge, skip_bad_boxes)) for part, edge in zip(parts, cut, strict=True)]
    return [_numbered(part, names, _rest if everything else _nothing) for part in sound]


# -- records and ids --------------------------------------------------------------------------------------------------


def _looked_up(raw: Raw) -> _Part:
    categories, images = _categories(raw.categories), _images(raw.images)
    places = Ids(image.id for image in images), Ids(category.id for category in categories)
    boxes = [_box(k, record, images, categories, places) for k, record in enumerate(raw.annotations)]
    return _Part(raw, categories, images, boxes)


def _record(kind: str, place: int, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise _FaultError(f"{kind} number {place}: expected an object, got {shown(record)}")
    return record


def _short(value: Id) -> str:
    """A name or an id in a message."""
    return str(value)[:_LONG]


def _id(kind: str, place: int, record: dict[str, Any]) -> Id:
    if not is_id(record.get("id")):
        raise _FaultError(f"{kind} number {place}: expected an id, a number or text, got {shown(record.get('id'))}")
    found: Id = record["id"]
    return found


def _categories(records: list[Any]) -> list[_Category]:
    """One repeated with equal content counts once."""
    whole_records: dict[Id, dict[str, Any]] = {}
    found = []
    for place, given in enumerate(records):
        record = _record("category", place, given)
        key, name = _id("category", place, record), record.get("name")
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not name:
            raise _FaultError(f"category {key}: expected a name, text, got {shown(name)}")
        other = whole_records.setdefault(key, record)
        if other is record:
            parent = record.get("supercategory")
            found.append(_Category(key, name, parent if isinstance(parent, str) else None, record))
        elif other != record:
            raise _FaultError(f"two different categories have the id {shown(key)}: {shown(other)} and {shown(record)}")
    if not found:
        raise _FaultError("expected at least one category")
    return found


def _images(records: list[Any]) -> list[_Image]:
    by_id: dict[Id, str] = {}
    by_name: dict[str, Id] = {}
    found = []
    for place, given in enumerate(records):
        record = _record("image", place, given)
        key, name = _id("image", place, record), record.get("file_name")
        if not isinstance(name, str) or not name:
            raise _FaultError(f"image {key}: expected a file_name, text, got {shown(name)}")
        if key in by_id:
            raise _FaultError(f"image {key}: the id is there twice, for {by_id[key]} and {name}")
        if name in by_name:
            raise _FaultError(f"images {by_name[name]} and {key} have the same file_name, {name}")
        by_id[key], by_name[name] = name, key
        found.append(_Image(key, name, _side(key, record, "width"), _side(key, record, "height"), record))
    return found


def _side(key: Id, record: dict[str, Any], name: str) -> int | None:
    """In pixels; None if it is not given, as in the files of some tools."""
    given = record.get(name)
    if given is None:
        return None
    found = whole(given)
    if found is None or not 1 <= found < 2**31:
        raise _FaultError(f"image {key}: expected a positive whole {name} in pixels, got {shown(given)}")
    return found


def _box(place: int, given: Any, images: list[_Image], categories: list[_Category], places: tuple[Ids, Ids]) -> _Box:
    record = _record("annotation", place, given)
    called = f"annotation {_short(record['id'])}" if is_id(record.get("id")) else f"annotation number {place}"
    image = _referred("image", record, called, places[0])
    if image is None:
        raise _FaultError(f"{called}: no image has the id {shown(record.get('image_id'))}")
    category = _referred("category", record, called, places[1])
    if category is None:
        known = ", ".join(f"{_short(c.id)} ({_short(c.name)})" for c in categories[:_NAMED])
        more = f", … ({len(categories)} in all)" if len(categories) > _NAMED else ""
        wrong = shown(record.get("category_id"))
        raise _FaultError(f"{called}: no category has the id {wrong}; there are {known}{more}")
    crowd = switch(record["iscrowd"]) if record.get("iscrowd") else False
    if crowd is None:
        raise _FaultError(f"{called}: expected iscrowd 0 or 1, got {shown(record['iscrowd'])}")
    area = None
    if record.get("area") is not None:
        area = number(record["area"])
        if area is None or not 0 <= area < math.inf:
            raise _FaultError(f"{called}: expected a finite area >= 0, got {shown(record['area'])}")
    bbox, fault = _bbox(record.get("bbox"))
    return _Box(called, image, category, bbox, area, crowd, fault, record)


def _referred(kind: str, record: dict[str, Any], called: str, places: Ids) -> int | None:
    key: Any = record.get(f"{kind}_id")
    if not is_id(key):
        raise _FaultError(f"{called}: expected {kind}_id, a number or text, got {shown(key)}")
    return places.place(key)


def _bbox(given: Any) -> tuple[list[float], str]:
    numbers = map(number, given) if isinstance(given, list) and len(given) == 4 else ()
    bbox = [n for n in numbers if n is not None]
    if len(bbox) != 4:
        return [], f"expected bbox [x, y, width, height], got {shown(given)}"
    if not all(map(math.isfinite, (*bbox, bbox[0] + bbox[2], bbox[1] + bbox[3], bbox[2] * bbox[3]))):
        return [], f"bbox {shown(given)} is not finite"
    if bbox[2] <= 0 or bbox[3] <= 0:
        return [], f"bbox {shown(given)} has no area: expected a positive width and height"
    return bbox, ""


# -- categories -------------------------------------------------------------------------------------------------------


def _without_roots(parts: list[_Part]) -> list[_Part]:
    """Without the categories that stand for others, as some tools write them, and that no box of any part has."""
    twice = {name for part in parts for name, n in Counter(c.name for c in part.categories).items() if n > 1}

    def key(category: _Category) -> tuple[str, ...]:
        """Its name; and if a file has two of that name, its id, too."""
        return (category.name, str(category.id)) if category.name in twice else (category.name,)

    used = {key(part.categories[place]) for part in parts for place in {box.category for box in part.boxes}}
    left_out: dict[str, None] = {}
    found = []
    for part in parts:
        kept = _used_or_no_root(part.categories, lambda category: key(category) in used)
        _refuse_same_names(part.raw.path, kept)
        places = {category.id: place for place, category in enumerate(kept)}
        roots = [category for category in part.categories if category.id not in places]
        boxes = part.boxes
        if roots:
            boxes = [box._replace(category=places[part.categories[box.category].id]) for box in boxes]
        left_out |= {f"{root.name!r} (id {shown(root.id)})": None for root in roots}
        found.append(replace(part, categories=kept, boxes=boxes, left_out=tuple(root.id for root in roots)))
    if left_out:
        what = "root categories that no box has are" if len(left_out) > 1 else "a root category that no box has is"
        warnings.warn(f"{parts[0].raw.path}: {what} left out: {', '.join(left_out)}", stacklevel=2)
    return found


def _used_or_no_root(categories: Sequence[_Category], is_used: Callable[[_Category], bool]) -> list[_Category]:
    """A root is one that another names as its parent, or that has the name of another."""
    parents = Counter(category.parent for category in categories if category.parent != category.name)
    kept = [category for category in categories if is_used(category) or not parents[category.name]]
    names = Counter(category.name for category in kept)
    for category in list(kept):
        if names[category.name] > 1 and not is_used(category):
            kept.remove(category)
            names[category.name] -= 1
    return kept


def _refuse_same_names(path: Path, categories: Sequence[_Category]) -> None:
    by_name: dict[str, Id] = {}
    for category in categories:
        if category.name in by_name:
            ids = f"{by_name[category.name]} and {category.id}"
            raise ValueError(f"{path}: two categories have the same name: {category.name!r}, with the ids {ids}")
        by_name[category.name] = category.id


def _listed(part: _Part) -> str:
    by_id = {category.id: category.name for category in part.categories}
    return ", ".join(f"{key} {by_id[key]}" for key in in_order(by_id))


def _names(part: _Part) -> list[str]:
    """By class: class 0 is the category of the lowest id."""
    by_id = {category.id: category.name for category in part.categories}
    return [by_id[key] for key in in_order(by_id)]


def _common_names(parts: list[_Part]) -> list[str]:
    """Those of the first part, which the others may have in another order and not all of; by class."""
    if not all(part.raw.listed for part in parts):
        return sorted({category.name for part in parts for category in part.categories})
    names = _names(parts[0])
    known = set(names)
    for part in parts[1:]:
        if unknown := [name for name in _names(part) if name not in known]:
            raise ValueError(
                f"{parts[0].raw.path} and {part.raw.path} have different categories: {_listed(parts[0])}, and"
                f" {_listed(part)}; the first lacks {', '.join(unknown)}"
            )
    return names


# -- boxes, and numbers for everything --------------------------------------------------------------------------------


def _nothing(record: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _rest(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that JSON can hold: it has no NaN and no infinity, and ends somewhere."""
    found = {}
    for key, value in record.items():
        try:
            json.dumps(value, allow_nan=False)
        except (ValueError, RecursionError):
            continue
        found[key] = value
    return found


def _numbered(part: _Part, names: list[str], rest: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Annotations:
    """Images by file name, boxes by image and then as in the file, numbered 1 … N, with the rest of each record."""
    order = sorted(range(len(part.images)), key=lambda k: part.images[k].name)
    numbers = {place: k for k, place in enumerate(order, 1)}
    own = {category.name: category for category in part.categories}
    images = [part.images[place] for place in order]
    classes = {name: k for k, name in enumerate(names, 1)}
    category_numbers = [classes[category.name] for category in part.categories]
    coco = rest(part.raw.rest) | {
        "images": [
            rest(image.record)
            | {"id": k, "file_name": image.name, "width": image.width, "height": image.height}
            | {key: image.record[key] for key in (UPRIGHT,) if isinstance(image.record.get(key), bool)}
            for k, image in enumerate(images, 1)
        ],
        "annotations": [
            rest(box.record)
            | {
                "id": k,
                "image_id": numbers[box.image],
                "category_id": category_numbers[box.category],
                "bbox": box.bbox,
                "area": box.bbox[2] * box.bbox[3] if box.area is None else box.area,
                "iscrowd": int(box.crowd),
            }
            for k, box in enumerate(sorted(part.boxes, key=lambda box: numbers[box.image]), 1)
        ],
        "categories": [
            rest(own[name].record if name in own else {}) | {"id": k, "name": name} for name, k in classes.items()
        ],
    }
    ids = OwnIds(
        [image.id for image in images], [own[name].id if name in own else name for name in names], list(part.left_out)
    )
    return Annotations(part.raw.path, coco, ids, part.raw.pictures, part.raw.about)


def _sound(part: _Part, cut: bool, skip_bad_boxes: bool) -> list[_Box]:
    """The boxes that are not bad, cut if wanted."""
    boxes = list(_cut(part, part.boxes)) if cut else part.boxes
    bad = [box for box in boxes if box.fault]
    if bad:
        path = part.raw.path
        text = f"{path}: {bad[0].called}: {bad[0].fault}" + (f" (and {len(bad) - 1} more)" if bad[1:] else "")
        if not skip_bad_boxes:
            raise ValueError(f"{text}; {SKIP}")
        left_out = f"left out {counted(bad, 'bad box')}"
        if len(bad) == len(boxes):
            raise ValueError(f"{left_out}, and no box is left: {text}")
        warnings.warn(f"{left_out}: {text}", stacklevel=2)
    if cut:
        _say_cut(part, boxes)
    elif outside := [box for box in boxes if not box.fault and _is_outside(box, part.images[box.image])]:
        what = f"{counted(outside, 'box')} without a pixel inside the image, the first is {outside[0].called}"
        warnings.warn(f"{part.raw.path}: {what}; judged as COCO does, like any other", stacklevel=2)
    return [box for box in boxes if not box.fault]


def _cut(part: _Part, boxes: Sequence[_Box]) -> Iterator[_Box]:
    """At the edges of the image; what then is less than a thousandth of a pixel is bad."""
    for box in boxes:
        image = part.images[box.image]
        if box.fault:
            yield box
            continue
        if image.width is None or image.height is None:
            raise ValueError(f"{part.raw.path}: image {image.id}: expected its width and height in pixels, got none")
        x, y, width, height = box.bbox
        x, width = _inside(x, width, image.width)
        y, height = _inside(y, height, image.height)
        if width < _LEAST or height < _LEAST:
            place = "lies outside" if _is_outside(box, image) else "has less than a thousandth of a pixel inside"
            size = f"{image.width} × {image.height} pixels"
            yield box._replace(fault=f"bbox {box.bbox} {place} its image {image.name} of {size}")
        else:
            bbox = [x, y, width, height]
            yield box if bbox == box.bbox else box._replace(bbox=bbox)


def _inside(start: float, length: float, side: int) -> tuple[float, float]:
    """Start and length of the part of a span that lies in [0, side]; untouched where all of it does."""
    if start >= 0 and start + length <= side:
        return start, length
    low, high = max(start, 0.0), min(start + length, float(side))
    return low, high - low


def _is_outside(box: _Box, image: _Image) -> bool:
    if image.width is None or image.height is None:
        return False
    x, y, width, height = box.bbox
    return x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0


def _say_cut(part: _Part, boxes: Sequence[_Box]) -> None:
    cut = [
        new
        for new, old in zip(boxes, part.boxes, strict=True)
        if new is not old
        and not new.fault
        and max(abs(a - b) for a, b in zip(new.bbox, old.bbox, strict=True)) > _ROUNDING
    ]
    if cut:
        what = f"{counted(cut, 'box')} over the edge of the image, the first is {cut[0].called}"
        warnings.warn(f"{part.raw.path}: {what}; cut to the image for training", stacklevel=2)
