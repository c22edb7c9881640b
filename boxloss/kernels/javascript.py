"""Programs as JavaScript: for each a function of the numbers of one pair, for the playground's page.

Numbers are doubles. Whole numbers are the bits of a double's exponent, in a formula's choice of unit; here they are the
upper 32 of its 64 bits, which an ordinary number holds.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable

from .trace import SIGNS, WHOLE, Constant, NoRuleError, Operand, Program, Step

_CALLS = {
    **{name: f"Math.{name}" for name in ("abs", "atan2", "exp", "expm1", "hypot", "log", "log1p", "pow")},
    "maximum": "Math.max",  # NaN where either is, as torch's
    "minimum": "Math.min",
    "sgn": "x => (x > 0) - (x < 0)",
    "relu": "x => (x < 0 ? 0 : x)",
    "bits_of_float": "x => ($bits.setFloat64(0, x), $bits.getInt32(0))",
    "float_of_bits": "bits => ($bits.setInt32(0, bits), $bits.setInt32(4, 0), $bits.getFloat64(0))",
}
RUNTIME = "\n".join(
    ["const $bits = new DataView(new ArrayBuffer(8));", *(f"const ${name} = {code};" for name, code in _CALLS.items())]
)
"""The operations that are not JavaScript's own signs; what programs need beside them."""

_FIRST = string.ascii_letters
_LATER = string.ascii_letters + string.digits
_KEYWORDS = {"do", "for", "if", "in", "let", "new", "try", "var"}


def function(program: Program) -> str:
    """An expression: the function ``(x, g) => value`` of a program in float64.

    ``x`` are the coordinates of pred and target and then the inputs; the gradient by pred is written into ``g``.

    Raises:
        NoRuleError: it has an operation without a rule.
    """
    needed = _needed(program)
    names = {k: _name(place) for place, k in enumerate(needed)}

    def text(operand: Operand, whole: bool = False) -> str:
        return _number(operand.value, whole) if isinstance(operand, Constant) else names[operand]

    lines = [f"{names[k]}={_expression(program, program.steps[k], text)}" for k in needed]
    lines.append("".join(f"$g[{place}]={text(operand)};" for place, operand in enumerate(program.pred)))
    *steps, gradient = lines
    return f"($x,$g)=>{{const {','.join(steps)};{gradient}return {text(program.value)}}}"


def _needed(program: Program) -> list[int]:
    """The steps that the value and the gradient by pred come from, in order."""
    found: set[int] = set()
    waiting: list[Operand] = [program.value, *program.pred]
    while waiting:
        operand = waiting.pop()
        if isinstance(operand, int) and operand not in found:
            found.add(operand)
            waiting += program.steps[operand].operands
    return sorted(found)


def _expression(program: Program, step: Step, text: Callable[[Operand, bool], str]) -> str:
    if step.name == "coordinate":
        (constant,) = step.operands
        assert isinstance(constant, Constant)
        return f"$x[{constant.value}]"
    of_whole = any(isinstance(k, int) and program.steps[k].kind == WHOLE for k in step.operands)
    operands = [text(operand, of_whole) for operand in step.operands]
    if step.name == "where":
        return "{}?{}:{}".format(*operands)
    if step.name == "neg":
        return f"-{operands[0]}"
    if step.name in SIGNS:
        # a - -1 needs its blank
        return f"{operands[0]}{SIGNS[step.name]}{operands[1]}".replace("--", "- -")
    if step.name in _CALLS:
        return f"${step.name}({','.join(operands)})"
    raise NoRuleError(f"no rule in JavaScript for {step.name}")


def _name(place: int) -> str:
    """The place-th short name: a, b, …"""
    found = _FIRST[place % len(_FIRST)]
    place //= len(_FIRST)
    while place:
        place -= 1
        found += _LATER[place % len(_LATER)]
        place //= len(_LATER)
    return f"{found}_" if found in _KEYWORDS else found


def _number(value: float, whole: bool) -> str:
    if whole:
        upper, lower = divmod(int(value), 2**32)
        if lower:
            raise NoRuleError(f"no rule in JavaScript for bits below a double's upper 32: {value:#x}")
        return str(upper)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return (
        str(int(value)) if value == int(value) and abs(value) < 1e15 and not _minus_zero(value) else repr(float(value))
    )


def _minus_zero(value: float) -> bool:
    return value == 0 and math.copysign(1, value) < 0
