"""Files that are whole or not there: written beside their place, forced to the disk, renamed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTS = ".*.part"
"""What files are called while they are written."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file to write in; on leaving without an error it takes the place of ``path``, which is kept till then.

    Raises:
        OSError: it could not be written (disk full, no permission); ``path`` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
        file.write(text.getvalue().encode())


def read_json(path: Path, what: str) -> Any:
    """The JSON of a file, which is ``what``, for the message if it is not there."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"no {what} {path}") from None
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


@contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder`` when it is whole; of two processes at it, the first wins."""
    folder.parent.mkdir(parents=True, exist_ok=True)
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
