"""Files and folders that nobody would make on purpose: an error that names them, without a traceback, or no harm."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from PIL import Image
from scenes import write_data

from boxloss import training
from boxloss.cli import main
from boxloss.config import read_config, write_config
from boxloss.files import FolderGoneError, encoded, read_json, read_yaml, replacing, write_csv
from boxloss.folders import locked
from boxloss.plots import Scene, plot_differences, plot_scenes
from boxloss.plots_advice import Panel, plot_panels
from boxloss.study import StudyConfig, compare
from boxloss.study.trial import run_trial
from boxloss.training import Network, Report, TrainConfig, Trainer
from boxloss.training.checkpoint import NAME, PREVIOUS, load_checkpoint, save_checkpoint
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
    image, box = Image.new("RGB", (64, 64)), (9, 9, 9, 9)
    scenes = [Scene(image, (64, 64), name, [(1, 1, 9, 9)], [(box, name)]) for name in names]
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
    assert (tmp_path / "study/report.html").read_text().count('<img src="data:,"') == 5
    assert not list((tmp_path / "study/figures").glob("*"))


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
@pytest.mark.parametrize("way", ["renamed", "deleted", "replaced", "emptied"])
def test_a_folder_that_goes_away_stops_its_run(made, tmp_path, way, step):
    folder, parent = tmp_path / "runs" / "run", tmp_path / "runs"

    def act():
        folder.rename(tmp_path / "moved") if way == "renamed" else shutil.rmtree(folder)
        if way == "replaced":
            folder.mkdir()

    def empty():  # as by a deletion that what is written holds up
        for path in folder.iterdir():
            path.unlink()

    trainer = Trainer(
        config(made / "data", epochs=2, checkpoint_seconds=0.0),
        folder,
        Between(step, empty if way == "emptied" else act),
    )
    with pytest.raises(FolderGoneError, match=r"runs/run.* was (moved, )?deleted .*while this command"):
        trainer.run()
    assert [path.name for path in parent.rglob("*")] == (["run"] if way in ("replaced", "emptied") else [])
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


def replace_folder(folder):
    folder.rmdir()
    folder.mkdir()
    write_csv(folder / "a.csv", [{"a": 1}])


def test_locks_within_a_thread_are_one_and_of_others_refused(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder), locked(folder):
        with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="another process is working in it"):
            pool.submit(lambda: locked(folder).__enter__()).result()
        with replacing(folder / "c" / "d" / "file") as file:
            file.write(b"1")
    assert (folder / "c/d/file").read_bytes() == b"1"
    with pytest.raises(KeyError), locked(tmp_path / "new" / "inner"):
        raise KeyError
    assert not (tmp_path / "new").exists()  # nothing was left in it
    with pytest.raises(FolderGoneError), locked(tmp_path / "new"):
        replace_folder(tmp_path / "new")
    assert (tmp_path / "new").exists()  # that is another's
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
    *(f"trials/{{}}/ciou/0/{name}" for name in ("result.json", "log.txt", *RUN_FILES[:-1])),
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
        assert re.search(r"^boxloss \w+: error: ", error, re.M), error
        assert str(place) in error, error


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("file", "kind"), each(RUN_FILES, 8))
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
@pytest.mark.parametrize(("file", "kind"), each(STUDY_FILES, 26))
def test_hostile_files_of_a_study(made, tmp_path, capsys, file, kind):
    folder = tmp_path / "study"
    shutil.copytree(made / "study", folder)
    path = folder / file.format("data")
    if not path.exists():  # the trial was too short for a second checkpoint
        shutil.copy(path.with_name(NAME), path)
    HOSTILE[kind](path)
    if file.startswith("trials") and not file.endswith("result.json"):
        (folder / "trials/data/ciou/0/result.json").unlink()  # so that the trial goes on from what is there
    status, error = said(capsys, "compare", made / "study.yaml", "--out", folder, "--workers", "1", "--retries", "0")
    check(status, error, folder)
    for log in folder.rglob("log.txt"):
        assert not log.is_file() or b"Traceback" not in log.read_bytes()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_results(made, tmp_path, capsys, kind):
    path = tmp_path / "results.json"
    shutil.copy(made / "run/detections.json", path)
    HOSTILE[kind](path)
    status, error = said(capsys, "evaluate", path, "--annotations", made / "run/val.json")
    check(status, error, path)


@pytest.mark.parametrize("reader", [read_json, read_yaml])
def test_readers_name_the_file_and_wait_for_nobody(tmp_path, reader):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match=f"no thing {path}"):
        reader(path, "thing")
    os.mkfifo(path)
    with not_for_ever(), pytest.raises(ValueError, match=f"{path} is a pipe or device; expected a file"):
        reader(path, "thing")
    with pytest.raises(ValueError, match=f"{tmp_path} is a folder; expected a file"):
        reader(tmp_path, "thing")
    path.unlink()
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=f"{path} is .*nested too deep"):
        reader(path, "thing")


def test_pipes_in_place_of_a_data_set(made, tmp_path, capsys):
    for name in ("val.json", "images/train1.png"):
        data = tmp_path / name.replace("/", "-")
        shutil.copytree(made / "data", data)
        pipe(data / name)
        command = ("train", made / "run.yaml", "--data", data, "--out", tmp_path / "run")
        status, error = said(capsys, *command)
        assert status == 1
        assert str(data) in error
        assert not (tmp_path / "run").exists()
    pipe_of_pairs = tmp_path / "pairs.csv"
    os.mkfifo(pipe_of_pairs)
    status, error = said(capsys, "compare", "--pairs", pipe_of_pairs, "--losses", "iou", "--out", tmp_path / "pairs")
    assert (status, error) == (
        1,
        f"boxloss compare: error: {pipe_of_pairs} is a pipe or device; expected a file\n",
    )


def test_rows_of_metrics_are_checked_and_the_last_may_be_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = '{"epoch": 0, "AP": null}\n'
    message = rf"{path}, line 2: expected the numbers of an epoch.* remove the line"
    for bad in ("5", '{"epoch": "0"}', '{"epoch": true}', '{"epoch": -1}', '{"AP": 1}', "[" * 99_999):
        for value in (bad, '{"epoch": 0, "AP": NaN}', '{"epoch": 0, "AP": "0.5"}', '{"epoch": 0, "AP": 1e999}'):
            path.write_text(good + value + "\n" + good)
            with pytest.raises(ValueError, match=message):
                read_metrics(tmp_path)
            path.write_text(good + value)
            assert read_metrics(tmp_path) == [{"epoch": 0, "AP": None}]


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_any_flipped_byte_of_a_checkpoint_is_damage(tmp_path):
    tensor = torch.arange(50.0)
    for step in (1, 2):
        save_checkpoint(tmp_path, {"step": step, "weights": tensor})
    content = (tmp_path / NAME).read_bytes()
    for place in range(0, len(content), 7):
        (tmp_path / NAME).write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        found, said = [], []
        shutil.copy(tmp_path / PREVIOUS, tmp_path / "kept")
        assert load_checkpoint(tmp_path, found.append, said.append)
        assert (found[0]["step"], len(said)) == (1, 1), place
        (tmp_path / f"{NAME}.damaged").unlink()
    (tmp_path / NAME).write_bytes(content + b"x")
    assert load_checkpoint(tmp_path, found.append, said.append)
    assert found[-1]["step"] == 1


def test_a_checkpoint_without_a_digest_loads(made, tmp_path, capsys):
    """As older versions wrote it; and older versions read those of this one."""
    shutil.copytree(made / "run", tmp_path / "run")
    figures = json.loads((tmp_path / "run/evaluation.json").read_text())
    state = torch.load(tmp_path / "run" / NAME, weights_only=True)
    torch.save(state, tmp_path / "run" / NAME)
    (tmp_path / "run" / PREVIOUS).unlink()
    assert said(capsys, "evaluate", tmp_path / "run") == (0, "")
    assert json.loads((tmp_path / "run/evaluation.json").read_text()) == figures


def changed(name, change):
    """A checkpoint with another value of a field, or of a tensor in it."""

    def act(state):
        return state | {name: change(state[name])}

    return act


def weights_with(value):
    def change(weights):
        name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
        return weights | {name: value(weights[name])}

    return change


def moments_with(value):
    def change(optimizer):
        return optimizer | {"state": optimizer["state"] | {0: value(dict(optimizer["state"][0]))}}

    return change


def groups_with(**values):
    return lambda optimizer: optimizer | {"param_groups": [g | values for g in optimizer["param_groups"]]}


WRONG = {
    "NaN in the weights": changed("model", weights_with(lambda t: t * float("nan"))),
    "an infinite weight": changed("model", weights_with(lambda t: t / 0)),
    "weights of another dtype": changed("model", weights_with(torch.Tensor.double)),
    "a weight that is a number": changed("model", weights_with(lambda t: 1.0)),
    "a weight of another shape": changed("model", weights_with(lambda t: t[:0])),
    "a sparse weight": changed("model", weights_with(torch.Tensor.to_sparse)),
    "weights in a list": changed("model", lambda weights: list(weights.values())),
    "no weights": changed("model", lambda weights: {}),
    "step true": changed("step", lambda step: True),
    "step text": changed("step", str),
    "step below 0": changed("step", lambda step: -1),
    "step too large": changed("step", lambda step: 10**30),
    "anchors text": changed("anchors", str),
    "anchors a number": changed("anchors", lambda anchors: 5),
    "anchors NaN": changed("anchors", lambda anchors: (((float("nan"),) * 2,),) * 2),
    "anchors without numbers": changed("anchors", lambda anchors: ((), ())),
    "sums a list": changed("sums", torch.Tensor.tolist),
    "sums of another length": changed("sums", lambda sums: sums[:2]),
    "sums NaN": changed("sums", lambda sums: sums * float("nan")),
    "gain text": changed("gain", str),
    "gain NaN": changed("gain", lambda gain: float("nan")),
    "gain below 0": changed("gain", lambda gain: -1.0),
    "optimizer a list": changed("optimizer", lambda optimizer: [optimizer]),
    "optimizer without groups": changed("optimizer", lambda optimizer: {"state": {}}),
    "groups a number": changed("optimizer", lambda optimizer: optimizer | {"param_groups": 3}),
    "a group a number": changed("optimizer", lambda optimizer: optimizer | {"param_groups": [3, 3]}),
    "lr text": changed("optimizer", groups_with(lr="0.1")),
    "betas text": changed("optimizer", groups_with(betas="ab")),
    "parameters of others": changed("optimizer", groups_with(params=[0])),
    "another setting": changed("optimizer", groups_with(amsgrad=True)),
    "a moment missing": changed("optimizer", moments_with(lambda kept: {"step": kept["step"]})),
    "a moment NaN": changed("optimizer", moments_with(lambda kept: kept | {"exp_avg": kept["exp_avg"] * float("nan")})),
    "a moment of another shape": changed("optimizer", moments_with(lambda kept: kept | {"exp_avg_sq": torch.ones(2)})),
    "a moment's step text": changed("optimizer", moments_with(lambda kept: kept | {"step": "1"})),
    "a moment a list": changed("optimizer", moments_with(lambda kept: [kept])),
    "loss a list": changed("loss", lambda loss: [1]),
    "loss with more": changed("loss", lambda loss: loss | {"more": torch.ones(1)}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_of_a_checkpoint_with_wrong_fields_the_previous_is_taken(made, tmp_path, capsys, wrong):
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    kept = (folder / "evaluation.json").read_bytes()
    torch.save(WRONG[wrong](torch.load(folder / NAME, weights_only=True)), folder / NAME)
    status, error = said(capsys, "train", made / "run.yaml", "--out", folder)
    assert status == 0
    assert error.startswith(f"warning: {folder}/{NAME} cannot be used: ")
    assert f"going on from {folder}/{PREVIOUS}" in error
    assert (folder / "evaluation.json").read_bytes() == kept


def test_weights_that_are_not_numbers_are_said_at_load(made, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    (folder / PREVIOUS).unlink()
    torch.save(WRONG["NaN in the weights"](torch.load(folder / NAME, weights_only=True)), folder / NAME)
    status, error = said(capsys, "evaluate", folder)
    assert status == 1
    assert "is not finite: it holds NaN or an infinity; move them away to start anew" in error


# -- what comes of nothing --------------------------------------------------------------------------------------------


def test_validation_without_boxes_is_said_by_train(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    coco = json.loads((data / "val.json").read_text())
    (data / "val.json").write_text(json.dumps(coco | {"annotations": []}))
    write_config(tmp_path / "run.yaml", config(data))
    status, error = said(capsys, "train", tmp_path / "run.yaml", "--out", tmp_path / "run")
    assert status == 0
    assert error == f"warning: {data}/val.json: no box in the validation images, so that AP is not defined\n"


def test_a_run_without_validation_images_is_refused(made, tmp_path, capsys):
    shutil.copytree(made / "run", tmp_path / "run")
    coco = json.loads((tmp_path / "run/val.json").read_text())
    (tmp_path / "run/val.json").write_text(json.dumps(coco | {"images": [], "annotations": []}))
    status, error = said(capsys, "evaluate", tmp_path / "run")
    assert (status, error) == (1, f"boxloss evaluate: error: {tmp_path}/run/val.json has no images\n")
