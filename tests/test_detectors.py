"""Detectors of other libraries in a study: torchvision's, with a small network in the place of ResNet-50."""

from __future__ import annotations

import json

import pytest
import torch
from scenes import write_data
from test_integrations import Backbone
from test_training import Stop, StoppingReport
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from boxloss.cli import main
from boxloss.config import write_config
from boxloss.study import Entrant, StudyConfig, compare
from boxloss.study.config import DetectorConfig
from boxloss.study.detectors import check_detector
from boxloss.study.detectors.torchvision import BUILDERS, DetectorTrainer
from boxloss.study.trial import read_trial, run_trial
from boxloss.training import Match, Network, Optimizer, Report, Terms, TrainConfig
from boxloss.training.folder import read_metrics
from boxloss.training.setup import read_data


def small_fcos(weights, weights_backbone, **options):
    return FCOS(Backbone(), anchor_generator=AnchorGenerator(((8,), (16,)), ((1.0,),) * 2), **options)


def small_retinanet(weights, weights_backbone, **options):
    return RetinaNet(Backbone(), anchor_generator=AnchorGenerator(((16,), (32,)), ((1.0, 2.0),) * 2), **options)


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    monkeypatch.setitem(BUILDERS, "fcos", small_fcos)
    monkeypatch.setitem(BUILDERS, "retinanet", small_retinanet)
    monkeypatch.setenv("BOXLOSS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def training(data, **changes):
    return TrainConfig(**{"data": str(data), "size": 64, "epochs": 2, "batch": 4, "threads": 1} | changes)


def config(data, detector="torchvision:fcos", options=None, loss="own", match=None, **changes):
    of = DetectorConfig.of(training(data, **changes), detector, options or {})
    return DetectorConfig(**vars(of) | {"loss": loss, "match": Match(match)})


class Here:
    """An executor of this process."""

    def run(self, folders, threads):
        for folder in folders:
            run_trial(folder)
            yield folder, ""


def test_a_study(data, tmp_path):
    losses = ["own", "giou", Entrant("smooth_l1", "soft", {"beta": 2.0})]
    chosen = StudyConfig(
        losses, seeds=2, detector="torchvision:fcos", train=training(data, evaluate_every=1), replicates=20
    )
    summary = compare(chosen, tmp_path, Here())
    ((_, dataset),) = summary["datasets"].items()
    gains = {loss: figures["gains"] for loss, figures in dataset["losses"].items()}
    assert gains["own"] == [1.0, 1.0]
    assert gains["giou"] == pytest.approx([1.0, 1.0], rel=1e-4)  # which is FCOS's own
    assert max(gains["soft"]) < 1  # pixels are large numbers
    assert not summary["failed"]
    page = (tmp_path / "report.html").read_text()
    assert "Network: torchvision:fcos; input 64 × 64 pixels" in " ".join(page.split())
    assert (tmp_path / "figures").is_dir()
    before = (tmp_path / "summary.json").read_bytes()
    compare(chosen, tmp_path, Here())
    assert (tmp_path / "summary.json").read_bytes() == before


def test_the_loss_is_the_only_change(data, tmp_path):
    """Own loss by name through the adapter trains to the same figures; another does not."""
    rows = {}
    for loss in ("own", "giou", "eiou"):
        trainer = DetectorTrainer(config(data, loss=loss), tmp_path / loss, Report())
        start = [p.detach().clone() for p in trainer.model.parameters()]
        rows[loss] = start
        trainer.run()
        rows[loss] = (start, read_metrics(tmp_path / loss))
    for loss in ("giou", "eiou"):
        assert all(map(torch.equal, rows["own"][0], rows[loss][0]))
    own, giou, eiou = ([row["box"] for row in rows[loss][1]] for loss in rows)
    assert giou == pytest.approx(own, rel=1e-4)
    assert eiou != pytest.approx(own, rel=1e-2)
    first = [rows[loss][1][0]["classification"] for loss in rows]
    assert first[1] == pytest.approx(first[0], rel=1e-4)


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
def test_it_learns(kind, data, tmp_path):
    chosen = config(data, f"torchvision:{kind}", loss="giou", epochs=8, optimizer=Optimizer(1e-3, warmup=0))
    trainer = DetectorTrainer(chosen, tmp_path, Report())
    trainer.run()
    totals = [row["total"] for row in read_metrics(tmp_path)]
    assert totals[-1] < 0.8 * totals[0]
    found = trainer.detections()
    sizes = {record["id"]: (record["width"], record["height"]) for record in trainer.data.val.records}
    for one in found:
        x, y, w, h = one["bbox"]
        assert min(x, y, w, h) >= 0
        assert (x + w, y + h) <= tuple(side + 1e-3 for side in sizes[one["image_id"]])
        assert one["category_id"] in (1, 2)


def test_a_trial_that_was_killed_ends_the_same(data, tmp_path):
    chosen = config(data, loss="ciou", match="own", checkpoint_seconds=0.0)
    whole = DetectorTrainer(chosen, tmp_path / "whole", Report())
    whole.run()
    with pytest.raises(Stop):
        DetectorTrainer(chosen, tmp_path / "cut", StoppingReport(4)).run()
    again = DetectorTrainer(chosen, tmp_path / "cut", Report())
    again.run()
    assert again.gain == whole.gain != 1.0
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_the_matched_gain_makes_gradients_as_long(data, tmp_path):
    """Of one batch, by hand: of the box term alone, at the raw outputs, before FCOS cuts them off at 0."""
    chosen = config(data, loss="l1", match="own", batch=12)
    trainer = DetectorTrainer(chosen, tmp_path, Report())
    batch = next(trainer._batches(0, 0))
    trainer._training_mode()
    own, wanted = trainer._norms(0, batch)
    norms = {}
    for loss in ("own", "l1"):
        other = DetectorTrainer(config(data, loss=loss, batch=12), tmp_path / loss, Report())
        other._training_mode()
        raw = []
        head = other.model.head.regression_head
        kept = head.bbox_reg.forward
        head.bbox_reg.forward = lambda x, raw=raw, kept=kept: raw.append(kept(x)) or raw[-1]
        slopes = torch.autograd.grad(other._losses(0, 0, batch)["bbox_regression"], raw)
        norms[loss] = sum(float((slope**2).sum()) for slope in slopes) ** 0.5
    assert (own, wanted) == pytest.approx((norms["l1"], norms["own"]), rel=1e-5)


def test_the_gain_of_the_same_function_is_1_where_boxes_are_cut_off(data, tmp_path):
    trainer = DetectorTrainer(config(data, loss="giou", match="own"), tmp_path, Report())
    torch.nn.init.normal_(trainer.model.head.regression_head.bbox_reg.weight, std=1.0)
    trainer._training_mode()
    batch = next(trainer._batches(0, 0))
    outputs = trainer.model.head.regression_head(list(trainer.model.backbone(batch.images.float() / 255).values()))[0]
    assert (outputs == 0).any()
    own, wanted = trainer._norms(0, batch)
    assert own == pytest.approx(wanted, rel=1e-5)


def test_a_model_in_a_file_counts_by_its_content(data, tmp_path):
    model = tmp_path / "mine.yaml"
    hashes = []
    for content in ("nc: 2", "nc: 3", "nc: 2"):
        model.write_text(content)
        hashes.append(config(data, f"ultralytics:{model}").hash())
    assert hashes[0] == hashes[2] != hashes[1]


def test_its_configuration_is_read_back(data, tmp_path):
    chosen = config(data, loss="ciou", options={"topk_candidates": 100})
    write_config(tmp_path / "a.yaml", chosen)
    write_config(tmp_path / "b.yaml", training(data))
    assert read_trial(tmp_path / "a.yaml") == chosen
    assert "network" not in (tmp_path / "a.yaml").read_text()  # it means nothing here
    assert read_trial(tmp_path / "b.yaml") == training(data)
    assert type(read_trial(tmp_path / "b.yaml")) is TrainConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": "detectron"}, "expected torchvision:fcos, .* or ultralytics:<model.yaml>, got 'detectron'"),
        ({"detector": "torchvision:"}, "detector: expected torchvision:fcos"),
        ({"detector_options": {"a": 1}}, "detector_options: they are of another library's detector"),
        ({"losses": ["darknet"], "detector": "torchvision:fcos"}, "no loss named 'darknet'.*and 'own'"),
        ({"losses": ["own"]}, "'own' is the loss of another library's detector; expected a detector"),
        (
            {"losses": [Entrant("own", parameters={"beta": 1.0})], "detector": "torchvision:fcos"},
            "loss_parameters: 'own' has none",
        ),
        (
            {"detector": "torchvision:fcos", "train": TrainConfig(network=Network(scales=2))},
            "train.network: it is of boxloss's own detector",
        ),
        (
            {"detector": "ultralytics:yolo11n.yaml", "train": TrainConfig(terms=Terms(objectness="iou"))},
            "train.terms: it is of boxloss's own detector",
        ),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        StudyConfig(**{"losses": ["ciou"]} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"detector": "torchvision:ssd"},
            "expected one of torchvision:fcos, torchvision:retinanet, got 'torchvision:ssd'",
        ),
        ({"options": {"topk": 100}}, "torchvision:fcos has no topk; .*topk_candidates"),
        ({"options": {"anchor_generator": "x"}}, "detector_options: torchvision:fcos: TypeError"),
        ({"options": {"score_thresh": 0.1}}, "score_thresh: the study gives it"),
    ],
)
def test_bad_detectors(changes, message, data):
    chosen = config(data, **changes)
    with pytest.raises(ValueError, match=message):
        check_detector(chosen, read_data(chosen).train)


def test_a_library_that_is_not_there_is_named_before_training(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ultralytics", None)
    (tmp_path / "study.yaml").write_text(
        json.dumps({"losses": ["own"], "detector": "ultralytics:yolo11n.yaml", "train": {"data": str(data)}})
    )
    assert main(["compare", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]) == 1
    assert "ultralytics:yolo11n.yaml needs ultralytics: pip install ultralytics (AGPL-3.0" in capsys.readouterr().err
    assert not (tmp_path / "out/trials").exists()
