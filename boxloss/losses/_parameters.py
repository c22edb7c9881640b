"""A loss's own keywords: what each accepts, checked in one place, with one text."""

from __future__ import annotations

import inspect
import math
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from ..values import shown


@dataclass(frozen=True)
class Domain:
    """The numbers a parameter may take."""

    text: str
    holds: Callable[[float], bool]
    low: float = -math.inf
    high: float = math.inf
    """The least and the greatest of them."""


def between(low: float, high: float) -> Domain:
    """Both ends are allowed."""
    return Domain(f"in [{_short(low)}, {_short(high)}]", lambda x: low <= x <= high, low, high)


def up_to(high: float) -> Domain:
    """From 0, which is not allowed."""
    return Domain(f"in (0, {_short(high)}]", lambda x: 0 < x <= high, math.ulp(0.0), high)


def _short(number: float) -> str:
    """
    >>> _short(1e-9), _short(1e9), _short(0.01)
    ('1e-9', '1e9', '0.01')
    """
    return f"{number:g}".replace("e-0", "e-").replace("e+0", "e")


NonNegative = Annotated[float, Domain(">= 0", lambda x: x >= 0, 0)]
UpToOne = Annotated[float, up_to(1)]
UpToTen = Annotated[float, up_to(10)]
UpToThousand = Annotated[float, up_to(1000)]
OneToThousand = Annotated[float, between(1, 1000)]
Length = Annotated[float, between(1e-9, 1e9)]
Size = Annotated[tuple[float, float], between(1e-9, 1e9)]
"""Width and height."""


@dataclass(frozen=True)
class Parameter:
    """A loss's own keyword: its default and what it accepts."""

    name: str
    default: Any
    kind: Any
    domain: Domain | None
    optional: bool = False
    """It may be None."""

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def accepts(self) -> str:
        return self._accepts + (", or None" if self.optional else "")

    @property
    def _accepts(self) -> str:
        if typing.get_origin(self.kind) is Literal:
            return "one of " + ", ".join(map(repr, typing.get_args(self.kind)))
        if self.kind is bool:
            return "True or False"
        numbers = {float: "a finite number", tuple[float, float]: "two finite numbers"}.get(self.kind)
        if numbers:
            return numbers + (f" {self.domain.text}" if self.domain else "")
        return "anything"

    def fits(self, value: Any) -> bool:
        """Whether it is plain that a value is meant for this parameter."""
        try:
            self.check(value)
        except (TypeError, ValueError):
            return False
        return value is not None and self._accepts != "anything"

    def check(self, value: Any) -> None:
        if value is None and self.optional:
            return
        if typing.get_origin(self.kind) is Literal:
            choices = typing.get_args(self.kind)
            right_type = type(value) in {type(choice) for choice in choices}
            right_value = right_type and value in choices
        elif self.kind is bool:
            right_type = right_value = isinstance(value, bool)
        elif self.kind is float or typing.get_origin(self.kind) is tuple:
            pair = self.kind is not float
            numbers = value if pair and isinstance(value, list | tuple) else (value,)
            right_type = all(map(is_number, numbers)) and pair is isinstance(value, list | tuple)
            right_value = len(numbers) == 1 + pair and all(map(is_finite, numbers))
            right_value = right_value and (self.domain is None or all(map(self.domain.holds, numbers)))
        else:
            return
        if not right_type:
            raise TypeError(f"{self.name}: expected {self.accepts}, got {shown(value)}")
        if not right_value:
            raise ValueError(f"{self.name}: expected {self.accepts}, got {shown(value)}")


def check_not_negative(**values: Any) -> None:
    """Refuse what is no finite number >= 0, by name."""
    for name, value in values.items():
        if not is_finite(value) or value < 0:
            raise ValueError(f"{name}: expected a finite number >= 0, got {shown(value)}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """A number that a float holds, which an int beyond 1e308 is not. Not math.isfinite: no compiler follows it."""
    if not is_number(value):
        return False
    return abs(value) <= sys.float_info.max if isinstance(value, int) else bool(-math.inf < value < math.inf)
