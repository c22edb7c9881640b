"""Annotated images to train on: COCO, YOLO and VOC data sets, drawn scenes, batches and their random changes."""

from .annotations import Annotations, CocoSubset, OwnIds, ids_beside
from .augment import Augment, Draws, change_images, change_truths, draw
from .convert import convert
from .images import Batch, CocoImages, Letterbox, Sample, collate
from .pictures import Pictures, with_orientations
from .shapes import shapes_folder
from .sources import (
    FORMATS,
    PARTS,
    SHAPES,
    Source,
    cache_folder,
    find_data,
    find_source,
    read_annotations,
    read_sources,
    recognize,
)
from .walk import shared_files

__all__ = [
    "FORMATS",
    "PARTS",
    "SHAPES",
    "Annotations",
    "Augment",
    "Batch",
    "CocoImages",
    "CocoSubset",
    "Draws",
    "Letterbox",
    "OwnIds",
    "Pictures",
    "Sample",
    "Source",
    "cache_folder",
    "change_images",
    "change_truths",
    "collate",
    "convert",
    "draw",
    "find_data",
    "find_source",
    "ids_beside",
    "read_annotations",
    "read_sources",
    "recognize",
    "shared_files",
    "shapes_folder",
    "with_orientations",
]
