"""Programs as C: for each a function that goes through a block of pairs, held in columns, and vectorises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .native import fingerprint
from .trace import REAL, SIGNS, TRUTH, WHOLE, Constant, Operand, Place, Program, Step

_TYPES = {REAL: "R", WHOLE: "W", TRUTH: "T"}
_LETTERS = {REAL: "r", WHOLE: "w", TRUTH: "t"}


def function(name: str, programs: tuple[Program, Program], arguments: Sequence[Place]) -> str:
    """A program in both precisions as one C function; they may differ in constants only.

    Args:
        name: of the function.
        programs: in float32 and in float64.
        arguments: places of constants that the caller gives.
    """
    narrow, wide = programs
    given = {place: f"n{k}" for k, place in enumerate(arguments)}
    # Loaded without a condition, which no vector could follow.
    lines = [f"const R n{k} = (R)numbers[{k}];" for k in range(len(arguments))]
    for k, (step, other) in enumerate(zip(narrow.steps, wide.steps, strict=True)):
        kinds = [_kind(narrow, operand) for operand in step.operands]
        kind = next(filter(None, kinds[1:] if step.name == "where" else kinds), step.kind)
        texts = [
            given.get((k, place)) or _operand(narrow, operand, other.operands[place], kind)
            for place, operand in enumerate(step.operands)
        ]
        lines.append(f"const {_TYPES[step.kind]} {_LETTERS[step.kind]}{k} = {_expression(step, texts)};")
    lines.append(f"out[0 * BLOCK + i] = {_operand(narrow, narrow.value, wide.value, REAL)};")
    columns = zip(narrow.pred + narrow.target, wide.pred + wide.target, strict=True)
    for place, (operand, other_operand) in enumerate(columns, 1):
        lines.append(f"if (G) out[{place} * BLOCK + i] = {_operand(narrow, operand, other_operand, REAL)};")
    return "\n".join([f"KERNEL({name}) {{", *lines, "}"])


def _expression(step: Step, texts: list[str]) -> str:
    if step.name == "coordinate":
        (constant,) = step.operands
        assert isinstance(constant, Constant)
        return f"in[{constant.value} * BLOCK + i]"
    if step.name == "where":
        return f"{texts[0]} ? {texts[1]} : {texts[2]}"
    if step.name == "neg":
        return f"-{texts[0]}"
    if step.name in SIGNS:
        return f"{texts[0]} {SIGNS[step.name]} {texts[1]}"
    whole = "whole_" if step.kind == WHOLE and step.name in ("maximum", "minimum") else ""
    return f"OP({whole}{step.name})({', '.join(texts)})"


def _kind(program: Program, operand: Operand) -> str:
    return program.steps[operand].kind if isinstance(operand, int) else ""


def _operand(program: Program, operand: Operand, other: Operand, kind: str) -> str:
    if isinstance(operand, int):
        return f"{_LETTERS[program.steps[operand].kind]}{operand}"
    assert isinstance(other, Constant)
    narrow, wide = (_number(constant.value, kind) for constant in (operand, other))
    return narrow if narrow == wide else f"EITHER({narrow}, {wide})"


def _number(value: float, kind: str) -> str:
    if kind == WHOLE:
        return f"(W){int(value)}"
    if math.isnan(value):
        return "(R)NAN"
    if math.isinf(value):
        return "(R)INFINITY" if value > 0 else "(R)-INFINITY"
    return f"(R){value:g}" if float(f"{value:g}") == value else f"(R){float(value).hex()}"


_MADE = "/* Made by `make kernels` from the formulas in boxloss/losses."


def source(functions: Mapping[str, str]) -> str:
    """What is included once for each instruction set and type."""
    return "\n\n".join([f"{_MADE} */", *functions.values()]) + "\n"


def names(functions: Mapping[str, str]) -> str:
    """X(name) for each; and the digest of their source, by which a library of another version is known."""
    listed = " \\\n".join(f"  X({name})" for name in functions)
    return f'{_MADE} */\n\n#define SOURCE "{fingerprint(source(functions))}"\n#define KERNELS(X) \\\n{listed}\n'
