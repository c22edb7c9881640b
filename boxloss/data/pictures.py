"""Picture files, read as their annotations mean them: upright, as tools and browsers show them, or as they are stored.

A camera stores which way up it was held in a field of EXIF, and most programs turn the picture accordingly. Some
annotation tools do not. The sizes in the annotations tell which it was, unless both are the same.
"""

from __future__ import annotations

import filecmp
import functools
import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from .fields import counted, named

SUFFIXES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
"""Of the files that count as pictures in a folder."""

_ORIENTATION = 0x0112  # of EXIF
_START = 1 << 16  # bytes that two pictures of one length hardly share: reads few pictures whole


class Header(NamedTuple):
    """What a picture file says of itself."""

    width: int
    """Of the picture as it is stored; and of the upright one, where it is ``quarter`` turned, the other way round."""
    height: int
    turned: bool
    quarter: bool

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height."""
        return (self.height, self.width) if self.quarter else (self.width, self.height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, EOFError, ArithmeticError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def header(path: Path) -> Header:
    """Size and orientation, without decoding the picture.

    Raises:
        FileNotFoundError, ValueError: no such file, or not a picture.
    """
    with _opened(path) as image:
        # Pillow turns TIFF by itself, and says the size of the upright picture.
        orientation = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
        return Header(image.width, image.height, orientation in range(2, 9), orientation in range(5, 9))


def is_file(path: Path) -> bool:
    """Also False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Also False for a name that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def headers(paths: Sequence[Path]) -> list[Header]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(header, paths))


def pictures_in(folder: Path, *, deep: bool) -> list[Path]:
    """The pictures of a folder, by name; ``deep``: and of the folders in it."""
    if deep:
        found = [Path(at) / name for at, _, names in os.walk(folder) for name in names]
    else:
        found = [path for path in folder.iterdir() if path.is_file()]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


class Pictures:
    """The picture files of a data set, each turned as its annotations mean it.

    Args:
        records: of a COCO file: ``file_name``, ``width``, ``height``.
        folder: of the pictures.
        source: what the records came from, for messages.

    Raises:
        FileNotFoundError, ValueError: a picture is missing, is damaged, or has another size than its record says.
    """

    def __init__(self, records: Sequence[dict[str, Any]], folder: Path, source: Path) -> None:
        self.paths = [folder / str(record["file_name"]) for record in records]
        missing = [path for path in self.paths if not is_file(path)]
        if missing:
            others = f" and {len(missing) - 1} other images" if missing[1:] else ""
            raise FileNotFoundError(f"{missing[0]} is missing{others}, of {len(records)} that {source} names")
        found = headers(self.paths)
        for path, one, record in zip(self.paths, found, records, strict=True):
            width, height = record["width"], record["height"]
            if (width, height) not in ((one.width, one.height), one.upright):
                turned = f" (upright {one.upright[0]} × {one.upright[1]})" if one.quarter else ""
                raise ValueError(
                    f"{path} has {one.width} × {one.height} pixels{turned}, but {source} says {width} × {height}"
                )
        said = [(record["width"], record["height"]) for record in records]
        self._turns = _turns(self.paths, found, said, source)

    def open(self, index: int, *, decode: bool = True) -> Image.Image:
        """A picture as RGB; without ``decode`` as small as its format allows, to see that it can be read."""
        path = self.paths[index]
        with _opened(path) as image:
            if image.mode[0] in "IF":  # Pillow would cut 16 bits off at 255
                raise ValueError(f"{path} has pixels of mode {image.mode}; expected 8 bits a channel: convert it")
            if not decode:
                image.draft("RGB", (1, 1))
            return (ImageOps.exif_transpose(image) if self._turns[index] else image).convert("RGB")


def _turns(paths: Sequence[Path], found: Sequence[Header], said: Sequence[tuple[int, int]], source: Path) -> list[bool]:
    """Whether each picture is to be turned as EXIF says, because its annotations mean it upright.

    Where a size fits both ways, in squares and half-turned pictures, the other pictures of the data set decide: a tool
    that stored the sizes of unturned pictures did not turn any.
    """
    turned = [k for k, one in enumerate(found) if one.turned]
    clear = {k: said[k] == found[k].upright for k in turned if found[k].quarter and found[k].width != found[k].height}
    rest = any(clear.values()) or not clear
    upright = {k: clear.get(k, rest) for k in turned}
    for way, reason in (
        (True, "read upright, as annotation tools and browsers show them"),
        (False, f"read as they are stored, since the sizes in {source} are those of the stored pictures"),
    ):
        if which := [k for k in turned if upright[k] is way]:
            unclear = sum(k not in clear for k in which)
            text = f"{_pictures(paths, which)} turned by EXIF: {reason}"
            text += f"; the sizes of {unclear} of them fit both ways, so look at their boxes" if unclear else ""
            warnings.warn(text, stacklevel=2)
    return [upright.get(k, False) for k in range(len(paths))]


def _pictures(paths: Sequence[Path], which: Sequence[int]) -> str:
    """
    >>> _pictures([Path("a.jpg"), Path("b.jpg")], [1])
    '1 picture (b.jpg) is'
    """
    names = named(paths[k].name for k in which)
    return f"{counted(which, 'picture')} ({names}) {'are' if which[1:] else 'is'}"


def on_threads(work: Callable[[int], Any], count: int) -> Iterable[Any]:
    """``work(0), work(1), …`` in this order."""
    with ThreadPoolExecutor() as pool:
        yield from pool.map(work, range(count))


def shared_pictures(first: Sequence[Path], second: Sequence[Path]) -> list[Path]:
    """The pictures of the second list that are in the first one, too: the same file, or a copy of it."""
    by_size = defaultdict(list)
    for path in first:
        by_size[path.stat().st_size].append(path)
    starts = functools.cache(_start)

    def same(path: Path, other: Path) -> bool:
        return starts(path) == starts(other) and filecmp.cmp(path, other, shallow=False)

    return [path for path in second if any(same(path, other) for other in by_size.get(path.stat().st_size, ()))]


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(_START)).digest()
