"""The box-regression losses, by family: the family says which geometry a formula uses. A new file here is read."""

import importlib
import pkgutil

from ._define import LOSSES, Loss, LossFunction, define, find_loss, similarity
from ._pairwise import pairwise
from ._parameters import NonNegative, UpToOne
from ._spelled import spelled_losses

# The order of the families is the order of LOSSES and of every table.
# isort: off
from .coordinate import balanced_l1_loss, l1_loss, l2_loss, smooth_l1_loss
from .overlap import (
    alpha_iou_loss,
    dice_box_loss,
    focaler_iou_loss,
    giou_loss,
    inner_iou_loss,
    iou_loss,
    log_iou_loss,
    squared_iou_loss,
    tversky_box_loss,
)
from .distance import (
    bounded_iou_loss,
    cdiou,
    cdiou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    mpdiou_loss,
    piou_loss,
    shape_iou_loss,
    siou_loss,
)
from .focused import focal_eiou_loss, wiou_loss
from .gaussian import gwd_loss, kld_loss, nwd_loss
# isort: on

__all__ = [
    "LOSSES",
    "Loss",
    "LossFunction",
    "NonNegative",
    "UpToOne",
    "alpha_iou_loss",
    "balanced_l1_loss",
    "bounded_iou_loss",
    "cdiou",
    "cdiou_loss",
    "ciou_loss",
    "define",
    "dice_box_loss",
    "diou_loss",
    "eiou_loss",
    "find_loss",
    "focal_eiou_loss",
    "focaler_iou_loss",
    "giou_loss",
    "gwd_loss",
    "inner_iou_loss",
    "iou_loss",
    "kld_loss",
    "l1_loss",
    "l2_loss",
    "log_iou_loss",
    "mpdiou_loss",
    "nwd_loss",
    "pairwise",
    "piou_loss",
    "shape_iou_loss",
    "similarity",
    "siou_loss",
    "smooth_l1_loss",
    "spelled_losses",
    "squared_iou_loss",
    "tversky_box_loss",
    "wiou_loss",
]

for _file in pkgutil.iter_modules(__path__):
    if not _file.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_file.name}")

FUNCTIONS = {f"{name}_loss": loss.function for name, loss in LOSSES.items()}
"""The function of every loss, by its name."""
globals().update(FUNCTIONS)
__all__ += sorted(FUNCTIONS.keys() - set(__all__))
