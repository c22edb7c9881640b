"""What an error says of a keyword that is not known, and of a value that is given without one."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from torch import Tensor

from ..boxes import FORMATS
from ..errors import closest
from ..values import is_one_of, shown
from ._parameters import is_finite
from ._reduce import REDUCTIONS

OF_FUNCTIONS = ("reduction", "weight", "avg_factor")
"""Keywords of every loss function."""
OF_MODULES = ("convention", "box_format", "reduction", "gain", "normalize_weight", "momentum")
"""Keywords of every `BoxLoss`."""

Fits = Mapping[str, Callable[[Any], bool]]
"""By keyword, whether a value looks like one of its."""

_OPTIONS = dict.fromkeys(OF_MODULES, "that is an option of BoxLoss")
_OPTIONS["box_format"] += "; boxes of another format: boxloss.boxes.convert"
_IN_THE_CALL = {name: f"it is given with the boxes: loss(pred, target, {name}=…)" for name in OF_FUNCTIONS}
_IN_THE_CALL |= dict.fromkeys(("pred", "target"), "the module is made first and then called: loss(pred, target)")
_NOWHERE = dict.fromkeys(OF_FUNCTIONS, "that is an option of loss functions; here only the loss's own parameters count")
_ELSEWHERE = {OF_FUNCTIONS: _OPTIONS, OF_MODULES: _IN_THE_CALL, (): _OPTIONS | _NOWHERE}
"""By the keywords that there are besides a loss's own: where others belong."""

_EPS = ("smooth", "label_smoothing")
_OTHERS = {
    "eps": _EPS,
    "epsilon": _EPS,
    "weight": ("class_weight",),
    "pos_weight": ("positive_weight",),
    "loss_weight": ("gain",),
    "size_average": ("reduction",),
    "reduce": ("reduction",),
    **dict.fromkeys(("bbox_format", "boxes_format", "format", "fmt"), ("box_format",)),
    **dict.fromkeys(("sigmoid", "softmax", "use_sigmoid", "from_logits"), ("activation",)),
}
"""By a keyword of another library ours, the first that there is."""
_WORDS = (*REDUCTIONS, *FORMATS, "sigmoid", "softmax")
_AVERAGES = ("avg", "average", "batchmean")

P = ParamSpec("P")
R = TypeVar("R")


def unknown_of_loss(who: str, name: str, own: Collection[str], common: tuple[str, ...]) -> TypeError:
    """`unknown`, of a loss of boxes.

    Args:
        common: keywords that it has in common with others: `OF_FUNCTIONS`, `OF_MODULES`, or none.
    """
    elsewhere = {word: where for word, where in _ELSEWHERE[common].items() if word not in (*own, *common)}
    return unknown(who, name, own, common, elsewhere)


def unknown(
    who: str,
    name: str,
    own: Collection[str],
    common: Collection[str] = (),
    elsewhere: Mapping[str, str] = {},
) -> TypeError:
    """The error for an unknown keyword: it names the nearest one, and where that belongs if not here.

    Args:
        who: the loss, or what else is called.
        own: its keywords, which the error lists if none is near.
        common: more of them.
        elsewhere: keywords that belong elsewhere, and what is said of each.
    """
    words, slip = (*own, *common, *elsewhere), name.lower()
    near = next((word for word in _OTHERS.get(slip, ()) if word in words), "")
    found = f"{who}: unknown parameter {name!r}; "
    if _OTHERS.get(slip) is _EPS:
        hint = f", or did you mean {near!r}?" if near else ""
        return TypeError(f"{found}it is not needed, as there is no eps in any formula: remove it{hint}")
    near = near or closest(slip, words)
    if not near:
        return TypeError(f"{found}its own parameters: {', '.join(own) or 'none'}")
    hints = [] if near == name else [f"did you mean {near!r}?"]
    if near in elsewhere:
        hints.append(elsewhere[near])
    return TypeError(found + " ".join(hints))


def placed(who: str, values: Collection[object], fits: Fits) -> TypeError:
    """The error for values given by place: it says which keyword each looks like."""
    written = [_written(value, fits) for value in values]
    if all(written):
        return TypeError(f"{who} takes keywords only: write {', '.join(written)}")
    found = ", ".join(map(shown, values))
    return TypeError(f"{who} takes keywords only, {', '.join(fits)}; got {found} by place")


def _written(value: object, fits: Fits) -> str:
    for meant in _meant(value):
        text = "…" if is_array(meant) else repr(meant)
        words = [f"{word}={text}" for word, fit in fits.items() if fit(meant)]
        if words:
            return " or ".join(words)
    return ""


def _meant(value: object) -> Iterator[object]:
    """A value, and what may be meant by it, as a word."""
    yield value
    word = getattr(value, "name", value)  # of an enum
    if isinstance(word, str):
        yield word.lower()
        yield "mean" if word.lower() in _AVERAGES else closest(word.lower(), _WORDS)


def answered(
    elsewhere: Mapping[str, str] = {},
    fits: Fits | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function answer slips of its keywords, where Python would say that they are unexpected.

    Args:
        elsewhere: keywords that belong elsewhere, and what is said of each.
        fits: by keyword, whether a value looks like one of its; None: as its annotation says.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        places = [name for name, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]
        own = [name for name, parameter in parameters.items() if parameter.default is not parameter.empty]
        required = [name for name in places if name not in ("self", *own)]
        known, count = frozenset(parameters), len(places)
        who = function.__qualname__.removesuffix(".__init__").removesuffix(".forward")

        @functools.wraps(function)
        def called(*values: P.args, **given: P.kwargs) -> R:
            if len(values) > count:
                looks = _fits_of(function) if fits is None else fits
                raise placed(f"{who}({', '.join(required)}, …)", values[count:], looks)
            for name in given:
                if name not in known:
                    raise unknown(who, name, own, required, elsewhere)
            return function(*values, **given)

        return called

    return decorate


def _fits_of(function: Callable[..., Any]) -> Fits:
    kinds = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: functools.partial(_is_a, kinds[p.name]) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _is_a(kind: Any, value: object) -> bool:
    if typing.get_origin(kind) is Literal:
        return is_one_of(value, typing.get_args(kind))
    if typing.get_args(kind):
        return any(_is_a(option, value) for option in typing.get_args(kind))
    looks: dict[Any, Callable[[Any], bool]] = {float: is_finite, str: is_reduction, Tensor: is_tensor}
    return looks[kind](value) if kind in looks else isinstance(value, kind)


def is_reduction(value: object) -> bool:
    return is_one_of(value, REDUCTIONS)


def is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)
