"""What a path holds: which format, which parts, and where the pictures are; and the way from there to annotations."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..files import read_if_whole
from .annotations import Annotations, OwnIds, divided, ids_beside
from .check import Raw, checked
from .coco import read_coco
from .fields import is_id
from .shapes import shapes_folder
from .voc import VocPart, listed_names, read_voc, voc_pictures
from .walk import PICTURES, files_in, is_file
from .yolo_labels import YoloYaml, is_yolo, place_of, read_data_set, read_yolo

SHAPES = "shapes"
FORMATS = ("auto", "coco", "yolo", "voc")
PARTS = ("train", "val", "test")

_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What the parts are called, in the names of files and folders."""
_WHOLE = "whole"
"""The only part of a data set that is not divided."""


@dataclass(frozen=True)
class Source:
    """One part of a data set: where it is and how it is read."""

    annotations: Path
    """A COCO file, a ``data.yaml``, or a folder of XML files."""
    folders: tuple[Path, ...] = ()
    """That may hold the pictures, the likeliest first."""
    part: str = "train"
    format: str = "coco"
    about: str = "COCO"
    """What was recognized."""
    voc: VocPart | None = None
    voc_origin: int = 0
    """1 where VOC's pixels count from 1."""
    share: float | None = None
    """For validation, of a data set that is not divided."""

    @property
    def images(self) -> Path:
        """The folder of the pictures."""
        if self.format == "yolo":
            return place_of(*self._yolo())[0]
        own = (folder for folder in self.folders if folder.is_dir() and folder not in self.annotations.parents)
        return next(own, self.folders[0])

    def _yolo(self) -> tuple[YoloYaml, str]:
        """The ``data.yaml``, and which of its parts is read: of a data set that is not divided, the only one."""
        data = read_data_set(self.annotations)
        return data, self.part if self.part in data.parts else "train"

    def folder_of(self, file_name: str) -> Path:
        """The folder that holds a picture, by its name in checked annotations."""
        return next((folder for folder in self.folders if is_file(folder / file_name)), self.images)

    def read(self) -> Raw:
        """What it says, unchecked."""
        if self.format == "yolo":
            return read_yolo(*self._yolo())
        if self.voc:
            return read_voc(self.voc, self.voc_origin)
        return read_coco(self.annotations, self.folders, self.about)


def read_annotations(
    path: Path,
    *,
    format: str = "auto",
    part: str = "train",
    pictures: Path | None = None,
    val_share: float | None = None,
    voc_origin: int = 0,
    skip_bad_boxes: bool = False,
) -> Annotations:
    """A data set, or a part of one, checked: COCO, YOLO or Pascal VOC.

    Args:
        path: a COCO file; a ``data.yaml``; or a folder that holds a data set, as `find_data` takes it.
        format: ``"coco"``, ``"yolo"`` or ``"voc"``; ``"auto"`` recognizes it.
        part: ``"train"``, ``"val"`` or ``"test"``: which, where the path holds several; where it is not divided, all
            of it, unless ``val_share`` is given. Boxes of ``"train"`` are cut to their image; those of the others stay
            as they are, as pycocotools judges them.
        pictures: the folder of the pictures of a COCO file, if it is none of the usual places beside it.
        val_share: as for `find_data`: divides a data set that is not divided.
        voc_origin: 1 for the VOC challenge's own files, whose pixels count from 1.
        skip_bad_boxes: leave out boxes that are not finite, have no area, or (of ``"train"``) have no pixel inside
            their image, with a warning that counts them.

    Raises:
        FileNotFoundError: no such file, or no data set in the folder.
        ValueError: not what the format says, or a bad record: the message names file, record and reason.
    """
    source = find_source(Path(path), format, part, val_share)
    if pictures is not None:
        source = replace(source, folders=(Path(pictures),))
    (found,) = read_sources([replace(source, voc_origin=voc_origin)], skip_bad_boxes=skip_bad_boxes)
    return found


def read_sources(
    sources: Sequence[Source], *, skip_bad_boxes: bool = False, as_it_is: bool = False
) -> list[Annotations]:
    """Parts of one data set, with the same categories.

    Args:
        sources: the parts.
        skip_bad_boxes: as for `read_annotations`.
        as_it_is: boxes of the training part are not cut, and fields that mean nothing to us are kept.
    """
    wholes = [source if source.share is None else replace(source, part=_WHOLE) for source in sources]
    read = {whole: whole.read() for whole in dict.fromkeys(wholes)}
    cut = [source.part == "train" and not as_it_is for source in sources]
    found = checked([read[whole] for whole in wholes], cut, skip_bad_boxes=skip_bad_boxes, everything=as_it_is)
    found = [_with_ids_beside(one) for one in found]
    return [
        one if source.share is None else divided(one, source.part, source.share)
        for one, source in zip(found, sources, strict=True)
    ]


def _with_ids_beside(found: Annotations) -> Annotations:
    """A copy of ours, with the ids of the file that it is a copy of."""
    kept = read_if_whole(ids_beside(found.path))
    if not isinstance(kept, dict) or kept.keys() != set(OwnIds._fields) or not found.own.are_numbers:
        return found
    own = OwnIds(**kept)
    lists = all(isinstance(ids, list) and all(map(is_id, ids)) for ids in own)
    fits = lists and [len(ids) for ids in own[:2]] == [len(ids) for ids in found.own[:2]]
    return replace(found, own=own) if fits else found


def find_source(path: Path, format: str, part: str, val_share: float | None = None) -> Source:
    """A part of what a path holds; all of it where it is not divided, and ``val_share`` does not divide it.

    Raises:
        FileNotFoundError, ValueError: there is no such data set, or it does not have the part.
    """
    if part not in PARTS:
        raise ValueError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    if val_share is not None:
        return dict(zip(PARTS, find_data(str(path), format=format, val_share=val_share), strict=False))[part]
    parts = recognize(path, format)
    if _WHOLE in parts:
        return replace(parts[_WHOLE], part=part)
    if part not in parts:
        raise ValueError(f"{path} has no part {part!r}; expected one of {', '.join(parts)}")
    return parts[part]


def find_data(
    data: str, *, format: str = "auto", val_share: float | None = None, voc_origin: int = 0
) -> tuple[Source, Source]:
    """The training and the validation part of a data set.

    Args:
        data: ``"shapes"``, drawn on first use; a ``data.yaml`` or a COCO file; or a folder. COCO: ``train.json``,
            ``val.json`` and ``images``; ``annotations/instances_train2017.json``, ``train2017`` and the same of
            ``val2017``; and the layouts of Roboflow, CVAT and Label Studio. YOLO: a ``data.yaml``. Pascal VOC: XML
            files in ``Annotations``, with ``ImageSets/Main`` if it is there, or beside the pictures.
        format: ``"coco"``, ``"yolo"``, ``"voc"``; ``"auto"`` recognizes it.
        val_share: of the images, for validation, of a data set that is not divided.
        voc_origin: as for `read_annotations`.

    Raises:
        FileNotFoundError: no such folder, or it holds no data set.
        ValueError: it holds data sets of two formats, or it is not divided and ``val_share`` is not given.
    """
    path = shapes_folder(cache_folder()) if data == SHAPES else Path(data)
    if not path.exists():
        raise FileNotFoundError(f"data: no folder {path}; expected {SHAPES!r} or a folder with a data set, or its file")
    parts = {name: replace(part, voc_origin=voc_origin) for name, part in recognize(path, format).items()}
    if "train" in parts and "val" in parts:
        if val_share is not None:
            raise ValueError(f"val_share: {path} is divided already, into {' and '.join(parts)}; leave it out")
        return parts["train"], parts["val"]
    whole = parts.get(_WHOLE) or parts.get("train")
    if whole is None:
        raise FileNotFoundError(f"data: {path} has no part for training; it has: {', '.join(parts)}")
    if val_share is None:
        lacks = "is not divided into training and validation" if _WHOLE in parts else "has no part for validation"
        raise ValueError(f"data: {path} {lacks}; --val-share 0.2 divides it, by a hash of the file names")
    return replace(whole, part="train", share=val_share), replace(whole, part="val", share=val_share)


def recognize(path: Path, format: str = "auto") -> dict[str, Source]:
    """The parts of what a path holds, by name; ``"whole"`` alone if it is not divided.

    Raises:
        FileNotFoundError, ValueError: nothing of the format is there, or data sets of several formats are.
    """
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if not path.is_dir():
        return _of_file(path, format)
    found = {name: parts for name, find in _FINDERS.items() if format in (name, "auto") and (parts := find(path))}
    if len(found) > 1:
        held = ", ".join(f"{name} ({next(iter(parts.values())).annotations})" for name, parts in found.items())
        choice = " or ".join(f"--format {name}" for name in found)
        raise ValueError(f"data: {path} holds data sets of several formats: {held}; choose one by {choice}")
    if not found:
        hint = "; it has label files: write a data.yaml with path, train, val and names" if _has_labels(path) else ""
        if below := _below(path, format):
            hint = f"; did you mean {below}?"
        raise FileNotFoundError(
            f"data: {path} holds no data set: expected train.json or annotations/instances_train2017.json, and the same"
            f" of val (COCO); a data.yaml (YOLO); or XML files in Annotations or beside the pictures (Pascal VOC){hint}"
        )
    return next(iter(found.values()))


def _below(path: Path, format: str) -> Path | None:
    """A folder in this one that holds a data set."""
    for place in sorted(path.glob("*/")) + sorted(path.glob("*/*/")):
        with contextlib.suppress(OSError, ValueError):
            if place.is_dir() and any(find(place) for name, find in _FINDERS.items() if format in (name, "auto")):
                return place
    return None


def _of_file(path: Path, format: str) -> dict[str, Source]:
    if not path.exists():
        raise FileNotFoundError(f"no annotation file {path}, nor a folder of this name")
    kinds = {".yaml": "yolo", ".yml": "yolo", ".json": "coco"}
    kind = kinds.get(path.suffix.lower()) if format == "auto" else format
    if kind is None:
        raise ValueError(f"{path}: expected a folder, a COCO file (.json) or a data.yaml; for others give --format")
    if kind == "voc":
        raise ValueError(f"{path}: expected a folder of XML files for --format voc")
    if kind == "yolo":
        parts = read_data_set(path).parts
        if path.suffix.lower() not in kinds:
            return {_WHOLE: Source(path, format="yolo")}
        return {part: Source(path, part=part, format="yolo") for part in parts}
    return {_WHOLE: Source(path, tuple(_folders_beside(path)))}


# -- COCO -------------------------------------------------------------------------------------------------------------


def _coco_parts(folder: Path) -> dict[str, Source]:
    """In the folder itself, in ``annotations``, or in a folder for each part."""
    for place in (folder, folder / "annotations"):
        by_part = _by_part(_json_files(place))
        if "train" in by_part or "val" in by_part:
            return {part: Source(path, tuple(_folders(folder, path, part)), part) for part, path in by_part.items()}
    parts = {
        part: Source(path, (place, place / "images"), part, about="COCO, a folder for each part")
        for part, place in _part_folders(folder)
        if (path := _only([*filter(_may_be_coco, _json_files(place))]))
    }
    if parts:
        return parts
    alone = [path for place in (folder, folder / "annotations") for path in _json_files(place) if _may_be_coco(path)]
    return {_WHOLE: Source(path, tuple(_folders_beside(path)))} if (path := _only(alone)) else {}


def _json_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.json"))
    return [path for path in files if path not in {ids_beside(other) for other in files}]


def _by_part(paths: Iterable[Path]) -> dict[str, Path]:
    """COCO files by the part that their names name."""
    found: dict[str, list[Path]] = {part: [] for part in PARTS}
    for path in paths:
        words = re.findall("[a-z]+", path.stem.lower())
        parts = [part for part in PARTS if not set(_WORDS[part]).isdisjoint(words)]
        if len(parts) == 1:
            found[parts[0]].append(path)
    # COCO's own test files have no annotations, and are no reason to stop.
    found["test"] = [path for path in found["test"] if _may_be_coco(path)][:1]
    chosen = {part: _only(files) for part, files in found.items()}
    return {part: path for part, path in chosen.items() if path}


def _only(paths: Sequence[Path]) -> Path | None:
    """The file of boxes among captions, key points and so on.

    Raises:
        ValueError: there are several.
    """
    boxes = [path for path in paths if path.name.startswith(("instances", "_annotations"))] or list(paths)
    if len(boxes) > 1:
        boxes = [path for path in boxes if _may_be_coco(path)]
    if len(boxes) > 1:
        names = ", ".join(path.name for path in boxes[:3])
        raise ValueError(
            f"data: {boxes[0].parent} holds {len(boxes)} COCO files for one part: {names}; name the file itself (in"
            " train and compare both parts, by --train-json, --train-images, --val-json and --val-images)"
        )
    return boxes[0] if boxes else None


def _may_be_coco(path: Path) -> bool:
    """Whether a JSON file has COCO's lists, without making sense of the rest."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(re.search(rb'"%s"\s*:\s*\[' % key, text) for key in (b"images", b"annotations", b"categories"))


def _folders(folder: Path, path: Path, part: str) -> list[Path]:
    """Where the pictures of a COCO file may be, in the folder of its data set."""
    own = path.stem.removeprefix("instances_")
    words = dict.fromkeys((own, *_WORDS[part]))
    images = folder / "images"
    within = [images / word for word in words] + [images / "default"]
    beside = [folder / word for word in (*words, "data")]
    ordered = [images, *within, *beside] if path.parent == folder else [*beside, *within, images]
    return [*ordered, folder, path.parent]


def _folders_beside(path: Path) -> list[Path]:
    """Where the pictures of a COCO file may be that is known by itself."""
    here = path.absolute().parent
    words = re.findall("[a-z]+", path.stem.lower())
    part = next((part for part in PARTS if not set(_WORDS[part]).isdisjoint(words)), "train")
    found = _folders(here, path.absolute(), part)
    return found + (_folders(here.parent, path.absolute(), part) if here.name == "annotations" else [])


# -- YOLO and Pascal VOC ----------------------------------------------------------------------------------------------


def _yolo_parts(folder: Path) -> dict[str, Source]:
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".yaml", ".yml") and is_yolo(path)]
    if len(files) > 1:
        raise ValueError(f"data: {folder} holds several YOLO data sets: {', '.join(p.name for p in files)}; name one")
    if not files:
        names = (folder / name for name in ("classes.txt", "obj.names"))
        files = [path for path in names if path.is_file() and _has_labels(folder)]
    return _of_file(files[0], "yolo") if files else {}


def _has_labels(folder: Path) -> bool:
    return any(files_in(folder / name, {".txt"}) for name in ("labels", "obj_train_data")) or any(
        path.with_suffix(".txt").is_file() for path in files_in(folder, PICTURES)
    )


def _voc_parts(folder: Path) -> dict[str, Source]:
    found = _listed_voc(folder) or {
        part: VocPart(place, xml, voc_pictures(place))
        for part, place in _part_folders(folder)
        for xml in (place / "Annotations", place / "annotations", place)
        if _has_xml(xml)
    }
    if not found and any(folder.glob("*.xml")):
        found = {_WHOLE: VocPart(folder, folder, voc_pictures(folder))}
    return {name: _voc(name, part, found.values()) for name, part in found.items()}


def _listed_voc(folder: Path) -> dict[str, VocPart]:
    """As the VOC challenge lays them out; nothing if it is another layout."""
    annotations = next((folder / name for name in ("Annotations", "annotations") if _has_xml(folder / name)), None)
    if annotations is None:
        return {}
    everything = VocPart(folder, annotations, voc_pictures(folder))
    listings = {listing.stem.lower(): listing for listing in (folder / "ImageSets/Main").glob("*.txt")}
    return {
        part: replace(everything, path=listings[word], names=listed_names(listings[word]))
        for part in PARTS
        for word in _WORDS[part]
        if word in listings
    } or {_WHOLE: everything}


def _part_folders(folder: Path) -> list[tuple[str, Path]]:
    """Folders that are called as a part, whatever the case, with its name."""
    inside = {place.name.lower(): place for place in sorted(folder.iterdir()) if place.is_dir()}
    return [(part, inside[word]) for part in PARTS for word in _WORDS[part] if word in inside]


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and bool(files_in(folder, {".xml"}))


def _voc(name: str, part: VocPart, parts: Iterable[VocPart]) -> Source:
    part = replace(part, others=tuple(other for other in parts if other is not part))
    return Source(part.annotations, (part.pictures,), name, "voc", "Pascal VOC", part)


_FINDERS = {"coco": _coco_parts, "yolo": _yolo_parts, "voc": _voc_parts}


def cache_folder() -> Path:
    """For what can be made again: ``$BOXLOSS_CACHE``, or ``boxloss`` in the user's cache folder."""
    own = os.environ.get("BOXLOSS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxloss"
