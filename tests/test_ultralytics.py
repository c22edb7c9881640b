"""ultralytics's adapter, and its detectors in a study. `make test-integrations` installs what this needs."""

from __future__ import annotations

import csv
import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from formats import records as drawn
from formats import write_yolo as write_drawn
from PIL import Image
from torch import nn
from variants import DEFAULTS

from boxloss import LOSSES, BoxLoss
from boxloss.cli import main
from boxloss.data import CocoImages, Pictures, find_data, read_annotations
from boxloss.integrations import ultralytics as adapter
from boxloss.study.detectors import DetectorConfig, check_detector
from boxloss.training import TrainConfig

pytestmark = [
    pytest.mark.skipif(find_spec("ultralytics") is None, reason="ultralytics is not installed: make test-integrations"),
    pytest.mark.filterwarnings("default"),
]
MODELS = ("yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml")
# A learning rate at which weights move from the first step on, or all columns but the loss would be the same anyway.
HOW = {
    "imgsz": 64,
    "batch": 8,
    "optimizer": "SGD",
    "lr0": 0.05,
    "warmup_epochs": 0,
    "device": "cpu",
    "workers": 0,
    "amp": False,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
}


few_images = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set as ultralytics reads it; ultralytics's own settings beside it."""
    from boxloss.study.detectors.ultralytics import write_yolo

    folder = tmp_path_factory.mktemp("ultralytics")
    before = dict(os.environ)
    (folder / "settings").mkdir()
    os.environ |= {"YOLO_CONFIG_DIR": str(folder / "settings"), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    parts = {}
    for name, source, count in zip(("train", "val"), find_data("shapes"), (24, 8), strict=True):
        few = read_annotations(source.annotations).part(lambda image, count=count: image["id"] <= count)
        parts[name] = CocoImages(few, source.images, (64, 64))
    write_yolo(folder / "data", parts)
    few_images.append(parts["train"])
    yield folder
    os.environ.clear()
    os.environ.update(before)


def new(name="yolo11n.yaml"):
    from ultralytics import YOLO

    return YOLO(name)


def train(model, folder, name, **more):
    options = HOW | {"data": str(folder / "data/data.yaml"), "epochs": 2, "project": str(folder), "name": name} | more
    model.train(**options)
    with (folder / name / "results.csv").open() as file:
        return [{key: value for key, value in row.items() if key.strip() != "time"} for row in csv.DictReader(file)]


def own(pred, target):
    """ultralytics's own loss, as a function of two box tensors."""
    from ultralytics.utils.metrics import bbox_iou

    return 1 - bbox_iou(pred, target, xywh=False, CIoU=True).squeeze(-1)


@pytest.mark.parametrize("name", MODELS)
def test_ultralyticss_own_loss_changes_nothing(name, folder):
    stock = train(new(name), folder, "stock")
    for loss, same in ((own, True), ("giou", False), ("l1", False)):
        model = new(name)
        attachment = adapter.attach(model, loss)
        assert (train(model, folder, "attached") == stock) == same, loss
        attachment.detach()
        assert not model.callbacks["on_train_start"] or all(
            not isinstance(known, adapter.Callback) for known in model.callbacks["on_train_start"]
        )
    assert len(stock) == 2


class Seen:
    """A loss that writes down what it is given."""

    def __init__(self):
        self.boxes = []

    def __call__(self, pred, target):
        self.boxes.append(target.detach().clone())
        return own(pred, target)


def test_units(folder):
    grid, pixels = Seen(), Seen()
    for loss, units in ((grid, "grid"), (pixels, "px")):
        model = new()
        adapter.attach(model, loss, units=units)
        train(model, folder, "units", epochs=1, optimizer="SGD", lr0=0.0)
    factors = {
        round(float(factor))
        for a, b in zip(grid.boxes[:3], pixels.boxes[:3], strict=True)
        for factor in (b[:, 2:] / a[:, 2:]).flatten()
    }
    assert factors <= {8, 16, 32}
    assert len(factors) > 1
    assert adapter.default_units(adapter.PerPair("l1")) == "px"
    assert adapter.default_units(adapter.PerPair("ciou")) == "grid"


def test_both_branches_and_the_moving_average(folder):
    model = new("yolo26n.yaml")
    attachment = adapter.attach(model, "giou")
    (callback,) = (known for known in model.callbacks["on_train_start"] if isinstance(known, adapter.Callback))
    kinds = []
    model.add_callback("on_train_end", lambda trainer: kinds.extend(type(c.bbox_loss) for c in callback._changed))
    train(model, folder, "branches", epochs=1)
    assert kinds == [adapter.Replaced] * 4
    changed = list(callback._changed)
    attachment.detach()
    assert [type(criterion.bbox_loss).__name__ for criterion in changed] == ["BboxLoss"] * 4


def test_a_checkpoint_needs_no_boxloss_and_a_resumed_training_has_the_loss(folder):
    class StopError(Exception):
        pass

    def stop(trainer):
        if trainer.epoch == 1:
            raise StopError

    def start(how):
        model = new("yolo26n.yaml")
        adapter.attach(model, "giou")
        return train(model, folder, how, epochs=3)

    whole = start("whole")
    model = new("yolo26n.yaml")
    adapter.attach(model, "giou")
    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(StopError):
        train(model, folder, "cut", epochs=3)
    last = folder / "cut/weights/last.pt"
    program = (
        f"import sys; sys.modules['boxloss'] = None; from ultralytics import YOLO; print(YOLO({str(last)!r}).task)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("detect")

    from ultralytics import YOLO

    model = YOLO(last)
    seen = Seen()
    attachment = adapter.attach(model, seen)
    model.train(resume=True)
    assert seen.boxes
    with (folder / "cut/results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(whole) == 3
    attachment.detach()


def test_the_callback_is_pickled_for_other_processes(folder):
    model = new()
    adapter.attach(model, BoxLoss("smooth_l1", beta=2.0))
    (callback,) = (known for known in model.callbacks["on_train_start"] if isinstance(known, adapter.Callback))
    program = "import pickle, sys; print(repr(pickle.load(sys.stdin.buffer).loss))"
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(callback), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "smooth_l1(beta=2.0)"


def test_it_says_what_is_active(folder, caplog):
    model = new()
    adapter.attach(model, "eiou")
    from ultralytics.utils import LOGGER

    lines = []
    kept, LOGGER.info = LOGGER.info, lambda text, *rest: lines.append(text)
    try:
        train(model, folder, "said", epochs=1)
    finally:
        LOGGER.info = kept
    (line,) = (line for line in lines if "boxloss" in str(line))
    assert line.endswith("DetectionTrainer: eiou of boxes in cells in the place of ciou")


def test_oriented_boxes_are_refused(folder):
    from ultralytics.nn.tasks import OBBModel

    model = OBBModel("yolo11n-obb.yaml", nc=2, verbose=False)
    model.args = type("Args", (), {"box": 7.5, "cls": 0.5, "dfl": 1.5, "angle": 1.0})()
    with pytest.raises(TypeError, match=r"oriented boxes \(obb\) have five numbers"):
        adapter.criterions(model)
    for name, message in (("yolo11n-obb.yaml", "oriented boxes"), ("yolo11n-cls.yaml", "got ClassificationModel")):
        with pytest.raises(TypeError, match=message):
            adapter.attach(new(name), "giou")


@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
def test_boxes_without_area_train_on(name, required, folder):
    from ultralytics.utils.loss import BboxLoss

    replaced = adapter.stand_in(BboxLoss(16), BoxLoss(name, **required))
    points = torch.tensor([[4.0, 4], [6, 6]])
    pred = points.repeat(1, 2)[None].requires_grad_()  # every predicted box is a point
    term, _ = replaced(
        pred_dist=torch.zeros(1, 2, 64),
        pred_bboxes=pred,
        anchor_points=points,
        target_bboxes=torch.tensor([[[2.0, 2, 7, 5], [5, 5, 8, 8]]]),
        target_scores=torch.ones(1, 2, 3),
        target_scores_sum=torch.tensor(6.0),
        fg_mask=torch.ones(1, 2, dtype=torch.bool),
        imgsz=torch.tensor([64.0, 64.0]),
        stride=torch.full((2, 1), 8.0),
    )
    term.backward()
    assert term.isfinite()
    assert pred.grad.isfinite().all()


class OtherTerm(nn.Module):
    def forward(self, boxes, targets):
        return boxes.sum(), targets.sum()


def test_another_signature_is_refused(folder):
    with pytest.raises(
        NotImplementedError, match=r"OtherTerm.forward.* has no pred_bboxes, .*supported: ultralytics 8.4"
    ):
        adapter.stand_in(OtherTerm(), "giou")


def test_bad_input(folder):
    model = new()
    with pytest.raises(ValueError, match="units: expected one of px, grid, got 'cm'"):
        adapter.attach(model, "l1", units="cm")
    with pytest.raises(TypeError, match="expected a YOLO or a trainer of ultralytics, got Linear"):
        adapter.attach(nn.Linear(1, 1), "l1")
    adapter.attach(model, "l1")
    with pytest.raises(ValueError, match="attached already"):
        adapter.attach(model, "giou")


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_convention(name, folder):
    from ultralytics.utils.metrics import bbox_iou

    flags = {} if name == "iou" else {{"giou": "GIoU", "diou": "DIoU", "ciou": "CIoU"}[name]: True}
    draw = torch.Generator().manual_seed(0)
    low = 50 * torch.rand(2, 500, 2, generator=draw, dtype=torch.float64)
    pred, target = torch.cat((low, low + 1 + 50 * torch.rand(2, 500, 2, generator=draw, dtype=torch.float64)), 2)
    expected = 1 - bbox_iou(pred, target, xywh=False, **flags).squeeze(-1)
    torch.testing.assert_close(BoxLoss(name, convention="ultralytics", reduction="none")(pred, target), expected)


# -- in a study ------------------------------------------------------------------------------------------------------

STUDY = """
losses: [own, giou]
seeds: 2
detector: ultralytics:yolo11n.yaml
train: {data: shapes, subset: {images: 16, val_images: 8}, size: 64, epochs: 2, batch: 8}
"""


def test_a_study_ends_in_a_report(folder, tmp_path, monkeypatch):
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    out = Path("out")  # relative: ultralytics has a folder of its own for these
    assert main(["compare", "study.yaml", "--out", "out"]) == 0
    assert (out / "trials/shapes/giou/0/ultralytics/run/results.csv").is_file()
    summary = json.loads((out / "summary.json").read_text())
    (dataset,) = summary["datasets"].values()
    assert [len(figures["seeds"]) for figures in dataset["losses"].values()] == [2, 2]
    assert dataset["losses"]["own"]["gains"] == [1.0, 1.0]
    assert all(0.1 < gain < 10 for gain in dataset["losses"]["giou"]["gains"])
    assert len(set(dataset["losses"]["giou"]["gains"])) == 2
    assert "ultralytics:yolo11n.yaml" in (out / "report.html").read_text()
    log = (out / "trials/shapes/giou/0/log.txt").read_text()
    assert "giou of boxes in cells in the place of ciou" in log
    assert main(["compare", "study.yaml", "--out", "out"]) == 0  # nothing is left to train


def config(detector="ultralytics:yolo11n.yaml", options=None, **train):
    return DetectorConfig.of(TrainConfig(**{"size": 64} | train), detector, options or {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": "ultralytics:yolo99z.yaml"}, "yolo99z.yaml' does not exist"),
        ({"detector": "ultralytics:yolo11n.pt"}, "expected a model's YAML"),
        ({"detector": "ultralytics:yolo11n-obb.yaml"}, "detects upright boxes, got .*: obb"),
        ({"detector": "ultralytics:rtdetr-l.yaml"}, "none that YOLO can train"),
        ({"options": {"mosiac": 0.0}}, "detector_options: 'mosiac' is not a valid"),
        ({"options": {"lr0": "much"}}, "detector_options: 'lr0=much' is of invalid type"),
        ({"options": {"save_dir": "x"}}, "detector_options: save_dir: the study gives it"),
        ({"options": {"pretrained": "nowhere.pt"}}, "pretrained: no file nowhere.pt, and nothing is downloaded"),
        ({"options": {"epochs": 3}}, "detector_options: epochs: the study gives it"),
        ({"size": (64, 96)}, "trains on squares"),
    ],
)
def test_bad_detectors(changes, message, folder):
    with pytest.raises((ValueError, OSError), match=message):
        check_detector(config(**changes), few_images[0])


def test_a_bad_model_is_refused_in_words(folder, tmp_path):
    (tmp_path / "bad.yaml").write_text("nc: 3\nbackbone: [[-1, 1, Convv, [16, 3, 2]]]\nhead: []\n")
    with pytest.raises(ValueError, match=r"bad\.yaml is none that YOLO can train: KeyError: 'Convv'"):
        check_detector(config(f"ultralytics:{tmp_path / 'bad.yaml'}"), few_images[0])


def test_images_that_ultralytics_would_turn_mend_or_pass_over_are_written_anew(tmp_path, folder):
    """Of the others it gets links. It mends a JPEG that lacks its end in place, which would be the user's."""
    from boxloss.study.detectors.ultralytics import _give_image

    picture = Image.new("RGB", (20, 12), (200, 30, 30))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("plain.jpg", "plain.png", "animation.gif"):
        picture.save(tmp_path / name)
    picture.save(tmp_path / "turned.jpg", exif=turned)
    whole = (tmp_path / "plain.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole + b"\0")
    (tmp_path / "jpeg.png").write_bytes(whole)
    (tmp_path / "nothing").write_bytes(whole)
    records = [{"file_name": path.name, "width": 20, "height": 12} for path in sorted(tmp_path.iterdir())]
    upright = {"file_name": "turned.jpg", "width": 12, "height": 20}
    linked = {}
    for k, record in enumerate([*records, upright]):
        pictures = Pictures([record], tmp_path, tmp_path)
        place = tmp_path / "given" / f"{k}"
        place.parent.mkdir(exist_ok=True)
        _give_image(SimpleNamespace(path=lambda k, known=pictures: known.paths[k], pictures=pictures), 0, place)
        (given,) = place.parent.glob(f"{place.name}.*")
        linked[record["file_name"]] = given.is_symlink()
        with Image.open(given) as image:
            assert image.size == (record["width"], record["height"])
            assert image.getexif().get(0x0112, 1) == 1
    assert [name for name, link in linked.items() if link] == ["plain.jpg", "plain.png"]


READERS = {
    "as written": lambda root: None,
    "a polygon": lambda root: (root / "labels/train/a00.txt").write_text("2 0.25 0.5 0.5 0.25 0.75 0.75\n"),
    "a picture without labels": lambda root: (root / "labels/train/a00.txt").unlink(),
    "lists of pictures": lambda root: _listed(root),
    "a turned picture": lambda root: _turned(root / "images/train/a00.png"),
}


def _listed(root):
    for part in ("train", "val"):
        names = sorted(path.name for path in (root / "images" / part).iterdir())
        (root / f"{part}.txt").write_text("".join(f"./images/{part}/{name}\n" for name in names))
    text = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(text.replace("images/train", "train.txt").replace("images/val", "val.txt"))


def _turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()


@pytest.mark.parametrize("kind", READERS)
def test_ultralytics_reads_the_same_boxes_of_a_data_set(tmp_path, folder, kind):
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    write_drawn(tmp_path, {"train": drawn(1, 9, "a"), "val": drawn(2, 5, "b")})
    READERS[kind](tmp_path)
    checked = check_det_dataset(str(tmp_path / "data.yaml"), autodownload=False)
    for part in ("train", "val"):
        found = read_annotations(tmp_path, part=part)
        theirs = {}
        for label in YOLODataset(img_path=checked[part], data=checked, imgsz=64, augment=False).labels:
            height, width = label["shape"]
            size = torch.tensor([width, height] * 2)
            boxes = torch.as_tensor(label["bboxes"]).view(-1, 4) * size
            theirs[Path(label["im_file"]).name] = ((width, height), label["cls"].ravel().tolist(), boxes)
        assert len(theirs) == len(found.coco["images"])
        for image in found.coco["images"]:
            size, classes, boxes = theirs[image["file_name"]]
            ours = found.by_image()[image["id"]]
            assert size == (image["width"], image["height"])
            assert [box["category_id"] - 1 for box in ours] == classes
            corner = torch.tensor([box["bbox"] for box in ours]).view(-1, 4)
            center = torch.cat((corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]), 1)
            torch.testing.assert_close(center, boxes, atol=1e-3, rtol=0)
    assert checked["names"] == dict(enumerate(found.categories))
