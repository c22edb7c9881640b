"""Annotated images to train on: COCO files and their subsets, drawn scenes, batches and their random changes."""

from .annotations import Annotations, CocoSubset, read_annotations
from .augment import Augment, Draws, change_images, change_truths, draw
from .images import Batch, CocoImages, Letterbox, Sample, collate
from .shapes import shapes_folder
from .sources import SHAPES, Source, cache_folder, find_data

__all__ = [
    "SHAPES",
    "Annotations",
    "Augment",
    "Batch",
    "CocoImages",
    "CocoSubset",
    "Draws",
    "Letterbox",
    "Sample",
    "Source",
    "cache_folder",
    "change_images",
    "change_truths",
    "collate",
    "draw",
    "find_data",
    "read_annotations",
    "shapes_folder",
]
