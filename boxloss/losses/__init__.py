"""The box-regression losses, by family: the family says which geometry a formula uses."""

from ._define import LOSSES, Loss, LossFunction, define, find_loss, similarity
from ._pairwise import pairwise
from ._parameters import NonNegative, UpToOne

# The order of the families is the order of LOSSES and of every table.
# isort: off
from .coordinate import l1_loss, l2_loss, smooth_l1_loss
from .overlap import dice_box_loss, giou_loss, iou_loss, log_iou_loss, squared_iou_loss, tversky_box_loss
from .distance import cdiou, cdiou_loss, ciou_loss, diou_loss, eiou_loss
from .focused import focal_eiou_loss
# isort: on

__all__ = [
    "LOSSES",
    "Loss",
    "LossFunction",
    "NonNegative",
    "UpToOne",
    "cdiou",
    "cdiou_loss",
    "ciou_loss",
    "define",
    "dice_box_loss",
    "diou_loss",
    "eiou_loss",
    "find_loss",
    "focal_eiou_loss",
    "giou_loss",
    "iou_loss",
    "l1_loss",
    "l2_loss",
    "log_iou_loss",
    "pairwise",
    "similarity",
    "smooth_l1_loss",
    "squared_iou_loss",
    "tversky_box_loss",
]
