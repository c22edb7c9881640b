"""Pascal VOC's annotations: an XML file for each picture, beside it or in ``Annotations``, with corners in pixels."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .check import Raw
from .fields import counted, named, number, shown, switch, whole
from .pictures import headers, pictures_in

_FOLDERS = ("JPEGImages", "images", "Images", "imgs")
"""That hold the pictures beside ``Annotations``."""


@dataclass(frozen=True)
class VocPart:
    """A part of a data set: where its XML files and its pictures are."""

    path: Path
    """For messages."""
    annotations: Path
    pictures: Path
    stems: tuple[str, ...] | None = None
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


def listed_stems(listing: Path) -> tuple[str, ...]:
    """The names in a text file of ``ImageSets/Main``; another column may follow."""
    try:
        lines = listing.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{listing} is not UTF-8 text: {error}") from None
    return tuple(dict.fromkeys(line.split()[0] for line in lines if line.split()))


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
    pictures = {_stem(path, part.pictures): path for path in _files(part.pictures)}
    by_name = {path.relative_to(part.pictures).as_posix(): path for path in pictures.values()}
    trees = {stem: _tree(path) for stem, path in _xml_files(part).items()}
    own = {stem: _picture(stem, tree, pictures, by_name) for stem, tree in trees.items()}
    alone = [f"{stem}.xml" for stem, picture in own.items() if picture is None]
    if alone and part.stems is not None:
        raise FileNotFoundError(f"{part.path}: {counted(alone, 'picture')} missing, of {named(alone)}")
    if alone:
        what = counted(alone, "XML file")
        warnings.warn(f"{part.path}: {what} without a picture left out: {named(alone)}", stacklevel=2)
    found = {stem: picture for stem, picture in own.items() if picture}
    taken = set(found.values())
    bare = {stem: path for stem, path in pictures.items() if path not in taken and _counts(stem, part)}
    images, boxes = _records(part, found | bare, trees, origin)
    others = (_tree(path) for other in part.others for path in _xml_files(other).values())
    names = {box["category_id"] for box in boxes} | {name for tree in others for name in _names(tree)}
    about = f"Pascal VOC, {len(bare)} of {counted(images, 'picture')} without an XML file"
    categories = [{"id": name, "name": name} for name in sorted(names)]
    return Raw(part.path, images, boxes, categories, part.pictures, about, listed=False)


def _names(tree: ET.Element) -> set[str]:
    return {name for item in tree.findall("object") if (name := (item.findtext("name") or "").strip())}


def _counts(stem: str, part: VocPart) -> bool:
    return part.stems is None or stem in part.stems


def _files(folder: Path) -> list[Path]:
    return pictures_in(folder, deep=True) if folder.is_dir() else []


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _xml_files(part: VocPart) -> dict[str, Path]:
    found = {_stem(path, part.annotations): path for path in sorted(part.annotations.rglob("*.xml"))}
    return {stem: path for stem, path in found.items() if _counts(stem, part)}


def _tree(path: Path) -> ET.Element:
    parser = ET.XMLParser(target=_PlainTree())
    try:
        parser.feed(path.read_bytes())
        tree = parser.close()
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"{path} cannot be read as XML: {error}") from None
    if not isinstance(tree, ET.Element) or tree.tag != "annotation":
        got = f"<{tree.tag}>" if isinstance(tree, ET.Element) else "nothing"
        raise ValueError(f"{path}: expected a VOC file, <annotation>, got {got}")
    return tree


def _picture(stem: str, tree: ET.Element, pictures: dict[str, Path], by_name: dict[str, Path]) -> Path | None:
    """That of the same name, as file names are what people change; else that which the XML names."""
    name = (tree.findtext("filename") or "").strip().replace("\\", "/")
    return pictures.get(stem) or by_name.get(name) or by_name.get(name.rpartition("/")[2])


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
        images.append({"id": stem, "file_name": name, "width": width, "height": height})
        for k, item in enumerate(trees[stem].findall("object") if stem in trees else (), 1):
            boxes.append({"image_id": stem} | _object(item, f"{stem}.xml, object {k}", part, origin))
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
    bbox: Any = None if box is None else texts
    if None not in corners:
        x1, y1, x2, y2 = (corner for corner in corners if corner is not None)
        bbox = [x1 - origin, y1 - origin, x2 - x1 + origin, y2 - y1 + origin]
    said = {key: (item.findtext(key) or "").strip() for key in ("pose", "truncated", "occluded")}
    more = {key: text for key, text in said.items() if text.lower() not in ("", "0", "unspecified")}
    return {"id": where, "category_id": name, "bbox": bbox, "iscrowd": difficult} | more
