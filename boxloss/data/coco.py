"""COCO annotation files, as COCO itself, Roboflow, CVAT, Label Studio and VIA write them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..files import read_json
from .check import Raw
from .pictures import headers
from .walk import is_file

_KEYS = ("images", "annotations", "categories")
_TRIED = 50  # images, to see which folder holds them
_DEEP = 12  # folders above a picture


def read_coco(path: Path, folders: Sequence[Path], about: str = "COCO") -> Raw:
    """What a COCO file says; ``file_name`` is rewritten to where the picture is found.

    Args:
        path: the file.
        folders: that may hold the pictures; the first that does counts.
        about: what was recognized.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not COCO.
    """
    coco = read_json(path, "annotation file")
    lacking = [key for key in _KEYS if not isinstance(coco, dict) or not isinstance(coco.get(key), list)]
    if lacking:
        got = f"one without {', '.join(lacking)}" if isinstance(coco, dict) else f"a {type(coco).__name__}"
        raise ValueError(f"{path} is not a COCO file: expected an object with the lists {', '.join(_KEYS)}, got {got}")
    rest = {key: value for key, value in coco.items() if key not in _KEYS}
    images, pictures = _found(coco["images"], [folder for folder in folders if folder.is_dir()])
    if pictures:
        images = _with_sizes(images, pictures)
    return Raw(
        path, images, coco["annotations"], coco["categories"], pictures or next(iter(folders), None), about, rest=rest
    )


def _found(images: list[Any], folders: Sequence[Path]) -> tuple[list[Any], Path | None]:
    """The images with the names of their files in a folder, and that folder: the one that has most of the first images.

    All names lose the same number of leading folders, such as those of another machine.
    """
    best, most = None, 0
    first = images[:_TRIED]
    for folder, leading in itertools.product(folders, range(max(map(_depth, first), default=0) + 1)):
        count = sum(_place(image, folder, leading) is not None for image in first)
        if count > most:
            best, most = (folder, leading), count
        if count == len(first):
            break
    if best is None:
        return images, None
    names = [_place(image, *best) for image in images]
    return [image | {"file_name": name} if name else image for image, name in zip(images, names, strict=True)], best[0]


def _depth(image: Any) -> int:
    name = image.get("file_name") if isinstance(image, dict) else None
    return min(len(_parts(name)) - 1, _DEEP) if isinstance(name, str) else 0


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def _place(image: Any, folder: Path, leading: int) -> str | None:
    """The path of an image's file from a folder, however a tool has written its name; None if it is not there."""
    name = image.get("file_name") if isinstance(image, dict) else None
    spellings = _spellings(name, leading) if isinstance(name, str) else ()
    found = next((text for text in spellings if is_file(folder / text)), None)
    return None if found is None else Path(os.path.relpath(folder / found, folder)).as_posix()


def _spellings(name: str, leading: int) -> Iterator[str]:
    """As it is, or without leading folders and with slashes; then without %20 and its like.

    >>> list(_spellings("images\\\\a%20b.jpg", 0)), list(_spellings("images/a%20b.jpg", 1))
    (['images\\\\a%20b.jpg', 'images/a%20b.jpg', 'images/a b.jpg'], ['a%20b.jpg', 'a b.jpg'])
    """
    if not leading:
        yield name
    if parts := _parts(name)[leading:]:
        plain = "/".join(parts)
        yield from (text for text in dict.fromkeys((plain, unquote(plain))) if text != name)


def _with_sizes(images: list[Any], folder: Path) -> list[Any]:
    """With the sizes of the pictures, where a file leaves them out."""
    lacking = [
        k
        for k, image in enumerate(images)
        if isinstance(image, dict)
        and not (image.get("width") and image.get("height"))
        and _place(image, folder, 0) is not None
    ]
    found = list(images)
    for k, one in zip(lacking, headers([folder / images[k]["file_name"] for k in lacking]), strict=True):
        found[k] = images[k] | dict(zip(("width", "height"), one.upright, strict=True))
    return found
