"""Files and folders that nobody would make on purpose: an error that names them, without a traceback, or no harm."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from PIL import Image
from scenes import write_data

from boxloss import training
from boxloss.cli import main
from boxloss.config import read_config, write_config
from boxloss.files import FolderGoneError, encoded, replacing, write_csv
from boxloss.folders import locked
from boxloss.plots import Scene, plot_differences, plot_scenes
from boxloss.plots_advice import Panel, plot_panels
from boxloss.study import StudyConfig, compare
from boxloss.study.trial import run_trial
from boxloss.training import Network, Report, TrainConfig, Trainer
from boxloss.training.checkpoint import NAME, PREVIOUS
from boxloss.training.folder import read_metrics

LONGEST = 120  # seconds of a command that does not hang
ODD_NAMES = ("coin $1 #2 $", "C:\\temp$", "\ud800")


def config(data, **changes):
    network = Network(scales=2, width=4, anchors=1)
    values = {"epochs": 1, "evaluate_every": 0} | changes
    return TrainConfig(data=str(data), loss="ciou", network=network, size=64, batch=4, threads=1, **values)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, a finished run with two checkpoints, and a finished study of one trial."""
    root = tmp_path_factory.mktemp("made")
    data = write_data(root / "data")
    write_config(root / "run.yaml", config(data, checkpoint_seconds=0.0))
    assert main(["train", str(root / "run.yaml"), "--out", str(root / "run")]) == 0
    study = StudyConfig(["ciou", "iou"], seeds=1, train=replace(config(data), loss="darknet"), replicates=2)
    write_config(root / "study.yaml", study)
    assert main(["compare", str(root / "study.yaml"), "--out", str(root / "study")]) == 0
    return root


@contextmanager
def not_for_ever():
    def stop(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def said(capsys, *command):
    """A command's status and error, which has no traceback: that would be an exception here."""
    capsys.readouterr()
    with not_for_ever():
        status = main([str(word) for word in command])
    return status, capsys.readouterr().err


# -- text from outside ------------------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path):
    data = write_data(tmp_path / "data")
    for part in ("train", "val"):
        coco = json.loads((data / f"{part}.json").read_text())
        coco["categories"] = [{"id": 3 + k, "name": name} for k, name in enumerate(ODD_NAMES)]
        for k, box in enumerate(coco["annotations"]):
            box["category_id"] = 3 + k % len(ODD_NAMES)
        (data / f"{part}.json").write_text(json.dumps(coco))
    return data


def as_a_command(*words, **environment):
    command = [sys.executable, "-m", "boxloss", *map(str, words)]
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        timeout=LONGEST,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
    )


def test_categories_of_any_letters_train_and_are_drawn(odd, tmp_path):
    out = tmp_path / "run"
    write_config(tmp_path / "run.yaml", config(odd))
    done = as_a_command("train", tmp_path / "run.yaml", "--out", out, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, b"")
    for name in ("coin $1 #2 $", "C:\\temp$", "\\ud800"):
        assert name.encode() in done.stdout
    for name in ("curves.png", "images.png"):
        Image.open(out / name).verify()


def test_a_study_of_categories_of_any_letters_is_reported(odd, tmp_path):
    subset = training.Subset(categories=list(ODD_NAMES[:2]))
    study = StudyConfig(["ciou"], seeds=1, train=replace(config(odd), loss="darknet", subset=subset), replicates=2)
    write_config(tmp_path / "study.yaml", study)
    out = tmp_path / "s\udcff"  # as of a name that is not UTF-8
    words = ("compare", tmp_path / "study.yaml", "--out", out)
    done = as_a_command(*words, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_bytes().decode()  # UTF-8
    assert "coin $1 #2 $" in page
    assert "\\ud" in page.lower()
    assert page.count("<img src=") == 2 + 2  # thresholds, learning, two examples
    assert (out / "summary.csv").read_bytes().decode().startswith("dataset,loss,metric")


def test_a_path_that_no_configuration_can_hold_is_refused_before_the_training(tmp_path, capsys, monkeypatch):
    data = write_data(tmp_path / "data\udcff")
    write_config(tmp_path / "run.yaml", config("data"))
    monkeypatch.setattr(Trainer, "_train_on", None)
    status, error = said(capsys, "train", tmp_path / "run.yaml", "--data", data, "--out", tmp_path / "run")
    assert status == 1
    assert f"{tmp_path}/run/config.yaml: a configuration cannot hold text that is not Unicode" in error
    assert not (tmp_path / "run").exists()


def test_text_in_files_and_figures(tmp_path):
    assert encoded("é \ud800") == b"\xc3\xa9 \\ud800"
    write_csv(tmp_path / "a.csv", [{"name": name} for name in ODD_NAMES])
    assert (tmp_path / "a.csv").read_bytes() == b"name\ncoin $1 #2 $\nC:\\temp$\n\\ud800\n"
    names = (*ODD_NAMES, "$\\frac{1}{0}$", "a\tb\0c\x1b[31m", "two\nlines", "猫", "", " ", "_hidden", "x" * 5000)
    scenes = [Scene(Image.new("RGB", (64, 64)), name, [(1, 1, 9, 9)], [((9, 9, 9, 9), name)]) for name in names]
    for kind in ("png", "svg"):
        plot_scenes(scenes, tmp_path / f"scenes.{kind}", "$ $")
    line = dict.fromkeys(names[:-1], ((0.0, 1.0), (0.0, 1.0)))
    plot_panels([Panel(name, name, name, line) for name in names[:3]], tmp_path / "panels.png")
    differences = {
        name: {"metrics": {"AP": {"values": [0.1], "mean": 0.1, "low": 0.0, "high": 0.2}}, "significant": True}
        for name in names[:-1]
    }
    plot_differences(differences, "$ $", tmp_path / "differences.png")
    assert "<!-- coin $1 #2 $ -->" in (tmp_path / "scenes.svg").read_text()


def test_a_picture_that_fails_does_not_undo_a_run(made, tmp_path, capsys, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no pen")

    shutil.copytree(made / "run", tmp_path / "run")
    for name in ("curves.png", "images.png"):
        (tmp_path / "run" / name).unlink()
    monkeypatch.setattr("boxloss.training.run.plot_scenes", fails)
    status, error = said(capsys, "evaluate", tmp_path / "run")
    assert (status, error) == (0, f"warning: {tmp_path}/run/images.png could not be drawn (RuntimeError: no pen)\n")
    assert (tmp_path / "run/curves.png").exists()
    monkeypatch.setattr("boxloss.training.run.plot_curves", fails)
    status, error = said(capsys, "train", made / "run.yaml", "--out", tmp_path / "run")
    assert (status, error.count("could not be drawn")) == (0, 2)
    shutil.copytree(made / "study", tmp_path / "study")
    shutil.rmtree(tmp_path / "study/figures")
    for name in ("learning", "thresholds", "differences", "scenes"):
        monkeypatch.setattr(f"boxloss.study.report.plot_{name}", fails)
    status, error = said(capsys, "compare", made / "study.yaml", "--out", tmp_path / "study")
    assert (status, error.count("could not be drawn")) == (0, 5)
    assert "<img" not in (tmp_path / "study/report.html").read_text()


# -- folders in use ---------------------------------------------------------------------------------------------------


def start(*words):
    command = [sys.executable, "-m", "boxloss", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def two_at_once(data, out, apart):
    """Two `train` commands on one folder; what each came to."""
    write_config(data / "long.yaml", config(data, epochs=60, evaluate_every=20))
    first = start("train", data / "long.yaml", "--out", out)
    time.sleep(apart)
    both = [first, start("train", data / "long.yaml", "--out", out)]
    ends = [process.communicate(timeout=LONGEST)[1] for process in both]
    trained, refused = sorted(zip([process.returncode for process in both], ends, strict=True))
    assert trained == (0, "")
    assert refused == (1, f"boxloss train: error: {out}: another process is working in it\n")
    assert [row["epoch"] for row in read_metrics(out)] == list(range(60))
    assert {"evaluation.json", "detections.json", "curves.png", "images.png", NAME, PREVIOUS} <= set(os.listdir(out))
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("apart", [0.0, 0.7])
def test_of_two_that_train_in_one_folder_one_does(tmp_path, apart):
    two_at_once(write_data(tmp_path / "data"), tmp_path / "run", apart)


@pytest.mark.slow
def test_of_two_that_train_in_one_folder_one_does_whenever_they_start(tmp_path):
    data = write_data(tmp_path / "data")
    for k in range(20):
        two_at_once(data, tmp_path / f"run{k}", 0.2 + 1.8 * k / 19)


class Between(Report):
    """Does something to the folder after a step."""

    def __init__(self, step, act):
        super().__init__()
        self.left, self.act = step, act

    def step(self, **terms):
        super().step(**terms)
        self.left -= 1
        if not self.left:
            self.act()


@pytest.mark.parametrize("step", [1, 3, 4])
@pytest.mark.parametrize("way", ["renamed", "deleted", "replaced"])
def test_a_folder_that_goes_away_stops_its_run(made, tmp_path, way, step):
    folder, parent = tmp_path / "runs" / "run", tmp_path / "runs"

    def act():
        folder.rename(tmp_path / "moved") if way == "renamed" else shutil.rmtree(folder)
        if way == "replaced":
            folder.mkdir()

    trainer = Trainer(config(made / "data", epochs=2, checkpoint_seconds=0.0), folder, Between(step, act))
    with pytest.raises(FolderGoneError, match="runs/run was moved, deleted or replaced while this command worked in"):
        trainer.run()
    assert [path.name for path in parent.rglob("*")] == (["run"] if way == "replaced" else [])
    if way == "renamed":
        assert not list((tmp_path / "moved").glob(".*"))


def test_a_folder_that_goes_away_before_the_evaluation_is_written(made, tmp_path, monkeypatch, capsys):
    shutil.copytree(made / "run", tmp_path / "run")
    figures = training.run.coco_figures

    def then_gone(*given, **named):
        found = figures(*given, **named)
        (tmp_path / "run").rename(tmp_path / "moved")
        return found

    monkeypatch.setattr(training.run, "coco_figures", then_gone)
    status, error = said(capsys, "evaluate", tmp_path / "run")
    assert status == 1
    assert error.startswith(f"boxloss evaluate: error: {tmp_path}/run was moved, deleted or replaced while this")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("way", ["renamed", "deleted"])
def test_a_study_that_goes_away_stops(made, tmp_path, way, monkeypatch, capsys):
    folder = tmp_path / "study"
    run, left = training.loop.Trainer._end_epoch, []

    def then_gone(self, epoch):
        run(self, epoch)
        if not left:
            left.append(folder.rename(tmp_path / "moved") if way == "renamed" else shutil.rmtree(folder))

    class Here:
        def run(self, folders, threads):
            for one in folders:
                run_trial(one)
                yield one, ""

    monkeypatch.setattr(Trainer, "_end_epoch", then_gone)
    with pytest.raises(FolderGoneError, match="study was moved, deleted or replaced"):
        compare(read_config(made / "study.yaml", StudyConfig), folder, Here())
    assert left
    assert not folder.exists()


def test_locks_within_a_thread_are_one_and_of_others_refused(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder), locked(folder):
        with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="another process is working in it"):
            pool.submit(lambda: locked(folder).__enter__()).result()
        with replacing(folder / "c" / "d" / "file") as file:
            file.write(b"1")
    assert (folder / "c/d/file").read_bytes() == b"1"
    with pytest.raises(KeyError), locked(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()  # nothing was left in it
    with locked(folder):
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(FolderGoneError):
            write_csv(folder / "c" / "file", [{"a": 1}])
    assert not (tmp_path / "a").exists()


# -- files that are not what they should be ---------------------------------------------------------------------------


def put(content):
    def act(path):
        path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))

    return act


def flipped(share):
    def act(content):
        rng, found = random.Random(0), bytearray(content)
        for _ in range(max(1, int(len(content) * share))):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)

    return act


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def directory(path):
    path.unlink()
    (path / "inner").mkdir(parents=True)


def dangling(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def values_to(value):
    """Every value of an object, or of each line, to another."""

    def act(content):
        try:
            return b"".join(
                json.dumps(dict.fromkeys(json.loads(line), value)).encode() + b"\n" for line in content.splitlines()
            )
        except (ValueError, TypeError):
            return b"step: !!float .nan\n" + content

    return act


HOSTILE = {
    "empty": put(b""),
    "one byte": put(b"\0"),
    "half": put(lambda content: content[: len(content) // 2]),
    "a number": put(b"5"),
    "a list": put(b"[]"),
    "null": put(b"null"),
    "a list of lists": put(b'[[1], "a", null]'),
    "an empty object": put(b"{}"),
    "other fields": put(b'{"images": 3, "epoch": "1", "packages": [], "categories": {}, "annotations": null}'),
    "deep JSON": put(b"[" * 100_000),
    "deep YAML": put(b"".join(b" " * k + b"a:\n" for k in range(900))),
    "less deep": put(b'{"images":' * 400 + b"1" + b"}" * 400),
    "many digits": put(b"9" * 5000),
    "a huge number": put(b'{"epoch": 1e999, "step": 1' + b"0" * 400 + b"}"),
    "NaN": put(values_to(float("nan"))),
    "texts": put(values_to("a")),
    "lists": put(values_to([[]])),
    "not UTF-8": put(b"\xff\xfe\x00{"),
    "a bit": put(flipped(0)),
    "a hundredth": put(flipped(0.01)),
    "aliases": put(
        b"a: &a [x]\nb: &b [" + b"*a, " * 99 + b"]\nc: &c [" + b"*b, " * 99 + b"]\nd: [" + b"*c, " * 999 + b"]"
    ),
    "holds itself": put(b"&a [*a]"),
    "pipe": pipe,
    "folder": directory,
    "a link to nothing": dangling,
}
RUN_FILES = (
    *("config.yaml", "environment.json", "metrics.jsonl", "train.json", "val.json", "val_ids.json"),
    *("detections.json", "evaluation.json", NAME, PREVIOUS),
)
STUDY_FILES = (
    *("study.yaml", "environment.json", "summary.json", "data/{}/train.json", "data/{}/val.json"),
    *(f"trials/{{}}/ciou/0/{name}" for name in ("result.json", "log.txt", *RUN_FILES)),
)


def each(files, every):
    """Pairs of a file and what is done to it; of the quick suite some of each."""
    pairs = [(file, kind) for file in files for kind in HOSTILE]
    return [
        pytest.param(file, kind, marks=() if k % every == 0 else pytest.mark.slow)
        for k, (file, kind) in enumerate(pairs)
    ]


def check(status, error, place):
    assert status in (0, 1), error
    if status:
        assert error.splitlines()[-1].startswith("boxloss "), error
        assert str(place) in error, error


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("file", "kind"), each(RUN_FILES, 4))
def test_hostile_files_of_a_run(made, tmp_path, capsys, file, kind):
    for k, command in enumerate((("evaluate",), ("train", made / "run.yaml", "--out"))):
        folder = tmp_path / f"run{k}"
        shutil.copytree(made / "run", folder)
        HOSTILE[kind](folder / file)
        status, error = said(capsys, *command, folder)
        check(status, error, folder)
        if file == NAME:
            assert (status, f"{NAME} cannot be used" in error) == (0, kind != "a link to nothing"), error


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("file", "kind"), each(STUDY_FILES, 16))
def test_hostile_files_of_a_study(made, tmp_path, capsys, file, kind):
    folder = tmp_path / "study"
    shutil.copytree(made / "study", folder)
    HOSTILE[kind](folder / file.format("data"))
    status, error = said(capsys, "compare", made / "study.yaml", "--out", folder, "--workers", "1", "--retries", "0")
    check(status, error, folder)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_results(made, tmp_path, capsys, kind):
    path = tmp_path / "results.json"
    shutil.copy(made / "run/detections.json", path)
    HOSTILE[kind](path)
    status, error = said(capsys, "evaluate", path, "--annotations", made / "run/val.json")
    check(status, error, path)
