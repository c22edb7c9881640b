"""Files of a data set: those of a folder and of the folders in it, and those that are there twice."""

from __future__ import annotations

import filecmp
import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

PICTURES = frozenset({".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of the files that count as pictures."""
_START = 1 << 16  # bytes that different pictures of one length hardly share


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder and of all folders in it, by name, through links; hidden ones are left out."""
    found: list[Path] = []
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:  # a link to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(at, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in suffixes)


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


def shared_files(first: Sequence[Path], second: Sequence[Path]) -> list[Path]:
    """The files of the second list that are in the first one, too: the same file, or a copy of it."""
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
