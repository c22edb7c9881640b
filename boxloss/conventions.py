"""What frameworks call by the same names: their box losses as losses of boxloss with parameters.

Equal but for the small number (1e-7, …) that frameworks add to denominators.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .errors import nearest
from .values import is_one_of, shown


class Meaning(NamedTuple):
    """A framework's loss, as one of ours."""

    loss: str
    parameters: dict[str, Any] = {}  # noqa: RUF012 – of a NamedTuple, never changed


CONVENTIONS: dict[str, dict[str, Meaning]] = {
    "torchvision": {name: Meaning(name) for name in ("l1", "smooth_l1", "giou", "diou", "ciou")},
    "ultralytics": {name: Meaning(name) for name in ("iou", "giou", "diou", "ciou")},
    "mmdet": {
        "l1": Meaning("l1"),
        "smooth_l1": Meaning("smooth_l1"),
        "iou": Meaning("log_iou"),
        "giou": Meaning("giou"),
        "diou": Meaning("diou"),
        "ciou": Meaning("ciou", {"gated": True}),
    },
    "yolox": {"iou": Meaning("squared_iou"), "giou": Meaning("giou")},
}
"""By framework, what it means by each of its losses that there is here: torchvision's detectors and ``ops``;
ultralytics's ``bbox_iou``; the ``…Loss`` of MMDetection with their defaults; YOLOX's ``IOUloss``."""

_OTHERS = {("mmdet", "eiou"): "mmdet's EIoULoss is Extended IoU, another loss than eiou"}


def meaning(convention: str, name: str) -> Meaning:
    """What a framework means by a name.

    >>> meaning("yolox", "iou")
    Meaning(loss='squared_iou', parameters={})

    Raises:
        ValueError: an unknown framework, or a loss that it doesn't have.
    """
    if not is_one_of(convention, CONVENTIONS):
        hint = nearest(shown(convention), CONVENTIONS) or f"expected one of {', '.join(CONVENTIONS)}"
        raise ValueError(f"convention: no framework named {shown(convention)}; {hint}")
    known = CONVENTIONS[convention]
    if name not in known:
        why = _OTHERS.get((convention, name), f"{convention} has no loss {name!r} that boxloss could reproduce")
        raise ValueError(f"convention: {why}; expected one of {', '.join(known)}, or no convention")
    return known[name]
