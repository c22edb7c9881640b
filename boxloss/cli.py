"""The command ``boxloss``. Its choices and tables come from `LOSSES`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import sys
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import LOSSES, BoxLoss, Loss, __version__
from .config import check_file, config_parser, parsed_config
from .errors import FORESEEN
from .files import read_yaml, write_any_text
from .imports import import_installed, import_losses, named_in

if TYPE_CHECKING:
    from .study import StudyConfig

_LISTS = ("--losses", "--seeds")
"""Options that take names or numbers with commas between them."""
_named: list[str] = []
"""What the user's own losses are imported from, in this command."""


LEGEND = (
    "I, U: areas of intersection and union; H: the hull, the smallest box around both; Hw, Hh, c: its sides and"
    " diagonal; ρ, dx, dy: distance of the centers, and by axis; d, dw, dh: differences of coordinates and sides;"
    " AE, …: distances of corresponding corners; θ = atan2(w, h);"
    " p, t: prediction, target."
)


def main(arguments: Sequence[str] | None = None) -> int:
    write_any_text()
    parser = argparse.ArgumentParser(
        prog="boxloss",
        description="Box-regression losses for object detection.",
        epilog="Every command takes --import FILE.py, or a module's name, which defines losses of your own.",
    )
    parser.add_argument("--version", action="version", version=f"boxloss {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (run, summary) in COMMANDS.items():
        # Each command has a parser of its own, that of train made of its configuration.
        commands.add_parser(name, help=summary, add_help=False, prefix_chars="\0").set_defaults(run=run)
    chosen, own = parser.parse_known_args(arguments)
    try:
        with _plain_warnings():
            import_installed()
            chosen.run(_without_imports(own))
    except FORESEEN as error:
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            sys.stderr.close()
            return 141  # as of a program that SIGPIPE ended: what was cut short did not succeed
        print(f"boxloss {chosen.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _without_imports(arguments: Sequence[str]) -> list[str]:
    """Import what ``--import`` names, and what the given configuration does; the other arguments."""
    left, names, before = [], [], ""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if before == "--import":
            names.append(argument)
        elif option == "--import" and equals:
            names.append(value)
        elif argument != "--import":
            left.append(argument)
        before = argument if before != "--import" else ""
    if before == "--import":
        raise ValueError("--import: expected FILE.py or a module's name behind it")
    files = [value for option, value in itertools.pairwise(["--config", *left]) if option == "--config"]
    for file in map(Path, files):
        if file.suffix.lower() in (".yaml", ".yml") and file.is_file():
            names += named_in(read_yaml(file, "configuration"))
    _named[:] = import_losses(names)
    return left


def losses_command(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="boxloss losses", description=COMMANDS["losses"][1])
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    chosen = parser.parse_args(arguments)
    facts = [loss_facts(loss) for loss in LOSSES.values()]
    print(json.dumps(facts, indent=2) if chosen.json else losses_text(facts), flush=True)


def train_command(arguments: Sequence[str]) -> None:
    from . import training  # here and below: torchvision and its like take seconds to import

    parser = config_parser(
        training.TrainConfig,
        prog="boxloss train",
        usage="boxloss train CONFIG [--data …] [--loss …] [--out FOLDER] [options]",
    )
    parser.add_argument("--out", help="folder of the run (default: runs/, and the names of configuration and loss)")
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard's files")
    parsed = _parsed(parser, arguments, training.TrainConfig)
    config = parsed_config(parser, parsed, training.TrainConfig).absolute()
    config = dataclasses.replace(config, imports=list(_named))
    stem = Path(str(parsed.config[0])).stem if parsed.config else "train"
    folder = Path(parsed.out or f"runs/{stem}-{config.loss}")
    figures = training.train(config, folder, tensorboard=parsed.tensorboard)
    if figures:
        print(f"{training.figures_text(figures)}\n{folder}")


def compare_command(arguments: Sequence[str]) -> None:
    from . import study
    from .training import PATHS

    if any(argument.partition("=")[0] == "--pairs" for argument in arguments):
        return _compare_pairs(arguments)
    if arguments and arguments[0].endswith(".csv"):
        raise ValueError(f"{arguments[0]}: expected a configuration, YAML; a file of pairs goes behind --pairs")
    parser = config_parser(
        study.StudyConfig,
        prog="boxloss compare",
        usage="boxloss compare CONFIG [--losses A,B,…] [--seeds N] [--data …] [--out FOLDER] [options]\n"
        "       boxloss compare --pairs FILE.csv [--losses A,B,…] [--out FOLDER]",
    )
    parser.add_argument("--out", help="folder of the study (default: runs/compare-, and the name of the configuration)")
    data = parser.add_argument_group("The data of train, in short")
    data.add_argument("--data", help="shapes, or a data set in COCO's, YOLO's or Pascal VOC's format")
    data.add_argument("--coco", help="the same as --data")
    data.add_argument("--format", help="of the data set: coco, yolo or voc (default: recognized)")
    data.add_argument("--val_share", type=float, help="share of the images for validation, of a data set not divided")
    data.add_argument("--voc_origin", type=int, help="1 for the VOC challenge's own files")
    data.add_argument("--skip_bad_boxes", type=bool, help="leave bad boxes out, with a warning")
    data.add_argument("--images", type=int, help="how many training images")
    data.add_argument("--categories", help="names, such as person,car")
    for name in PATHS[1:]:
        data.add_argument(f"--{name}", help="as of boxloss train")
    where = parser.add_argument_group("Where trials run")
    where.add_argument("--executor", choices=study.EXECUTORS, default=study.EXECUTORS[0])
    where.add_argument("--workers", type=int, help="local: trials at a time (default: cores / threads of a trial)")
    where.add_argument("--retries", type=int, default=2, help="how often a trial that dies is started again")
    where.add_argument("--ray_address", help="ray: of a cluster (default: RAY_ADDRESS, or one on this machine)")
    where.add_argument("--gpus", type=float, default=0.0, help="ray: of a trial")
    parsed = _parsed(parser, arguments, study.StudyConfig)
    _replace_reference(parsed, arguments)
    config = _with_data(parsed_config(parser, parsed, study.StudyConfig), parsed)
    config = dataclasses.replace(config, imports=list(_named))
    executor = study.make_executor(
        parsed.executor,
        config.threads,
        workers=parsed.workers,
        retries=parsed.retries,
        address=parsed.ray_address,
        gpus=parsed.gpus,
    )
    stem = Path(str(parsed.config[0])).stem if parsed.config else "study"
    folder = Path(parsed.out or f"runs/compare-{stem}")
    summary = study.compare(config, folder, executor)
    print(f"{study.summary_text(summary)}\n{folder / 'report.html'}")
    if summary["failed"]:
        raise study.StudyError(
            f"failed trials: {study.failures_text(summary['failed'])}; the same command tries them again"
        )


def _replace_reference(parsed: Any, arguments: Sequence[str]) -> None:
    """If the losses of the options lack the configuration's reference, the first of them takes its place."""
    given = {argument.partition("=")[0] for argument in arguments}
    if parsed.reference is None or "--losses" not in given or "--reference" in given:
        return
    names = [loss if isinstance(loss, str) else loss.get("name") or loss.get("loss") for loss in parsed.losses]
    if parsed.reference not in names:
        print(f"reference: {names[0]}, since --losses lacks the configuration's {parsed.reference}", flush=True)
        parsed.reference = None


def _with_data(config: StudyConfig, parsed: Any) -> StudyConfig:
    """With the data of the short options."""
    from .training import PATHS, READING

    if parsed.coco and parsed.data:
        raise ValueError(f"--data {parsed.data} and --coco {parsed.coco}: expected one of the two")
    changes = {
        name: value for name in (*PATHS, *READING, "skip_bad_boxes") if (value := getattr(parsed, name)) is not None
    }
    if parsed.coco:
        changes["data"] = parsed.coco
    subset = {"images": parsed.images, "categories": parsed.categories and _names(parsed.categories)}
    subset = {name: value for name, value in subset.items() if value is not None}
    if config.datasets and (changes or subset):
        given = ", ".join(f"--{name}" for name in (*changes, *subset))
        raise ValueError(f"{given}: the configuration has datasets of its own: {', '.join(config.datasets)}")
    train = dataclasses.replace(config.train, **changes, subset=dataclasses.replace(config.train.subset, **subset))
    return dataclasses.replace(config, train=train)


def _compare_pairs(arguments: Sequence[str]) -> None:
    from . import study

    parser = argparse.ArgumentParser(prog="boxloss compare --pairs", allow_abbrev=False)
    parser.add_argument("--pairs", type=Path, required=True, help="CSV: px1, py1, px2, py2, gx1, gy1, gx2, gy2")
    parser.add_argument("--losses", help="names, such as iou,giou (default: all); the first is the reference of gains")
    parser.add_argument("--out", type=Path, help="folder (default: runs/pairs-, and the name of the file)")
    chosen = parser.parse_args(arguments)
    names = _names(chosen.losses) if chosen.losses else []
    folder = chosen.out or Path(f"runs/pairs-{chosen.pairs.stem}")
    losses = {name: BoxLoss(name, reduction="none") for name in names} if names else study.every_loss()
    print(f"{study.pairs_text(study.compare_pairs(chosen.pairs, losses, folder))}\n{folder / 'pairs.html'}")


def simulate_command(arguments: Sequence[str]) -> None:
    from . import simulation

    parser = config_parser(
        simulation.SimulationConfig,
        prog="boxloss simulate",
        usage="boxloss simulate [CONFIG] [--losses A,B,…] [--rule published|exact] [--out FOLDER] [options]",
    )
    parser.add_argument("--out", help="folder (default: runs/simulate-, and the name of the configuration)")
    parser.add_argument("--threads", type=int, help="how many chunks at a time (default: as many as torch has)")
    parser.add_argument("--chunk", type=int, default=simulation.CHUNK, help="anchor centers computed at a time")
    parsed = _parsed(parser, arguments, simulation.SimulationConfig)
    config = dataclasses.replace(parsed_config(parser, parsed, simulation.SimulationConfig), imports=list(_named))
    stem = Path(str(parsed.config[0])).stem if parsed.config else "simulation"
    folder = Path(parsed.out or f"runs/simulate-{stem}")
    summary = simulation.simulate(config, folder, threads=parsed.threads, chunk=parsed.chunk)
    print(f"{simulation.simulation_text(summary)}\n{folder / 'report.html'}")


def evaluate_command(arguments: Sequence[str]) -> None:
    from . import training
    from .data import PARTS

    parser = argparse.ArgumentParser(prog="boxloss evaluate", description=COMMANDS["evaluate"][1])
    parser.add_argument("run", type=Path, help="folder of a run; or, with --annotations, a file of COCO results")
    parser.add_argument("--annotations", type=Path, help="what the results are judged by: a COCO file, or any data set")
    parser.add_argument("--part", choices=PARTS, default="val", help="of the annotations (default: %(default)s)")
    parser.add_argument("--val-share", type=float, help="as in the training, of annotations that are not divided")
    _add_reading(parser)
    parser.add_argument("--evaluator", choices=training.EVALUATORS, default=training.EVALUATORS[0])
    parser.add_argument(
        "--max-detections",
        type=int,
        default=training.MAX_DETECTIONS,
        metavar="N",
        help="how many detections of each image and category count, the best ones (default: COCO's %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args(arguments)
    how = {"evaluator": chosen.evaluator, "max_detections": chosen.max_detections}
    reading = _reading(chosen) | {"part": chosen.part, "val_share": chosen.val_share}
    given = [name for name, value in reading.items() if value != parser.get_default(name)]
    if given and not chosen.annotations:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{options}: of --annotations; a run is judged by the val.json in its folder")
    if chosen.annotations:
        figures = training.evaluate_detections(chosen.run, chosen.annotations, say=_to_stderr, **how, **reading)
    else:
        figures = training.evaluate_run(chosen.run, **how)
    print(json.dumps(figures, indent=2) if chosen.json else training.figures_text(figures))


def convert_command(arguments: Sequence[str]) -> None:
    from . import data

    parser = argparse.ArgumentParser(prog="boxloss convert", description=COMMANDS["convert"][1])
    parser.add_argument("source", type=Path, help="a folder or file in COCO's, YOLO's or Pascal VOC's format")
    parser.add_argument("destination", type=Path, help="a folder, or for one part a file that ends in .json")
    parser.add_argument("--part", choices=data.PARTS, help="one part alone")
    parser.add_argument(
        "--val-share", type=float, help="divide a data set that is not: share of the images for validation"
    )
    _add_reading(parser)
    chosen = parser.parse_args(arguments)
    written = data.convert(
        chosen.source,
        chosen.destination,
        part=chosen.part,
        val_share=chosen.val_share,
        **_reading(chosen),
    )
    for path, found in written.items():
        coco = found.coco
        counts = f"{len(coco['images']):,} images, {len(coco['annotations']):,} boxes"
        print(f"{path}: {counts}, {len(coco['categories']):,} categories, from {found.about}")
        print(f"  pictures, which are not copied: {found.pictures}")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Options that say how a data set is read."""
    from .data import FORMATS

    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the data set (default: recognized)")
    parser.add_argument("--voc-origin", type=int, choices=(0, 1), default=0, help="1 for the VOC challenge's own files")
    parser.add_argument("--skip-bad-boxes", action="store_true", help="leave bad boxes out, with a warning")


def _reading(chosen: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(chosen, name) for name in ("format", "voc_origin", "skip_bad_boxes")}


def advise_command(arguments: Sequence[str]) -> None:
    from . import advice

    parser = argparse.ArgumentParser(prog="boxloss advise", description=COMMANDS["advise"][1])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="names, as --list prints them (default: all)")
    parser.add_argument("--list", action="store_true", help="print the questions and their names")
    parser.add_argument("--out", type=Path, default=Path("runs/advice"), help="folder (default: runs/advice)")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        width = max(map(len, advice.QUESTIONS))
        print("\n".join(f"{key:{width}}  {question.text}" for key, question in advice.QUESTIONS.items()))
        return
    advice.advise(chosen.questions, chosen.out, functools.partial(print, flush=True), progress=_progress)
    print(chosen.out / advice.PAGE)


def _progress(text: str) -> None:
    _to_stderr(f"… {text}")


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def plot_command(arguments: Sequence[str]) -> None:
    from . import advice

    parser = argparse.ArgumentParser(prog="boxloss plot", description=COMMANDS["plot"][1])
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="gradients|landscape|classification")
    gradients = kinds.add_parser("gradients", help="where each loss moves a box, and how strongly")
    gradients.add_argument("--case", default=",".join(advice.CASES), help="of %(default)s (default: all)")
    landscape = kinds.add_parser("landscape", help="the value of each loss by where the box is")
    landscape.add_argument("--pred", default="1x1", help="width and height of the prediction (default: %(default)s)")
    landscape.add_argument("--target", default="1x1", help="of the target (default: %(default)s)")
    classification = kinds.add_parser("classification", help="losses of a probability, and their slopes")
    for kind in (gradients, landscape):
        names = ",".join(advice.FAMILY)
        kind.add_argument("--losses", default=names, help="such as giou,smooth_l1:beta=2 (default: %(default)s)")
    for kind in (gradients, landscape, classification):
        kind.add_argument("--out", type=Path, required=True, metavar="FILE.png|FILE.svg", help="the figure")
    chosen = parser.parse_args(arguments)
    if chosen.kind == "gradients":
        advice.draw_gradients(advice.read_losses(chosen.losses), _names(chosen.case), chosen.out)
    elif chosen.kind == "landscape":
        sizes = advice.read_size(chosen.pred), advice.read_size(chosen.target)
        advice.draw_landscape(advice.read_losses(chosen.losses), *sizes, chosen.out)
    else:
        advice.draw_classification(chosen.out)
    print(chosen.out)


def playground_command(arguments: Sequence[str]) -> None:
    from . import playground

    parser = argparse.ArgumentParser(prog="boxloss playground", description=COMMANDS["playground"][1])
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("playground.html"), help="the page (default: %(default)s)"
    )
    parser.add_argument("--losses", help="such as giou,smooth_l1:beta=2 (default: every loss)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    chosen = parser.parse_args(arguments)
    losses = playground.every_loss() if chosen.losses is None else playground.read_losses(chosen.losses)
    told = functools.partial(_counted, total=len(losses), count=itertools.count(1))
    for name, reason in playground.write_playground(chosen.out, losses, told):
        print(f"warning: {name} is left out: {reason}", file=sys.stderr)
    print(chosen.out)
    if chosen.open:
        webbrowser.open(chosen.out.resolve().as_uri())


def _counted(text: str, total: int, count: Iterator[int]) -> None:
    _progress(f"{next(count)} of {total}: {text}")


def doctor_command(arguments: Sequence[str]) -> None:
    from . import doctor

    argparse.ArgumentParser(prog="boxloss doctor", description=COMMANDS["doctor"][1]).parse_args(arguments)
    print(doctor.report())


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "losses": (losses_command, "the table of every loss"),
    "train": (train_command, "train the detector with a loss, on your data"),
    "compare": (compare_command, "train with several losses and seeds, and say what can be concluded"),
    "simulate": (simulate_command, "let boxes descend losses, without images: the DIoU paper's experiment"),
    "advise": (advise_command, "which loss? questions, answered with figures made on the spot"),
    "plot": (plot_command, "figures of losses: gradients, landscape, classification"),
    "playground": (playground_command, "a page: drag two boxes, see every loss, its gradient and its descent"),
    "doctor": (doctor_command, "what is installed, and what computes each loss"),
    "evaluate": (evaluate_command, "COCO's figures of a run, or of any detections"),
    "convert": (convert_command, "write any data set as boxloss reads it, as COCO files"),
}


def _parsed(parser: Any, arguments: Sequence[str], kind: type[Any]) -> Any:
    """The values of jsonargparse's parser of a configuration."""
    options = _options(arguments)
    for option, value in itertools.pairwise(options):
        if option == "--config":
            check_file(Path(value), kind)
    return parser.parse_args(options)


def _options(arguments: Sequence[str]) -> list[str]:
    """As jsonargparse wants them: CONFIG named, underscores in names, switches with their value, lists in brackets."""
    own = ["--config"] if arguments and not arguments[0].startswith("-") else []
    before = ""
    for argument, after in itertools.pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
            if name.endswith(("skip_bad_boxes", "network.freeze")) and not equals and after not in ("true", "false"):
                equals, value = "=", "true"
        if equals:
            value = _listed(name, value)
        own.append(_listed(before, argument) if before in _LISTS else name + equals + value)
        before = argument
    return own


def _listed(option: str, value: str) -> str:
    """``a,b`` as a list, of the options that take one; a number of seeds is a number."""
    if option not in _LISTS or value.startswith("[") or (option == "--seeds" and "," not in value):
        return value
    return json.dumps(_names(value)) if option == "--losses" else f"[{value}]"


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(f"expected names separated by commas, got {text!r}")
    return names


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Our own warnings are shown, whatever is set for others', and without the line of code that they come from."""
    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=UserWarning, module=r"boxloss\.")
        shown, said = warnings.showwarning, set()

        def show(message: Warning | str, category: type[Warning], filename: str, *rest: Any, **more: Any) -> None:
            if f"{os.sep}boxloss{os.sep}" not in filename:
                shown(message, category, filename, *rest, **more)
            elif str(message) not in said:  # Python forgets what it has shown when anybody changes a filter
                said.add(str(message))
                print(f"warning: {message}", file=sys.stderr)

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
    return f"[{low}, ∞)" if high is None else f"[{low}, {high:g}]"


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
