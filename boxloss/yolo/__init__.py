"""A YOLOv3 head: anchors, assignment, composite loss, detections, and a small detector. Tensors in, tensors out."""

from .anchors import DARKNET_ANCHORS, kmeans_anchors, shape_iou
from .assign import Positives, Truths, assign, ignored
from .backbone import PretrainedBackbone, pretrained_yolo
from .detect import Detections, detect
from .grid import Grid
from .loss import YoloLoss, YoloTerms
from .model import TinyYolo, Yolo

__all__ = [
    "DARKNET_ANCHORS",
    "Detections",
    "Grid",
    "Positives",
    "PretrainedBackbone",
    "TinyYolo",
    "Truths",
    "Yolo",
    "YoloLoss",
    "YoloTerms",
    "assign",
    "detect",
    "ignored",
    "kmeans_anchors",
    "pretrained_yolo",
    "shape_iou",
]
