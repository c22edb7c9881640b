"""The command ``boxloss``, as a person and as a program would use it."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from scenes import write_data

import boxloss
from boxloss import LOSSES
from boxloss.cli import main

ROOT = Path(__file__).parent.parent
FASTER = ["--evaluator", "faster-coco-eval"]


def test_losses(capsys):
    assert main(["losses"]) == 0
    text = capsys.readouterr().out
    for name, loss in LOSSES.items():
        block = text[text.index(f"{name}  {loss.summary}") :].split("\n\n")[0]
        assert f"    formula     {loss.definition}\n" in block
        assert f"unit: {loss.unit}" in block
        assert loss.source in block
        for parameter in loss.parameters.values():
            value = "required" if parameter.required else repr(parameter.default)
            assert f"    parameter   {parameter.name} = {value}  ({parameter.accepts})" in block
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
    # `python -m boxloss`, twice in one process: each start takes seconds.
    program = """
import runpy, sys
for argument in ("--version", "loses"):
    sys.argv[1:] = [argument]
    try:
        runpy.run_module("boxloss", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print("exit", end.code, flush=True)
"""
    both = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert both.stdout == f"boxloss {boxloss.__version__}\nexit 0\nexit 2\n"
    assert "invalid choice: 'loses'" in both.stderr
    # A reader that stops early, such as `head`, gets no traceback.
    cut = f"{sys.executable} -m boxloss losses | head -1"
    cut_short = subprocess.run(cut, shell=True, capture_output=True, text=True, check=True)
    assert cut_short.stdout.startswith("l1  ")
    assert cut_short.stderr == ""


def test_on_a_terminal_without_greek():
    # One process for both: each start takes seconds.
    both = "from boxloss.cli import main; print(main(['losses']), flush=True); main(['losses', '--json'])"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", both], capture_output=True, text=True, check=True, env=ascii_only)
    table, facts = done.stdout.split("\n0\n")
    assert r"\u03c1\xb2/c\xb2" in table
    assert "1 − (I/U)²" in str(json.loads(facts))


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "the table of every loss" in capsys.readouterr().out


# -- train and evaluate ----------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data")
    (tmp_path / "small.yaml").write_text(
        "loss: ciou\nsize: 64\nbatch: 4\nepochs: 1\nthreads: 1\nnetwork: {scales: 2, width: 4, anchors: 1}\n"
    )
    return tmp_path


def test_train_and_evaluate(data, capsys):
    assert main(["train", "small.yaml", "--data", "data", "--loss", "giou"]) == 0
    said = capsys.readouterr().out
    assert "3 steps in" in said
    assert said.endswith("\nruns/small-giou\n")
    assert (data / "runs/small-giou/images.png").stat().st_size > 1000
    assert main(["evaluate", "runs/small-giou"]) == 0
    table = capsys.readouterr().out
    assert table in said
    assert table.split()[:6] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    own = ["evaluate", "runs/small-giou/detections.json", "--annotations", "data/val.json"]
    assert main([*own, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert main([*own, "--json", "--evaluator", "faster-coco-eval"]) == 0
    others = json.loads(capsys.readouterr().out)
    for name in ("by_category", "AP50_by_category"):
        assert others.pop(name) == pytest.approx(figures.pop(name))
    assert others == pytest.approx(figures)


def test_evaluate_says_that_not_all_objects_count_and_counts_them(tmp_path, capsys):
    """A warning of ours is for whoever runs the command, whatever filter others' warnings made them set."""
    boxes = [
        {"id": k + 1, "image_id": 1 + k // 150, "category_id": 1, "bbox": [10 * (k % 150), 10, 9, 9]}
        for k in range(251)
    ]
    coco = {
        "images": [{"id": k, "file_name": f"{k}.png", "width": 2000, "height": 40} for k in (1, 2)],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "dish"}],
        "annotations": boxes,
    }
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(coco))
    results.write_text(json.dumps([box | {"score": 0.9} for box in boxes]))
    command = ["evaluate", str(results), "--annotations", str(truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(command) == 0
    said = capsys.readouterr()
    assert said.err == (
        "warning: 2 images have more objects of one category than the 100 detections of an image and category that"
        " count: 1.png has 150 of cell. Not all of them can be found; boxloss evaluate --max-detections 150 counts as"
        " many\n"
    )
    assert "AR100" in said.out
    assert main([*command, "--max-detections", "150"]) == 0
    said = capsys.readouterr()
    assert not said.err
    heads, values = (line.split() for line in said.out.splitlines()[2:4])
    assert dict(zip(heads, values, strict=True)) == {
        "AR1": "0.008",  # 2 of 251
        "AR10": "0.080",
        "AR150": "1.000",
        "ARs": "1.000",
        "ARm": "–",
        "ARl": "–",
    }
    assert said.out.endswith("\n\ncategory     AP   AP50\ncell      1.000  1.000\ndish          –      –\n")


@pytest.mark.parametrize("limit", ["9", "0", "-1"])
def test_a_limit_of_too_few_detections(tmp_path, capsys, limit):
    assert main(["evaluate", str(tmp_path), "--max-detections", limit]) == 1
    assert f"max_detections: expected a whole number >= 10, got {limit}\n" in capsys.readouterr().err


def test_options_as_people_write_them(data, capsys):
    options = ["--data=data", "--skip-bad-boxes", "--optimizer.lr", "0.01", "--out", "here", "--evaluate-every=0"]
    assert main(["train", "small.yaml", *options, "--subset.categories=[red]"]) == 0
    with open("here/config.yaml") as file:
        text = file.read()
    assert "skip_bad_boxes: true\n" in text
    assert "lr: 0.01\n" in text
    assert f"data: {data / 'data'}\n" in text
    assert '"name": "red"' in (data / "here/val.json").read_text()
    assert '"name": "green"' not in (data / "here/val.json").read_text()


@pytest.mark.filterwarnings("always::UserWarning")
def test_bad_boxes_are_warned_of(data, capsys):
    coco = json.loads((data / "data/train.json").read_text())
    coco["annotations"][2]["bbox"][3] = -1
    (data / "data/train.json").write_text(json.dumps(coco))
    command = ["train", "small.yaml", "--data", "data"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("boxloss train: error: ")
    assert "train.json: annotation 3: bbox" in error
    assert error.endswith("--skip-bad-boxes leaves such boxes out\n")
    assert not (data / "runs").exists()
    assert main([*command, "--skip-bad-boxes", "true"]) == 0
    assert "warning: left out 1 bad box: " in capsys.readouterr().err


ERRORS = {
    "no loss named 'cio'; did you mean 'ciou'?": ["train", "small.yaml", "--data", "data", "--loss", "cio"],
    "data: no folder ": ["train", "small.yaml", "--data", "nowhere"],
    "no category 'rad'; did you mean 'red'?": ["train", "small.yaml", "--data", "data", "--subset.categories=[rad]"],
    "has 12 images; asked for: 500": ["train", "small.yaml", "--data", "data", "--subset.images", "500"],
    "holds no run: expected config.yaml in it": ["evaluate", "data"],
    "no annotation file none.json": ["evaluate", "small.yaml", "--annotations", "none.json"],
    "small.yaml is not JSON": ["evaluate", "small.yaml", "--annotations", "data/val.json"],
}


@pytest.mark.parametrize(("reason", "command"), ERRORS.items(), ids=list(ERRORS))
def test_errors_are_a_line(data, capsys, reason, command):
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"boxloss {command[0]}: error: ")
    assert reason in error
    assert error.count("\n") == 1
    assert not (data / "runs").exists()


def test_bad_options(data, capsys):
    assert main(["train", "none.yaml"]) == 1
    assert capsys.readouterr().err == "boxloss train: error: no configuration none.yaml\n"
    for options, reason in (
        (["small.yaml", "--epochs", "many"], "epochs"),
        (["small.yaml", "--epoch", "3"], "--epoch"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["train", *options])
        assert end.value.code == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "extra", "command"),
    [
        ("jsonargparse", "study", ["train", "small.yaml"]),
        ("matplotlib.figure", "study", ["train", "small.yaml", "--data", "data"]),
        ("tqdm", "study", ["train", "small.yaml", "--data", "data"]),
        ("torch.utils.tensorboard", "tb", ["train", "small.yaml", "--data", "data", "--tensorboard"]),
        ("faster_coco_eval", "eval", ["evaluate", "d.json", "--annotations", "data/val.json", *FASTER]),
    ],
)
def test_a_missing_extra_is_named(data, capsys, monkeypatch, module, extra, command):
    (data / "d.json").write_text("[]")
    monkeypatch.setitem(sys.modules, module, None)
    assert main(command) == 1
    assert f"pip install 'boxloss[{extra}]'" in capsys.readouterr().err
    assert not list(data.glob("runs/*/checkpoint.pt"))


def test_tensorboard(data, capsys):
    assert main(["train", "small.yaml", "--data", "data", "--tensorboard", "--out", "run"]) == 0
    assert list((data / "run/tensorboard").iterdir())


@pytest.mark.parametrize("path", sorted((ROOT / "configs/train").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path, capsys):
    from boxloss.config import read_config
    from boxloss.training import TrainConfig

    assert read_config(path, TrainConfig).loss == "ciou"
