"""Boxes as tensors ``(..., 4)``: what is accepted, formats, and the look at values that data loading needs.

Everywhere else in the package a box is ``x1, y1, x2, y2`` in continuous coordinates, in any one unit of length.
"""

from __future__ import annotations

import torch
from torch import Tensor

FORMATS = ("xyxy", "xywh", "cxcywh")
"""Corners; upper left corner, width, height; center, width, height."""


def convert(boxes: Tensor, source: str, to: str) -> Tensor:
    """Boxes in another format.

    Args:
        boxes: ``(..., 4)``. float16 and bfloat16 become float32 and integers float64, so that no digit is lost.
        source: the format they are in: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``.
        to: the format wanted.

    Returns:
        ``(..., 4)``, in the same unit.

    Raises:
        TypeError: ``boxes`` is no tensor of real numbers.
        ValueError: the last axis is not 4, or a format is unknown.

    >>> convert(torch.tensor([1.0, 2, 5, 4]), "xyxy", "cxcywh")  # center (1 + 5)/2, (2 + 4)/2; sides 5 - 1, 4 - 2
    tensor([3., 3., 4., 2.])
    """
    check_format(source, "source")
    check_format(to, "to")
    boxes = as_real(boxes, "boxes")
    if source == to:
        return boxes
    first, second = boxes[..., :2], boxes[..., 2:]
    if source == "xyxy":
        low, high = first, second
    elif source == "xywh":
        low, high = first, first + second
    else:
        low, high = first - second / 2, first + second / 2
    if to == "xyxy":
        return torch.cat((low, high), -1)
    # Sides that were given are handed on, not formed again from rounded corners.
    sides = second if source != "xyxy" else high - low
    if to == "xywh":
        return torch.cat((low, sides), -1)
    return torch.cat((low + sides / 2, sides), -1)


def validate_boxes(boxes: Tensor, box_format: str = "xyxy") -> None:
    """Raise if a box is not finite or is inverted.

    It looks at values, so it is for data loading, not for a training step.

    Args:
        boxes: ``(..., 4)``.
        box_format: the format they are in; a box is inverted where x2 < x1 or y2 < y1, or a side is negative.

    Raises:
        TypeError: ``boxes`` is no tensor of real numbers.
        ValueError: the last axis is not 4, the format is unknown, or a box is bad: the message names the first one.

    >>> validate_boxes(torch.tensor([[0, 0, 1, 1], [3, 0, 2, 1]]))
    Traceback (most recent call last):
    ValueError: boxes[1] is inverted (x2 < x1): [3, 0, 2, 1]; expected finite xyxy boxes with x1 <= x2 and y1 <= y2
    """
    check_format(box_format, "box_format")
    numbers = as_real(boxes, "boxes").detach()
    x1, y1, x2, y2 = numbers.unbind(-1)
    corners = box_format == "xyxy"
    faults = {
        "holds NaN": numbers.isnan().any(-1),
        "is infinite": numbers.isinf().any(-1),
        "is inverted (x2 < x1)" if corners else "has a negative width": x2 < x1 if corners else x2 < 0,
        "is inverted (y2 < y1)" if corners else "has a negative height": y2 < y1 if corners else y2 < 0,
    }
    bad = torch.stack(tuple(faults.values())).any(0)
    if not bad.any():
        return
    index = tuple(bad.nonzero()[0].tolist())
    fault = next(text for text, where in faults.items() if where[index])
    place = "[" + ", ".join(map(str, index)) + "]" if index else ""
    wanted = "x1 <= x2 and y1 <= y2" if corners else "sides >= 0"
    raise ValueError(f"boxes{place} {fault}: {boxes[index].tolist()}; expected finite {box_format} boxes with {wanted}")


def check_format(box_format: str, name: str) -> None:
    if box_format not in FORMATS:
        raise ValueError(f"{name}: unknown box format {box_format!r}; expected one of {', '.join(FORMATS)}")


def as_real(boxes: Tensor, name: str) -> Tensor:
    """``boxes`` in the dtype they are computed in: float32 or float64, whatever holds every coordinate."""
    check_boxes(boxes, name)
    return boxes.to(_floating(_raised(boxes.dtype)))


def as_pair(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both boxes in the dtype they are computed in, after a check that they pair up row by row."""
    check_boxes(pred, "pred")
    check_boxes(target, "target")
    if pred.shape != target.shape and (
        pred.ndim != target.ndim
        or any(p != t and p != 1 and t != 1 for p, t in zip(pred.shape, target.shape, strict=True))
    ):
        raise ValueError(
            f"pred {tuple(pred.shape)} and target {tuple(target.shape)} do not pair up row by row: expected the same"
            " number of axes, with sizes equal or 1; for every pred with every target use boxloss.pairwise"
        )
    return in_one_dtype(pred, target)


def in_one_dtype(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.dtype == second.dtype and first.dtype in (torch.float32, torch.float64):
        return first, second
    dtype = _floating(torch.promote_types(_raised(first.dtype), _raised(second.dtype)))
    return first.to(dtype), second.to(dtype)


def check_boxes(boxes: Tensor, name: str) -> None:
    if not isinstance(boxes, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor of boxes (..., 4), got {type(boxes).__name__}")
    if boxes.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got {boxes.layout}")
    if boxes.is_complex() or boxes.dtype == torch.bool:
        raise TypeError(f"{name}: expected boxes of a floating or integer dtype, got {boxes.dtype}")
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name}: expected boxes of shape (..., 4), got {tuple(boxes.shape)}")


def _raised(dtype: torch.dtype) -> torch.dtype:
    # Halves are raised before the first subtraction: a difference taken in float16 has lost its digits for good.
    if not dtype.is_floating_point:
        return torch.int64  # some pairs of integer dtypes have no common one
    return torch.float32 if dtype.itemsize < 4 else dtype


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.float64
