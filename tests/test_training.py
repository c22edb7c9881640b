"""Training runs: what they leave, that they go on after any break as if there had been none, and what they refuse."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision.models
from scenes import locked_elsewhere, write_data

from boxloss import training
from boxloss.config import read_config, write_config
from boxloss.data import cache_folder
from boxloss.training import FIGURES, Detect, Network, Optimizer, Report, Terms, TrainConfig, Trainer, TrainingError
from boxloss.training import loop as loop_module
from boxloss.training.checkpoint import NAME, PREVIOUS, load_checkpoint, save_checkpoint
from boxloss.training.folder import add_metrics, read_metrics
from boxloss.yolo import YoloLoss

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("BOXLOSS_CACHE", str(tmp_path / "cache"))
    return write_data(tmp_path / "data")


def config(data, **changes):
    """A run of seconds: 12 images of 64 pixels, 3 steps an epoch."""
    network = Network(scales=2, width=4, anchors=1)
    small = TrainConfig(
        data=str(data), loss="ciou", network=network, size=64, epochs=2, batch=4, evaluate_every=1, threads=1
    )
    return replace(small, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data, a cache and finished runs, which several tests copy to damage: a frozen one and one with checkpoints."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXLOSS_CACHE", str(root / "cache"))
        data = write_data(root / "data")
        training.train(config(data, epochs=1, checkpoint_seconds=0.0), root / "run")
        training.train(frozen(data, epochs=1, evaluate_every=0), root / "frozen")
    return root


def weights(folder, name=NAME):
    return torch.load(folder / name, weights_only=True)["model"]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


# -- a run -----------------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(data, tmp_path, capsys):
    folder = tmp_path / "run"
    figures = training.train(config(data), folder)
    assert set(FIGURES) < figures.keys()
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.yaml", "environment.json", "metrics.jsonl", "train.json", "val.json", "detections.json"),
        *("val_ids.json", "evaluation.json", "curves.png", "images.png", NAME, PREVIOUS),
    }
    assert read_config(folder / "config.yaml", TrainConfig) == config(data)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    first, second = read_metrics(folder)
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == (0, 3, 1, 6)
    assert first["box"] > 0 == first["xy"]
    assert first["total"] == pytest.approx(first["box"] + first["objectness"] + first["classification"])
    assert first["AP"] is not None
    assert "epoch 1: loss" in capsys.readouterr().out
    # The same command again: nothing is trained, and evaluating gives the same.
    before = weights(folder)
    assert training.train(config(data), folder) == figures == training.evaluate_run(folder)
    assert_same(before, weights(folder))
    found = folder / "detections.json"
    assert training.evaluate_detections(found, folder / "val.json") == figures
    assert json.loads((folder / "evaluation.json").read_text()) == figures


def test_a_run_learns(data, tmp_path):
    """The rectangles of the training set, by heart."""
    shutil.copy(data / "train.json", data / "val.json")
    network = Network(scales=2, width=8, anchors=2)
    with pytest.warns(UserWarning, match="12 pictures .* in the validation images, too: train1.png, train10.png"):
        figures = training.train(config(data, network=network, epochs=60, evaluate_every=0), tmp_path / "run")
    assert figures["AP50"] > 0.9
    assert figures["AP"] > 0.5
    assert figures["by_category"].keys() == {"green", "red"}
    assert min(figures["by_category"].values()) > 0.4


@pytest.mark.parametrize("loss", ["darknet", "paper", "smooth_l1"])
def test_other_losses(data, tmp_path, loss):
    parameters = {"beta": 2.0} if loss == "smooth_l1" else {}
    training.train(config(data, loss=loss, loss_parameters=parameters, evaluate_every=0, epochs=1), tmp_path / "run")
    (row,) = read_metrics(tmp_path / "run")
    assert (row["xy"] > 0) == (row["wh"] > 0) == (loss in ("darknet", "paper"))
    assert (row["box"] > 0) == (loss == "smooth_l1")


def test_the_loss_is_the_only_difference_between_runs(data, tmp_path):
    """The same seed gives the same weights, order and changes; another seed other ones."""
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        training.train(config(data, seed=seed, evaluate_every=0, epochs=1), tmp_path / name)
        runs[name] = weights(tmp_path / name)
    assert_same(runs["a"], runs["b"])
    assert any(not torch.equal(runs["a"][name], runs["c"][name]) for name in runs["a"])


def test_pictures_read_anew_by_workers_make_no_difference(data, tmp_path):
    training.train(config(data, evaluate_every=0, epochs=1), tmp_path / "kept")
    training.train(config(data, evaluate_every=0, epochs=1, memory_gb=0.0, workers=1), tmp_path / "read")
    assert_same(weights(tmp_path / "kept"), weights(tmp_path / "read"))


# -- breaks ----------------------------------------------------------------------------------------------------------


class Stop(Exception):  # noqa: N818 – it is none of the run's
    pass


class StoppingReport(Report):
    """Breaks the run off after some steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def step(self, **terms):
        super().step(**terms)
        self.left -= 1
        if self.left == 0:
            raise Stop


@pytest.mark.slow  # as by a signal at any moment, which is tested below
def test_a_run_broken_off_after_any_step_ends_the_same(data, tmp_path):
    whole = config(data, checkpoint_seconds=0.0)
    training.train(whole, tmp_path / "whole")
    rows = read_metrics(tmp_path / "whole")
    for steps in (1, 2, 3, 5):
        folder = tmp_path / f"broken{steps}"
        broken = Trainer(whole, folder, StoppingReport(steps))
        with pytest.raises(Stop):
            broken.run()
        with pytest.raises(Stop):  # and once more
            Trainer(whole, folder, StoppingReport(1)).run()
        training.train(whole, folder)
        assert_same(weights(tmp_path / "whole"), weights(folder))
        assert read_metrics(folder) == rows
        for name in ("detections.json", "evaluation.json"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def start(data, out):
    command = [sys.executable, "-m", "boxloss", "train", str(data / "run.yaml"), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_it_ends_the_same(data, tmp_path, capsys):
    """SIGKILL at a moment, in the middle of saving as likely as not, and SIGINT at another."""
    whole = config(data, epochs=8, batch=4, checkpoint_seconds=0.0, evaluate_every=0)
    write_config(data / "run.yaml", whole)
    training.train(whole, tmp_path / "whole")
    out = tmp_path / "killed"
    for wanted, by in ((2, signal.SIGKILL), (11, signal.SIGINT)):
        process = start(data, out)
        while process.poll() is None and done_steps(out) < wanted:
            time.sleep(0.01)
        process.send_signal(by)
        _, errors = process.communicate()
        if by == signal.SIGINT:
            assert process.returncode == 130
            assert errors == "stopped; the same command goes on from here\n"
        else:
            assert process.returncode == -by
        assert done_steps(out) < 24
    capsys.readouterr()
    training.train(whole, out)
    assert "going on after step" in capsys.readouterr().out
    assert_same(weights(tmp_path / "whole"), weights(out))
    assert read_metrics(out) == read_metrics(tmp_path / "whole")


def done_steps(folder):
    """Of the newest checkpoint, read as soon as it is there."""
    try:
        return torch.load(folder / NAME, weights_only=True)["step"]
    except (FileNotFoundError, RuntimeError):
        return 0


def test_a_row_cut_off_as_it_was_written(tmp_path):
    add_metrics(tmp_path, {"epoch": 0, "total": 1.0})
    add_metrics(tmp_path, {"epoch": 1, "total": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tot')
    add_metrics(tmp_path, {"epoch": 1, "total": 3.0})
    assert read_metrics(tmp_path) == [{"epoch": 0, "total": 1.0}, {"epoch": 1, "total": 3.0}]


# -- checkpoints -----------------------------------------------------------------------------------------------------


def loaded(folder):
    found, said = [], []
    there = load_checkpoint(folder, found.append, said.append)
    return there, found, said


def test_a_loss_with_a_running_mean_goes_on(data, tmp_path, monkeypatch):
    """The mean is part of the checkpoint; without it the rest of the training would be another."""
    wiou = config(data, loss="wiou", loss_parameters={"version": "v3"}, checkpoint_seconds=0.0)
    training.train(wiou, tmp_path / "whole")
    saved = torch.load(tmp_path / "whole" / NAME, weights_only=True)["loss"]
    assert 0 < saved["box_loss.running_mean"] < 1

    def broken(self, *given, step=Trainer._train_on):
        if self.step == 4:
            raise KeyboardInterrupt
        step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_on", broken)
        with pytest.raises(KeyboardInterrupt):
            training.train(wiou, tmp_path / "broken")
    assert torch.load(tmp_path / "broken" / NAME, weights_only=True)["step"] == 4
    training.train(wiou, tmp_path / "broken")
    assert_same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))
    again = torch.load(tmp_path / "broken" / NAME, weights_only=True)["loss"]
    assert torch.equal(again["box_loss.running_mean"], saved["box_loss.running_mean"])


def test_the_previous_checkpoint_is_kept(tmp_path):
    assert loaded(tmp_path) == (False, [], [])
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"step": step})
    assert loaded(tmp_path) == (True, [{"step": 3}], [])
    os.replace(tmp_path / NAME, tmp_path / "checkpoint.pt.new")  # killed just before the last rename
    assert loaded(tmp_path) == (True, [{"step": 3}], [])
    (tmp_path / "checkpoint.pt.new").unlink()
    assert loaded(tmp_path) == (True, [{"step": 2}], [])


@pytest.mark.parametrize("left", [0, 1, 100, -1], ids=["empty", "byte", "head", "tail"])
def test_a_truncated_checkpoint(tmp_path, left):
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step, "weights": torch.rand(1000)})
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:left])
    there, (state,), (said,) = loaded(tmp_path)
    assert there
    assert state["step"] == 1
    assert f"{path} cannot be used: it is damaged or no checkpoint" in said
    assert f"going on from {tmp_path / PREVIOUS}" in said
    assert not path.exists()  # else it would take the previous one's place
    path.write_bytes(b"")
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot .*previous\.pt cannot .*move them away to start anew"):
        loaded(tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"step": Path}, tmp_path / NAME)
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        loaded(tmp_path)


def test_a_checkpoint_of_another_architecture(data, tmp_path, capsys):
    folder = tmp_path / "run"
    training.train(config(data, epochs=1), folder)
    state = torch.load(folder / NAME, weights_only=True)
    other = {name: torch.zeros(3, 3) if name == "head.outputs.0.1.bias" else t for name, t in state["model"].items()}
    torch.save(state | {"model": other}, folder / NAME)
    torch.save(state, folder / PREVIOUS)
    training.evaluate_run(folder)
    said = capsys.readouterr().err
    assert "checkpoint.pt cannot be used: it is of another architecture: 1 of" in said
    assert "such as head.outputs.0.1.bias: (3, 3) there, (14,) here" in said or "there, (7,) here" in said
    assert "going on from" in said


def test_disk_full_while_saving(tmp_path, monkeypatch):
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            save_checkpoint(tmp_path, {"step": 3})
    assert loaded(tmp_path) == (True, [{"step": 2}], [])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([NAME, PREVIOUS])


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_really_full_disk_ends_with_a_message(data, tmp_path):
    whole = config(data, epochs=1, evaluate_every=0)
    write_config(data / "run.yaml", whole)
    training.train(whole, tmp_path / "run")
    kept = (tmp_path / "run" / NAME).read_bytes()
    program = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from boxloss.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(kept) // 2}, {len(kept) // 2}))
sys.exit(main(["train", {str(data / "run.yaml")!r}, "--out", {str(tmp_path / "other")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    expected = f"[Errno 27] File too large; what was saved before is kept: '{tmp_path}/other/checkpoint.pt.new'"
    assert done.stderr == f"boxloss train: error: {expected}\n"
    assert not [p for p in (tmp_path / "other").iterdir() if p.name.startswith("checkpoint")]


# -- a loss that is no number ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path, monkeypatch, where):
    whole = config(data, checkpoint_seconds=0.0, evaluate_every=0)
    trainer = Trainer(whole, tmp_path / "run", Report())
    forward = YoloLoss.forward

    def broken(self, *arguments):
        terms = forward(self, *arguments)
        if trainer.step < 4:
            return terms
        if where == "loss":
            return terms._replace(total=terms.total * float("nan"), box=terms.box * float("nan"))
        terms.total.register_hook(lambda gradient: gradient * float("inf"))
        return terms

    monkeypatch.setattr(YoloLoss, "forward", broken)
    with pytest.raises(TrainingError, match=f"the {where} of step 4 is not finite: total ") as error:
        trainer.run()
    assert "objectness" in str(error.value)
    named = json.loads(str(error.value).split("image ids ")[1].split("]")[0] + "]")
    assert len(named) == 4
    assert set(named) <= {10 * k for k in range(1, 13)}
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    assert torch.load(tmp_path / "run" / NAME, weights_only=True)["step"] == 4


def test_weights_that_are_not_finite_are_not_saved(data, tmp_path):
    trainer = Trainer(config(data), tmp_path / "run", Report())
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("inf"))
    with pytest.raises(TrainingError, match="the weights after step 0 are not finite"):
        trainer._save()
    assert not (tmp_path / "run" / NAME).exists()


# -- frozen backbones ------------------------------------------------------------------------------------------------


def frozen(data, **changes):
    network = Network(backbone="resnet18", weights="none", freeze=True, scales=2, width=8, anchors=1)
    return config(data, network=network, **changes)


def test_a_frozen_backbone_trains_its_head_on_cached_features(data, tmp_path, monkeypatch):
    trainer = Trainer(frozen(data), tmp_path / "run", Report())
    before = {name: t.clone() for name, t in trainer.model.state_dict().items()}
    images = torch.stack([trainer.data.train[k].image for k in (5, 2)]).float() / 255
    mirrored = torch.tensor([False, True])
    images[1] = images[1].flip(2)
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model.backbone(images)
    for found, wanted in zip(trainer.cached["train"].of(torch.tensor([5, 2]), mirrored), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-3)  # float16
    trainer.run()
    for name, tensor in trainer.model.state_dict().items():
        assert name.startswith("head.") or torch.equal(tensor, before[name]), name
    assert not torch.equal(trainer.model.state_dict()["head.outputs.0.1.weight"], before["head.outputs.0.1.weight"])

    # A second run finds the features computed.
    def never(*_):
        raise AssertionError

    monkeypatch.setattr("boxloss.training.features._compute", never)
    training.train(frozen(data), tmp_path / "again")
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "again"))
    assert len(list(cache_folder().iterdir())) == 2  # training and validation


def test_a_run_is_evaluated_without_the_weights_it_started_from(data, tmp_path):
    started = tmp_path / "resnet.pt"
    torch.save(torchvision.models.resnet18().state_dict(), started)
    network = replace(frozen(data).network, weights=str(started))
    figures = training.train(config(data, network=network, epochs=1), tmp_path / "run")
    started.unlink()
    assert training.evaluate_run(tmp_path / "run") == figures


def test_features_depend_on_weights_and_pictures(data, tmp_path):
    training.train(frozen(data, epochs=1, evaluate_every=0), tmp_path / "a")
    training.train(frozen(data, epochs=1, evaluate_every=0, seed=1), tmp_path / "b")  # other weights: none is random
    assert len(list(cache_folder().iterdir())) == 4
    os.utime(data / "images" / "train1.png", (1, 1))
    training.train(frozen(data, epochs=1, evaluate_every=0), tmp_path / "c")
    assert len(list(cache_folder().iterdir())) == 5


@pytest.mark.parametrize("damage", ["done.json", "0.npy", "half", "empty"])
def test_damaged_features_are_computed_again(trained, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("BOXLOSS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(trained / "cache", tmp_path / "cache")
    assert len(list(cache_folder().iterdir())) == 2
    for folder in cache_folder().iterdir():
        if damage in ("half", "empty"):
            content = (folder / "0.npy").read_bytes()
            (folder / "0.npy").write_bytes(content[: len(content) // 2 if damage == "half" else 0])
        else:
            (folder / damage).unlink()
    training.train(frozen(trained / "data", epochs=1, evaluate_every=0), tmp_path / "b")
    assert_same(weights(trained / "frozen"), weights(tmp_path / "b"))
    assert len(list(cache_folder().iterdir())) == 2


def test_features_broken_off_are_no_features(data, tmp_path, monkeypatch):
    from boxloss.training import features

    compute = features.write_json

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(features, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        Trainer(frozen(data), tmp_path / "run", Report())
    assert list(cache_folder().iterdir()) == []
    monkeypatch.setattr(features, "write_json", compute)
    Trainer(frozen(data), tmp_path / "run", Report())


# -- configurations --------------------------------------------------------------------------------------------------


def test_a_configuration_survives_its_file(data, tmp_path):
    written = config(
        data,
        size=(64, 96),
        loss="cdiou",
        loss_parameters={"base": "giou", "penalty_weight": 0.5},
        terms=Terms(gains={"box": 2.0}),
        subset=training.Subset(images=3, categories=["red", "green"]),
    )
    write_config(tmp_path / "a.yaml", written)
    assert read_config(tmp_path / "a.yaml", TrainConfig) == written


BAD_CONFIGS = {
    r"loss: no loss named 'cio'; did you mean 'ciou'\?.* and 'darknet', 'paper'": {"loss": "cio"},
    "loss: giou: unknown parameter 'beta'": {"loss": "giou", "loss_parameters": {"beta": 1.0}},
    "loss_parameters: 'darknet' has none": {"loss": "darknet", "loss_parameters": {"beta": 1.0}},
    "epochs: expected at least 1, got 0": {"epochs": 0},
    "size: expected multiples of 16 for 2 scales, got 60": {"size": 60},
    r"size: expected multiples of 16 for 2 scales, got \(64, 60\)": {"size": (64, 60)},
    "expected all four or none": {"train_json": "a.json"},
    "gains: expected one of": {"terms": Terms(gains={"boxes": 1.0})},
    "gains: expected a finite number >= 0 for box, got -1": {"terms": Terms(gains={"box": -1.0})},
    "loss: giou: unknown parameter 'reduction'": {"loss": "giou", "loss_parameters": {"reduction": "none"}},
    "seed: expected a number in": {"seed": -1},
    "threads: expected at most 1024": {"threads": 10**8},
}


@pytest.mark.parametrize(("reason", "changes"), BAD_CONFIGS.items(), ids=list(BAD_CONFIGS))
def test_bad_configurations(data, reason, changes):
    with pytest.raises((ValueError, TypeError), match=reason):
        config(data, **changes)


def test_bad_networks_and_optimizers(data):
    with pytest.raises(ValueError, match=r"network\.freeze: the tiny backbone has no pretrained weights"):
        Network(freeze=True)
    with pytest.raises(ValueError, match=r"network: expected 2 or 3 scales"):
        Network(scales=4)
    with pytest.raises(ValueError, match=r"network\.dropout: expected 0, or with another backbone"):
        Network(dropout=0.5)
    with pytest.raises(ValueError, match=r"optimizer: expected lr and clip > 0"):
        Optimizer(lr=0)
    with pytest.raises(ValueError, match=r"augment: cached features .* can be mirrored left to right, nothing else"):
        frozen(data, augment=training.config.Augment(color=0.1))


def test_unknown_fields_of_a_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("epochs: 3\nepoch: 4\n")
    with pytest.raises(ValueError, match=r"a\.yaml: .*epoch"):
        read_config(path, TrainConfig)
    path.write_text("epochs: many\n")
    with pytest.raises(ValueError, match=r"a\.yaml: .*epochs"):
        read_config(path, TrainConfig)


def test_folders_that_hold_something_else(data, tmp_path):
    folder = tmp_path / "run"
    training.train(config(data, epochs=1), folder)
    with pytest.raises(ValueError, match=r"holds another run \(loss is 'ciou' there and 'giou' here; optimizer.lr is"):
        training.train(config(data, epochs=1, loss="giou", optimizer=Optimizer(lr=0.1)), folder)
    with pytest.raises(ValueError, match="is not empty and holds no run: choose another folder with --out"):
        training.train(config(data), data)
    with pytest.raises(FileNotFoundError, match=r"holds no run: expected config.yaml in it"):
        training.evaluate_run(data)


def test_a_run_killed_before_it_had_a_configuration(data, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.yaml.0123.part").write_text("da")
    trainer = Trainer(config(data, epochs=1), folder, Report())
    trainer.run()
    assert not list(folder.glob(".*"))
    (folder / "environment.json").unlink()  # and just after it
    Trainer(config(data, epochs=1), folder, Report())
    assert (folder / "environment.json").exists()


def test_data_changed_under_a_run(data, tmp_path):
    training.train(config(data, epochs=1), tmp_path / "run")
    boxes = json.loads((data / "train.json").read_text())
    for box in boxes["annotations"]:
        box["bbox"][2] /= 2
    (data / "train.json").write_text(json.dumps(boxes))
    with pytest.raises(ValueError, match=r"train\.json has changed since .*run/train\.json was written"):
        training.train(config(data, epochs=1), tmp_path / "run")


def test_two_runs_in_one_folder(data, tmp_path):
    trainer = Trainer(config(data, epochs=1), tmp_path / "run", Report())
    busy = pytest.raises(ValueError, match="run: another process is working in it")
    with locked_elsewhere(tmp_path / "run"):
        with busy:
            trainer.run()
        with busy:
            training.train(config(data, epochs=1), tmp_path / "run")
        with busy:
            training.evaluate_run(tmp_path / "run")
    training.train(config(data, epochs=1), tmp_path / "run")


FOREIGN = {
    "lacks anchors": lambda state: {k: v for k, v in state.items() if k != "anchors"},
    "is of step 99, of 3": lambda state: state | {"step": 99},
    "anchors are of other boxes": lambda state: state | {"anchors": (((1.0, 1.0),), ((2.0, 2.0),))},
    "cannot be used": lambda state: state | {"model": None},
    "cannot be used: ": lambda state: state | {"optimizer": {}},
}


@pytest.mark.parametrize(("reason", "change"), FOREIGN.items(), ids=list(FOREIGN))
def test_checkpoints_that_are_not_this_runs(trained, tmp_path, capsys, reason, change):
    folder = tmp_path / "run"
    shutil.copytree(trained / "run", folder)
    whole = config(trained / "data", epochs=1, checkpoint_seconds=0.0)
    figures = json.loads((folder / "evaluation.json").read_text())
    torch.save(change(torch.load(folder / NAME, weights_only=True)), folder / NAME)
    assert training.train(whole, folder) == figures  # from the previous one
    assert reason in capsys.readouterr().err
    assert (folder / f"{NAME}.damaged").exists()  # out of the way of the next ones


def test_bad_devices_and_single_cells(data, tmp_path):
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ValueError, match=f"device: expected auto, cpu, cuda, …, got '{device}'"):
            training.train(config(data, device=device), tmp_path / "run")
    with pytest.raises(ValueError, match="batch, size: a single cell of the coarsest scale"):
        training.train(config(data, size=16, batch=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_in_which_nothing_is_trained_yet(data, tmp_path):
    Trainer(config(data), tmp_path / "run", Report())
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        training.evaluate_run(tmp_path / "run")


def test_parts_with_different_categories(data, tmp_path):
    val = json.loads((data / "val.json").read_text())
    val["categories"][0]["name"] = "rouge"
    (data / "val.json").write_text(json.dumps(val))
    with pytest.raises(ValueError, match="have different categories: 3 green, 7 red, and 3 green, 7 rouge"):
        training.train(config(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("sides", "said"), [((20,), "1 size"), ((20, 30), "2 sizes"), ((20, 20.001), "1 size")])
def test_boxes_of_fewer_sizes_than_anchors_train(data, tmp_path, sides, said):
    coco = json.loads((data / "train.json").read_text())
    for k, box in enumerate(coco["annotations"]):
        box["bbox"] = [1.0, 2.0, *[1.5 * sides[k % len(sides)]] * 2]  # the images are reduced by 1.5
    (data / "train.json").write_text(json.dumps(coco))
    network = Network(scales=2, width=4, anchors=2)
    text = rf"train\.json: the boxes have {said}, fewer than the 4 anchors of the network; the anchors that repeat a"
    with pytest.warns(UserWarning, match=text):
        training.train(config(data, epochs=1, network=network), tmp_path / "run", pictures=False)
    anchors = torch.load(tmp_path / "run" / NAME, weights_only=True)["anchors"]
    assert [len(scale) for scale in anchors] == [2, 2]
    assert [w for scale in anchors for w, _ in scale] == pytest.approx(
        [20, 20, 20, 20] if said == "1 size" else [20, 20, 30, 30], abs=1e-3
    )


def test_no_boxes_make_no_anchors(data, tmp_path):
    coco = json.loads((data / "train.json").read_text())
    for boxes in ([], [box | {"iscrowd": 1} for box in coco["annotations"]]):
        (data / "train.json").write_text(json.dumps(coco | {"annotations": boxes}))
        with pytest.raises(ValueError, match=r"train\.json: no boxes but crowds; expected some"):
            training.train(config(data), tmp_path / "run")


def test_more_objects_than_the_detector_gives_are_warned_of_once(data, tmp_path):
    """By image, of all categories; a crowd is not an object to find."""
    coco = json.loads((data / "val.json").read_text())
    image, other = coco["images"][1], coco["images"][2]
    boxes = [(image, 3, 0)] * 60 + [(image, 7, 0)] * 61 + [(other, 3, 0)] * 100 + [(other, 3, 1)] * 9
    coco["annotations"] = [
        {"id": k, "image_id": owner["id"], "category_id": category, "bbox": [k % 80, 9, 12, 12], "iscrowd": crowd}
        for k, (owner, category, crowd) in enumerate(boxes, 1)
    ]
    (data / "val.json").write_text(json.dumps(coco))
    with pytest.warns(UserWarning, match="than") as caught:
        training.train(config(data, epochs=1), tmp_path / "run", pictures=False)
    (text,) = (str(warning.message) for warning in caught)
    assert text == (
        f"{data / 'val.json'}: 1 image has more objects than detect.limit, 100, detections of an image of all"
        f" categories: {image['file_name']} has 121. Not all of them can be found with a detect.limit below 121"
    )
    training.train(config(data, epochs=1, detect=Detect(limit=121)), tmp_path / "more", pictures=False)


def test_seeds_of_different_positions_differ():
    seen = {loop_module._number(seed, epoch, step) for seed in range(4) for epoch in range(30) for step in range(30)}
    assert len(seen) == 4 * 30 * 30


# -- several processes -----------------------------------------------------------------------------------------------


def test_torchrun_trains_with_the_same_command(data, tmp_path):
    write_config(data / "run.yaml", config(data, batch=5, epochs=3, evaluate_every=1))
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "boxloss"]
    command += ["train", str(data / "run.yaml"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.count("epoch 1: loss") == 1  # the first process speaks for both
    assert [row["step"] for row in read_metrics(out)] == [2, 4, 6]
    assert json.loads((out / "evaluation.json").read_text())["AP"] is not None
    # One process with the same batches comes out near it: its norms are of five images, not of three and two.
    training.train(config(data, batch=5, epochs=3, evaluate_every=1), tmp_path / "one")
    for two, one in zip(read_metrics(out), read_metrics(tmp_path / "one"), strict=True):
        assert two["positives"] == pytest.approx(one["positives"] / 2)  # the mean over processes
        assert two["total"] == pytest.approx(one["total"], rel=0.2)


# -- evaluation ------------------------------------------------------------------------------------------------------


def truth():
    return {
        "images": [{"id": 1, "file_name": "a", "width": 500, "height": 400}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 200, 100], "area": 20000, "iscrowd": 0}
        ],
    }


def detection(box, score=0.9, category=3):
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


def test_figures_by_hand():
    perfect = training.coco_figures(truth(), [detection([10, 10, 200, 100])])
    for name in ("AP", "AP50", "AP75", "APl", "AR1", "AR100", "ARl"):
        assert perfect[name] == pytest.approx(1.0)
    assert perfect["APs"] is perfect["APm"] is perfect["ARs"] is None
    for name in ("by_category", "AP50_by_category"):
        assert perfect[name] == {"cat": pytest.approx(1.0), "dog": None}
    # IoU 160/200 = 0.8: found at .5, .55, … .8, seven of ten thresholds.
    near = training.coco_figures(truth(), [detection([10, 10, 160, 100])])
    assert near["AP"] == near["by_category"]["cat"] == pytest.approx(0.7)
    assert near["AP50"] == near["AP50_by_category"]["cat"] == pytest.approx(1.0)
    assert training.coco_figures(truth(), [])["AP"] == 0.0


def crowded(cats, dogs=0, crowds=0):
    """An image of boxes side by side, and as many right detections, of falling scores."""
    kinds = [(3, 0)] * cats + [(4, 0)] * dogs + [(3, 1)] * crowds
    boxes = [
        {"image_id": 1, "category_id": category, "bbox": [10 * k, 10, 9, 9], "area": 81, "iscrowd": crowd}
        for k, (category, crowd) in enumerate(kinds)
    ]
    found = [detection(box["bbox"], 1 - k / 1000, box["category_id"]) for k, box in enumerate(boxes)]
    return truth() | {"annotations": [box | {"id": k} for k, box in enumerate(boxes, 1)]}, found


@pytest.mark.parametrize("evaluator", training.EVALUATORS)
def test_the_limit_is_of_an_image_and_category(evaluator):
    few = crowded(100, dogs=100, crowds=30)
    assert training.coco_figures(*few, evaluator=evaluator)["AR100"] == pytest.approx(1.0)
    many = crowded(150)
    text = "1 image has more objects of one category than the 100 .*: a has 150 of cat.*--max-detections 150"
    with pytest.warns(UserWarning, match=text):
        found = training.coco_figures(*many, evaluator=evaluator)
    assert (found["AR100"], found["max_detections"]) == (pytest.approx(100 / 150), 100)
    for limit in (150, 10**12):
        found = training.coco_figures(*many, evaluator=evaluator, max_detections=limit)
        assert [found[name] for name in ("AP", "AP50", "APs", "AR100", "ARs")] == pytest.approx([1.0] * 5)
        assert (found["AR1"], found["AR10"]) == pytest.approx((1 / 150, 10 / 150))
        assert found["max_detections"] == limit
    with pytest.warns(UserWarning, match="than the 10 detections"):
        found = training.coco_figures(*many, evaluator=evaluator, max_detections=10)
    assert found["AR100"] == found["AR10"] == pytest.approx(10 / 150)


def test_bad_limits(tmp_path):
    for limit in (9, 0, -1, True, 100.0, "100", None, float("nan")):
        with pytest.raises(ValueError, match=f"max_detections: expected a whole number >= 10, got {limit!r}"):
            training.coco_figures(truth(), [], max_detections=limit)
        for evaluate, files in ((training.evaluate_run, 1), (training.evaluate_detections, 2)):
            with pytest.raises(ValueError, match="max_detections"):
                evaluate(*[tmp_path / "none"] * files, max_detections=limit)


def test_another_limit_leaves_a_run_as_it_is(trained, tmp_path, monkeypatch):
    """And lifts that of its detector, which is of all categories."""
    given = []
    monkeypatch.setattr(
        "boxloss.training.run.coco_figures",
        lambda truth, found, **how: given.append(len(found)) or training.coco_figures(truth, found, **how),
    )
    folder = tmp_path / "run"
    shutil.copytree(trained / "run", folder)
    text = (folder / "config.yaml").read_text()
    text = text.replace("  limit: 100\n", "  limit: 10\n").replace(
        "  score_threshold: 0.01\n", "  score_threshold: 0\n"
    )
    (folder / "config.yaml").write_text(text)
    few = training.evaluate_run(folder, pictures=False)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    more = training.evaluate_run(folder, max_detections=11)
    assert (few["max_detections"], more["max_detections"]) == (100, 11)
    assert given == [4 * 10, 4 * 22], "of four images and two categories"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_categories_are_a_table():
    figures = dict.fromkeys(FIGURES, 0.5) | {"by_category": {"cat": 0.25, "a longer name": None}}
    old = "\n\ncategory          AP  AP50\ncat            0.250     –\na longer name      –     –"
    assert training.figures_text(figures).endswith(old)
    found = training.figures_text(figures | {"AP50_by_category": {"cat": 0.75, "a longer name": None}})
    assert found.endswith("\n\ncategory          AP   AP50\ncat            0.250  0.750\na longer name      –      –")
    many = {f"category {k}": 0.5 for k in range(2000)}
    assert len(training.figures_text(figures | {"by_category": many}).splitlines()) == 4 + 2 + 2000
    assert "category" not in training.figures_text(figures | {"by_category": {"cat": 0.25}})


def test_evaluation_leaves_its_truth_alone():
    given = truth()
    training.coco_figures(given, [detection([10, 10, 160, 100])])
    assert given == truth()


def test_bad_detections(tmp_path):
    with pytest.raises(ValueError, match="detection 0: expected image_id, category_id, bbox and score"):
        training.coco_figures(truth(), [{"image_id": 1}])
    good = detection([0, 0, 1, 1])
    for reason, change in (
        ("the annotations have no image 2", {"image_id": 2}),
        (r"the annotations have no image \[1\]", {"image_id": [1]}),
        ("the annotations have no category 9", {"category_id": 9}),
        ("expected bbox .* finite and with sides >= 0", {"bbox": [1, 2, float("nan"), 3]}),
        ("expected bbox", {"bbox": [1, 2, -1, 3]}),
        ("expected bbox", {"bbox": [1, 2, 3]}),
        ("expected bbox", {"bbox": "all"}),
        ("expected a finite score, got nan", {"score": float("nan")}),
        ("expected a finite score, got '1'", {"score": "1"}),
    ):
        with pytest.raises(ValueError, match=f"detection 1: {reason}"):
            training.coco_figures(truth(), [good, good | change])
    # What a detection brings along beside these is not looked at.
    perfect = detection([10, 10, 200, 100]) | {"id": 0, "iscrowd": 1, "area": -1}
    assert training.coco_figures(truth(), [perfect, perfect | {"score": 0.8}])["AR100"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="evaluator: expected one of pycocotools, faster-coco-eval, got 'coco'"):
        training.coco_figures(truth(), [], evaluator="coco")
    annotations = tmp_path / "a.json"
    annotations.write_text(json.dumps(truth()))
    with pytest.raises(FileNotFoundError, match="no file of detections"):
        training.evaluate_detections(tmp_path / "no.json", annotations)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is not JSON"):
        training.evaluate_detections(tmp_path / "bad.json", annotations)
    with pytest.raises(ValueError, match=r"a\.json: expected COCO results, a list of detections, got dict"):
        training.evaluate_detections(annotations, annotations)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
@pytest.mark.parametrize("evaluator", training.EVALUATORS)
@pytest.mark.parametrize("part", ["instances_val2014_100.json", "instances_val2014_100_boxonly.json"])
def test_the_published_figures_of_the_coco_api(evaluator, part):
    folder = SHARED / "cocoapi_eval"
    results = folder / "instances_val2014_fakebbox100_results.json"
    found = training.evaluate_detections(results, folder / part, evaluator=evaluator)
    expected = json.loads((folder / "expected.json").read_text())
    for name in FIGURES:
        assert round(found[name], 3) == expected["published_bbox_pycocoEvalDemo"][name]
        assert found[name] == pytest.approx(expected["pycocotools_bbox"][name], abs=1e-12)
