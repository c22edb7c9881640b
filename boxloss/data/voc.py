"""Pascal VOC's annotations: an XML file for each picture, beside it or in ``Annotations``, with corners in pixels."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import read_bytes, read_text
from .check import Raw
from .fields import counted, named, number, shown, switch, whole
from .pictures import headers
from .walk import PICTURES, files_in

_FOLDERS = ("JPEGImages", "images", "Images", "imgs")
"""That hold the pictures beside ``Annotations``."""


@dataclass(frozen=True)
class VocPart:
    """A part of a data set: where its XML files and its pictures are."""

    path: Path
    """For messages."""
    annotations: Path
    pictures: Path
    names: tuple[str, ...] | None = None
    """Of the files that count, as ``ImageSets/Main`` lists them; None: all."""
    others: tuple[VocPart, ...] = ()
    """The other parts, whose categories are those of this one, too."""


class _PlainTree(ET.TreeBuilder):
    """A document type can define entities that grow without bound, or name other files: annotations have none."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f"it has a document type (DOCTYPE {name}), which annotations do not need; remove it")


def voc_pictures(folder: Path) -> Path:
    """The folder of the pictures beside ``Annotations`` in a folder, or it itself."""
    return next((folder / name for name in _FOLDERS if (folder / name).is_dir()), folder)


def listed_names(listing: Path) -> tuple[str, ...]:
    """The lines of a text file of ``ImageSets/Main``."""
    return tuple(dict.fromkeys(line.strip() for line in read_text(listing).splitlines() if line.strip()))


def read_voc(part: VocPart, origin: int) -> Raw:
    """What a part of a data set says.

    Args:
        part: where its files are.
        origin: of the coordinates: 0, as most tools write them; 1 for the files of the VOC challenge itself, which
            count pixels from 1, the last one included.

    Raises:
        FileNotFoundError: a file that a list names is missing.
        ValueError: not an annotation as VOC has them: the message names the file and the object.
    """
    pictures = _by_stem(files_in(part.pictures, PICTURES), part.pictures)
    files = _by_stem(files_in(part.annotations, {".xml"}), part.annotations)
    wanted = None if part.names is None else _stems(part, files.keys() | pictures.keys())
    trees = {stem: _tree(path) for stem, (path, *_) in files.items() if wanted is None or stem in wanted}
    own = {stem: _picture(part, stem, tree, pictures) for stem, tree in trees.items()}
    alone = [f"{stem}.xml" for stem, picture in own.items() if picture is None]
    if alone and wanted is not None:
        raise FileNotFoundError(f"{part.path}: {part.pictures} lacks the pictures of {named(alone)}")
    if alone:
        what = counted(alone, "XML file")
        warnings.warn(f"{part.path}: {what} without a picture left out: {named(alone)}", stacklevel=2)
    found = {stem: picture for stem, picture in own.items() if picture}
    taken = set(found.values())
    bare = {
        path.relative_to(part.pictures).as_posix(): path
        for stem, paths in pictures.items()
        for path in paths
        if path not in taken and stem not in found and (wanted is None or stem in wanted)
    }
    images, boxes = _records(part, found | bare, trees, origin)
    names = {box["category_id"] for box in boxes} | {name for other in part.others for name in _names_of(other)}
    if not names:
        raise ValueError(f"{part.path}: no object in {counted(trees, 'XML file')}")
    about = "Pascal VOC" + (f", {len(bare)} of {counted(images, 'picture')} without an XML file" if bare else "")
    categories = [{"id": name, "name": name} for name in sorted(names)]
    return Raw(part.path, images, boxes, categories, part.pictures, about, listed=False)


def _by_stem(paths: list[Path], folder: Path) -> dict[str, list[Path]]:
    """Files by their paths from a folder without suffixes."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return dict(found)


def _stems(part: VocPart, known: Collection[str]) -> frozenset[str]:
    """The names of a list, which may have quotation marks, a suffix, or a column of -1, 0 or 1 behind them."""
    found, missing = [], []
    for name in part.names or ():
        stem = next((text for text in _spellings(name) if text in known), None)
        found.append(stem) if stem else missing.append(name)
    if missing:
        what = f"{counted(missing, 'name')} of {len(part.names or ())} without an XML file or a picture"
        raise FileNotFoundError(f"{part.path}: {what}: {named(missing)}")
    return frozenset(stem for stem in found if stem)


def _spellings(name: str) -> list[str]:
    """
    >>> _spellings("'a.jpg' -1")
    ["'a.jpg' -1", "'a.jpg'", "'a.jpg' -1", 'a.jpg', "'a.jpg' -1", "'a.jpg'", "'a.jpg' -1", 'a']
    """
    found = [name, re.sub(r"\s+-?[01]$", "", name)]
    found += [text[1:-1] if text[0] == text[-1] and text[0] in "'\"" else text for text in found]
    return found + [re.sub(r"\.[A-Za-z]{3,4}$", "", text) for text in found]


def _names_of(part: VocPart) -> set[str]:
    """The categories of a part, whatever else is in it."""
    files = _by_stem(files_in(part.annotations, {".xml"}), part.annotations)
    known = files.keys() | _by_stem(files_in(part.pictures, PICTURES), part.pictures).keys()
    wanted = files.keys() if part.names is None else _stems(part, known)
    return {name for stem, (path, *_) in files.items() if stem in wanted for name in _names(_tree(path))}


def _names(tree: ET.Element) -> set[str]:
    return {name for item in tree.findall("object") if (name := (item.findtext("name") or "").strip())}


def _tree(path: Path) -> ET.Element:
    parser = ET.XMLParser(target=_PlainTree())
    content = read_bytes(path)
    try:
        parser.feed(content)
        tree = parser.close()
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"{path} cannot be read as XML: {error}") from None
    if not isinstance(tree, ET.Element) or tree.tag != "annotation":
        got = f"<{tree.tag}>" if isinstance(tree, ET.Element) else "nothing"
        raise ValueError(f"{path}: expected a VOC file, <annotation>, got {got}")
    return tree


def _picture(part: VocPart, stem: str, tree: ET.Element, pictures: dict[str, list[Path]]) -> Path | None:
    """That of the same name, as file names are what people change; else that which the XML names."""
    name = (tree.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    same = pictures.get(stem) or pictures.get(name) or pictures.get(name.rpartition(".")[0]) or []
    exact = [path for path in same if path.name == name]
    if len(same) > 1 and len(exact) != 1:
        names = " or ".join(path.name for path in same)
        raise ValueError(f"{part.path}: {stem}.xml belongs to {names}; rename one of them, or say which as filename")
    return next(iter(exact or same), None)


def _records(
    part: VocPart, pictures: dict[str, Path], trees: dict[str, ET.Element], origin: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images and boxes as COCO has them."""
    sizes = {stem: _size(trees[stem]) if stem in trees else None for stem in pictures}
    lacking = [stem for stem, size in sizes.items() if size is None]
    read = headers([pictures[stem] for stem in lacking])
    sizes |= {stem: header.upright for stem, header in zip(lacking, read, strict=True)}
    images, boxes = [], []
    for stem, picture in pictures.items():
        width, height = sizes[stem] or (None, None)
        name = picture.relative_to(part.pictures).as_posix()
        key = stem if stem in trees else stem.removesuffix(picture.suffix)
        images.append({"id": key, "file_name": name, "width": width, "height": height})
        for k, item in enumerate(trees[stem].findall("object") if stem in trees else (), 1):
            boxes.append({"image_id": key} | _object(item, f"{stem}.xml, object {k}", part, origin))
    return images, boxes


def _size(tree: ET.Element) -> tuple[Any, Any] | None:
    """Width and height; None where the file does not say, or says 0."""
    size = tree.find("size")
    found = None if size is None else (size.findtext("width"), size.findtext("height"))
    return found if found and all(whole(side) for side in found) else None


def _object(item: ET.Element, where: str, part: VocPart, origin: int) -> dict[str, Any]:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{part.path}: {where}: expected a name")
    difficult = switch((item.findtext("difficult") or "").strip() or 0)
    if difficult is None:
        raise ValueError(f"{part.path}: {where}: expected difficult 0 or 1, got {shown(item.findtext('difficult'))}")
    box = item.find("bndbox")
    texts = [None if box is None else box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    corners = [number(text) for text in texts]
    kinds = ", ".join(child.tag for child in item)
    bbox: Any = f"bndbox {', '.join(map(str, texts))} in an object with {kinds}"
    if None not in corners:
        x1, y1, x2, y2 = (corner for corner in corners if corner is not None)
        bbox = [x1 - origin, y1 - origin, x2 - x1 + origin, y2 - y1 + origin]
    said = {key: (item.findtext(key) or "").strip() for key in ("pose", "truncated", "occluded")}
    more = {key: text for key, text in said.items() if text.lower() not in ("", "0", "unspecified")}
    return {"id": where, "category_id": name, "bbox": bbox, "iscrowd": difficult} | more
