"""What an error says of a keyword that is not known, and of a value that is given without one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from ..errors import closest
from ._reduce import REDUCTIONS

OF_FUNCTIONS = ("reduction", "weight", "avg_factor")
"""Keywords of every loss function."""
OF_MODULES = ("convention", "box_format", "reduction", "gain", "normalize_weight", "momentum")
"""Keywords of every `BoxLoss`."""
_EPS = ("eps", "epsilon")

Fits = Mapping[str, Callable[[Any], bool]]
"""By keyword, whether a value looks like one of its."""


def unknown(who: str, name: str, own: Collection[str], common: Collection[str] | None = None) -> TypeError:
    """The error for an unknown keyword: it names the nearest one, and where that belongs if not here.

    Args:
        who: the loss, or what else is called.
        own: its own keywords.
        common: keywords that it has in common with other losses; None: it is not a loss of boxes.
    """
    found = f"{who}: unknown parameter {name!r}; "
    if name.lower() in _EPS:
        return TypeError(found + "it is not needed, as there is no eps in any formula: remove it")
    others = () if common is None else (*OF_FUNCTIONS, *OF_MODULES)
    near = closest(name.lower(), (*own, *others))
    if not near:
        return TypeError(found + f"its own parameters: {', '.join(own) or 'none'}")
    hints = [] if near == name else [f"did you mean {near!r}?"]
    if common is not None and near not in (*own, *common):
        hints.append(_elsewhere(near, common))
    return TypeError(found + " ".join(hints))


def _elsewhere(name: str, common: Collection[str]) -> str:
    if name == "box_format":
        return "that is an option of BoxLoss; boxes of another format: boxloss.boxes.convert"
    if name not in OF_FUNCTIONS:
        return "that is an option of BoxLoss"
    if common:
        return f"it is given with the boxes: loss(pred, target, {name}=…)"
    return "that is an option of loss functions; here only the loss's own parameters count"


def placed(who: str, values: Collection[object], fits: Fits) -> TypeError:
    """The error for values given by place: it says which keyword each looks like."""
    written = [_written(value, [word for word, fit in fits.items() if fit(value)]) for value in values]
    if all(written):
        return TypeError(f"{who} takes keywords only: write {', '.join(written)}")
    found = ", ".join("a tensor" if isinstance(value, Tensor) else repr(value) for value in values)
    return TypeError(f"{who} takes keywords only, {', '.join(fits)}; got {found} by place")


def _written(value: object, words: list[str]) -> str:
    text = "…" if isinstance(value, Tensor) else repr(value)
    return " or ".join(f"{word}={text}" for word in words)


def is_reduction(value: object) -> bool:
    return isinstance(value, str) and value in REDUCTIONS


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
