"""The command ``boxloss``. Its choices and tables come from `LOSSES`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import LOSSES, Loss, __version__

if TYPE_CHECKING:
    from .training import TrainConfig

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
    for name, (run, summary) in COMMANDS.items():
        # Each command has a parser of its own, that of train made of its configuration.
        commands.add_parser(name, help=summary, add_help=False, prefix_chars="\0").set_defaults(run=run)
    chosen, own = parser.parse_known_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that has no ρ gets its number, not a traceback
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _plain_warnings():
            chosen.run(own)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            sys.stderr.close()
            return 0
        if isinstance(error, RuntimeError) and type(error).__module__.partition(".")[0] != "boxloss":
            raise  # not one that we foresaw
        print(f"boxloss {chosen.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def losses_command(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="boxloss losses", description=COMMANDS["losses"][1])
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    chosen = parser.parse_args(arguments)
    facts = [loss_facts(loss) for loss in LOSSES.values()]
    print(json.dumps(facts, indent=2) if chosen.json else losses_text(facts), flush=True)


def train_command(arguments: Sequence[str]) -> None:
    from . import training  # here and below: torchvision and its like take seconds to import

    parser = training.config_parser(
        prog="boxloss train", usage="boxloss train CONFIG [--data …] [--loss …] [--out FOLDER] [options]"
    )
    parser.add_argument("--out", help="folder of the run (default: runs/, and the names of configuration and loss)")
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's files")
    parsed = parser.parse_args(_train_options(arguments))
    config = _absolute(training.parsed_config(parser, parsed))
    stem = Path(str(parsed.config[0])).stem if parsed.config else "train"
    folder = Path(parsed.out or f"runs/{stem}-{config.loss}")
    figures = training.train(config, folder, tensorboard=parsed.tensorboard)
    if figures:
        print(f"{training.figures_text(figures)}\n{folder}")


def evaluate_command(arguments: Sequence[str]) -> None:
    from . import training

    parser = argparse.ArgumentParser(prog="boxloss evaluate", description=COMMANDS["evaluate"][1])
    parser.add_argument("run", type=Path, help="folder of a run; or, with --annotations, a file of COCO results")
    parser.add_argument("--annotations", type=Path, help="COCO annotation file that the results are judged by")
    parser.add_argument("--evaluator", choices=training.EVALUATORS, default=training.EVALUATORS[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args(arguments)
    if chosen.annotations:
        figures = training.evaluate_detections(chosen.run, chosen.annotations, evaluator=chosen.evaluator)
    else:
        figures = training.evaluate_run(chosen.run, evaluator=chosen.evaluator)
    print(json.dumps(figures, indent=2) if chosen.json else training.figures_text(figures))


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "losses": (losses_command, "the table of every loss"),
    "train": (train_command, "train the detector with a loss, on COCO-format data"),
    "evaluate": (evaluate_command, "COCO's figures of a run, or of any detections"),
}


def _train_options(arguments: Sequence[str]) -> list[str]:
    """As the parser wants them: CONFIG named, underscores in names, and switches with their value."""
    own = ["--config"] if arguments and not arguments[0].startswith("-") else []
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
            if name in ("--skip_bad_boxes", "--network.freeze") and not equals and after not in ("true", "false"):
                equals, value = "=", "true"
        own.append(name + equals + value)
    return own


def _absolute(config: TrainConfig) -> TrainConfig:
    """Paths as they are found from anywhere, since the configuration is kept in the run's folder."""
    paths = {name: getattr(config, name) for name in ("train_json", "train_images", "val_json", "val_images")}
    if config.data != "shapes":
        paths["data"] = config.data
    return dataclasses.replace(config, **{name: path and os.path.abspath(path) for name, path in paths.items()})


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our own warnings without the line of code that they come from."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
            if f"{os.sep}boxloss{os.sep}" in filename:
                print(f"warning: {message}", file=sys.stderr)
            else:
                shown(message, category, filename, *rest, **more)

        warnings.showwarning = show
        yield


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
