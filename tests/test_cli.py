"""The command ``boxloss``, as a person and as a program would use it."""

import json
import os
import subprocess
import sys

import pytest

import boxloss
from boxloss import LOSSES
from boxloss.cli import main


def test_losses(capsys):
    assert main(["losses"]) == 0
    text = capsys.readouterr().out
    for name, loss in LOSSES.items():
        block = text[text.index(f"{name}  {loss.summary}") :].split("\n\n")[0]
        assert f"    formula     {loss.definition}\n" in block
        assert f"unit: {loss.unit}" in block
        assert loss.source in block
        for parameter in loss.parameters.values():
            assert f"    parameter   {parameter.name} = {parameter.default!r}  ({parameter.accepts})" in block
    assert "warning     0, with zero gradient, wherever the boxes do not overlap" in text
    assert text.rstrip().endswith("prediction, target.")


def test_losses_as_json(capsys):
    assert main(["losses", "--json"]) == 0
    facts = {loss["name"]: loss for loss in json.loads(capsys.readouterr().out)}
    assert list(facts) == list(LOSSES)
    assert facts["l1"]["bounds"] == [0, None]
    assert facts["giou"]["bounds"] == [0, 2]
    assert facts["l2"]["unit"] == "area"
    assert facts["smooth_l1"]["parameters"] == {
        "beta": {"default": 1.0, "required": False, "accepts": "a finite number >= 0"}
    }
    assert facts["ciou"]["detached"] is True
    assert facts["focal_eiou"]["warning"]


def test_as_a_program():
    version = subprocess.run([sys.executable, "-m", "boxloss", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"boxloss {boxloss.__version__}\n"
    wrong = subprocess.run([sys.executable, "-m", "boxloss", "loses"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "invalid choice: 'loses'" in wrong.stderr
    # A reader that stops early, such as `head`, gets no traceback.
    cut = f"{sys.executable} -m boxloss losses | head -1"
    cut_short = subprocess.run(cut, shell=True, capture_output=True, text=True, check=True)
    assert cut_short.stdout.startswith("l1  ")
    assert cut_short.stderr == ""


@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_on_a_terminal_without_greek(options):
    command = [sys.executable, "-m", "boxloss", "losses", *options]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ascii_only)
    assert r"\u03c1\xb2/c\xb2" in done.stdout if not options else "1 − (I/U)²" in str(json.loads(done.stdout))


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "the table of every loss" in capsys.readouterr().out
