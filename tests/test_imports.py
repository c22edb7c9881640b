"""A loss of a user's own: every command knows it by --import, trials get it, and nothing is imported unasked."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scenes import write_data

import boxloss as boxloss_package
from boxloss import LOSSES, BoxLoss, define, imports
from boxloss.cli import main
from boxloss.files import read_json
from boxloss.geometry import BoxPair
from boxloss.imports import copied, import_losses, refuse_what_others_cannot, split
from boxloss.study import Entrant, Local, StudyConfig, compare
from boxloss.training import TrainConfig

TEXT = '''
import torch

from boxloss import define
from boxloss.geometry import BoxPair
from boxloss.losses import NonNegative


@define(source="nobody", bounds=(0, 3))
def {name}_loss(pair: BoxPair, *, pull: NonNegative = 2.0) -> torch.Tensor:
    """DIoU with a stronger pull of the centers.

        1 − I/U + pull · ρ²/c²

    Args:
        {{common}}
        pull: the factor of the second term.

    Returns:
        ``(...)``, without unit.

    Raises:
        {{raises}}
    """
    return pair.iou_loss + pull * pair.center_ratio
'''


def forget():
    """As a new process."""
    imports._imported.clear()
    for module in [module for module in sys.modules if module.startswith(imports._PREFIX)]:
        del sys.modules[module]


@pytest.fixture(autouse=True)
def _only_ours():
    """Losses that a test defines are gone after it."""
    before = dict(LOSSES)
    yield
    forget()
    for name in LOSSES.keys() - before.keys():
        del LOSSES[name]


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my_losses.py"
    path.write_text(TEXT.format(name=f"own{os.getpid()}"))
    return path


def name_of(path):
    return path.read_text().partition("def ")[2].partition("_loss")[0]


SMALL = ["--train.size", "64", "--train.epochs", "1", "--train.network.scales", "2", "--train.network.anchors", "1"]
SMALL += ["--train.network.width", "4", "--train.batch", "4", "--seeds", "1", "--replicates", "2", "--workers", "1"]


def boxloss(*arguments, cwd):
    command = [sys.executable, "-m", "boxloss", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ["losses"],
        ["plot", "gradients", "--losses", "NAME:pull=3", "--case", "apart", "--out", "a.png"],
        ["playground", "--losses", "NAME,giou", "-o", "a.html"],
        ["simulate", "--losses", "NAME", "--rule", "exact", "--centres", "1", "--iterations", "2", "--out", "sim"],
        ["compare", "--pairs", "pairs.csv", "--losses", "NAME,giou", "--out", "pairs"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("spelling", ["--import FILE", "--import=FILE"])
def test_commands_know_it(own, tmp_path, monkeypatch, capsys, command, spelling):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text("px1,py1,px2,py2,gx1,gy1,gx2,gy2\n0,0,10,10,1,1,11,11\n0,0,10,10,4,1,11,19\n")
    name = name_of(own)
    arguments = [argument.replace("NAME", name) for argument in command]
    if command[0] != "losses":
        assert main(arguments) == 1
        assert f"no loss named '{name}'" in capsys.readouterr().err
    assert main([*arguments, *spelling.replace("FILE", "my_losses.py").split(" ")]) == 0
    out, _ = capsys.readouterr()
    if command[0] == "losses":
        assert f"{name}  DIoU with a stronger pull" in out


def test_train_evaluate_and_go_on(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", train=4, val=2)
    name = name_of(own)
    (tmp_path / "run.yaml").write_text(
        f"data: data\nloss: {name}\nsize: 64\nepochs: 1\nbatch: 4\nimports: [my_losses.py]\n"
        "network: {scales: 2, anchors: 1, width: 4}\n"
    )
    assert main(["train", "run.yaml", "--out", "run"]) == 0
    recorded = (tmp_path / "run/config.yaml").read_text()
    assert f"{own}#" in recorded
    del LOSSES[name]
    forget()
    assert main(["evaluate", "run"]) == 1
    assert f"run was made with losses of your own, from {own}: name that file with --import" in capsys.readouterr().err
    assert main(["evaluate", "run", "--import", "my_losses.py"]) == 0
    own.write_text(own.read_text() + "# changed\n")
    del LOSSES[name]
    forget()
    assert main(["evaluate", "run", "--import", "my_losses.py"]) == 1
    assert f"{own} has changed since run was made with it" in capsys.readouterr().err
    assert main(["train", "run.yaml", "--out", "run"]) == 1
    assert f"{own} has changed since run was made with it" in capsys.readouterr().err
    own.unlink()
    assert main(["train", "run.yaml", "--out", "run"]) == 1
    assert "no file my_losses.py" in capsys.readouterr().err


def test_compare_gives_it_to_its_trials_and_goes_on(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", train=4, val=2)
    name = name_of(own)
    command = ["compare", "--data", "data", "--losses", f"giou,{name}", *SMALL, "--out", "study"]
    done = boxloss(*command, "--import", own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "study/summary.json", "")
    assert list(summary["datasets"]["data"]["losses"]) == ["giou", name]
    (copy,) = (tmp_path / "study/imports").iterdir()
    assert copy.read_bytes() == own.read_bytes()
    # A trial that was lost is run again, with the user's file and not with the folder's copy.
    copy.write_text("raise SystemExit('run unasked')\n")
    (tmp_path / f"study/trials/data/{name}/0/result.json").unlink()
    assert boxloss(*command, cwd=tmp_path).returncode == 1
    done = boxloss(*command, "--import", own, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "study/summary.json", "") == summary
    own.write_text(own.read_text().replace("2.0", "3.0"))
    done = boxloss(*command, "--import", own, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{own} has changed since" in done.stderr


def test_a_file_that_only_this_process_can_import_is_refused_before_the_first_trial(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", train=4, val=2)
    (tmp_path / "helper_of_own.py").write_text("VALUE = 1\n")
    own.write_text("import helper_of_own\n" + own.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    (entry,) = import_losses([str(own)])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"a trial, a process of its own, cannot import it: .*helper_of_own"):
        refuse_what_others_cannot(copied([entry], tmp_path / "copies"))


def test_compare_from_python_says_what_trials_do_not_know(tmp_path):
    @define(source="nobody", bounds=(0, 3))
    def only_here_loss(pair: BoxPair) -> torch.Tensor:
        """Half.

        ½(1 − I/U)
        """
        return pair.iou_loss / 2

    config = StudyConfig(
        ["giou", Entrant("only_here")], seeds=1, train=TrainConfig(data=str(write_data(tmp_path / "d")))
    )
    with pytest.raises(
        ValueError, match=r"only_here is defined in test_imports, which trials, .*name that by --import"
    ):
        compare(config, tmp_path / "study", Local(1))
    assert not (tmp_path / "study").exists()


BAD = {
    "my_losses.py cannot be imported: ZeroDivisionError": "1/0",
    "my_losses.py cannot be imported: SyntaxError": "def",
    "my_losses.py cannot be imported: SystemExit": "raise SystemExit(3)",
    "my_losses.py cannot be imported: ValueError: giou_loss: there is a loss of this name": TEXT.format(name="giou"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_file_that_cannot_be_imported(own, tmp_path, monkeypatch, capsys, reason):
    monkeypatch.chdir(tmp_path)
    own.write_text(BAD[reason])
    assert main(["losses", "--import", "my_losses.py"]) == 1
    assert reason in capsys.readouterr().err
    assert not [module for module in sys.modules if module.startswith("boxloss_import_my_losses")]


@pytest.mark.parametrize("imports", ["5", "{a: 1}", "[5]", "x.py"])
def test_a_run_that_records_odd_imports_is_refused_in_words(tmp_path, capsys, imports):
    (tmp_path / "config.yaml").write_text(f"data: shapes\nloss: giou\nimports: {imports}\n")
    assert main(["evaluate", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("boxloss evaluate: error: ")


def test_what_cannot_be_named(tmp_path, capsys):
    for arguments, reason in (
        (["--import", str(tmp_path / "nothing.py")], "import: no file"),
        (["--import", "no_such_module_at_all"], "no_such_module_at_all cannot be imported: ModuleNotFoundError"),
        (["--import"], "--import: expected FILE.py or a module's name behind it"),
    ):
        assert main(["losses", *arguments]) == 1
        assert reason in capsys.readouterr().err


def test_a_module_and_its_digest(own, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    own.rename(tmp_path / f"module_of_own{os.getpid()}.py")
    (entry,) = import_losses([f"module_of_own{os.getpid()}"])
    name, digest = split(entry)
    assert (name, len(digest)) == (f"module_of_own{os.getpid()}", 64)
    with pytest.raises(ValueError, match=r"module_of_own.* has changed: expected the content .* digest 0{12}"):
        import_losses([f"{name}#{'0' * 64}"])


def test_a_file_imported_twice_is_imported_once_and_pickles(own):
    assert import_losses([str(own)]) == import_losses([str(own), str(own)])[:1]
    name = name_of(own)
    assert pickle.loads(pickle.dumps(LOSSES[name].function)) is LOSSES[name].function
    box = torch.tensor([[0.0, 0, 2, 2]])
    assert pickle.loads(pickle.dumps(BoxLoss(name, pull=3.0)))(box, box) == 0


def test_a_new_file_among_the_losses_is_read(tmp_path):
    """One block in one file is enough."""
    shutil.copytree(Path(boxloss_package.__file__).parent, tmp_path / "boxloss", ignore=shutil.ignore_patterns("csrc"))
    (tmp_path / "boxloss/losses/newest.py").write_text(
        TEXT.format(name="newest").replace("from boxloss import", "from ._define import")
    )
    code = (
        "import boxloss, boxloss.losses, torch; box = torch.tensor([[0.0, 0, 2, 2]]);"
        "print(boxloss.__file__, round(float(boxloss.newest_loss(box, box + 1)[0]), 6),"
        " boxloss.losses.newest_loss is boxloss.newest_loss,"
        " 'newest_loss' in boxloss.__all__, 'newest' in boxloss.LOSSES)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "boxloss/__init__.py"), "1.079365", *["True"] * 3]


def test_the_content_counts_in_the_hash(own):
    (entry,) = import_losses([str(own)])
    name, digest = split(entry)
    loss = name_of(own)
    there = TrainConfig(loss=loss, imports=[entry])
    elsewhere = TrainConfig(loss=loss, imports=[f"/other/place.py#{digest}"])
    changed = TrainConfig(loss=loss, imports=[f"{name}#{'0' * 64}"])
    assert there.hash() == elsewhere.hash() != changed.hash()
    assert there.same_run(elsewhere)
    assert not there.same_run(changed)
