"""Any box loss in ultralytics's detectors: YOLOv8, 11, 26 and their like, from 8.3 on.

A callback, which ultralytics offers to everyone, puts the loss into the criterions of a trainer when its training
starts. So it also works after a resume, in the processes of a multi-GPU training, and nothing of it is in a checkpoint.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from ._attach import Attachment, LossLike, PerPair, already_attached, check_signature, described

UNITS = ("px", "grid")
SUPPORTED = "8.4, and 8.3 with units='grid'"
_EVENT = "on_train_start"
_ORIENTED = (
    "model: oriented boxes (obb) have five numbers, and a box loss takes four; expected a model for upright boxes:"
    " detect, segment, pose"
)
_NEEDED = ("pred_bboxes", "target_bboxes", "target_scores", "target_scores_sum", "fg_mask")


def attach(model: Any, loss: LossLike, *, units: str | None = None) -> Attachment:
    """Replace the box loss of the trainings that start from now on. The assigner and the second term (DFL) stay.

    Args:
        model: a ``YOLO``, or a trainer.
        loss: a name, a `BoxLoss`, or a function of two box tensors that gives one number per pair.
        units: of the boxes: ``"px"``: pixels of the network's input; ``"grid"``: cells, of 8 to 32 pixels, as
            ultralytics has them. Given nothing, a loss with a unit (l1, l2, smooth_l1) counts in pixels, the others,
            which are the same in both, and functions in cells.

    Raises:
        TypeError: a model without callbacks, for oriented boxes, or none that detects.
        ValueError: a loss or unit that does not fit; a loss is attached already.
        NotImplementedError: when the training starts: an ultralytics with other functions than the supported ones.
    """
    found = PerPair(loss)
    if units not in (None, *UNITS):
        raise ValueError(f"units: expected one of {', '.join(UNITS)}, got {units!r}")
    if not hasattr(model, "add_callback") or not isinstance(getattr(model, "callbacks", None), dict):
        raise TypeError(f"model: expected a YOLO or a trainer of ultralytics, got {type(model).__name__}")
    _check_task(model)
    if any(isinstance(known, Callback) for known in model.callbacks.get(_EVENT, ())):
        raise already_attached()
    callback = Callback(found, units or default_units(found))
    model.add_callback(_EVENT, callback)

    def undo() -> None:
        callback.undo()
        if callback in model.callbacks[_EVENT]:
            model.callbacks[_EVENT].remove(callback)

    return Attachment(callback.text(model), undo)


def _check_task(model: Any) -> None:
    """See that a YOLO or a trainer has the loss in question, so far as it says what it is for."""
    task = getattr(model, "task", None) or getattr(getattr(model, "args", None), "task", None)
    if task == "obb":
        raise TypeError(_ORIENTED)
    name = type(getattr(model, "model", None)).__name__
    if task not in (None, "detect", "segment", "pose") or "RTDETR" in name:
        raise TypeError(f"model: expected one that detects with ultralytics's BboxLoss, got {name} for {task}")


class Callback:
    """Puts the loss into the criterions of a trainer's model and of its moving average.

    Multi-GPU training starts new processes and hands them the callbacks, pickled.
    """

    def __init__(self, loss: PerPair, units: str) -> None:
        self.loss, self.units = loss, units
        self._changed: list[Any] = []

    def __call__(self, trainer: Any) -> None:
        from ultralytics.utils import LOGGER

        self.undo()
        for model in (trainer.model, getattr(getattr(trainer, "ema", None), "ema", None)):
            for criterion in criterions(model) if model is not None else ():
                criterion.bbox_loss = Replaced(criterion.bbox_loss, self.loss, self.units)
                self._changed.append(criterion)
        LOGGER.info(self.text(trainer))

    def undo(self) -> None:
        for criterion in self._changed:
            if isinstance(criterion.bbox_loss, Replaced):
                criterion.bbox_loss = criterion.bbox_loss.own
        self._changed = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_changed": []}

    def text(self, where: Any) -> str:
        """What is active once a training has started."""
        active = f"{self.loss} of boxes in {'pixels' if self.units == 'px' else 'cells'}"
        return described("ultralytics", type(where).__name__, active, "ciou")


def default_units(loss: PerPair) -> str:
    """Pixels for a loss to which the unit matters. Others are the same in both, and of functions it is not known."""
    return "px" if loss.facts and loss.facts.in_lengths else "grid"


def unwrapped(model: Any) -> Any:
    """From under DistributedDataParallel and torch.compile."""
    while hasattr(model, "module") or hasattr(model, "_orig_mod"):
        model = getattr(model, "module", None) or model._orig_mod
    return model


def stand_in(own: nn.Module, loss: LossLike) -> Replaced:
    """What takes the place of a criterion's ``bbox_loss``."""
    found = PerPair(loss)
    return Replaced(own, found, default_units(found))


def criterions(model: Any) -> list[Any]:
    """Those of a model that hold a box loss: one, or two where a model has two branches. Made if there are none yet.

    Raises:
        TypeError: a model for oriented boxes, or none that detects.
    """
    model = unwrapped(model)
    if getattr(model, "criterion", None) is None:
        model.criterion = model.init_criterion()
    branches = [getattr(model.criterion, name, None) for name in ("one2many", "one2one")]
    found = [branch for branch in (model.criterion, *branches) if hasattr(branch, "bbox_loss")]
    if not found:
        raise TypeError(
            f"model: expected one that detects boxes, with a criterion that has a bbox_loss, got {type(model).__name__}"
            f" with {type(model.criterion).__name__}"
        )
    for criterion in found:
        if "Rotated" in type(criterion.bbox_loss).__name__:
            raise TypeError(_ORIENTED)
    return found


class Replaced(nn.Module):
    """Stands in for a criterion's ``bbox_loss``: its own second term, and another first one.

    The weights of the positives, their sum that it is divided by, and so the gain of ultralytics stay.
    """

    def __init__(self, own: nn.Module, loss: PerPair, units: str) -> None:
        super().__init__()
        stride = ("stride",) if units == "px" else ()
        check_signature(own.forward, (*_NEEDED, *stride), "ultralytics", SUPPORTED)
        self.own, self.loss, self.units = own, loss, units
        self._signature = inspect.signature(own.forward)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = self._signature.bind(*args, **kwargs).arguments
        _, second = self.own(*args, **kwargs)
        positive = given["fg_mask"]
        pred, target = given["pred_bboxes"], given["target_bboxes"]
        if self.units == "px":
            pred, target = pred * given["stride"], target * given["stride"]
        weight: Tensor = given["target_scores"].sum(-1)[positive]
        value = self.loss(pred[positive], target[positive]).view(-1)
        return (value * weight).sum() / given["target_scores_sum"], second
