"""Compiled kernels: which of them stands in for which formula, and why not.

A kernel is made from a loss's formula (``trace``, ``c``) and compiled when the package is installed, if a C compiler is
there. It computes the value of each pair, and its gradient, in one pass over memory. Everything works without.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..boxes import as_pair, said_format
from ..errors import unknown_loss
from ..values import is_one_of, watcher
from .native import Library, library

if TYPE_CHECKING:
    from . import catalog

__all__ = ["Kernel", "disabled", "explain", "find", "library", "offer", "why_not"]


class Kernel(NamedTuple):
    """A kernel, and the numbers that stand in for a formula's parameters."""

    name: str
    library: Library
    place: int
    numbers: Any


class _Formula(NamedTuple):
    formula: Callable[..., Tensor]
    defaults: dict[str, Any]


MOST_TRACES = 64
"""Of a loss, for other numbers than its defaults: each takes milliseconds, so numbers that always change take none."""

_FORMULAS: dict[str, _Formula] = {}
_traces: Counter[tuple[str, torch.dtype]] = Counter()
_disabled = ContextVar("disabled", default=False)
_OFF = os.environ.get("BOXLOSS_KERNELS") == "off"


def offer(name: str, formula: Callable[..., Tensor]) -> None:
    """Make a loss's formula known, of a `BoxPair` and keywords of its own."""
    if name in _FORMULAS:
        forget()  # what was found for another formula of this name
    _FORMULAS[name] = _Formula(formula, dict(formula.__kwdefaults__ or {}))


def forget() -> None:
    """What was found so far."""
    _find.cache_clear()
    _traces.clear()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """No kernels in this thread: the formulas run. For all of a process: the environment's ``BOXLOSS_KERNELS=off``.

    Like any context variable it is taken along by ``contextvars.copy_context``.

    >>> with disabled():
    ...     print(why_not(torch.zeros(4), torch.zeros(4)))
    they are disabled
    """
    before = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(before)


def why_not(*boxes: Tensor) -> str:
    """Why no kernel can be used for these tensors, here and now; nothing if one can."""
    if _OFF or _disabled.get():
        return "they are disabled"
    seen = watcher()
    if seen:
        return seen
    if torch.is_anomaly_enabled():
        return "anomaly detection looks at each operation"
    for tensor in boxes:
        if tensor.device.type != "cpu":
            return f"a tensor is on {tensor.device}; they compute on the CPU"
        if type(tensor) not in (Tensor, torch.nn.Parameter) and not said_format(tensor):  # losses open those that do
            return f"a tensor is a {type(tensor).__name__}, which may want to see each operation"
        if tensor.is_neg():
            return "a tensor is a view whose numbers are yet to be negated"
        if tensor._is_zerotensor():
            return "a tensor is one of zeros without memory"
    return ""


def find(name: str, parameters: Mapping[str, Any], dtype: torch.dtype) -> Kernel | str:
    """The kernel of a loss with parameters of its own, or why there is none.

    For numbers other than the defaults the formula is traced, once for each: only that tells what it makes of them.
    """
    try:
        return _find(name, tuple(parameters.items()), dtype)
    except TypeError:  # a value that can't be a key
        return "a parameter is no plain value"


@functools.lru_cache(maxsize=4096)
def _find(name: str, parameters: tuple[tuple[str, Any], ...], dtype: torch.dtype) -> Kernel | str:
    compiled = library()
    if isinstance(compiled, str):
        return compiled
    formula, defaults = _FORMULAS[name]
    given = {**defaults, **dict(parameters)}
    ours = formula.__module__.partition(".")[0] == __name__.partition(".")[0]
    for entry in _entries() if ours else ():
        if entry.loss == name and all(given[key] == value for key, value in entry.choices.items()):
            break
    else:
        return f"none was made of {name} as it is here"
    if entry.name not in compiled.kernels:
        return f"{compiled.path} lacks {entry.name}: it is of another version; install boxloss again"
    numbers = _numbers(entry, formula, given, dtype)
    if isinstance(numbers, str):
        return numbers
    array = (ctypes.c_double * max(len(numbers), 1))(*numbers)
    return Kernel(entry.name, compiled, compiled.kernels[entry.name], array)


@functools.cache
def _entries() -> list[catalog.Entry]:
    from . import catalog  # when a kernel is asked for, not at import

    return catalog.read()


def _numbers(
    entry: catalog.Entry, formula: Callable[..., Tensor], given: Mapping[str, Any], dtype: torch.dtype
) -> list[float] | str:
    from . import catalog

    (key,) = (key for key, value in catalog.DTYPES.items() if value == dtype)
    if all(given[name] == default for name, default in entry.defaults.items()):
        return entry.numbers[key]
    _traces[entry.name, dtype] += 1
    if _traces[entry.name, dtype] > MOST_TRACES:
        return f"its numbers have changed {MOST_TRACES} times, and each new one costs milliseconds"
    from .trace import trace  # few need it

    try:
        program = trace(formula, given, dtype)
    except Exception:  # the formula itself may refuse the value; if it does, it says so when it runs
        return f"{entry.loss} cannot be traced at {dict(given)}"
    if catalog.digest(program, entry.arguments) != entry.digests[key]:
        return f"{entry.loss} computes in another way at {dict(given)}"
    return catalog.numbers_of(program, entry.arguments)


def explain(loss: str, pred: Tensor, target: Tensor, **parameters: Any) -> str:
    """What computes a loss of these boxes: a kernel, or the formula, and why.

    Args:
        loss: a name, such as ``"giou"``.
        pred: boxes as the loss takes them.
        target: boxes that pair up with them.
        parameters: the loss's own.
    """
    if not is_one_of(loss, _FORMULAS):
        raise unknown_loss(loss, _FORMULAS)
    pred, target = as_pair(pred, target)
    found = why_not(pred, target) or find(loss, parameters, pred.dtype)
    if isinstance(found, Kernel):
        instructions = found.library.instructions[found.library.used]
        return f"{loss}: kernel {found.name}, {instructions}, {torch.get_num_threads()} threads"
    return f"{loss}: formula; no kernel, as {found}"
