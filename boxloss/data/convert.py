"""Any data set that boxloss reads, written as COCO, so that people can look at what was understood."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .annotations import Annotations, ids_beside
from .pictures import with_orientations
from .sources import PARTS, find_data, read_sources, recognize


def convert(
    source: Path,
    destination: Path,
    *,
    format: str = "auto",
    part: str | None = None,
    val_share: float | None = None,
    voc_origin: int = 0,
    skip_bad_boxes: bool = False,
) -> dict[Path, Annotations]:
    """Write a data set as COCO files; boxes stay as they are, and nothing of the source is changed.

    Args:
        source: as `read_annotations` takes it.
        destination: a folder, which gets ``train.json``, ``val.json``, … for the parts that there are, or
            ``annotations.json`` if there is one alone; or the file, ending in ``.json``, for one part.
        format, voc_origin, skip_bad_boxes: as for `read_annotations`.
        part: one part alone.
        val_share: as for `find_data`: divides a data set that is not divided.

    Returns:
        What was understood, by the file it is in.

    Raises:
        FileExistsError: a file of the destination is there already.
        FileNotFoundError, ValueError: as for `read_annotations`.
    """
    if val_share is not None:
        train, val = find_data(str(source), format=format, val_share=val_share)
        parts = {"train": train, "val": val}
    else:
        parts = recognize(source, format)
    if part is not None:
        if part not in parts:
            has = (
                f"it has: {', '.join(parts)}"
                if parts.keys() & set(PARTS)
                else "it is not divided; --val-share divides it"
            )
            raise ValueError(f"{source} has no part {part!r}; {has}")
        parts = {part: parts[part]}
    if destination.suffix.lower() == ".json":
        if len(parts) > 1:
            choice = f"a folder, or --part {' or '.join(parts)}"
            raise ValueError(
                f"{destination} is one file, and {source} has the parts {', '.join(parts)}; expected {choice}"
            )
        paths = [destination]
    else:
        paths = [destination / f"{name if name in PARTS else 'annotations'}.json" for name in parts]
    for place in (*paths, *map(ids_beside, paths)):
        if place.exists():
            raise FileExistsError(f"{place} is there already; choose another place, or remove it")
    sources = [replace(one, voc_origin=voc_origin) for one in parts.values()]
    understood = with_orientations(read_sources(sources, skip_bad_boxes=skip_bad_boxes, as_it_is=True))
    found = dict(zip(paths, understood, strict=True))
    for path, part_found in found.items():
        part_found.write(path)
    return found
