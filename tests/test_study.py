"""Studies: what is the same between trials and what is not, that they survive breaks, what they report and refuse."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import locked_elsewhere, write_data

from boxloss import study
from boxloss.cli import main
from boxloss.config import read_config, write_config
from boxloss.data import change_images, change_truths, draw
from boxloss.study import Entrant, Local, StudyConfig, StudyError, compare
from boxloss.study.folder import REPORT, STUDY, SUMMARY, TABLE, trial_folder
from boxloss.study.summary import conclusion, summary_text
from boxloss.study.trial import LOG, RESULT, Processes, attempt, run_trial
from boxloss.training import (
    Match,
    Network,
    Optimizer,
    Report,
    TrainConfig,
    Trainer,
    TrainingError,
)
from boxloss.training.checkpoint import NAME
from boxloss.training.folder import DETECTIONS
from boxloss.training.gain import matching_gain
from boxloss.training.loop import _seeded

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOXLOSS_CACHE", str(tmp_path / "cache"))


def training(data, **changes):
    network = Network(scales=2, width=4, anchors=1)
    small = TrainConfig(data=str(data), network=network, size=64, epochs=2, batch=4, evaluate_every=1, threads=1)
    return replace(small, **changes)


def config(data, **changes):
    """Four trials of seconds."""
    small = StudyConfig(["ciou", "darknet"], seeds=2, train=training(data), replicates=50)
    return replace(small, **changes)


class Here:
    """An executor without processes: quick, and an error is seen where it arises."""

    def __init__(self):
        self.ran = []

    def run(self, folders, threads):
        for folder in folders:
            self.ran.append(folder)
            run_trial(folder)
            yield folder, ""


def weights(folder):
    return torch.load(folder / NAME, weights_only=True)["model"]


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def results(folder):
    found = {
        str(path.parent.relative_to(folder / "trials")): json.loads(path.read_text()) for path in folder.rglob(RESULT)
    }
    return {name: {key: value for key, value in result.items() if key != "seconds"} for name, result in found.items()}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A study that nothing broke off."""
    folder = tmp_path_factory.mktemp("studies") / "undisturbed"
    compare(config(data), folder, Here())
    return folder


# -- the design ------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_only_change(data, tmp_path):
    """One loss under two names gives identical weights; another loss or seed others."""
    losses = ["ciou", Entrant("ciou", "again"), "giou", Entrant("ciou", "elsewhere", seed_offset=5)]
    chosen = config(data, losses=losses, seeds=1, train=training(data, epochs=1, evaluate_every=0))
    compare(chosen, tmp_path / "s", Here())
    found = {trial.loss: weights(trial_folder(tmp_path / "s", trial)) for trial in chosen.trials()}
    assert same(found["ciou"], found["again"])
    assert not same(found["ciou"], found["giou"])
    assert not same(found["ciou"], found["elsewhere"])
    gains = {name.split("/")[1]: result["gain"] for name, result in results(tmp_path / "s").items()}
    assert gains["ciou"] == gains["again"] == gains["elsewhere"] == 1.0 != gains["giou"]


def test_trials_of_a_study(data):
    chosen = config(data, losses=["giou", Entrant("smooth_l1", "soft", {"beta": 2.0}, gain=0.5)], seeds=[3, 9])
    found = list(chosen.trials())
    name = data.name
    assert [trial.name for trial in found] == [f"{name}/giou/3", f"{name}/soft/3", f"{name}/giou/9", f"{name}/soft/9"]
    soft = found[1].config
    assert (soft.loss, soft.loss_parameters, soft.gain, soft.seed) == ("smooth_l1", {"beta": 2.0}, 0.5, 3)
    assert soft.match == Match("giou")
    assert replace(soft, loss="giou", loss_parameters={}, gain=1.0) == found[0].config
    assert len({trial.config.hash() for trial in found}) == 4
    assert [trial.config.match for trial in config(data, gain="fixed").trials()] == [Match()] * 4


def test_a_hash_is_of_what_leads_to_the_weights(data):
    base = training(data)
    assert replace(base, workers=3, memory_gb=1.0, checkpoint_seconds=1.0).hash() == base.hash()
    for changes in ({"seed": 1}, {"threads": 2}, {"loss": "giou"}, {"gain": 2.0}, {"match": Match("giou")}):
        assert replace(base, **changes).hash() != base.hash()


def test_data_sets_change_what_is_trained(data):
    changes = {"a": {}, "b": {"size": 96, "network": {"width": 8}, "data": "shapes"}}
    found = config(data, datasets=changes).bases()
    assert found["a"] == training(data)
    assert found["b"] == training("shapes", size=96, network=Network(scales=2, width=8, anchors=1))
    relative = config("here", datasets={"b": {"train_json": None, "data": "there"}}).absolute()
    assert relative.train.data == os.path.abspath("here")
    assert relative.datasets["b"]["data"] == os.path.abspath("there")


def test_a_trial_takes_one_thread_unless_told(data):
    assert {trial.config.threads for trial in config(data, train=training(data, threads=0)).trials()} == {1}
    assert {trial.config.threads for trial in config(data, train=training(data, threads=3)).trials()} == {3}


# -- gains -----------------------------------------------------------------------------------------------------------


def test_a_matched_gain_is_the_ratio_of_gradient_norms(data, tmp_path):
    """Worked anew: the model at its first weights, the first batches of the first epoch, gradients by backward()."""
    chosen = training(data, loss="giou", match=Match("darknet", batches=2), gain=0.5, epochs=1, evaluate_every=0)
    trainer = Trainer(chosen, tmp_path / "a", Report())
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    found = trainer._find_gain()
    assert same(before, trainer.model.state_dict())

    fresh = Trainer(chosen, tmp_path / "b", Report())
    fresh.model.train()
    norms = {"giou": [], "darknet": []}
    for step, batch in zip(range(2), fresh._batches(0, 0), strict=False):
        draws = draw(chosen.augment, 4, _seeded(chosen.seed, 0, step))
        truths = change_truths(batch.truths, draws, (64, 64))
        for name, each in norms.items():
            outputs = fresh.model(change_images(batch.images, draws))
            for output in outputs:
                output.retain_grad()
            terms = replace(chosen, loss=name).yolo_loss(fresh.grid)(outputs, truths, (64, 64))
            (terms.xy + terms.wh + terms.box).backward()
            each.append(float(sum((output.grad**2).sum() for output in outputs)) ** 0.5)
    assert found == pytest.approx(0.5 * np.mean(norms["darknet"]) / np.mean(norms["giou"]), rel=1e-5)


def test_a_gain_multiplies_the_terms_that_move_boxes(data, tmp_path):
    rows = {}
    for gain in (1.0, 0.25):
        trainer = Trainer(training(data, loss="ciou", gain=gain, epochs=1), tmp_path / str(gain), Report())
        trainer.run()
        rows[gain] = trainer.loss.gains
    assert rows[1.0] == dict.fromkeys(rows[1.0], 1.0)
    assert rows[0.25] == rows[1.0] | dict.fromkeys(("xy", "wh", "box"), 0.25)


def test_a_gain_survives_a_break(data, tmp_path):
    """It is in the checkpoint, since the weights are no longer those it was found at."""
    chosen = training(data, loss="giou", match=Match("darknet"), epochs=1, evaluate_every=0)
    first = Trainer(chosen, tmp_path / "a", Report())
    first.run()
    second = Trainer(chosen, tmp_path / "a", Report())
    second.run()
    assert second.gain == first.gain != 1.0
    assert second.loss.gains == first.loss.gains


def test_a_gain_that_nothing_can_match():
    with pytest.raises(ValueError, match=r"no gain makes gradients of 0 .* as long as 2 .* positive and finite"):
        matching_gain([0.0, 0.0], [1.0, 3.0])


# -- results ---------------------------------------------------------------------------------------------------------


def test_what_a_study_leaves(data, undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert names == {STUDY, SUMMARY, TABLE, REPORT, "environment.json", "data", "trials", "figures"}
    assert read_config(undisturbed / STUDY, StudyConfig) == config(data)
    summary = json.loads((undisturbed / SUMMARY).read_text())
    dataset = summary["datasets"][data.name]
    assert dataset["images"] == 4
    for loss, figures in dataset["losses"].items():
        assert figures["seeds"] == [0, 1]
        of_trials = [results(undisturbed)[f"{data.name}/{loss}/{seed}"] for seed in (0, 1)]
        assert figures["gains"] == [result["gain"] for result in of_trials]
        # Weights of 1 are pycocotools' own figures, bit for bit.
        for metric in ("AP", "AP50", "AP75"):
            assert figures["metrics"][metric]["values"] == [result["figures"][metric] for result in of_trials]
    with (undisturbed / TABLE).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 7
    assert float(rows[0]["mean"]) == dataset["losses"]["ciou"]["metrics"]["AP"]["mean"]
    assert {path.suffix for path in (undisturbed / "figures").iterdir()} == {".png"}
    assert "second" not in (undisturbed / SUMMARY).read_text().replace("checkpoint_seconds", "")


def test_the_report_is_one_file_and_says_everything(undisturbed, data):
    page = (undisturbed / REPORT).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert sum(source.startswith("data:") for source in sources) == 5
    assert "<script" not in page
    assert "@import" not in page
    for text in ("Not testable with 2 seeds", "it cannot be significant", "Losses, gains and time"):
        assert text in page
    for text in (f"boxloss compare {undisturbed}/study.yaml", "units of: pixel.", torch.__version__.split("+")[0]):
        assert text in page
    for name in ("ciou", "darknet"):
        assert f"<th>{name}</th>" in page


def test_several_data_sets(data, tmp_path):
    """The correction is over all of them; each has its part of the report."""
    base = training(data, epochs=1, evaluate_every=0)
    chosen = config(data, seeds=1, train=base, datasets={"a": {}, "b": {"size": 96}})
    summary = compare(chosen, tmp_path / "s", Here())
    assert list(summary["datasets"]) == ["a", "b"]
    assert summary["comparisons"] == 2
    assert {sentence.split(":")[0] for sentence in summary["conclusion"]} == {"a", "b", "Exploratory"}
    page = (tmp_path / "s" / REPORT).read_text()
    assert 'id="data-a"' in page
    assert 'id="data-b"' in page
    assert summary_text(summary).count("4 validation images") == 2


# -- breaks ----------------------------------------------------------------------------------------------------------


def test_nothing_finished_is_run_twice(data, tmp_path, capsys):
    chosen = config(data, train=training(data, epochs=1, evaluate_every=0))
    first, again = Here(), Here()
    compare(chosen, tmp_path / "s", first)
    assert len(first.ran) == 4
    (gone,) = (tmp_path / "s/trials" / data.name / "ciou/1").glob(RESULT)
    before = (tmp_path / "s" / SUMMARY).read_bytes()
    gone.unlink()
    compare(chosen, tmp_path / "s", again)
    assert again.ran == [gone.parent]
    assert (tmp_path / "s" / SUMMARY).read_bytes() == before
    # A study may grow.
    compare(replace(chosen, seeds=3), tmp_path / "s", again)
    assert len(again.ran) == 1 + 2
    out = capsys.readouterr().out
    assert re.search(r"ciou/0: AP \.?\d.*, \d+ s; 3 to go, about \d\d:\d\d\n", out)


@pytest.mark.parametrize(
    "damage",
    [
        lambda trial, data: (trial / RESULT).write_text('{"hash": '),
        lambda trial, data: (trial / RESULT).write_text("[]"),
        lambda trial, data: (trial / RESULT).write_text((trial / RESULT).read_text().replace('"curve"', '"curv"')),
        lambda trial, data: (trial / DETECTIONS).unlink(),
        lambda trial, data: shutil.rmtree(trial),
    ],
    ids=["cut", "no object", "a key is missing", "no detections", "no folder"],
)
def test_what_is_damaged_is_made_again(data, undisturbed, tmp_path, damage):
    folder, again = tmp_path / "s", Here()
    shutil.copytree(undisturbed, folder)
    trial = folder / "trials" / data.name / "ciou/1"
    damage(trial, folder / "data" / data.name)
    compare(config(data), folder, again)
    assert again.ran == [trial]
    assert (folder / SUMMARY).read_bytes() == (undisturbed / SUMMARY).read_bytes()


def test_a_finished_study_writes_its_report_again(data, undisturbed, tmp_path, capsys):
    """Without its annotations, which are kept anew; without the images, too."""
    folder, again, moved = tmp_path / "s", Here(), tmp_path / "moved"
    shutil.copytree(data, moved)
    chosen = config(moved, seeds=1, train=training(moved, epochs=1))
    compare(chosen, folder, again)
    before, ran = (folder / SUMMARY).read_bytes(), len(again.ran)
    kept = folder / "data/moved/val.json"
    kept.write_text("[")
    compare(chosen, folder, again)
    json.loads(kept.read_text())
    shutil.rmtree(moved)
    (folder / REPORT).unlink()
    compare(chosen, folder, again)
    assert "Examples" not in (folder / REPORT).read_text()
    assert (folder / SUMMARY).read_bytes() == before
    assert len(again.ran) == ran
    assert "2 losses × 1 seed × 1 data set: 2 trials, 0 to train" in capsys.readouterr().out


def test_what_was_refused_does_not_block_what_is_right(data, tmp_path):
    """Nothing is written before all is found to be in order: not at first, not when a study grows."""
    folder = tmp_path / "s"
    chosen = config(data, seeds=1, train=training(data, epochs=1, evaluate_every=0))
    with pytest.raises(FileNotFoundError, match="nowhere: data: no folder"):
        compare(replace(chosen, train=training(tmp_path / "nowhere")), folder, Here())
    compare(chosen, folder, Here())
    before = (folder / STUDY).read_bytes()
    both = {data.name: {}, "other": {"data": str(tmp_path / "nowhere")}}
    with pytest.raises(FileNotFoundError, match="other: data: no folder"):
        compare(replace(chosen, datasets=both), folder, Here())
    assert (folder / STUDY).read_bytes() == before
    with locked_elsewhere(folder), pytest.raises(ValueError, match="another process is working in it"):
        compare(replace(chosen, seeds=2), folder, Here())
    assert (folder / STUDY).read_bytes() == before


def test_waiting_trials_are_told_what_does_not_matter(data, undisturbed, tmp_path):
    """How many megabytes the images may take is no part of the hash; the study's word counts."""
    folder, chosen = tmp_path / "s", config(data)
    shutil.copytree(undisturbed, folder)
    trial = trial_folder(folder, next(iter(chosen.trials())))
    (trial / RESULT).unlink()
    compare(replace(chosen, train=training(data, memory_gb=1.5)), folder, Here())
    assert read_config(trial / "config.yaml", TrainConfig).memory_gb == 1.5


def test_trials_that_were_not_made_alike(undisturbed, data, tmp_path):
    folder = tmp_path / "s"
    shutil.copytree(undisturbed, folder)
    path = folder / "trials" / data.name / "ciou/0/environment.json"
    path.write_text(re.sub('"torch": "[^"]*"', '"torch": "1.0"', path.read_text()))
    assert "Not all trials were made alike" not in (folder / REPORT).read_text()
    compare(config(data), folder, Here())
    assert re.search(r"Not all trials were made alike:\s+torch 1\.0 and", (folder / REPORT).read_text())


def test_gains_of_ones_own_and_limits_that_do_not_hold(data, tmp_path):
    """In the report and the files; JSON has no infinity."""
    losses = ["ciou", Entrant("smooth_l1", "soft", {"beta": 2.0}, gain=0.5)]
    base = training(data, epochs=1, evaluate_every=0, optimizer=Optimizer(clip=float("inf")))
    summary = compare(config(data, losses=losses, seeds=1, train=base), tmp_path / "s", Here())
    assert summary["study"]["train"]["optimizer"]["clip"] == "inf"
    soft = summary["datasets"][data.name]["losses"]["soft"]
    assert (soft["definition"], soft["gain"]) == ("smooth_l1, beta = 2.0", 0.5)
    assert soft["gains"] == [result["gain"] for name, result in results(tmp_path / "s").items() if "soft" in name]
    page = (tmp_path / "s" / REPORT).read_text()
    assert "<code>smooth_l1, beta = 2.0</code></td><td>0.500</td>" in page
    with (tmp_path / "s" / TABLE).open() as file:
        row = list(csv.DictReader(file))[-1]
    assert (row["definition"], row["gain"]) == ("smooth_l1, beta = 2.0", "0.5")
    assert float(row["total_gain"]) == soft["gains"][0]


@pytest.mark.slow  # so does a killed study
def test_a_killed_trial_goes_on(data, undisturbed, tmp_path):
    chosen = config(data, losses=["ciou"], seeds=1)
    folder = tmp_path / "s"

    class Killing(Processes):
        """Kills each trial once, when it has a checkpoint."""

        def run(self, where, threads, log):
            if not (where / NAME).exists():
                threading.Thread(target=self.kill, args=(where,)).start()
            return super().run(where, threads, log)

        def kill(self, where):
            while not (where / NAME).exists():
                time.sleep(0.005)
            for process in self._running:
                process.kill()

    class Killer:
        def run(self, folders, threads):
            for where in folders:
                yield where, attempt(where, threads, 1, Killing())

    compare(chosen, folder, Killer())
    assert "going on after step 3" in (trial_folder(folder, next(iter(chosen.trials()))) / LOG).read_text()
    for name, result in results(folder).items():
        assert result == results(undisturbed)[name]


def test_a_killed_study_goes_on_to_the_same_bytes(data, undisturbed, tmp_path):
    """Its trials end with it; the same finishes the rest, in processes side by side, which makes no difference."""
    folder, path = tmp_path / "s", tmp_path / "study.yaml"
    shutil.copytree(undisturbed, folder)
    for name in (SUMMARY, REPORT, TABLE):
        (folder / name).unlink()
    # Half of its trials are finished: each of the others starts a process, twice.
    left = [trial_folder(folder, trial) for trial in config(data).trials() if trial.seed == 0]
    assert len(left) == 2
    for trial in left:
        shutil.rmtree(trial)
    path.write_bytes((undisturbed / STUDY).read_bytes())
    command = [sys.executable, "-m", "boxloss", "compare", str(path), "--out", str(folder), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not any((trial / NAME).exists() for trial in left):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / SUMMARY).exists()
    compare(config(data), folder, Local(2))
    assert results(folder) == results(undisturbed)
    assert (folder / SUMMARY).read_bytes() == (undisturbed / SUMMARY).read_bytes()
    logs = "".join(path.read_text() for path in folder.rglob(LOG))
    assert "another process" not in logs


def test_a_process_that_has_done_its_work_ends_well(undisturbed, data):
    """Though a thread of it waits for the end of its standard input."""
    assert attempt(undisturbed / "trials" / data.name / "ciou/0", 1, 0) == ""


def test_a_trial_that_dies_is_tried_again_then_reported(data, tmp_path, monkeypatch, capsys):
    """Without losing the others."""
    chosen = config(data, seeds=1)

    class Dying(Processes):
        runs = 0

        def run(self, where, threads, log, imports=()):
            if "ciou" in str(where):
                Dying.runs += 1
                log.write(b"the sky fell\n")
                return -9
            run_trial(where)
            return 0

    class Executor:
        def run(self, folders, threads):
            for where in folders:
                yield where, attempt(where, threads, 2, Dying())

    compare(chosen, tmp_path / "s", Executor())
    assert Dying.runs == 3
    summary = json.loads((tmp_path / "s" / SUMMARY).read_text())
    assert summary["failed"] == {f"{data.name}/ciou/0": "killed by signal 9, 3 times"}
    assert summary["datasets"][data.name]["losses"]["darknet"]["seeds"] == [0]
    page = (tmp_path / "s" / REPORT).read_text()
    assert "Failed trials" in page
    assert "ciou/0: failed: killed by signal 9" in capsys.readouterr().out
    # The same command again finishes it.
    compare(chosen, tmp_path / "s", Here())
    assert json.loads((tmp_path / "s" / SUMMARY).read_text())["failed"] == {}


def test_an_error_that_would_come_again_is_not_retried(data, tmp_path):
    """A loss that is not finite; in a process of its own."""
    write_config(tmp_path / "t/config.yaml", training(data, loss="l2", gain=1e38))
    assert attempt(tmp_path / "t", 1, 2).startswith("TrainingError: the loss of step 0 is not finite")
    assert (tmp_path / "t" / LOG).read_text().count("TrainingError") == 1


def test_all_trials_fail(data, tmp_path):
    chosen = config(data, losses=[Entrant("l2", gain=1e38)], seeds=1, gain="fixed")

    class Executor:
        def run(self, folders, threads):
            for where in folders:
                with pytest.raises(TrainingError) as raised:
                    run_trial(where)
                yield where, str(raised.value)

    with pytest.raises(StudyError, match=r"all 1 trials failed: .*not finite"):
        compare(chosen, tmp_path / "s", Executor())


# -- words -----------------------------------------------------------------------------------------------------------


def analysis(differences, *, smallest_p=0.0078, exploratory=False):
    """As `analyse` gives it, of losses on one data set: name → (mean, low, high, adjusted p)."""
    losses = {"giou": {"difference": None, "metrics": {"AP": {"mean": 0.5}}}}
    for name, (mean, low, high, p) in differences.items():
        ap = {"mean": mean, "low": low, "high": high}
        difference = {"seeds": [0, 1, 2], "p": p, "p_holm": p, "significant": p <= 0.05, "metrics": {"AP": ap}}
        losses[name] = {"difference": difference, "metrics": {"AP": {"mean": 0.5 + mean}}}
    return {
        "reference": "giou",
        "comparisons": len(differences),
        "smallest_p": smallest_p,
        "exploratory": exploratory,
        "datasets": {"cells": {"losses": losses}},
    }


def test_a_conclusion_in_words(data):
    found = analysis(
        {
            "ciou": (0.02, 0.01, 0.03, 0.008),
            "l1": (-0.1, -0.2, 0.01, 0.008),
            "diou": (0.001, -0.03, 0.05, 0.7),
            "eiou": (0.04, 0.01, 0.07, 0.06),
        }
    )
    text = conclusion(found, config(data), {})
    assert text == [
        "ciou reaches a higher AP than giou: +0.020 (95 % interval +0.010 to +0.030), p = 0.008 after Holm's"
        " correction.",
        "l1 reaches a lower AP than giou: −0.100 (95 % interval −0.200 to +0.010), p = 0.008 after Holm's correction."
        " The interval holds 0: it is about other images too, the test about other seeds on these.",
        "No difference in AP can be told apart from noise between giou and diou or eiou.",
        "95 % intervals of these differences: from −0.030 to +0.070. A difference in that range the study may have"
        " missed: it is no proof that the losses are equal.",
        "0 lies outside the interval of eiou, but intervals are not corrected for how many there are: the test is what"
        " counts.",
    ]


def test_a_conclusion_of_too_few_seeds(data):
    differences = {"ciou": (0.02, 0.01, 0.03, 0.75), "l1": (-0.1, -0.2, 0.0, 0.75), "diou": (0.0, -0.03, 0.05, 1.0)}
    text = conclusion(analysis(differences, smallest_p=0.75, exploratory=True), config(data), {"a/b/0": "died"})
    assert text[0] == "Not testable with 3 seeds: a difference in AP between giou and ciou, l1 or diou."
    assert "from −0.200 to +0.050" in text[1]
    assert text[2].startswith("0 lies outside the interval of ciou, but")
    assert text[2].endswith("a reason for a study with more seeds, not a result.")
    assert text[3] == (
        "Exploratory: it cannot be significant. With 3 seeds and 3 comparisons the smallest attainable p is 0.75, above"
        " 0.05; 7 seeds could be significant."  # 3 · 2^(1−7) = .047
    )
    assert text[4].startswith("1 trial failed")
    controls = config(data, losses=["ciou", Entrant("ciou", "other", seed_offset=9)])
    assert conclusion(analysis({}), controls, {})[-1] == "Trained with other seeds on purpose, so not paired: other."
    assert "Nothing was compared" in conclusion(analysis({}), config(data), {})[0]


def test_a_conclusion_of_detectors_that_find_nothing(data):
    found = analysis({"ciou": (-0.496, -0.5, -0.49, 0.008)})
    found["datasets"]["cells"]["losses"]["giou"]["metrics"]["AP"]["mean"] = 0.0049
    assert conclusion(found, config(data), {})[0].startswith(
        "The detectors hardly learned to find anything: no loss has an AP above 0.005."
    )


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ["gio"]}, "no loss named 'gio'; did you mean 'giou'"),
        (
            {"losses": [Entrant("smooth_l1", parameters={"bet": 1.0})]},
            "unknown parameter 'bet'; did you mean 'beta'",
        ),
        ({"losses": []}, "losses: expected at least one"),
        ({"losses": ["ciou", "ciou"]}, "losses: 'ciou' stands there twice"),
        ({"losses": [Entrant("ciou", gain=-1.0)]}, "gain: expected a finite number >= 0, got -1.0"),
        ({"losses": [Entrant("ciou", "a/b")]}, "expected letters, digits and .*, got 'a/b'"),
        ({"losses": [Entrant("ciou", "_a")]}, "a letter or digit first, got '_a'"),  # matplotlib's legends skip it
        ({"losses": [{"loss": "ciou"}]}, "losses: expected names, or Entrant"),
        ({"seeds": 10**9}, "at most 1000, got 1000000000"),
        ({"train": TrainConfig(seed=3)}, "train.seed: a study gives it"),
        ({"train": TrainConfig(loss="giou")}, "train.loss: a study gives it"),
        ({"datasets": {"a": {"match": {"loss": "giou"}}}}, "datasets.a.match: a study gives it"),
        ({"losses": [Entrant("ciou", "..")]}, "expected letters"),
        ({"seeds": 0}, "seeds: expected at least one and at most 1000, got 0"),
        ({"seeds": [1, 1]}, "seeds: 1 stands there twice"),
        ({"seeds": [-1]}, "seed: expected a number in"),
        ({"reference": "giou"}, "reference: expected one of ciou, darknet, got 'giou'"),
        ({"gain": "match"}, "gain: expected one of matched, fixed, got 'match'"),
        ({"replicates": 1}, "replicates: expected 2 to 10000, got 1"),
        ({"datasets": {"a": {"siz": 3}}}, "datasets.a: siz: no such field; did you mean 'size'"),
    ],
)
def test_a_study_that_cannot_be(data, changes, message):
    with pytest.raises(ValueError, match=message):
        config(data, **changes)


def test_a_folder_that_holds_something_else(data, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is not empty and holds no study: choose another folder with --out"):
        compare(config(data), tmp_path / "s", Here())
    chosen = config(data, seeds=1, train=training(data, epochs=1, evaluate_every=0))
    compare(chosen, tmp_path / "t", Here())
    before = (tmp_path / "t" / STUDY).read_bytes()
    for changed in (replace(chosen, losses=["ciou"]), replace(chosen, train=training(data, epochs=2))):
        with pytest.raises(ValueError, match=r"holds another study .*: choose another folder with --out, or remove it"):
            compare(changed, tmp_path / "t", Here())
    assert (tmp_path / "t" / STUDY).read_bytes() == before


@pytest.fixture
def command(data, tmp_path, monkeypatch):
    """`boxloss compare` with a small study; nothing may be trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(small_yaml(data))

    def run(*options):
        status = main(["compare", "small.yaml", "--out", "s", *options])
        assert not list(tmp_path.rglob("checkpoint.pt"))
        return status

    return run


def small_yaml(data):
    return (
        f"losses: [ciou, darknet]\nseeds: 1\nreplicates: 20\ntrain: {{data: {data}, network: {{scales: 2, width: 4,"
        " anchors: 1}, size: 64, epochs: 1, batch: 4, evaluate_every: 0}\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--losses", "ciou,goiu"], "did you mean 'giou'"),
        (["--losses=ciou,goiu"], "did you mean 'giou'"),
        (["--seeds", "0"], "seeds: expected at least one"),
        (["--categories", "red,gren"], "no category 'gren'; did you mean 'green'? It has: green, red"),
        (["--images", "0"], "asked for: 0"),
        (["--data", "nowhere"], "no folder"),
        (["--coco", "nowhere"], "no folder"),
        (["--workers", "0"], "workers: expected at least 1, got 0"),
        (["--retries", "-1"], "retries: expected 0 or more"),
        (["--train-json", "x.json"], "expected all four or none"),
        (["--data", "a", "--coco", "b"], "--data a and --coco b: expected one of the two"),
        (["--losses", "ciou,"], "expected names separated by commas, got 'ciou,'"),
        (["--categories", "red,"], "expected names separated by commas, got 'red,'"),
        (["--train.seed", "1"], "train.seed: a study gives it"),
        (["--train.device", "cuda:77"], "device: expected auto, cpu, cuda, …, got 'cuda:77'"),
        (["--train.network.backbone", "resnet_18"], "resnet_18"),
        (["--out", "small.yaml"], "small.yaml is a file, or in one; expected a folder"),
    ],
)
def test_refused_commands(command, capsys, options, message):
    assert command(*options) == 1
    error = capsys.readouterr().err
    assert error.startswith("boxloss compare: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml: expected some of the fields losses, reference, "),
        ("- a", "c.yaml: expected some of the fields losses, reference, "),
        ("losses: [", "c.yaml is not YAML"),
        ("losses: null", "c.yaml: losses: expected a value, got null"),
        ("losses: [{los: giou}]", "c.yaml: losses[0].los: no such field; did you mean 'loss'?"),
        ("losses: [giou, 3]", "c.yaml: losses[1]: expected some of the fields loss, name, "),
        ("losses: [giou]\nseeds: null", "c.yaml: seeds: expected a value, got null"),
        ("losses: [giou]\ntrain: 5", "c.yaml: train: expected some of the fields data, "),
        (
            "losses: [giou]\ntrain: {network: {widht: 3}}",
            "c.yaml: train.network.widht: no such field; did you mean 'width'",
        ),
        ("losses: [giou]\ntrain: {network: {width: null}}", "c.yaml: train.network.width: expected a value, got null"),
    ],
)
def test_bad_configurations(tmp_path, capsys, text, message):
    (tmp_path / "c.yaml").write_text(text)
    assert main(["compare", str(tmp_path / "c.yaml")]) == 1
    error = capsys.readouterr().err
    assert message in error


def test_a_table_where_a_configuration_is_expected(capsys):
    assert main(["compare", "pairs.csv"]) == 1
    assert "a file of pairs goes behind --pairs" in capsys.readouterr().err


def test_validation_images_without_boxes(data, tmp_path, command, capsys):
    empty = tmp_path / "empty"
    shutil.copytree(data, empty)
    content = json.loads((empty / "val.json").read_text())
    (empty / "val.json").write_text(json.dumps(content | {"annotations": []}))
    assert command("--data", str(empty)) == 1
    assert "no box in the validation images, so that AP is not defined" in capsys.readouterr().err


def test_what_nothing_can_come_of_is_said_before(data, tmp_path, capsys):
    chosen = config(data, seeds=1, train=training(data, epochs=1, evaluate_every=0))

    class Never:
        def run(self, folders, threads):
            raise StudyError("stop")

    for losses, message in (
        (["ciou", "giou"], "exploratory, no difference will be significant: With 1 seed and 1 comparison the smallest"),
        (["ciou"], "one loss alone: the study will compare nothing"),
    ):
        with pytest.raises(StudyError, match="stop"):
            compare(replace(chosen, losses=losses), tmp_path / str(len(losses)), Never())
        assert f"warning: {message}" in capsys.readouterr().err


def test_missing_images(data, tmp_path, command, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for picture in (broken / "images").glob("val*.png"):
        picture.unlink()
    assert command("--data", str(broken)) == 1
    assert "is missing and 3 other images, of 4 that" in capsys.readouterr().err


def test_data_of_the_options_and_of_the_configuration(data, command, capsys, tmp_path):
    text = (tmp_path / "small.yaml").read_text() + "datasets: {a: {}}\n"
    (tmp_path / "small.yaml").write_text(text)
    assert command("--coco", str(data), "--images", "3") == 1
    assert "--data, --images: the configuration has datasets of its own: a" in capsys.readouterr().err


def test_ray_is_missing(command, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command("--executor", "ray") == 1
    assert "the executor ray needs the extra: pip install 'boxloss[ray]'" in capsys.readouterr().err


def test_the_short_options(data, tmp_path, monkeypatch, capsys):
    ran = {}

    def compare(config, folder, executor):
        ran.update(c=config, f=folder, e=executor)
        return {"datasets": {}, "conclusion": ["Nothing."], "failed": {"a/b/0": "died"}}

    monkeypatch.setattr(study, "compare", compare)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(small_yaml(data))
    options = "--losses giou,ciou --seeds 4 --coco there --images 7 --categories red,green --train.epochs 9 --workers 3"
    assert main(["compare", "small.yaml", *options.split()]) == 1
    out, error = capsys.readouterr()
    assert out == "Nothing.\nruns/compare-small/report.html\n"
    assert "failed trials: a/b/0: died; the same command tries them again" in error
    chosen = ran["c"]
    assert chosen.losses == ["giou", "ciou"]
    assert chosen.seed_list == [0, 1, 2, 3]
    assert (chosen.train.data, chosen.train.subset.images, chosen.train.epochs) == ("there", 7, 9)
    assert chosen.train.subset.categories == ["red", "green"]
    assert str(ran["f"]) == "runs/compare-small"
    assert ran["e"].workers == 3
    # Without the configuration's reference among the losses, the first takes its place.
    with (tmp_path / "small.yaml").open("a") as file:
        file.write("reference: ciou\n")
    for options, reference in (("giou,ciou", "ciou"), ("giou,diou", "giou"), ("giou,diou --reference diou", "diou")):
        main(["compare", "small.yaml", "--losses", *options.split(), "--seeds", "3,9"])
        assert ran["c"].reference_entrant.called == reference
        assert ran["c"].seed_list == [3, 9]
        said = "reference: giou, since --losses lacks the configuration's ciou\n"
        assert (said in capsys.readouterr().out) == (reference == "giou")


def test_pairs_by_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").write_text(
        "px1,py1,px2,py2,gx1,gy1,gx2,gy2\n0,0,2,2,1,1,3,3\n0,0,1,1,5,5,6,6\n0,0,2,2,0,0,2,3\n"
    )
    assert main(["compare", "--pairs", "p.csv", "--losses", "iou,giou"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("runs/pairs-p/pairs.html\n")
    assert (tmp_path / "runs/pairs-p/pairs.html").is_file()
    assert main(["compare", "--pairs", "p.csv", "--losses", "iou,gio"]) == 1
    assert "did you mean 'giou'" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs/compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    chosen = read_config(path, StudyConfig)
    assert len(chosen.losses) >= 2
