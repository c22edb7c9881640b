"""Losses and their parameters as one text, for command lines: ``giou,smooth_l1:beta=2``."""

from __future__ import annotations

import ast
from typing import Any


def spelled_losses(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name and parameters of each loss, by how it was spelled; neither is checked.

    Raises:
        ValueError: it is no list of names with commas between them, parameters of each behind colons.

    >>> spelled_losses("giou, smooth_l1:beta=0.5")
    {'giou': ('giou', {}), 'smooth_l1:beta=0.5': ('smooth_l1', {'beta': 0.5})}
    """
    losses = {}
    for entry in _split(text):
        name, *given = entry.split(":")
        if not name:
            raise ValueError(f"losses: expected names separated by commas, such as giou,smooth_l1:beta=2, got {text!r}")
        parameters = [_parameter(entry, one) for one in given]
        losses[entry] = name, dict(parameters)
        if len(losses[entry][1]) < len(parameters):
            raise ValueError(f"{entry}: a parameter is given twice")
    return losses


def _split(text: str) -> list[str]:
    """At the commas that are not inside brackets.

    >>> _split("giou, x:size=(4, 3)")
    ['giou', 'x:size=(4,3)']
    """
    parts, depth = [""], 0
    for sign in text.replace(" ", ""):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _parameter(entry: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"{entry}: expected a parameter as NAME=VALUE behind the colon, got {text!r}")
    try:
        return name, ast.literal_eval(value.capitalize() if value in ("true", "false") else value)
    except (ValueError, SyntaxError):
        return name, value  # a word, such as unit
