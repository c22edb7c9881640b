"""Any box loss in the DETR family of Hugging Face's transformers: DETR, YOLOS, RT-DETR, D-FINE, …

The models' loss functions build their criterion at every step, out of reach. So the loss function runs with a criterion
of ours in the place of its own, a subclass that computes one term anew, and is installed by the model's own setter.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..boxes import convert
from ._attach import Attachment, LossLike, PerPair, already_attached, attached, check_signature

TERMS = {"giou": "loss_giou", "l1": "loss_bbox"}
"""The two box terms, and what the criterion calls them."""
SUPPORTED = "4.50 to 5.23"


def attach(model: nn.Module, loss: LossLike, *, term: str = "giou") -> Attachment:
    """Replace one of the two box terms of a model; the other, the weights of both and the matcher stay.

    Boxes are in fractions of the image, (0, 0, 1, 1) being all of it: a loss with a unit counts in these.

    Args:
        model: DETR, YOLOS, RT-DETR, D-FINE or another whose loss is made of transformers' detection criterions.
        loss: a name, a `BoxLoss`, or a function of two box tensors that gives one number per pair.
        term: ``"giou"`` (``loss_giou`` of the model's ``loss_dict``) or ``"l1"`` (``loss_bbox``).

    Raises:
        TypeError: a model without such a loss.
        ValueError: a loss or term that does not fit; a loss is attached already.
        NotImplementedError: a transformers with other functions than the supported ones (4.50 to 5.23).
    """
    found = PerPair(loss)
    if term not in TERMS:
        raise ValueError(f"term: expected one of {', '.join(TERMS)}, got {term!r}")
    if not isinstance(getattr(type(model), "loss_function", None), property):
        raise TypeError(
            "model: expected one of transformers' detectors itself, such as DetrForObjectDetection, and no wrapper of"
            f" it, got {type(model).__name__}"
        )
    stock = model.loss_function
    if isinstance(stock, LossFunction):
        raise already_attached()
    if not isinstance(stock, types.FunctionType) or not _criterions(stock):
        raise TypeError(
            "model: expected one of transformers' detectors, such as DetrForObjectDetection, got"
            f" {type(model).__name__}, whose loss_function builds no criterion with loss_boxes"
        )
    for criterion in _criterions(stock).values():
        check_signature(criterion.loss_boxes, ("outputs", "targets", "indices", "num_boxes"), "transformers", SUPPORTED)
    own = vars(model).get("_loss_function")  # what the setter sets, if someone did
    model.loss_function = LossFunction(stock, found, TERMS[term])

    def undo() -> None:
        if own is None:
            del model._loss_function
        else:
            model.loss_function = own

    active, replaced = f"{found} of boxes in fractions of the image", f"{term} ({TERMS[term]})"
    return attached("transformers", type(model).__name__, active, replaced, undo)


class LossFunction:
    """A loss function of transformers that computes one term anew. Pickled by its parts."""

    def __init__(self, stock: types.FunctionType, loss: PerPair, term: str) -> None:
        self._parts = (stock, loss, term)
        ours = {name: _criterion(known, loss, term) for name, known in _criterions(stock).items()}
        # The same code, which finds our criterion where it looks for its own; transformers' module stays as it is.
        self._function = types.FunctionType(
            stock.__code__, stock.__globals__ | ours, stock.__name__, stock.__defaults__, stock.__closure__
        )
        self._function.__kwdefaults__ = stock.__kwdefaults__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), self._parts


def _criterions(function: types.FunctionType) -> dict[str, Any]:
    """The criterions that a loss function builds, by the name it knows them by."""
    named = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {name: found for name, found in named.items() if inspect.isclass(found) and hasattr(found, "loss_boxes")}


def _criterion(stock: Any, loss: PerPair, term: str) -> Any:
    class Criterion(stock):  # type: ignore[misc]
        def loss_boxes(
            self, outputs: dict[str, Any], targets: list[dict[str, Tensor]], indices: Any, num_boxes: Any
        ) -> dict[str, Tensor]:
            pred = outputs["pred_boxes"][self._get_source_permutation_idx(indices)]
            target = torch.cat([t["boxes"][i] for t, (_, i) in zip(targets, indices, strict=True)])
            value = loss(convert(pred, "cxcywh", "xyxy"), convert(target, "cxcywh", "xyxy")).sum() / num_boxes
            if term == TERMS["giou"]:  # not from the stock function, which computes the GIoU of every pair
                l1 = nn.functional.l1_loss(pred, target, reduction="none").sum() / num_boxes
                return {TERMS["l1"]: l1, term: value}
            own: dict[str, Tensor] = super().loss_boxes(outputs, targets, indices, num_boxes)
            return own | {term: value}

    Criterion.__name__ = f"{stock.__name__}WithBoxLoss"
    return Criterion
