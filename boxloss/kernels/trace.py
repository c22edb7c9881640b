"""From a loss's formula to straight-line code on numbers: the value of one pair, and its gradient.

What the formula and its backward pass do to two boxes is recorded; here every tensor falls into its elements, so that
views, stacks and sums over coordinates vanish and operations on single numbers are left. What the formula means in its
corners (detached factors, ties, 0/0, NaN) comes along, since it is the same operations.

A loss call traces, too, so nothing outside its thread may change. `make_fx` patches `torch.nn.Module` for the process.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..geometry import BoxPair

REAL, WHOLE, TRUTH = "real", "whole", "truth"
"""What a number is: a float, an integer as wide, a truth value."""


SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "and": "&",
    "or": "|",
    "lt": "<",
    "gt": ">",
    "le": "<=",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}
"""Operations of two numbers that C and JavaScript write alike."""


class NoRuleError(NotImplementedError):
    """A formula has an operation that is not in the table."""


class Constant(NamedTuple):
    value: float


class Step(NamedTuple):
    """An operation on earlier results, each the index of a step, or on constants."""

    name: str
    operands: tuple[Operand, ...]
    kind: str


Operand: TypeAlias = "int | Constant"
Array: TypeAlias = "np.ndarray[Any, np.dtype[np.object_]]"
"""A tensor of the graph: the operand of each element."""


Place: TypeAlias = "tuple[int, int]"
"""Of a constant: which step, which of its operands."""


class Program(NamedTuple):
    """A loss of one pair. Its first steps are the coordinates of pred and target, and then its inputs."""

    steps: list[Step]
    value: Operand
    pred: list[Operand]
    """The gradient by pred, coordinate by coordinate."""
    target: list[Operand]

    def constants(self) -> Iterator[tuple[Place, float]]:
        for k, step in enumerate(self.steps):
            for place, operand in enumerate(step.operands):
                if isinstance(operand, Constant):
                    yield (k, place), operand.value

    def without(self, places: Collection[Place]) -> Program:
        """The same, with NaN for the constants at these places: programs that differ in them alone then print alike."""
        steps = [
            step._replace(
                operands=tuple(
                    Constant(math.nan) if (k, place) in places else operand
                    for place, operand in enumerate(step.operands)
                )
            )
            for k, step in enumerate(self.steps)
        ]
        return self._replace(steps=steps)


def trace(
    formula: Callable[..., Tensor],
    parameters: Mapping[str, Any],
    dtype: torch.dtype,
    inputs: Mapping[str, Sequence[float]] | None = None,
) -> Program:
    """The program of a formula with given parameters.

    Args:
        formula: of a `BoxPair` and its own parameters.
        parameters: constants of the program.
        dtype: of the coordinates; float32 or float64.
        inputs: parameters that are steps of the program instead, and an example of each: one number, or several.

    Raises:
        NoRuleError: it has an operation that is not in the table.
    """

    inputs = inputs or {}

    def loss(pred: Tensor, target: Tensor, *given: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        numbers = (number.unbind() for number in given)
        named = {name: of if len(of) > 1 else of[0] for name, of in zip(inputs, numbers, strict=True)}
        boxes = pred.requires_grad_(), target.requires_grad_()
        value = formula(BoxPair(*boxes), **parameters, **named)
        if not value.requires_grad:
            return [torch.zeros_like(box) for box in boxes], value
        # Without a graph of its own a gradient would be added up in place, for which there are no rules.
        return torch.autograd.grad(value, boxes, create_graph=True, materialize_grads=True), value

    return _trace(loss, dtype, [4, 4, *map(len, inputs.values())])


def trace_direction(rule: Callable[[Tensor, Tensor], Any], dtype: torch.dtype) -> Program:
    """The program of a function of two boxes that gives four numbers and a value; they stand where a gradient would.

    Args:
        rule: of two tensors ``(4,)``; it gives a tensor ``(4,)`` and a number.
        dtype: of the coordinates.

    Raises:
        NoRuleError: it has an operation that is not in the table.
    """

    def as_gradient(pred: Tensor, target: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        direction, value = rule(pred, target)
        return (direction, torch.zeros(0)), value

    return _trace(as_gradient, dtype, [4, 4])


Traceable: TypeAlias = "Callable[..., tuple[Sequence[Tensor], Tensor]]"
"""Of two boxes, and inputs: (gradient by the one, gradient by the other), value."""


def _trace(function: Traceable, dtype: torch.dtype, lengths: Sequence[int]) -> Program:
    """On a thread of its own, where the caller's modes, hooks and autocast do not reach."""

    def program() -> Program:
        tracer = _Tracer()
        given = [tracer.given(torch.ones(length, dtype=dtype, device="cpu")) for length in lengths]
        with _seen_by(tracer):
            slopes, value = function(*given)
        pred, target = (tracer.tensor(slope).tolist() for slope in slopes)
        return Program(tracer.steps, tracer.tensor(value).item(), pred, target)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(program).result()


@contextlib.contextmanager
def _seen_by(mode: _Tracer) -> Iterator[None]:
    """As in the block of a `TorchDispatchMode`, which moreover sets flags of the process that stop compilers."""
    torch._C._push_on_torch_dispatch_stack(mode)  # type: ignore[arg-type]  # nothing but the method is called
    try:
        yield
    finally:
        torch._C._pop_torch_dispatch_stack(None)


class _Traced(Tensor):
    """A tensor for the formula, without memory, so that its numbers can't be looked at."""

    example: Tensor
    """Of its shape and dtype."""
    elements: Array

    @staticmethod
    def __new__(cls, example: Tensor, elements: Array) -> _Traced:
        made: _Traced = Tensor._make_wrapper_subclass(cls, example.shape, dtype=example.dtype, device=example.device)
        made.example, made.elements = example, elements
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"a traced tensor {tuple(self.shape)}"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise NoRuleError(f"no rule for {func} where nothing traces")


class _Tracer:
    """Sees what is asked of torch, and writes down each operation on numbers once."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._known: dict[Step, int] = {}

    def given(self, example: Tensor) -> Tensor:
        """Coordinates, or an input."""
        first = len(self.steps)
        elements = [self.step("coordinate", (Constant(first + k),), REAL) for k in range(len(example))]
        return _Traced(example, _array(elements))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, keywords = str(func), kwargs or {}
        if name not in RULES:  # such as a look at a number, and all that changes a tensor in place
            raise NoRuleError(f"no rule for {name}")
        example = func(*_examples(args), **keywords)
        found = RULES[name](self, *args, **keywords)
        if isinstance(example, Tensor):
            return _Traced(example, found)
        return [_Traced(*of) for of in zip(example, found, strict=True)]

    def tensor(self, given: Any) -> Any:
        """The elements of an argument: a tensor, or a number, which is a constant."""
        if isinstance(given, _Traced):
            return given.elements
        if isinstance(given, Tensor):
            raise NoRuleError("no rule for a tensor that is not made from the boxes")
        return given if isinstance(given, np.ndarray) else _array(Constant(given))

    def step(self, name: str, operands: tuple[Operand, ...], kind: str) -> int:
        step = Step(name, operands, kind)
        if step not in self._known:
            self._known[step] = len(self.steps)
            self.steps.append(step)
        return self._known[step]

    def kind(self, operand: Operand) -> str:
        return self.steps[operand].kind if isinstance(operand, int) else ""

    def pointwise(self, name: str, *arguments: Any, kind: str | None = None) -> Array:
        """An operation element by element; of the kind of its operands, if nothing else is said."""
        operands = np.broadcast_arrays(*(self.tensor(argument) for argument in arguments))
        found = np.empty(operands[0].shape, dtype=object)
        for at in np.ndindex(found.shape):
            of: tuple[Any, ...] = tuple(operand[at] for operand in operands)
            kinds = [self.kind(operand) for operand in (of[1:] if name == "where" else of)]
            found[at] = self.step(name, of, kind or next(filter(None, kinds), REAL))
        return found

    def fold(self, name: str, given: Any, axes: Sequence[int], keep: bool = False) -> Array:
        """A reduction over axes, from the first element to the last, as torch does over so few."""
        tensor = self.tensor(given)
        axes = sorted(axis % tensor.ndim for axis in axes)
        found = np.moveaxis(tensor, axes, range(len(axes)))
        found = found.reshape(-1, *found.shape[len(axes) :])
        total = found[0] if found.ndim > 1 else _array(found[0])
        for other in found[1:]:
            total = self.pointwise(name, total, other if found.ndim > 1 else _array(other))
        return np.expand_dims(total, tuple(axes)) if keep else total


def _array(elements: Any) -> Array:
    """An array of operands; a single one is no axis, though a constant is a tuple."""
    if isinstance(elements, list):
        found = np.empty(len(elements), dtype=object)
        for k, element in enumerate(elements):
            found[k] = element
        return found
    single = np.empty((), dtype=object)
    single[()] = elements
    return single


# -- rules: what an operation of the graph does to elements -----------------------------------------------------------

Rule: TypeAlias = Callable[..., Any]


def _pointwise(name: str, kind: str | None = None) -> Rule:
    return lambda tracer, *arguments: tracer.pointwise(name, *arguments, kind=kind)


def _rearranged(change: Callable[..., Any]) -> Rule:
    """Only the places of elements change."""
    return lambda tracer, given, *how, **_: change(tracer.tensor(given), *how)


def _clamp(tracer: _Tracer, given: Any, min: float | None = None, max: float | None = None) -> Array:
    found: Array = tracer.tensor(given)
    for name, bound in (("maximum", min), ("minimum", max)):
        if bound is not None:
            found = tracer.pointwise(name, found, bound)
    return found


def _view_dtype(tracer: _Tracer, given: Any, dtype: torch.dtype) -> Array:
    to_float = dtype.is_floating_point
    return tracer.pointwise("float_of_bits" if to_float else "bits_of_float", given, kind=REAL if to_float else WHOLE)


def _copied(tracer: _Tracer, given: Any, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Array:
    found: Array = tracer.tensor(given)
    if dtype is not None and dtype.is_floating_point and tracer.kind(found.ravel().tolist()[0]) == TRUTH:
        return tracer.pointwise("where", given, 1.0, 0.0)
    return found


def _unbind(tensor: Array, axis: int = 0) -> list[Array]:
    parts = np.moveaxis(tensor, axis, 0)
    return [part if tensor.ndim > 1 else _array(part) for part in parts]


def _select(tensor: Array, axis: int, index: int) -> Array:
    return _unbind(tensor, axis)[index]


def _slice(tensor: Array, axis: int, start: int, end: int) -> Array:
    return tensor[(slice(None),) * axis + (slice(start, end),)]


def _stack(tracer: _Tracer, parts: Sequence[Any], axis: int = 0) -> Array:
    return np.stack([tracer.tensor(part) for part in parts], axis=axis)


def _filled(value: float) -> Rule:
    def rule(tracer: _Tracer, like: Any, *_: Any, **__: Any) -> Array:
        shape = tuple(like) if isinstance(like, list | tuple) else tracer.tensor(like).shape
        found = np.empty(shape, dtype=object)
        for at in np.ndindex(found.shape):
            found[at] = Constant(value)
        return found

    return rule


def _examples(given: Any) -> Any:
    if isinstance(given, list | tuple):
        return [_examples(part) for part in given]
    return given.example if isinstance(given, _Traced) else given


RULES: dict[str, Rule] = {
    **{
        f"aten.{name}.{form}": _pointwise(name)
        for name in ("add", "sub", "mul", "div", "maximum", "minimum")
        for form in ("Tensor", "Scalar", "default")
    },
    **{
        f"aten.{name}.default": _pointwise(name)
        for name in ("neg", "abs", "sgn", "hypot", "exp", "expm1", "log", "log1p", "atan2")
    },
    **{
        f"aten.{name}.{form}": _pointwise(name, TRUTH)
        for name in ("lt", "gt", "le", "ge", "eq", "ne")
        for form in ("Tensor", "Scalar")
    },
    **{f"aten.bitwise_and.{form}": _pointwise("and") for form in ("Tensor", "Scalar")},
    **{f"aten.bitwise_or.{form}": _pointwise("or") for form in ("Tensor", "Scalar")},
    "aten.bitwise_not.default": lambda tracer, given: tracer.pointwise("eq", given, 0.0, kind=TRUTH),
    "aten.cat.default": lambda tracer, parts, axis=0: np.concatenate(
        [tracer.tensor(part) for part in parts], axis=axis
    ),
    "aten.pow.Tensor_Scalar": _pointwise("pow"),
    "aten.atan.default": lambda tracer, given: tracer.pointwise("atan2", given, 1.0),
    "aten.rsub.Scalar": lambda tracer, given, other: tracer.pointwise("sub", other, given),
    "aten.reciprocal.default": lambda tracer, given: tracer.pointwise("div", 1.0, given),
    "aten.relu.default": _pointwise("relu"),
    "aten.threshold_backward.default": lambda tracer, grad, given, bound: tracer.pointwise(
        "where", tracer.pointwise("le", given, bound, kind=TRUTH), 0.0, grad
    ),
    "aten.where.self": _pointwise("where"),
    "aten.masked_fill.Scalar": lambda tracer, given, mask, value: tracer.pointwise("where", mask, value, given),
    "aten.clamp.default": _clamp,
    "aten.sum.dim_IntList": lambda tracer, given, axes, keep=False: tracer.fold("add", given, axes, keep),
    "aten.sum.default": lambda tracer, given: tracer.fold("add", given, range(tracer.tensor(given).ndim)),
    "aten.amax.default": lambda tracer, given, axes, keep=False: tracer.fold("maximum", given, axes, keep),
    "aten.view.dtype": _view_dtype,
    "aten._to_copy.default": _copied,
    "aten.alias.default": _copied,
    "aten.clone.default": _copied,
    "aten.detach.default": _copied,
    "aten.view.default": _rearranged(np.reshape),
    "aten.permute.default": _rearranged(np.transpose),
    "aten.expand.default": _rearranged(np.broadcast_to),
    "aten.unsqueeze.default": _rearranged(np.expand_dims),
    "aten.select.int": _rearranged(_select),
    "aten.slice.Tensor": _rearranged(_slice),
    "aten.unbind.int": _rearranged(_unbind),
    "aten.stack.default": _stack,
    "aten.scalar_tensor.default": lambda tracer, value, **_: tracer.tensor(value),
    "aten.ones_like.default": _filled(1.0),
    "aten.zeros_like.default": _filled(0.0),
    "aten.zeros.default": _filled(0.0),
}
