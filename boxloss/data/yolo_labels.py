"""Data sets as YOLO detectors read them: a ``data.yaml``, and a label file for each picture.

A line of a label file is a box: its class, then its center, width and height in shares of the picture; or a polygon's
points.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_text
from ..files import read_yaml as read_plain_yaml
from .check import Raw
from .fields import counted, named, number, shown, whole
from .pictures import headers
from .walk import PICTURES, files_in, is_file, is_folder

_FAR = 4.0  # sides of a picture beyond which numbers must be pixels
_PATH = 500  # characters of a path in a message
_NO_LABELS = frozenset({"classes.txt", "labels.txt", "notes.txt", "readme.txt", "train.txt", "val.txt", "test.txt"})
"""Text files that tools put beside label files."""


@dataclass(frozen=True)
class YoloYaml:
    """A ``data.yaml``."""

    path: Path
    names: dict[int, str]
    """By class number."""
    keypoints: int
    """How many numbers may follow a box in a line, with ``kpt_shape``."""
    parts: dict[str, list[str]]
    """By part, train, val and test: folders of pictures, and text files that list pictures."""
    roots: list[Path]
    """The folders that these may count from, the likeliest first."""


def is_yolo(path: Path) -> bool:
    """Whether a YAML file describes a data set, or fails to."""
    try:
        values = read_plain_yaml(path, "data set")
    except ValueError:
        return path.stem == "data"
    return isinstance(values, dict) and not values.keys().isdisjoint(("names", "nc"))


def read_yaml(path: Path) -> YoloYaml:
    """A ``data.yaml``, checked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, a field of the wrong kind, or an address on the network, from which nothing is fetched.
    """
    values = read_plain_yaml(path, "data set")
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected the fields path, train, val and names, got {shown(values)}")
    fields = {"train": "train", "val": "val" if values.get("val") else "validation", "test": "test"}
    parts = {part: _strings(path, name, values[name]) for part, name in fields.items() if values.get(name)}
    if not parts:
        found = ", ".join(str(key) for key in values)
        raise ValueError(
            f"{path}: expected train and val, folders of pictures or text files that list them; it has {found[:_PATH]}"
        )
    return YoloYaml(path, _class_names(path, values), _keypoints(path, values), parts, _roots(path, values))


def read_names(path: Path) -> YoloYaml:
    """What a tool writes that knows no ``data.yaml``: ``classes.txt`` or ``obj.names``, a name a line.

    The pictures are in ``images``, ``obj_train_data``, or beside it; all of them, since the tool divides nothing.

    Raises:
        FileNotFoundError, ValueError: no such file, or no names in it.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    names = dict(enumerate(line for line in lines if line))
    if not names:
        raise ValueError(f"{path}: expected the names of the classes, one a line")
    here = path.absolute().parent
    place = next((name for name in ("images", "obj_train_data") if (here / name).is_dir()), ".")
    return YoloYaml(path, names, 0, {"train": [place]}, [here])


def read_data_set(path: Path) -> YoloYaml:
    """A ``data.yaml``, or a file of names."""
    return read_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else read_names(path)


def _strings(path: Path, field: str, value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    for text in found:
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(
                f"{path}: {field}: expected a folder or a text file, or a list of them, got {shown(value)}"
            )
        if "://" in text:
            raise ValueError(f"{path}: {field}: {text} is on the network; fetch it yourself, and name a folder here")
    return found


def _class_names(path: Path, values: dict[str, Any]) -> dict[int, str]:
    names = values.get("names")
    if names is None and (count := whole(values.get("nc"))) is not None and 0 < count < 100_000:
        names = [str(k) for k in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise ValueError(
            f"{path}: expected names, a list or a mapping from class numbers, got {shown(values.get('names'))}"
        )
    found = {}
    for key, name in names.items():
        place = whole(key)
        if place is None or place < 0 or place in found:
            raise ValueError(f"{path}: names: expected different class numbers >= 0, got {shown(key)}")
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            hint = "; YAML reads yes, no, on and off as truth values: put quotes around them"
            raise ValueError(
                f"{path}: names: expected text for class {place}, got {shown(name)}{hint * isinstance(name, bool)}"
            )
        found[place] = str(name)
    return dict(sorted(found.items()))


def _keypoints(path: Path, values: dict[str, Any]) -> int:
    shape = values.get("kpt_shape")
    if shape is None:
        return 0
    sides = [whole(side) for side in shape] if isinstance(shape, list) and len(shape) == 2 else [None]
    known = [side for side in sides if side is not None and 0 < side < 10_000]
    if len(known) != 2:
        raise ValueError(f"{path}: kpt_shape: expected two whole numbers > 0, got {shown(shape)}")
    return known[0] * known[1]


def _roots(path: Path, values: dict[str, Any]) -> list[Path]:
    """The folder that ``path`` names, and that of the YAML file, since data sets are moved and their paths stay."""
    here = path.absolute().parent
    given = values.get("path")
    if given is None:
        return [here]
    (text,) = _strings(path, "path", [given])
    named_folder = Path(os.path.expanduser(text))
    return [here / named_folder, named_folder.absolute(), here]


def place_of(data: YoloYaml, part: str) -> tuple[Path, list[Path]]:
    """The folder of a part's pictures, and the pictures.

    Raises:
        FileNotFoundError: a folder or list that the YAML names is missing, or holds no picture.
    """
    places = [_existing(data, part, text) for text in data.parts[part]]
    pictures = [picture for place in places for picture in _pictures_of(data, place)]
    if not pictures:
        raise FileNotFoundError(f"{data.path}: {part}: no pictures in {named(map(str, places))}")
    pictures = list(dict.fromkeys(Path(os.path.abspath(picture)) for picture in pictures))
    if len(places) == 1 and places[0].is_dir():
        return Path(os.path.abspath(places[0])), pictures
    return Path(os.path.commonpath([picture.parent for picture in pictures])), pictures


def _existing(data: YoloYaml, part: str, text: str) -> Path:
    tried = [root / text for root in data.roots]
    # Exports say ../train/images and mean train/images.
    tried += [root / text.removeprefix("../") for root in data.roots]
    for place in tried:
        if is_folder(place) or is_file(place):
            return place
    raise FileNotFoundError(
        f"{data.path}: {part}: no folder and no list of pictures {str(tried[0])[:_PATH]}; nothing is downloaded"
    )


def _pictures_of(data: YoloYaml, place: Path) -> list[Path]:
    if place.is_dir():
        return files_in(place, PICTURES)
    if place.suffix.lower() in PICTURES:
        raise ValueError(f"{data.path}: {place} is a picture; expected a folder, or a text file that lists pictures")
    lines = [line.strip() for line in read_text(place).splitlines()]
    return [_listed(data, place, line) for line in lines if line]


def _listed(data: YoloYaml, listing: Path, line: str) -> Path:
    if "://" in line or "\0" in line:
        raise ValueError(f"{listing}: expected paths of pictures, got {shown(line)}")
    lines = dict.fromkeys((line, line.replace("\\", "/")))
    tried = [folder / text for text in lines for folder in (listing.parent, *data.roots, Path.cwd())]
    return next((path for path in tried if is_file(path)), tried[0])


# -- labels -----------------------------------------------------------------------------------------------------------


def read_yolo(data: YoloYaml, part: str) -> Raw:
    """What a part of a data set says.

    Raises:
        FileNotFoundError: a folder, list or picture is missing.
        ValueError: a line that is not a box, a class without a name: the message names the file and the line.
    """
    folder, pictures = place_of(data, part)
    missing = [str(picture) for picture in pictures if not is_file(picture)]
    if missing:
        raise FileNotFoundError(f"{data.path}: {part}: {counted(missing, 'picture')} missing: {named(missing)}")
    labels = _labels_of(pictures)
    _refuse_shared(pictures, labels)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    corners: list[str] = []
    for picture, label, header in zip(pictures, labels, headers(pictures), strict=True):
        name = picture.relative_to(folder).as_posix()
        key = name.removesuffix(picture.suffix)
        width, height = header.upright
        images.append({"id": key, "file_name": name, "width": width, "height": height})
        for where, kind, shares in _lines(data, label):
            corners += [where] if len(shares) == 8 else []
            x, y, w, h = _box(data, where, shares)
            bbox = [x * width, y * height, w * width, h * height]
            boxes.append({"id": where, "image_id": key, "category_id": kind, "bbox": bbox})
            if _is_polygon(data, shares):
                points = [share * (height if k % 2 else width) for k, share in enumerate(shares)]
                boxes[-1]["segmentation"] = [points]
    if corners:
        lines = f"{counted(corners, 'line')} of four corners read as the upright box around them"
        warnings.warn(f"{data.path}: {part}: {lines}, the first is {corners[0]}", stacklevel=2)
    bare = _unlabelled(data, part, labels)
    about = "YOLO" + (f", {bare} of {counted(labels, 'picture')} without a label file" if bare else "")
    return Raw(data.path, images, boxes, [{"id": k, "name": name} for k, name in data.names.items()], folder, about)


def label_of(picture: Path) -> Path:
    """The label file of a picture: in ``labels`` in place of the last ``images`` of its path, else beside it."""
    before, images, after = str(picture).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if images else picture).with_suffix(".txt")


def _labels_of(pictures: Sequence[Path]) -> list[Path]:
    """Those of all pictures; beside them, if a folder above the data set is what is called images."""
    found = [label_of(picture) for picture in pictures]
    beside = [picture.with_suffix(".txt") for picture in pictures]
    return beside if not any(map(is_file, found)) and any(map(is_file, beside)) else found


def _refuse_shared(pictures: Sequence[Path], labels: Sequence[Path]) -> None:
    owner: dict[Path, Path] = {}
    for picture, label in zip(pictures, labels, strict=True):
        if owner.setdefault(label, picture) != picture:
            raise ValueError(f"{owner[label]} and {picture} share the label file {label}; rename one of them")


def _unlabelled(data: YoloYaml, part: str, labels: Sequence[Path]) -> int:
    """How many pictures have no label file, which is no error; a label file without a picture is left out."""
    lacking = sum(not label.is_file() for label in labels)
    if not any(place.endswith(".txt") for place in data.parts[part]):  # a list may well name some pictures only
        known = set(labels)
        files = {path for folder in {label.parent for label in labels} for path in files_in(folder, {".txt"})}
        alone = [str(path) for path in sorted(files - known) if path.name.lower() not in _NO_LABELS]
        if alone:
            what = counted(alone, "label file")
            warnings.warn(f"{data.path}: {part}: {what} without a picture left out: {named(alone)}", stacklevel=2)
    return lacking


def _lines(data: YoloYaml, label: Path) -> Iterator[tuple[str, int, list[float]]]:
    """Of each box: where it stands, its class, and the numbers after it, in shares of the picture."""
    try:
        text = read_text(label)
    except FileNotFoundError:
        return
    short = Path(os.path.relpath(label, data.path.absolute().parent)).as_posix()
    for number_of_line, line in enumerate(text.splitlines(), 1):
        if fields := line.split():
            where = f"{short}, line {number_of_line}"
            yield where, *_class_and_shares(data, where, fields)


def _class_and_shares(data: YoloYaml, where: str, fields: list[str]) -> tuple[int, list[float]]:
    kind, shares = whole(fields[0]), [share for field in fields[1:] if (share := number(field)) is not None]
    if kind is None or len(shares) != len(fields) - 1:
        raise ValueError(f"{data.path}: {where}: expected a class and numbers, got {shown(' '.join(fields))}")
    if kind not in data.names:
        known = ", ".join(map(str, data.names))
        if len(data.names) > 2 and list(data.names) == list(range(len(data.names))):
            known = f"0 … {len(data.names) - 1}"
        raise ValueError(f"{data.path}: {where}: class {kind} has no name; names has {known}")
    if any(abs(share) > _FAR for share in shares[:4]):
        raise ValueError(
            f"{data.path}: {where}: expected shares of the picture's width and height, from 0 to 1, got"
            f" {shown(shares[:4])}: pixels?"
        )
    return kind, shares


def _is_polygon(data: YoloYaml, shares: list[float]) -> bool:
    return not data.keypoints and len(shares) >= 6 and len(shares) % 2 == 0


def _box(data: YoloYaml, where: str, shares: list[float]) -> tuple[float, float, float, float]:
    """x, y, width, height in shares."""
    count = len(shares)
    if count == 4 or (data.keypoints and count == 4 + data.keypoints):
        cx, cy, width, height = shares[:4]
        return cx - width / 2, cy - height / 2, width, height
    if count == 5:
        raise ValueError(
            f"{data.path}: {where}: six numbers, a class, a box and a score: these are results, not labels"
        )
    if not _is_polygon(data, shares):
        more = f" and {data.keypoints} for key points" if data.keypoints else ", or a class and a polygon's points"
        raise ValueError(f"{data.path}: {where}: expected a class and four numbers{more}, got {count + 1} numbers")
    xs, ys = shares[0::2], shares[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
