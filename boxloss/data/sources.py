"""Where data sets are: drawn scenes, folders, COCO's own layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from .shapes import shapes_folder

SHAPES = "shapes"


class Source(NamedTuple):
    """One part of a data set."""

    annotations: Path
    images: Path


def find_data(data: str) -> tuple[Source, Source]:
    """The training and the validation part of a data set.

    Args:
        data: ``"shapes"``, drawn on first use, or a folder: with ``train.json``, ``val.json`` and ``images``, or with
            ``annotations/instances_train2017.json``, ``train2017`` and the same of ``val2017``.

    Raises:
        FileNotFoundError: no such folder, or it holds neither.
    """
    folder = shapes_folder(cache_folder()) if data == SHAPES else Path(data)
    if not folder.is_dir():
        raise FileNotFoundError(f"data: no folder {folder}; expected {SHAPES!r} or a folder with COCO annotations")
    layouts = (
        [Source(folder / f"{part}.json", folder / "images") for part in ("train", "val")],
        [
            Source(folder / f"annotations/instances_{part}2017.json", folder / f"{part}2017")
            for part in ("train", "val")
        ],
    )
    for train, val in layouts:
        if train.annotations.is_file() and val.annotations.is_file():
            return train, val
    wanted = " or ".join(f"{train.annotations.relative_to(folder)}" for train, _ in layouts)
    raise FileNotFoundError(f"data: {folder} holds no data set: expected {wanted}, and the same of val")


def cache_folder() -> Path:
    """For what can be made again: ``$BOXLOSS_CACHE``, or ``boxloss`` in the user's cache folder."""
    own = os.environ.get("BOXLOSS_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxloss"
