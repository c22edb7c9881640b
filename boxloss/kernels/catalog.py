"""Which kernels there are: each loss with each choice of its names and truth values; its numbers are arguments.

``make kernels`` writes what is found here into ``catalog.json`` and into C.
"""

from __future__ import annotations

import itertools
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from .native import fingerprint

if typing.TYPE_CHECKING:
    from .trace import Place, Program

FILE = Path(__file__).parent / "catalog.json"
DTYPES = {"float32": torch.float32, "float64": torch.float64}
OTHER = 1.25
"""Times a number: another one."""

Numbers: TypeAlias = "float | list[float]"


@dataclass(frozen=True)
class Entry:
    """A kernel."""

    name: str
    loss: str
    choices: dict[str, Any]
    """The parameters that it has compiled in."""
    defaults: dict[str, Numbers]
    """The numbers that it takes, and their defaults, or some where there are none."""
    arguments: list[Place]
    """The constants of its program that depend on them."""
    numbers: dict[str, list[float]]
    """What these are at the defaults, by dtype."""
    digests: dict[str, str]
    """Of its program without them, by dtype."""


def read() -> list[Entry]:
    return [
        Entry(**entry | {"arguments": list(map(tuple, entry["arguments"]))}) for entry in json.loads(FILE.read_bytes())
    ]


def text(entries: list[Entry]) -> str:
    return "[\n" + ",\n".join(json.dumps(asdict(entry)) for entry in entries) + "\n]\n"


def numbers_of(program: Program, arguments: list[Place]) -> list[float]:
    constants = dict(program.constants())
    return [constants[place] for place in arguments]


def digest(program: Program, arguments: list[Place]) -> str:
    """The same for programs that differ in these constants only."""
    return fingerprint(repr(program.without(arguments)))


def entries(losses: Mapping[str, Any]) -> Iterator[tuple[Entry, tuple[Program, Program]]]:
    """Every kernel, and its program in float32 and float64.

    Args:
        losses: those of the package, by name: what has a ``formula``, and ``parameters`` with ``kind`` and ``default``.
    """
    for name, loss in losses.items():
        fixed = {key: _values(parameter) for key, parameter in loss.parameters.items()}
        numbers = {key: _numbers(loss.parameters[key]) for key, values in fixed.items() if not values}
        fixed = {key: values for key, values in fixed.items() if values}
        for chosen in itertools.product(*fixed.values()):
            yield _entry(name, loss, dict(zip(fixed, chosen, strict=True)), numbers)


def _numbers(parameter: Any) -> Numbers:
    if parameter.required:
        return 3.0 if parameter.kind is float else [3.0] * len(typing.get_args(parameter.kind))
    return float(parameter.default)


def _other(value: Numbers) -> Numbers:
    """Other numbers, by which a program's arguments are told from its constants."""
    if isinstance(value, list):
        return [OTHER * number for number in value]
    return OTHER * value if value else OTHER - 1.0


def _values(parameter: Any) -> tuple[Any, ...]:
    """What a parameter can be; nothing if it is a number. One that may be None has a kernel only where it is."""
    if parameter.optional:
        return (None,)
    if parameter.kind is bool:
        return (False, True)
    return typing.get_args(parameter.kind) if typing.get_origin(parameter.kind) is Literal else ()


def _entry(
    name: str, loss: Any, choices: dict[str, Any], defaults: dict[str, Numbers]
) -> tuple[Entry, tuple[Program, Program]]:
    narrow, wide = (_program(loss.formula, {**choices, **defaults}, dtype) for dtype in DTYPES.values())
    changed = {key: _other(value) for key, value in defaults.items()}
    other = _program(loss.formula, {**choices, **changed}, torch.float32) if defaults else narrow
    constants = dict(other.constants())
    arguments = [place for place, value in narrow.constants() if constants[place] != value]
    if digest(other, arguments) != digest(narrow, arguments):
        raise ValueError(
            f"{name}: its program at {changed} is another than at {defaults}; expected other constants only"
        )
    unusual = [f"_{key}_{value}" for key, value in choices.items() if value != loss.parameters[key].default]
    entry = Entry(
        name=name + "".join(unusual).lower(),
        loss=name,
        choices=choices,
        defaults=defaults,
        arguments=arguments,
        numbers={"float32": numbers_of(narrow, arguments), "float64": numbers_of(wide, arguments)},
        digests={"float32": digest(narrow, arguments), "float64": digest(wide, arguments)},
    )
    return entry, (narrow, wide)


def _program(formula: Callable[..., Any], parameters: dict[str, Any], dtype: torch.dtype) -> Program:
    from .trace import trace  # only making kernels needs it

    return trace(formula, parameters, dtype)
