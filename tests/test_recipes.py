"""The recipes of docs/integrations.md, as they stand there."""

from __future__ import annotations

import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from boxloss import eiou_loss

PAGE = (Path(__file__).parent.parent / "docs/integrations.md").read_text()
BOXES = (
    torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.2, 0.2]]),
    torch.tensor([[0.4, 0.5, 0.4, 0.2], [0.3, 0.5, 0.1, 0.2]]),
)


def recipe(title, loss="eiou"):
    (code,) = re.findall(rf"### {re.escape(title)}.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert code.count('"eiou"') == 1
    return code.replace('"eiou"', f'"{loss}"')


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed: make test-integrations")


def test_yolox():
    model = SimpleNamespace(head=SimpleNamespace(iou_loss=None))
    exec(recipe("YOLOX"), {"model": model})
    pred, target = (torch.cat((b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2), 1) for b in BOXES)
    torch.testing.assert_close(model.head.iou_loss(*BOXES), eiou_loss(pred, target))


@needs("rfdetr")
@pytest.mark.filterwarnings("default")
def test_rfdetr():
    from rfdetr.models.criterion import SetCriterion

    indices = [(torch.tensor([1, 0]), torch.tensor([0, 1]))]
    outputs = {"pred_boxes": BOXES[0][None]}
    targets = [{"boxes": BOXES[1], "labels": torch.tensor([0, 1])}]
    found = []
    for loss in (None, "giou", "eiou"):
        criterion = SetCriterion(3, None, {}, 0.25, ["boxes"])
        if loss:
            exec(recipe("RF-DETR", loss), {"criterion": criterion})
        found.append(criterion.loss_boxes(outputs, targets, indices, torch.tensor(2.0)))
    stock, giou, eiou = found
    torch.testing.assert_close(giou, stock, rtol=1e-5, atol=1e-6)
    assert eiou["loss_bbox"] == stock["loss_bbox"]
    assert eiou["loss_giou"] != stock["loss_giou"]


@needs("libreyolo")
@pytest.mark.filterwarnings("default")
def test_libreyolo():
    from libreyolo.models.yolo9.loss import YOLO9Loss

    masks = torch.tensor([[True, False, True]])
    pred, target = (torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0)).cumsum(-1) / 4).unbind()
    given = (pred, target, masks, torch.tensor([0.5, 2.0]), torch.tensor(3.0))
    found = []
    for loss in (None, "ciou", "eiou"):
        loss_function = YOLO9Loss(3, 16, [8, 16, 32], [64, 64], torch.device("cpu"))
        if loss:
            exec(recipe("LibreYOLO (YOLOv9)", loss), {"loss_function": loss_function})
        found.append(loss_function.box_loss(*given))
    stock, ciou, eiou = found
    torch.testing.assert_close(ciou, stock, rtol=1e-4, atol=1e-5)
    assert eiou != stock


class OutputLayers:
    """As detectron2's FastRCNNOutputLayers, so far as the recipe looks: shifts as deltas."""

    num_classes = 3
    box2box_transform = SimpleNamespace(apply_deltas=lambda deltas, boxes: boxes + deltas)


@pytest.mark.parametrize("per_class", [False, True])
def test_detectron2(per_class, monkeypatch):
    module = types.ModuleType("detectron2.modeling.roi_heads.fast_rcnn")
    module.FastRCNNOutputLayers = OutputLayers
    for name in ("detectron2", "detectron2.modeling", "detectron2.modeling.roi_heads"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    layers = type("Layers", (OutputLayers,), {})()
    exec(
        recipe("detectron2 (Faster R-CNN)"), {"model": SimpleNamespace(roi_heads=SimpleNamespace(box_predictor=layers))}
    )
    proposals = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 3], [2, 2, 9, 9], [0, 0, 1, 1]])
    truths, classes = proposals + 0.5, torch.tensor([1, 3, 2, 0])  # 3: the background
    deltas = torch.arange(48.0).view(4, 12) / 100 if per_class else torch.arange(16.0).view(4, 4) / 100
    rows = torch.stack([deltas[k].view(-1, 4)[c if per_class else 0] for k, c in ((0, 1), (2, 2), (3, 0))])
    expected = eiou_loss(proposals[[0, 2, 3]] + rows, truths[[0, 2, 3]]).sum() / 4
    torch.testing.assert_close(layers.box_reg_loss(proposals, truths, deltas, classes), expected)
