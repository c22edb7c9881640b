"""The command ``boxloss``. Its choices and tables come from `LOSSES`."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from . import LOSSES, Loss, __version__

LEGEND = (
    "I, U: areas of intersection and union; H: the hull, the smallest box around both; Hw, Hh, c: its sides and"
    " diagonal; ρ: distance of the centers; d, dw, dh: differences of coordinates and sides;"
    " AE, …: distances of corresponding corners; θ = atan2(w, h);"
    " p, t: prediction, target."
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="boxloss", description="Box-regression losses for object detection.")
    parser.add_argument("--version", action="version", version=f"boxloss {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    losses = commands.add_parser("losses", help="the table of every loss", description="The table of every loss.")
    losses.add_argument("--json", action="store_true", help="print it as JSON")
    chosen = parser.parse_args(arguments)
    facts = [loss_facts(loss) for loss in LOSSES.values()]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no ρ gets its number, not a traceback
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        print(json.dumps(facts, indent=2) if chosen.json else losses_text(facts), flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
    return 0


def loss_facts(loss: Loss) -> dict[str, Any]:
    """What the tables say of a loss, as plain values; an infinite bound is None."""
    return {
        "name": loss.name,
        "function": f"{loss.name}_loss",
        "summary": loss.summary,
        "formula": loss.definition,
        "bounds": [bound if math.isfinite(bound) else None for bound in loss.bounds],
        "unit": loss.unit,
        "parameters": {
            name: {
                "default": None if parameter.required else parameter.default,
                "required": parameter.required,
                "accepts": parameter.accepts,
            }
            for name, parameter in loss.parameters.items()
        },
        "symmetric": loss.symmetric,
        "detached": loss.detached,
        "warning": loss.warning,
        "source": loss.source,
    }


def bounds_text(facts: dict[str, Any]) -> str:
    low, high = facts["bounds"]
    return f"[{low}, ∞)" if high is None else f"[{low}, {high}]"


def losses_text(facts: Sequence[dict[str, Any]]) -> str:
    """A block per loss: a formula, bounds and sources do not fit side by side in a terminal."""
    blocks = []
    for loss in facts:
        lines = [loss["name"] + f"  {loss['summary']}"]
        lines.append(f"    formula     {loss['formula']}")
        lines.append(f"    bounds      {bounds_text(loss)}, unit: {loss['unit']}")
        for name, parameter in loss["parameters"].items():
            value = "required" if parameter["required"] else repr(parameter["default"])
            lines.append(f"    parameter   {name} = {value}  ({parameter['accepts']})")
        if loss["warning"]:
            lines.append(f"    warning     {loss['warning']}")
        if loss["source"]:
            lines.append(f"    source      {loss['source']}")
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, LEGEND])
