"""A YOLOv3 head: anchors, assignment and composite loss. Tensors in, tensors out."""

from .anchors import DARKNET_ANCHORS, kmeans_anchors, shape_iou
from .assign import Positives, Truths, assign, ignored
from .grid import Grid
from .loss import YoloLoss, YoloTerms

__all__ = [
    "DARKNET_ANCHORS",
    "Grid",
    "Positives",
    "Truths",
    "YoloLoss",
    "YoloTerms",
    "assign",
    "ignored",
    "kmeans_anchors",
    "shape_iou",
]
