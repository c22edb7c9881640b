"""What a loss is: a formula over a `BoxPair`, the facts known of it, and the public function made of both.

``@define(facts)`` turns a formula of a few lines into ``x_loss(pred, target, *, reduction, weight, avg_factor, …)`` and
enters it in `LOSSES`, which everything else reads: `BoxLoss`, the command line, the README's table, the tests.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from .. import kernels
from ..boxes import as_pair
from ..errors import unknown_loss
from ..geometry import BoxPair
from ..kernels import Kernel
from ._fused import fused
from ._keywords import OF_FUNCTIONS, OF_MODULES, Fits, is_reduction, is_tensor, placed, unknown_of_loss
from ._parameters import Parameter, is_finite
from ._reduce import check_reduction, reduce_pairs

# What every loss's docstring says of its common arguments and errors, in place of {common} and {raises}.
_COMMON = """\
pred: boxes ``(..., 4)`` as x1, y1, x2, y2, in any one unit of length; torchvision's ``BoundingBoxes`` in the format
        that they name, where they are; what torch makes of them, such as a slice or a stack, is a plain tensor.
    target: boxes that pair up with ``pred``: as many axes, sizes equal or 1; in the same unit.
    reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the pairs. Of no pairs both are 0, with a graph.
    weight: one factor per pair, ``(...)``.
    avg_factor: what ``"mean"`` divides the (weighted) sum by instead of the number of pairs. With 0 it is 0 where the
        sum is 0 too, as in a batch without positives, else infinite; without gradient."""
_RAISES = """\
TypeError: not dense tensors of real numbers; an unknown parameter.
    ValueError: the shapes do not pair up; a parameter is outside its domain."""


class LossFunction(Protocol):
    def __call__(
        self,
        pred: Tensor,
        target: Tensor,
        *,
        reduction: str = "none",
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        **parameters: Any,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Loss:
    """A box-regression loss: its formula and the facts that tests and tables read."""

    name: str
    formula: Callable[..., Tensor]
    """The bare formula, of a `BoxPair` and the loss's own parameters."""
    function: LossFunction
    """The public function."""
    source: str
    bounds: tuple[float, float]
    """Of the values, with the default parameters."""
    degree: int | None
    """Both boxes times s multiply the loss by s^degree: 0 without unit, 1 a length, 2 an area; None: by no power."""
    lengths: tuple[str, ...]
    """Parameters that are lengths and scale with the boxes."""
    symmetric: bool
    """pred and target can be swapped."""
    detached: bool
    """A factor is held constant in the backward pass, so that the gradient is not the derivative of the value."""
    zero_without_overlap: bool
    """The loss, and with it the gradient, is 0 wherever the boxes do not overlap."""
    zero_from: str
    """The parameter that is the IoU from which on the loss, and with it the gradient, is 0; empty if there is none."""
    focus: Callable[..., Tensor] | None
    """The weight of each pair in a reweighted loss, of the same arguments as the formula; it can be normalized."""
    running_mean: Callable[..., bool] | None
    """Whether the loss, with given parameters, needs ``mean``, that of 1 − I/U over all pairs; `BoxLoss` keeps it."""
    parameters: Mapping[str, Parameter]
    check: Callable[..., None] | None
    """Raises for parameters that do not go together, all of them given."""

    @property
    def unit(self) -> str:
        return "depends on the boxes'" if self.degree is None else ("none", "length", "area")[self.degree]

    @property
    def in_lengths(self) -> bool:
        """The unit of the boxes matters: it carries one, or a parameter does."""
        return self.degree != 0 or bool(self.lengths)

    @property
    def summary(self) -> str:
        """The docstring's first paragraph."""
        return " ".join(self._paragraphs[0].split())

    @property
    def definition(self) -> str:
        """The formula as text: the docstring's second paragraph."""
        return " ".join("".join(self._paragraphs[1:2]).split())

    @property
    def explanation(self) -> str:
        """What the formula's signs are, and more: the docstring's paragraphs from the third to the arguments."""
        said = itertools.takewhile(lambda text: not text.startswith("Args:"), self._paragraphs[2:])
        return " ".join(" ".join(said).split())

    @property
    def fits(self) -> Fits:
        """By parameter of its own, whether a value looks like one of its."""
        return {name: parameter.fits for name, parameter in self.parameters.items()}

    @property
    def _paragraphs(self) -> list[str]:
        return (inspect.getdoc(self.formula) or "").split("\n\n")

    @property
    def warning(self) -> str:
        if self.zero_without_overlap:
            return "0, with zero gradient, wherever the boxes do not overlap"
        return f"0, with zero gradient, wherever IoU ≥ {self.zero_from}" if self.zero_from else ""

    def check_parameters(self, given: Mapping[str, Any], common: tuple[str, ...] = ()) -> None:
        """Raise for a parameter that is not the loss's own, and for a value outside its domain.

        Args:
            common: what the caller has besides, for a hint at what may have been meant.
        """
        for name, value in given.items():
            if name not in self.parameters:
                raise unknown_of_loss(self.name, name, self.parameters, common)
            self.parameters[name].check(value)
        for name, parameter in self.parameters.items():
            if parameter.required and name not in given:
                raise TypeError(f"{self.name}: parameter {name!r} is required: {parameter.accepts}")
        if self.check:
            self.check(**{name: given.get(name, parameter.default) for name, parameter in self.parameters.items()})

    def of_boxes(self, parameters: Mapping[str, Any], pred: Tensor, target: Tensor) -> Tensor:
        """The formula's value of each pair of boxes of one dtype."""
        return self.values(BoxPair(pred, target), parameters)

    def kernel(self, parameters: Mapping[str, Any], pred: Tensor, target: Tensor, *others: Any) -> Kernel | None:
        """What can stand in for the formula; ``others`` are tensors, perhaps, whose gradient it does not give."""
        tensors = [other for other in others if isinstance(other, Tensor)]
        if pred.numel() == 0 or target.numel() == 0 or any(other.requires_grad for other in tensors):
            return None
        if kernels.why_not(pred, target, *tensors):
            return None
        found = kernels.find(self.name, parameters, pred.dtype)
        return found if isinstance(found, Kernel) else None

    def values(self, pair: BoxPair, parameters: Mapping[str, Any]) -> Tensor:
        """The formula's value of each pair."""
        value = self.formula(pair, **parameters)
        if value.shape != pair.shape:
            raise ValueError(
                f"{self.name}: its formula gave {tuple(value.shape)}, expected one number per pair, {tuple(pair.shape)}"
            )
        return value


LOSSES: dict[str, Loss] = {}
"""Every loss by name, in the order of definition."""


def define(
    *,
    source: str,
    bounds: tuple[float, float],
    degree: int | None = 0,
    lengths: tuple[str, ...] = (),
    symmetric: bool = True,
    detached: bool = False,
    zero_without_overlap: bool = False,
    zero_from: str = "",
    focus: Callable[..., Tensor] | None = None,
    running_mean: Callable[..., bool] | None = None,
    check: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Tensor]], LossFunction]:
    """Make a formula ``x_loss(pair, *, own parameters)`` the public function ``x_loss(pred, target, *, …)``.

    The formula returns one number per pair, from what a `BoxPair` has: ``difference`` (4, ...), ``iou``, ``iou_loss``,
    ``hull_excess``, ``center_ratio``, ``side_ratio``, ``corner_ratio``, ``angle``, …, each described there. Its
    docstring begins with a sentence and the formula as text, which the tables print. Parameters annotated `float`,
    `bool`, `Literal`, or `NonNegative`, `UpToOne` and their like are checked at every call.

    Args:
        source: author, place, year and number of the paper.
        bounds: of the values, with the default parameters; an upper bound may be `math.inf`.
        degree: both boxes times s multiply the loss by s^degree: 0 without unit, 1 a length, 2 an area; None: by no
            power of s.
        lengths: names of the parameters that are lengths.
        symmetric: pred and target can be swapped.
        detached: a factor is held constant in the backward pass.
        zero_without_overlap: the loss is 0 wherever the boxes do not overlap.
        zero_from: name of the parameter that is the IoU from which on the loss is 0.
        focus: the weight of each pair in a reweighted loss, of the formula's arguments.
        check: of all of the formula's parameters: raises a ValueError for some that do not go together.
        running_mean: of the formula's parameters: whether it needs ``mean``, the mean of 1 − I/U over all pairs seen.

    Raises:
        TypeError: the formula's parameters are not a pair and keyword-only ones, or have a name that every loss has.
        ValueError: its name does not end in ``_loss``, or another loss has it.
    """

    def decorate(formula: Callable[..., Tensor]) -> LossFunction:
        _check_formula(formula)
        if degree not in (None, 0, 1, 2):
            raise ValueError(f"degree: expected 0, 1, 2 or None, got {degree!r}")

        def function(
            pred: Tensor,
            target: Tensor,
            *values: NoReturn,  # so that a type checker refuses any
            reduction: str = "none",
            weight: Tensor | None = None,
            avg_factor: float | Tensor | None = None,
            **parameters: Any,
        ) -> Tensor:
            if values:
                fits = {"reduction": is_reduction, "weight": is_tensor, **loss.fits, "avg_factor": is_finite}
                raise placed(f"{formula.__name__}(pred, target, …)", values, fits)
            loss.check_parameters(parameters, OF_FUNCTIONS)
            check_reduction(reduction, avg_factor)
            pred, target = as_pair(pred, target)
            if not torch.compiler.is_compiling():
                kernel = loss.kernel(parameters, pred, target, weight, avg_factor)
                if kernel is not None:
                    by_formula = functools.partial(loss.of_boxes, parameters)
                    return fused(kernel, by_formula, pred, target, reduction, weight, avg_factor)
            return reduce_pairs(loss.of_boxes(parameters, pred, target), reduction, weight, avg_factor)

        hints = typing.get_type_hints(function) | typing.get_type_hints(formula, include_extras=True)
        functools.update_wrapper(function, formula, assigned=("__module__", "__name__", "__qualname__"))
        function.__doc__ = _public_docstring(formula, source)
        function.__signature__ = signature = _public_signature(function, formula, hints)  # type: ignore[attr-defined]
        function.__annotations__ = {key: hints[key] for key in (*signature.parameters, "return") if key in hints}
        loss = Loss(
            name=formula.__name__.removesuffix("_loss"),
            formula=formula,
            function=function,
            source=source,
            bounds=bounds,
            degree=degree,
            lengths=lengths,
            symmetric=symmetric,
            detached=detached,
            zero_without_overlap=zero_without_overlap,
            zero_from=zero_from,
            focus=focus,
            running_mean=running_mean,
            parameters=_own_parameters(formula),
            check=check,
        )
        LOSSES[loss.name] = loss
        kernels.offer(loss.name, formula)
        return function

    return decorate


# All names that a loss's own parameter can't have.
_TAKEN = {"pred", "target", *OF_FUNCTIONS, "name", *OF_MODULES}


def _check_formula(formula: Callable[..., Tensor]) -> None:
    name = formula.__name__
    if not name.endswith("_loss"):
        raise ValueError(f"{name}: the name of a loss function ends in '_loss'")
    first, *own = inspect.signature(formula).parameters.values()
    if first.kind is not first.POSITIONAL_OR_KEYWORD or any(p.kind is not p.KEYWORD_ONLY for p in own):
        raise TypeError(f"{name}: expected a formula (pair, *, own parameters), got {inspect.signature(formula)}")
    taken = _TAKEN & {p.name for p in own}
    if taken:
        raise TypeError(f"{name}: every loss or its module has {', '.join(sorted(taken))}; expected another name")
    known = LOSSES.get(name.removesuffix("_loss"))
    if known and not _is_same(known.formula, formula):
        raise ValueError(f"{name}: there is a loss of this name in {known.formula.__module__}; expected another name")


def _is_same(known: Callable[..., Tensor], formula: Callable[..., Tensor]) -> bool:
    """A cell that is run again, or a script that is also imported as a module."""
    if known.__qualname__ != formula.__qualname__:
        return False
    files = [os.path.abspath(one.__code__.co_filename) for one in (known, formula) if hasattr(one, "__code__")]
    return known.__module__ == formula.__module__ or (len(files) == 2 and files[0] == files[1])


def _own_parameters(formula: Callable[..., Tensor]) -> dict[str, Parameter]:
    kinds = typing.get_type_hints(formula, include_extras=True)
    own: dict[str, Parameter] = {}
    for name, parameter in list(inspect.signature(formula).parameters.items())[1:]:
        kind = kinds.get(name, Any)
        optional = type(None) in typing.get_args(kind)
        if optional:
            (kind,) = (option for option in typing.get_args(kind) if option is not type(None))
        domains = getattr(kind, "__metadata__", ())
        plain = typing.get_args(kind)[0] if domains else kind
        own[name] = Parameter(name, parameter.default, plain, domains[0] if domains else None, optional)
    return own


def _public_signature(
    function: Callable[..., Tensor], formula: Callable[..., Tensor], hints: dict[str, Any]
) -> inspect.Signature:
    public = inspect.signature(function, follow_wrapped=False)
    common = [p for p in public.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    own = list(inspect.signature(formula).parameters.values())[1:]
    hinted = [p.replace(annotation=hints.get(p.name, p.empty)) for p in common + own]
    return public.replace(parameters=hinted, return_annotation=Tensor)


def _public_docstring(formula: Callable[..., Tensor], source: str) -> str:
    text = inspect.getdoc(formula) or ""
    raises = _RAISES + (f"\n\nSource: {source}" if source else "")
    return text.replace("{common}", _COMMON).replace("{raises}", raises)


def find_loss(name: str) -> Loss:
    """The loss of that name.

    Raises:
        ValueError: there is none; the message names the nearest.

    >>> find_loss("guou")
    Traceback (most recent call last):
    ValueError: no loss named 'guou'; did you mean 'giou'?
    """
    if isinstance(name, str) and name in LOSSES:
        return LOSSES[name]
    raise unknown_loss(name, LOSSES)


def similarity(name: str, pred: Tensor, target: Tensor, **parameters: Any) -> Tensor:
    """1 − loss, for the bounded losses: IoU, GIoU, DIoU, … of each pair.

    Args:
        name: a loss with finite bounds, such as ``"giou"``.
        pred: boxes ``(..., 4)`` as x1, y1, x2, y2, in any one unit of length.
        target: boxes that pair up with ``pred``, in the same unit.
        parameters: the loss's own.

    Returns:
        ``(...)``, without unit; 1 where two boxes coincide. Of every pred with every target: ``1 - pairwise(…)``.

    Raises:
        TypeError: a parameter that is not the loss's own.
        ValueError: the loss is unknown; it has no similarity, being unbounded or 0 also for boxes that lie apart; the
            shapes do not pair up.

    >>> similarity("iou", torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3]))  # 1/7
    tensor(0.1429)
    """
    able = [key for key, loss in LOSSES.items() if math.isfinite(loss.bounds[1]) and not loss.zero_without_overlap]
    loss = find_loss(name)
    if name not in able:
        why = "is 0 also for boxes that lie apart" if loss.zero_without_overlap else "has no upper bound"
        raise ValueError(f"{name!r} {why} and so has no similarity; expected one of {', '.join(able)}")
    check_own(parameters)
    loss.check_parameters(parameters)
    return 1.0 - loss.function(pred, target, **parameters)


def check_own(parameters: Mapping[str, Any]) -> None:
    """Refuse what is a parameter of every loss function where only a loss's own count."""
    common = parameters.keys() & OF_FUNCTIONS
    if common:
        raise TypeError(f"expected the loss's own parameters only, got {', '.join(sorted(common))}")
