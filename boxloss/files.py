"""Files that are whole or not there: written beside their place, forced to the disk, renamed; and read with care.

Everything that is read from or written to a folder goes through here.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from .errors import BoxlossError
from .extras import needs

PARTS = ".*.part"
"""What files are called while they are written."""
_DEEPEST, _LARGEST = 50, 1_000_000  # levels and values of a YAML file, with what its aliases stand for
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


# -- text -------------------------------------------------------------------------------------------------------------


def encoded(text: str) -> bytes:
    """Text as UTF-8. Lone surrogates, for which it has no bytes, become escapes.

    >>> encoded("é \\ud800")
    b'\\xc3\\xa9 \\\\ud800'
    """
    return text.encode("utf-8", "backslashreplace")


def visible(text: str) -> str:
    """Text from outside in one line of a table or a figure: control characters and lone surrogates become escapes.

    >>> visible("a\\tb \\ud800"), visible("C:\\\\temp$")
    ('a\\\\tb \\\\ud800', 'C:\\\\temp$')
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def write_any_text() -> None:
    """A terminal or file that has no ρ gets its number, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# -- folders in use ---------------------------------------------------------------------------------------------------


class FolderGoneError(BoxlossError):
    """A folder was moved or deleted while something worked in it."""


class _Use(NamedTuple):
    folder: Path
    identity: tuple[int, int]
    thread: int


_in_use: list[_Use] = []


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Work in a folder that must stay where it is: what is written there fails if it is gone, and does not remake it.

    Raises:
        FolderGoneError: the folder was moved or deleted meanwhile.
    """
    place = folder.absolute()
    use = _Use(place, _identity(place), threading.get_ident())
    _in_use.append(use)
    try:
        yield
    except OSError:
        check_there(folder)
        raise
    finally:
        _in_use.remove(use)


def is_used_here(folder: Path) -> bool:
    """Whether this thread works in the folder already."""
    return any(use[1:] == (_identity(folder), threading.get_ident()) for use in _in_use)


def check_there(path: Path) -> None:
    """See that the folders in use that a path lies in, or is, are still where they were.

    Raises:
        FolderGoneError: one of them was moved or deleted.
    """
    for use in _uses(path):
        if _identity(use.folder) != use.identity:
            raise FolderGoneError(
                f"{use.folder} was moved, deleted or replaced while this command worked in it; nothing more was"
                " written. If it was moved, give its new place to go on"
            )


def _uses(path: Path) -> list[_Use]:
    place = path.absolute()
    return [use for use in _in_use if place.is_relative_to(use.folder)]


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, but not one in use that is gone.

    Raises:
        FolderGoneError: that one.
    """
    check_there(folder)
    uses = _uses(folder)
    if not uses:
        return folder.mkdir(parents=True, exist_ok=True)
    inner = max((use.folder for use in uses), key=lambda used: len(used.parts))
    for part in folder.absolute().relative_to(inner).parts:  # one by one: parents=True would make a folder anew
        inner /= part
        inner.mkdir(exist_ok=True)


# -- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write in; on leaving without an error it takes the place of ``path``, which is kept till then.

    Raises:
        OSError: it could not be written (disk full, no permission); ``path`` is as it was.
        FolderGoneError: its folder is in use, and was moved or deleted.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            text = f"{error.strerror}; what was saved before is kept"
            raise OSError(error.errno, text, str(path)) from error
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """``value`` as JSON; NaN and infinities, which JSON lacks, are refused."""
    try:
        text = json.dumps(value, indent=indent, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with replacing(path) as file:
        file.write(text.encode() + b"\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of the same keys, with a header of them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(encoded(text.getvalue()))


# -- reading ----------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is a folder, or a pipe or device, which may never end.
    """
    check_is_file(path)
    return path.read_bytes()


def check_is_file(path: Path) -> None:
    """See that there is a file, which can be opened without waiting for anybody.

    Raises:
        FileNotFoundError, ValueError: as of `read_bytes`.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}; expected a file")


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError, ValueError: as of `read_bytes`; it is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None


def read_json(path: Path, what: str) -> Any:
    """The JSON of a file, which is ``what``, for the message if it is not there."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {what} {path}") from None
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deep to be read") from None


def read_if_whole(path: Path) -> Any:
    """The JSON of a file; None if it is not there, or damaged."""
    try:
        return read_json(path, "file")
    except (FileNotFoundError, ValueError):
        return None


def read_yaml(path: Path, what: str) -> Any:
    """The YAML of a file, which is ``what``, for the message if it is not there.

    Raises:
        FileNotFoundError, ValueError: as of `read_json`; aliases that stand for more than any file would hold.
    """
    with needs("study", what):
        import yaml
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"no {what} {path}") from None
    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_extent(node)
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"{path} is not YAML that can be read: it is nested too deep") from None
    except Exception as error:  # a bad file fails in many ways: YAML's own, bad dates and numbers, bytes
        raise ValueError(f"{path} is not YAML: {error or type(error).__name__}") from None


def _check_extent(root: Any) -> None:
    """Of YAML's nodes, where an alias costs nothing and stands for a whole that may hold itself."""
    extents: dict[int, int] = {}

    def extent(node: Any, depth: int) -> int:
        if depth > _DEEPEST:
            raise RecursionError
        if id(node) not in extents:
            pairs = node.value if isinstance(node.value, list) else ()
            children = [child for pair in pairs for child in (pair if isinstance(pair, tuple) else (pair,))]
            extents[id(node)] = 1 + sum(extent(child, depth + 1) for child in children)
        return extents[id(node)]

    if extent(root, 0) > _LARGEST:
        raise ValueError(f"its aliases stand for more than {_LARGEST:,} values")


# -- whole folders ----------------------------------------------------------------------------------------------------


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder`` when it is whole; of two processes at it, the first wins."""
    make_folder(folder.parent)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.part-"))
    try:
        yield part
        os.replace(part, folder)
        sync_folder(folder.parent)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if not (isinstance(error, OSError) and folder.is_dir()):
            raise


def sync_folder(folder: Path) -> None:
    """Force a rename to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
