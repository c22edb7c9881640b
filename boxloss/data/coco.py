"""COCO annotation files, as COCO itself, Roboflow, CVAT, Label Studio and VIA write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

from ..files import read_json
from .check import Raw
from .pictures import headers, is_file

_KEYS = ("images", "annotations", "categories")
_TRIED = 50  # images, to see which folder holds them


def read_coco(path: Path, folders: Sequence[Path], about: str = "COCO") -> Raw:
    """What a COCO file says; ``file_name`` is rewritten to where the picture is found.

    Args:
        path: the file.
        folders: that may hold the pictures; the first that does counts.
        about: what was recognised.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not COCO.
    """
    coco = read_json(path, "annotation file")
    lacking = [key for key in _KEYS if not isinstance(coco, dict) or not isinstance(coco.get(key), list)]
    if lacking:
        got = f"one without {', '.join(lacking)}" if isinstance(coco, dict) else f"a {type(coco).__name__}"
        raise ValueError(f"{path} is not a COCO file: expected an object with the lists {', '.join(_KEYS)}, got {got}")
    images, pictures = _found(coco["images"], [folder for folder in folders if folder.is_dir()])
    if pictures:
        images = _with_sizes(images, pictures)
    return Raw(
        path, images, coco["annotations"], coco["categories"], pictures or next(iter(folders), None), about, rest=coco
    )


def _found(images: list[Any], folders: Sequence[Path]) -> tuple[list[Any], Path | None]:
    """The images with the names of their files in the folder that has most of the first of them, and that folder."""
    counts = [sum(_place(image, folder) is not None for image in images[:_TRIED]) for folder in folders]
    if not any(counts):
        return images, None
    folder = folders[counts.index(max(counts))]
    names = [_place(image, folder) for image in images]
    return [image | {"file_name": name} if name else image for image, name in zip(images, names, strict=True)], folder


def _place(image: Any, folder: Path) -> str | None:
    """The path of an image's file from a folder, however a tool has written its name; None if it is not there."""
    name = image.get("file_name") if isinstance(image, dict) else None
    spellings = _spellings(name) if isinstance(name, str) else ()
    return next((PurePath(text).as_posix() for text in spellings if is_file(folder / text)), None)


def _spellings(name: str) -> Iterator[str]:
    """As it is; with slashes; without leading folders, one after the other; and each of them without %20 and its like.

    >>> list(_spellings("images\\\\a%20b.jpg"))
    ['images\\\\a%20b.jpg', 'images/a%20b.jpg', 'a%20b.jpg', 'images/a b.jpg', 'a b.jpg']
    """
    yield name
    plain = name.replace("\\", "/")
    for text in dict.fromkeys((plain, unquote(plain))):
        parts = [part for part in text.split("/") if part not in ("", ".")]
        for k in range(len(parts)):
            spelling = "/".join(parts[k:])
            if spelling != name:
                yield spelling


def _with_sizes(images: list[Any], folder: Path) -> list[Any]:
    """With the sizes of the pictures, where a file leaves them out."""
    lacking = [
        k
        for k, image in enumerate(images)
        if isinstance(image, dict)
        and not (image.get("width") and image.get("height"))
        and _place(image, folder) is not None
    ]
    found = list(images)
    for k, one in zip(lacking, headers([folder / images[k]["file_name"] for k in lacking]), strict=True):
        found[k] = images[k] | dict(zip(("width", "height"), one.upright, strict=True))
    return found
