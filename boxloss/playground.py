"""The playground: a page of its own on which boxes are dragged, and every loss, its gradient and its descent follow.

Its mathematics are the library's formulas, traced as for the kernels and printed as JavaScript.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .colors import LOSS_COLORS, MORE_COLORS
from .losses import LOSSES, Loss, find_loss, spelled_losses
from .page import TEMPLATES, environment, write_page

SCRIPTS = ("state", "stage", "table", "charts", "descent", "main")
"""The page's own code, one file each in this order."""
PRESETS: dict[str, dict[str, list[float]]] = {
    "overlapping": {"target": [220, 160, 400, 320], "pred": [140, 110, 280, 240]},
    "disjoint": {"target": [340, 220, 480, 330], "pred": [120, 90, 230, 200]},
    "contained": {"target": [220, 140, 420, 320], "pred": [250, 160, 330, 240]},
    "touching": {"target": [300, 160, 440, 320], "pred": [160, 200, 300, 300]},
    "aspect": {"target": [220, 180, 420, 300], "pred": [260, 140, 380, 340]},
    "tiny": {"target": [300, 200, 308, 207], "pred": [303, 202, 310, 211]},
    "empty": {"target": [240, 160, 400, 300], "pred": [300, 210, 300, 210]},
    "identical": {"target": [220, 160, 400, 320], "pred": [220, 160, 400, 320]},
}
"""Boxes to start from, in pixels of an image of 640 × 480."""
TITLES = {"aspect": "same center, other aspect", "empty": "empty prediction"}
IMAGE = "image_size"
"""The one parameter of two numbers that the page has: its image."""
IMAGE_SIZE = (640.0, 480.0)
LENGTH = 32.0
"""What another parameter without a default is at first, or the nearest number that it takes."""
FURTHEST = 1e9
"""Beyond it the page takes no number."""

Tell = Callable[[str], None]
Losses = Mapping[str, tuple[str, dict[str, Any]]]
"""Name and parameters of each loss, by what it is called on the page."""


@dataclass(frozen=True)
class Entry:
    """A loss on the page."""

    name: str
    loss: Loss
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    """Parameters that the page asks for: those without a default, and the state of a loss that has one."""
    code: str
    """Its value and gradient in JavaScript."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the page says of it."""
        loss = self.loss
        ours = loss.formula.__module__.partition(".")[0] == __name__.partition(".")[0]
        own = {name: self.parameters.get(name, of.default) for name, of in loss.parameters.items()}
        said = {name: value for name, value in own.items() if name not in self.inputs and value is not None}
        return {
            "name": self.name,
            "summary": loss.summary,
            "definition": loss.definition,
            "explanation": loss.explanation.replace("`", "").replace("**", ""),
            "detached": loss.detached,
            "source": loss.source,
            "warning": loss.warning,
            "degree": loss.degree,
            "unit": loss.unit,
            "settings": ", ".join(f"{name} = {_written(value)}" for name, value in said.items()),
            "imports": "import torch, boxloss" + ("" if ours else f"  # and what defines {loss.name}"),
            "call": f"{loss.name}_loss" if ours else f"LOSSES[{loss.name!r}].function",
            "keywords": ", ".join(f"{name}={value!r}" for name, value in self.parameters.items()),
            "inputs": self.inputs,
        }


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def every_loss() -> dict[str, tuple[str, dict[str, Any]]]:
    """All losses as they are by default, and those versions of them that keep a state."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, loss in LOSSES.items():
        found[name] = name, {}
        for key, parameter in loss.parameters.items():
            if loss.running_mean is None or typing.get_origin(parameter.kind) is not Literal:
                continue
            for choice in typing.get_args(parameter.kind):
                if choice != parameter.default and loss.running_mean(**{key: choice}):
                    found[f"{name}:{key}={choice}"] = name, {key: choice}
    return found


def read_losses(text: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Losses by what they were called, such as ``giou,smooth_l1:beta=2``; what a loss requires may be left out.

    Raises:
        ValueError: no such loss or parameter, or one outside its domain.
    """
    losses = spelled_losses(text)
    for name, parameters in losses.values():
        try:
            _check(find_loss(name), parameters)
        except TypeError as error:  # on a command line it is the user's, with no traceback
            raise ValueError(f"{error}; a parameter is given as {name}:NAME=VALUE") from error
    return losses


def _check(loss: Loss, parameters: Mapping[str, Any]) -> None:
    loss.check_parameters({name: _example(loss, name) for name in _inputs(loss, parameters)} | dict(parameters))


def _inputs(loss: Loss, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The parameters that the page asks for: those without a default, if they are numbers, and a state."""
    kinds = {name: of.kind for name, of in loss.parameters.items() if of.required}
    needed = [name for name, kind in kinds.items() if kind == (tuple[float, float] if name == IMAGE else float)]
    if loss.running_mean is not None and loss.running_mean(**parameters):
        needed.append("mean")
    return tuple(name for name in needed if name not in parameters)


def _example(loss: Loss, name: str) -> Any:
    parameter = loss.parameters[name]
    if not parameter.required:
        return parameter.default
    if name == IMAGE:
        return IMAGE_SIZE
    low, high = _limits(loss, name)
    return min(max(LENGTH, low), high)


def _limits(loss: Loss, name: str) -> tuple[float, float]:
    domain = loss.parameters[name].domain
    return (max(domain.low, -FURTHEST), min(domain.high, FURTHEST)) if domain else (-FURTHEST, FURTHEST)


def entry(called: str, name: str, parameters: dict[str, Any]) -> Entry:
    """A loss, with its formula as JavaScript.

    Raises:
        Exception: a parameter is missing that the page can't ask for; the formula could not be traced, or has an
            operation without a rule.
    """
    import torch

    from .kernels.javascript import function
    from .kernels.trace import trace

    loss = find_loss(name)
    _check(loss, parameters)
    inputs = _inputs(loss, parameters)
    defaults = {key: of.default for key, of in loss.parameters.items() if not of.required and key not in inputs}
    examples = {key: _numbers(_example(loss, key)) for key in inputs}
    program = trace(loss.formula, defaults | parameters, torch.float64, examples)
    return Entry(called, loss, parameters, inputs, function(program))


def _numbers(value: Any) -> list[float]:
    return list(value) if isinstance(value, tuple) else [value]


def entries(losses: Losses, tell: Tell) -> Iterator[Entry | tuple[str, str]]:
    """Of each loss what the page has; or its name, and why it can't be there."""
    for called, (name, parameters) in losses.items():
        tell(called)
        try:
            yield entry(called, name, parameters)
        except Exception as error:  # of a formula that anybody may have written
            said, *_ = [*str(error).strip().splitlines(), ""]
            yield called, f"{type(error).__name__}{': ' if said else ''}{said}"


def write_playground(path: Path, losses: Losses | None = None, tell: Tell = lambda _: None) -> list[tuple[str, str]]:
    """Write the page: one file, which needs neither a server nor a network.

    Args:
        path: the file; it is replaced whole.
        losses: those on the page; every one if not given. Blanks in what they are called become underscores.
        tell: told the name of each loss before it is traced.

    Returns:
        The losses that are left out, each with the reason; the page names them too.

    Raises:
        ImportError: jinja2 is missing.
        ValueError: the path is that of a folder; none of the losses can be on the page.
        OSError: the page can't be written.
    """
    environment()  # what is missing is said now, not after tracing
    if path.is_dir():
        raise ValueError(f"{path}: expected the name of a file, such as playground.html, got a folder")
    losses = {"_".join(called.split()): loss for called, loss in (losses or every_loss()).items()}
    made = list(entries(losses, tell))
    on_page = [of for of in made if isinstance(of, Entry)]
    left_out = [of for of in made if not isinstance(of, Entry)]
    if not on_page:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out)
        raise ValueError(f"the playground: none of its losses can be traced; {reasons}")
    asked = numbers(on_page)
    scripts = [data(on_page, asked), *(_part(f"{name}.js") for name in SCRIPTS)]
    write_page(
        path,
        "playground.html.jinja",
        script="\n".join(scripts),
        style=_part("style.css"),
        left_out=left_out,
        presets={name: TITLES.get(name, name) for name in PRESETS},
        numbers=asked,
    )
    return left_out


def _part(name: str) -> str:
    return (TEMPLATES / "playground" / name).read_text(encoding="utf-8")


def numbers(on_page: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """The inputs that are one number: their first values, what all losses that ask for them take, and these losses."""
    found: dict[str, dict[str, Any]] = {}
    for of in on_page:
        for name in of.inputs:
            if name == IMAGE:
                continue
            low, high = _limits(of.loss, name)
            asked = found.setdefault(name, {"value": _example(of.loss, name), "low": low, "high": high, "losses": []})
            asked["low"], asked["high"] = max(asked["low"], low), min(asked["high"], high)
            asked["value"] = min(max(asked["value"], asked["low"]), asked["high"])
            asked["losses"].append(of.name)
    return found


def data(on_page: Collection[Entry], asked: Mapping[str, Any]) -> str:
    """The part of the script that is made: the losses, and what the page starts with."""
    from .kernels.javascript import RUNTIME

    losses = ",\n".join(f"{{...{_json(of.facts)},f:{of.code}}}" for of in on_page)
    iou = next((of.code for of in on_page if (of.loss.name, of.parameters) == ("iou", {})), None)
    colors = {of.name: LOSS_COLORS[of.name] for of in on_page if of.name in LOSS_COLORS}
    return "\n".join(
        [
            RUNTIME,
            f"const LOSSES = [{losses}];",
            f"const IOU = {{inputs: [], f: {iou or entry('iou', 'iou', {}).code}}};",
            f"const PRESETS = {_json(PRESETS)};",
            f"const NUMBERS = {_json(asked)};",
            f"const IMAGE = {_json(IMAGE)};",
            f"const FURTHEST = {_json(FURTHEST)};",
            f"const COLORS = {_json(colors)};",
            f"const MORE_COLORS = {_json([_on_any_ground(color) for color in MORE_COLORS])};",
            'const DASHES = ["none", "8 4", "9 4 2 4", "2 3"];',
            "const $ = id => document.getElementById(id);",
        ]
    )


def _on_any_ground(color: str) -> str:
    return "var(--ink)" if color == "#000000" else color


def _json(value: Any) -> str:
    """Inside a script: no text of it ends the element."""
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\!--")
