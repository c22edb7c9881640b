"""Picture files, read as their annotations mean them: upright, as tools and browsers show them, or as they are stored.

A camera stores which way up it was held in a field of EXIF, and most programs turn the picture accordingly. Some
annotation tools do not. The sizes in the annotations tell which it was, unless both are the same.
"""

from __future__ import annotations

import math
import mmap
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from ..files import check_is_file
from .annotations import Annotations
from .check import UPRIGHT
from .fields import counted, named
from .walk import is_file

LARGE = 16_000_000
"""Pixels above which pictures are decoded one by one. Pillow takes 4 bytes for each, and refuses more than 179e6."""
SHOWN = 1_000_000
"""Pixels of a picture in a figure, at most."""
_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101  # of EXIF and TIFF
_BACK = {  # what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


class Header(NamedTuple):
    """What a picture file says of itself."""

    stored: tuple[int, int]
    """Width and height of the picture as it is stored."""
    orientation: int
    """1, or what EXIF says is to be done: 2 to 8."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        check_is_file(path)
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
        size = image.size
        if image.format == "PNG" and not _may_hold_exif(path):
            return Header(size, 1)
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        if image.format == "TIFF":  # which Pillow turns by itself, and says the size of the upright picture
            size = exif.get(_WIDTH, size[0]), exif.get(_HEIGHT, size[1])
        return Header(size, orientation if orientation in _BACK else 1)


def _may_hold_exif(png: Path) -> bool:
    """Pillow decodes a whole PNG to see."""
    with png.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"eXIf") >= 0 or data.find(b"Orientation") >= 0


def headers(paths: Sequence[Path]) -> list[Header]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(header, paths))


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
            said = record["width"], record["height"]
            if said not in (one.stored, one.upright):
                upright = "" if one.upright == one.stored else f" (upright {_size(one.upright)})"
                raise ValueError(f"{path} has {_size(one.stored)} pixels{upright}, but {source} says {_size(said)}")
        decided = [record.get(UPRIGHT) for record in records]
        if any(one.orientation > 1 and said is None for one, said in zip(found, decided, strict=True)):
            sizes = [(record["width"], record["height"]) for record in records]
            decided = list(_meant(self.paths, found, sizes, source))
        self._stored = [one.stored for one in found]
        self._orientations = [one.orientation for one in found]
        self.upright = [one.orientation == 1 or said is not False for one, said in zip(found, decided, strict=True)]

    def open(self, index: int, *, decode: bool = True) -> Image.Image:
        """A picture as RGB; without ``decode`` as small as its format allows, to see that it can be read."""
        path = self.paths[index]
        with _opened(path) as image:
            if image.mode[0] in "IF":  # Pillow would cut 16 bits off at 255
                raise ValueError(f"{path} has pixels of mode {image.mode}; expected 8 bits a channel: convert it")
            if not decode:
                image.draft("RGB", (1, 1))
            orientation = self._orientations[index]
            if orientation == 1:
                return _rgb(image)
            if self.upright[index]:
                return ImageOps.exif_transpose(image).convert("RGB")
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) == 1  # by Pillow itself
            return (image.transpose(_BACK[orientation]) if turned else image).convert("RGB")

    def preview(self, index: int) -> Image.Image:
        """A picture to show, of `SHOWN` pixels at most: every so many in a square are one."""
        image = self.open(index)
        factor = math.ceil(math.sqrt(image.width * image.height / SHOWN))
        return image.reduce(factor) if factor > 1 else image

    def each(self, work: Callable[[int], Any]) -> Iterator[Any]:
        """``work(0), work(1), …`` of the pictures, on threads.

        Those above `LARGE` pixels are worked on here, one by one: what a thread has allocated stays its own.
        """
        with ThreadPoolExecutor() as pool:
            large = [width * height > LARGE for width, height in self._stored]
            waiting = [None if here else pool.submit(work, k) for k, here in enumerate(large)]
            try:
                for k, other in enumerate(waiting):
                    yield work(k) if other is None else other.result()
            finally:
                for other in filter(None, waiting):
                    other.cancel()


def _rgb(image: Image.Image) -> Image.Image:
    """Without a copy, which convert makes of what is RGB already."""
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def with_orientations(parts: Sequence[Annotations]) -> list[Annotations]:
    """The parts of a data set with the field `UPRIGHT` of the pictures that EXIF turns, decided over all of them."""
    places = [
        (part, image, part.pictures / image["file_name"])
        for part in parts
        for image in part.coco["images"]
        if part.pictures and is_file(part.pictures / image["file_name"])
    ]
    paths = [path for *_, path in places]
    found = headers(paths)
    sizes = [(image["width"], image["height"]) for _, image, _ in places]
    meant = _meant(paths, found, sizes, parts[0].path)
    fields = {
        (id(part), image["id"]): {UPRIGHT: upright}
        for (part, image, _), upright in zip(places, meant, strict=True)
        if upright is not None
    }
    return [
        part.with_images([image | fields.get((id(part), image["id"]), {}) for image in part.coco["images"]])
        for part in parts
    ]


def _meant(
    paths: Sequence[Path], found: Sequence[Header], said: Sequence[tuple[int, int]], source: Path
) -> list[bool | None]:
    """Whether the annotations mean the upright picture, which is said; None for pictures that EXIF does not turn.

    Where a size fits both ways, in squares and half-turned pictures, the other pictures of the data set decide: a tool
    that stored the sizes of unturned pictures did not turn any.
    """
    turned = [k for k, one in enumerate(found) if one.orientation > 1]
    clear = {k: said[k] == found[k].upright for k in turned if found[k].stored != found[k].upright}
    rest = any(clear.values()) or not clear
    upright = {k: clear.get(k, rest) for k in turned}
    for way, reason in (
        (True, "read upright, as annotation tools and browsers show them"),
        (False, f"read as they are stored, since the sizes in {source} are those of the stored pictures"),
    ):
        if which := [k for k in turned if upright[k] is way]:
            unclear = [paths[k].name for k in which if k not in clear]
            text = f"{_pictures(paths, which)} turned by EXIF: {reason}"
            text += f"; the sizes of {len(unclear)} of them ({named(unclear)}) fit both ways" if unclear else ""
            text += ", so look at their boxes" if unclear else ""
            warnings.warn(text, stacklevel=2)
    return [upright.get(k) for k in range(len(paths))]


def _pictures(paths: Sequence[Path], which: Sequence[int]) -> str:
    """
    >>> _pictures([Path("a.jpg"), Path("b.jpg")], [1])
    '1 picture (b.jpg) is'
    """
    names = named(paths[k].name for k in which)
    return f"{counted(which, 'picture')} ({names}) {'are' if which[1:] else 'is'}"
