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


@dataclass(frozen=True)
class Domain:
    """The numbers a parameter may take."""

    text: str
    holds: Callable[[float], bool]


NonNegative = Annotated[float, Domain(">= 0", lambda x: x >= 0)]
FromZeroToTen = Annotated[float, Domain("in [0, 10]", lambda x: 0 <= x <= 10)]
FromZeroToFive = Annotated[float, Domain("in [0, 5]", lambda x: 0 <= x <= 5)]
UpToTwo = Annotated[float, Domain("in (0, 2]", lambda x: 0 < x <= 2)]
FromOneToHundred = Annotated[float, Domain("in [1, 100]", lambda x: 1 <= x <= 100)]
FromHundredth = Annotated[float, Domain("in [0.01, 10]", lambda x: 0.01 <= x <= 10)]
FromMillionth = Annotated[float, Domain("in [1e-6, 1]", lambda x: 1e-6 <= x <= 1)]
FromOneToThousand = Annotated[float, Domain("in [1, 1000]", lambda x: 1 <= x <= 1000)]
UpToTen = Annotated[float, Domain("in (0, 10]", lambda x: 0 < x <= 10)]
Length = Annotated[float, Domain("in [1e-9, 1e9]", lambda x: 1e-9 <= x <= 1e9)]
Size = Annotated[tuple[float, float], Domain("in [1e-9, 1e9]", lambda x: 1e-9 <= x <= 1e9)]
"""Width and height."""
UpToThousand = Annotated[float, Domain("in (0, 1000]", lambda x: 0 < x <= 1000)]
UpToOne = Annotated[float, Domain("in (0, 1]", lambda x: 0 < x <= 1)]


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

    def check(self, value: Any) -> None:
        if value is None and self.optional:
            return
        if typing.get_origin(self.kind) is Literal:
            choices = typing.get_args(self.kind)
            right_type, right_value = type(value) in {type(choice) for choice in choices}, value in choices
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
            raise TypeError(f"{self.name}: expected {self.accepts}, got {value!r}")
        if not right_value:
            raise ValueError(f"{self.name}: expected {self.accepts}, got {value!r}")


def check_not_negative(**values: Any) -> None:
    """Refuse what is no finite number >= 0, by name."""
    for name, value in values.items():
        if not is_finite(value) or value < 0:
            raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """A number that a float holds, which an int beyond 1e308 is not. Not math.isfinite: no compiler follows it."""
    if not is_number(value):
        return False
    return abs(value) <= sys.float_info.max if isinstance(value, int) else bool(-math.inf < value < math.inf)
