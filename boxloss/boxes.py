"""Boxes as tensors ``(..., 4)``: what is accepted, formats, and the look at values that data loading needs.

Everywhere else in the package a box is ``x1, y1, x2, y2`` in continuous coordinates, in any one unit of length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .values import at, check_dense, first, shown

FORMATS = ("xyxy", "xywh", "cxcywh")
"""Corners; upper left corner, width, height; center, width, height."""


ROTATED = ("xywhr", "cxcywhr", "xyxyxyxy")
"""Formats that torchvision has besides."""
_REAL = frozenset(
    getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
        *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    )
    if hasattr(torch, name)
)
"""Dtypes of numbers that torch converts to those that are computed in."""


def convert(boxes: Tensor, source: str | None, to: str) -> Tensor:
    """Boxes in another format.

    Args:
        boxes: ``(..., 4)``. float16 and bfloat16 become float32 and integers float64, so that no digit is lost.
        source: the format they are in: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``; None: the one that the tensor itself
            names, as torchvision's ``BoundingBoxes`` do, else ``"xyxy"``. Slices, stacks and collated
            batches of them, and what `torch.func` sees, are plain tensors that name none; a compiler takes plain
            tensors only.
        to: the format wanted.

    Returns:
        ``(..., 4)``, in the same unit, a plain tensor.

    Raises:
        TypeError: ``boxes`` is not a dense tensor of real numbers.
        ValueError: the last axis is not 4, a format is unknown, or the tensor itself names another one.

    >>> convert(torch.tensor([1.0, 2, 5, 4]), "xyxy", "cxcywh")  # center (1 + 5)/2, (2 + 4)/2; sides 5 - 1, 4 - 2
    tensor([3., 3., 4., 2.])
    """
    to = as_format(to, "to")
    boxes, source = opened(boxes, "boxes", source, "source")
    boxes = _computed(boxes)
    if source == to:
        return boxes
    if to == "xyxy":
        return to_corners(boxes, source)
    first, second = boxes[..., :2], boxes[..., 2:]
    low = first - second / 2 if source == "cxcywh" else first
    # Sides that were given are handed on, not formed again from rounded corners.
    sides = second - first if source == "xyxy" else second
    if to == "xywh":
        return torch.cat((low, sides), -1)
    return torch.cat((low + sides / 2, sides), -1)


def to_corners(boxes: Tensor, source: str) -> Tensor:
    """Boxes of a format, float32 or float64, as corners."""
    if source == "xyxy":
        return boxes
    place, sides = boxes[..., :2], boxes[..., 2:]
    if source == "xywh":
        return torch.cat((place, place + sides), -1)
    return torch.cat((place - sides / 2, place + sides / 2), -1)


def validate_boxes(boxes: Tensor, box_format: str | None = None) -> None:
    """Raise if a box is not finite or is inverted.

    It looks at values, so it is for data loading, not for a training step.

    Args:
        boxes: ``(..., 4)``.
        box_format: the format they are in; a box is inverted where x2 < x1 or y2 < y1, or a side is negative. None:
            the one that the tensor itself names, as torchvision's ``BoundingBoxes`` do, else ``"xyxy"``.

    Raises:
        TypeError: ``boxes`` is not a dense tensor of real numbers.
        ValueError: the last axis is not 4, the format is unknown or not the one that the tensor itself names, or a box
            is bad: the message names the first one.

    >>> validate_boxes(torch.tensor([[0, 0, 1, 1], [3, 0, 2, 1]]))
    Traceback (most recent call last):
    ValueError: boxes[1] is inverted (x2 < x1): [3, 0, 2, 1]; expected finite xyxy boxes with x1 <= x2 and y1 <= y2; …
    """
    boxes, box_format = opened(boxes, "boxes", box_format)
    check_finite_and_upright(boxes, box_format, "boxes")


def check_finite_and_upright(boxes: Tensor, box_format: str, name: str) -> None:
    """Refuse plain boxes of a format of which one is not finite or is inverted."""
    numbers = _computed(boxes).detach()
    x1, y1, x2, y2 = numbers.unbind(-1)
    corners = box_format == "xyxy"
    faults = {
        "holds NaN": numbers.isnan().any(-1),
        "is infinite": numbers.isinf().any(-1),
        "is inverted (x2 < x1)" if corners else "has a negative width": x2 < x1 if corners else x2 < 0,
        "is inverted (y2 < y1)" if corners else "has a negative height": y2 < y1 if corners else y2 < 0,
    }
    index = first(torch.stack(tuple(faults.values())).any(0))
    if index is None:
        return
    fault = next(text for text, where in faults.items() if where[index])
    wanted = "x1 <= x2 and y1 <= y2" if corners else "sides >= 0"
    hint = "; are they cxcywh or xywh? boxloss.boxes.convert makes corners of them" if "inverted" in fault else ""
    raise ValueError(
        f"{at(name, index)} {fault}: {boxes[index].tolist()}; expected finite {box_format} boxes with {wanted}{hint}"
    )


def as_format(given: object, name: str) -> str:
    """The format that is meant: a name in either case, or a member of an enum, as torchvision's are."""
    if isinstance(given, str) and given in FORMATS:
        return given
    found = _name_of(given)
    if found in FORMATS:
        return found
    expected = f"expected one of {', '.join(FORMATS)}"
    if found in ROTATED:
        raise ValueError(f"{name}: rotated boxes ({found}) are not supported; {expected}")
    raise ValueError(f"{name}: unknown box format {shown(given)}; {expected}")


def said_format(boxes: Tensor) -> str:
    """The format, perhaps a rotated one, that a tensor itself names, as torchvision's ``BoundingBoxes`` do by their
    ``format``; nothing if it doesn't. Classes of other libraries may mean something else by a ``format``.
    """
    if type(boxes) is Tensor:
        return ""
    try:
        found = _name_of(getattr(boxes, "format", None))
    except Exception:  # it may be a property, which may raise anything
        return ""
    return found if found in (*FORMATS, *ROTATED) else ""


def _name_of(given: object) -> str:
    name = getattr(given, "name", given)
    return name.lower() if isinstance(name, str) else ""


def opened(boxes: Tensor, name: str, given: str | None = None, option: str = "box_format") -> tuple[Tensor, str]:
    """Boxes, checked, as a plain tensor, and the format they are in.

    What a tensor says of itself counts. ``BoundingBoxes`` are recognized by their ``format``, for an import of
    torchvision takes longer than that of torch; and opened, since each operation on a subclass costs several plain
    ones.

    torch makes plain tensors of them, which name no format and so are taken for what is given, in slices, stacks,
    arithmetic, collating, `torch.func` and forward mode, and in what is traced or exported. That can't be seen here.
    A compiler can't open them.

    Args:
        given: the format of a tensor that does not name one; None: corners.
        option: what the caller's argument for it is called.

    Raises:
        TypeError: a compiler is at work.
        ValueError: the two formats differ.
    """
    if given is not None:
        given = as_format(given, option)
    if isinstance(boxes, Tensor) and (said := said_format(boxes)):
        said = as_format(said, name)
        if given not in (None, said):
            raise ValueError(
                f"{name}: the tensor's own format is {said!r}, but {option} is {given!r}; expected {said!r} or None"
            )
        if torch.compiler.is_compiling():
            raise TypeError(
                f"{name}: a compiler cannot open a {type(boxes).__name__}; before what is compiled, make it a plain"
                f" tensor, boxes.as_subclass(torch.Tensor), and say in what is compiled that it is {said}"
            )
        boxes, given = boxes.as_subclass(Tensor), said
    check_boxes(boxes, name)
    return boxes, given or "xyxy"


def as_pair(pred: Tensor, target: Tensor, box_format: str | None = None) -> tuple[Tensor, Tensor]:
    """Both boxes as corners in the dtype they are computed in, after a check that they pair up row by row.

    Args:
        box_format: as of `opened`, of both.
    """
    pred, of_pred = opened(pred, "pred", box_format)
    target, of_target = opened(target, "target", box_format)
    if pred.shape != target.shape and (
        pred.ndim != target.ndim
        or any(p != t and p != 1 and t != 1 for p, t in zip(pred.shape, target.shape, strict=True))
    ):
        raise ValueError(
            f"pred {tuple(pred.shape)} and target {tuple(target.shape)} do not pair up row by row: expected the same"
            " number of axes, with sizes equal or 1; for every pred with every target use boxloss.pairwise"
        )
    pred, target = in_one_dtype(pred, target)
    if of_pred == of_target:
        return _near_corners(pred, target, of_pred)
    return to_corners(pred, of_pred), to_corners(target, of_target)


def _near_corners(pred: Tensor, target: Tensor, box_format: str) -> tuple[Tensor, Tensor]:
    """Both as corners; corners that have to be formed are counted from the target's upper left one.

    A loss doesn't change when both boxes move. Corners far from the origin would be rounded to its distance, and of a
    box much smaller than that nothing would be left.
    """
    if box_format == "xyxy":
        return pred, target
    place, sides = pred[..., :2] - target[..., :2], pred[..., 2:]
    if box_format == "cxcywh":
        place = place + (target[..., 2:] - sides) / 2
    nothing = target[..., :2] - target[..., :2]  # NaN where target is not finite
    return torch.cat((place, place + sides), -1), torch.cat((nothing, target[..., 2:]), -1)


def corners_of_all(a: Tensor, of_a: str, b: Tensor, of_b: str) -> tuple[Tensor, Tensor]:
    """Both as corners, for a loss of each with each; where some have to be formed, counted from a common place.

    Of all boxes it is the one nearest to the origin, so that no coordinate becomes larger, and none less exact.
    """
    if of_a == of_b == "xyxy":
        return a, b
    places = torch.cat([boxes[..., :2].detach().flatten(0, -2) for boxes in (a, b)])
    if not len(places):
        return to_corners(a, of_a), to_corners(b, of_b)
    low, high = places.aminmax(dim=0)
    origin = (low.clamp(min=0) + high.clamp(max=0)).nan_to_num(0.0, 0.0, 0.0)
    return _corners_from(origin, a, of_a), _corners_from(origin, b, of_b)


def _corners_from(origin: Tensor, boxes: Tensor, box_format: str) -> Tensor:
    place, other = boxes[..., :2] - origin, boxes[..., 2:]
    return to_corners(torch.cat((place, other - origin if box_format == "xyxy" else other), -1), box_format)


def in_one_dtype(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.dtype == second.dtype and first.dtype in (torch.float32, torch.float64):
        return first, second
    dtype = _floating(torch.promote_types(_raised(first.dtype), _raised(second.dtype)))
    return first.to(dtype), second.to(dtype)


def check_boxes(boxes: Tensor, name: str) -> None:
    if not isinstance(boxes, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor of boxes (..., 4), got {type(boxes).__name__}")
    check_dense(boxes, name)
    if boxes.dtype not in _REAL:
        raise TypeError(f"{name}: expected boxes of a floating or integer dtype, got {boxes.dtype}")
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name}: expected boxes of shape (..., 4), got {tuple(boxes.shape)}")


def _computed(boxes: Tensor) -> Tensor:
    """In the dtype they are computed in: float32 or float64, whatever holds every coordinate."""
    return boxes.to(_floating(_raised(boxes.dtype)))


def _raised(dtype: torch.dtype) -> torch.dtype:
    # Halves are raised before the first subtraction: a difference taken in float16 has lost its digits for good.
    if not dtype.is_floating_point:
        return torch.int64  # some pairs of integer dtypes have no common one
    return torch.float32 if dtype.itemsize < 4 else dtype


def _floating(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point else torch.float64
