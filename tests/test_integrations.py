"""The adapters: what they share, torchvision's, and mmdet's module, which needs torch alone."""

from __future__ import annotations

import copy
import logging
import pickle
from functools import partial

import pytest
import torch
import torchvision.ops
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from variants import DEFAULTS

from boxloss import LOSSES, BoxLoss, GIoULoss, giou_loss, iou_loss
from boxloss.conventions import CONVENTIONS, meaning
from boxloss.integrations import Attachment
from boxloss.integrations import mmdet as mmdet_adapter
from boxloss.integrations.torchvision import attach

SIDE = 64
IMAGES = [torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(k)) for k in range(3)]
TARGETS = [
    {"boxes": torch.tensor([[4.0, 4, 34, 30], [30, 20, 60, 60]]), "labels": torch.tensor([1, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},  # an image without boxes
    {"boxes": torch.tensor([[10.0, 2, 58, 26]]), "labels": torch.tensor([2])},
]


class Backbone(nn.Module):
    """Two scales of few channels."""

    out_channels = 32

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 32, 8, 8), nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, x):
        fine = self.stem(x).relu()
        return {"0": fine, "1": self.down(fine)}


def make(kind, **options):
    torch.manual_seed(0)
    sizes = {"min_size": SIDE, "max_size": SIDE, "num_classes": 3}
    if kind is FCOS:
        options["anchor_generator"] = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    else:
        anchors = AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2)
        options["rpn_anchor_generator" if kind is FasterRCNN else "anchor_generator"] = anchors
    if kind is FasterRCNN:
        options["box_roi_pool"] = torchvision.ops.MultiScaleRoIAlign(["0", "1"], 7, 2)
    return kind(Backbone(), **sizes, **options)


def retinanet_giou():
    model = make(RetinaNet)
    model.head.regression_head._loss_type = "giou"
    return model


# A detector, torchvision's own loss as one of ours, and where it is compared.
STOCK = {
    "fcos": (lambda: make(FCOS), "giou", {}),
    "retinanet": (lambda: make(RetinaNet), "l1", {"space": "deltas"}),
    "retinanet-giou": (retinanet_giou, "giou", {}),
    "faster-rcnn": (lambda: make(FasterRCNN), BoxLoss("smooth_l1", beta=1 / 9), {"space": "deltas"}),
}
BOX = {"bbox_regression", "loss_box_reg", "loss_rpn_box_reg"}


def terms(model):
    torch.manual_seed(1)  # of the sampled anchors and proposals
    return model.train()(IMAGES, copy.deepcopy(TARGETS))


def printed(model):
    return {name: f"{value:.6f}" for name, value in terms(model).items()}


@pytest.mark.parametrize("name", STOCK)
def test_torchvisions_own_loss_changes_nothing(name):
    build, own, options = STOCK[name]
    model = build()
    before, keys, classes = printed(model), list(model.state_dict()), [type(m) for m in model.modules()]
    attachment = attach(model, own, **options)
    assert printed(model) == before
    assert list(model.state_dict()) == keys
    assert printed(copy.deepcopy(model)) == before
    assert printed(pickle.loads(pickle.dumps(model))) == before
    attachment.detach()
    attachment.detach()
    assert [type(m) for m in model.modules()] == classes
    assert printed(model) == before


@pytest.mark.parametrize("name", STOCK)
def test_another_loss_changes_the_box_terms_alone(name):
    """The other terms stand for the matching, which is left alone."""
    build, own, _ = STOCK[name]
    other = "eiou" if own != "eiou" else "giou"
    model = build()
    before = terms(model)
    attach(model, other)
    after = terms(model)
    for key in before:
        assert torch.equal(before[key], after[key]) == (key not in BOX), key
    sum(after.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_copy_computes_with_the_loss_it_was_given():
    model = make(FCOS)
    attach(model, lambda pred, target: 7.0 + 0.0 * pred.sum(-1))
    assert terms(copy.deepcopy(model))["bbox_regression"].item() == 7.0


@pytest.mark.parametrize("parts", [["rpn"], ["box_head"]])
def test_parts_of_an_rcnn(parts):
    model = make(FasterRCNN)
    before = terms(model)
    attach(model, "giou", parts=parts)
    after = terms(model)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"loss_rpn_box_reg" if parts == ["rpn"] else "loss_box_reg"}


def points():
    """FCOS whose predicted distances are all cut off at 0: every box is a point, as at an unlucky start."""
    model = make(FCOS)
    nn.init.zeros_(model.head.regression_head.bbox_reg.weight)
    nn.init.zeros_(model.head.regression_head.bbox_reg.bias)
    return model


def train(model, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    values = []
    for _ in range(steps):
        total = sum(terms(model).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    return values


@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
def test_boxes_without_area_train_on(name, required):
    model = points()
    attach(model, BoxLoss(name, **required))
    values = train(model)
    assert all(map(torch.isfinite, map(torch.tensor, values)))
    assert all(p.isfinite().all() for p in model.parameters())


def test_boxes_without_area_are_nan_with_torchvisions_ciou():
    """What the test above is there for."""
    model = points()
    attach(model, torchvision.ops.complete_box_iou_loss)
    assert torch.tensor(train(model)).isnan().all()


class OwnHead(FCOSHead):
    pass


def test_a_detector_of_ones_own_heads():
    model = make(FCOS, head=OwnHead(32, 1, 3, num_convs=1))
    before = printed(model)
    attachment = attach(model, "giou")
    assert printed(model) == before
    assert isinstance(model.head, OwnHead)
    assert printed(pickle.loads(pickle.dumps(model))) == before
    attachment.detach()
    assert type(model.head) is OwnHead


def test_another_signature_is_refused():
    class Head(FCOSHead):
        def compute_loss(self, targets, outputs):
            return {}

    model = make(FCOS, head=Head(32, 1, 3, num_convs=1))
    with pytest.raises(NotImplementedError, match=r"torchvision .*compute_loss.* has no head_outputs.*supported"):
        attach(model, "giou")
    assert type(model.head) is Head


class AlmostRetinaNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = RetinaNetHead(32, 1, 3)


BAD = {
    "loss-name": (lambda: attach(make(FCOS), "giuo"), ValueError, "did you mean 'giou'"),
    "loss-kind": (lambda: attach(make(FCOS), 3), TypeError, "expected a name, a BoxLoss or a function"),
    "box-format": (lambda: attach(make(FCOS), BoxLoss("iou", box_format="xywh")), ValueError, "box_format 'xyxy'"),
    "normalized": (
        lambda: attach(make(FCOS), BoxLoss("focal_eiou", normalize_weight=True)),
        ValueError,
        "its own divisor",
    ),
    "space": (lambda: attach(make(RetinaNet), "giou", space="pixels"), ValueError, "space: expected one of boxes"),
    "deltas": (lambda: attach(make(RetinaNet), "giou", space="deltas"), ValueError, "deltas are no boxes.*l1, l2"),
    "fcos-deltas": (lambda: attach(make(FCOS), "l1", space="deltas"), ValueError, "FCOS compares boxes"),
    "parts": (lambda: attach(make(FasterRCNN), "giou", parts=["head"]), ValueError, "parts: expected a list of rpn"),
    "parts-text": (lambda: attach(make(FasterRCNN), "giou", parts="rpn"), ValueError, "parts: expected a list"),
    "class": (lambda: attach(make(FCOS), GIoULoss), TypeError, "expected a name, a BoxLoss or a function"),
    "parts-of-fcos": (lambda: attach(make(FCOS), "giou", parts=["rpn"]), ValueError, "FCOS is no R-CNN"),
    "model-name": (lambda: attach("fcos", "giou"), TypeError, "expected torchvision's FCOS.*got str"),
    "model": (lambda: attach(nn.Linear(1, 1), "giou"), TypeError, "expected torchvision's FCOS.*got Linear"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        call()


def test_one_loss_at_a_time():
    model = make(FCOS)
    attachment = attach(model, "giou")
    with pytest.raises(ValueError, match="attached already; detach"):
        attach(model, "ciou")
    attachment.detach()
    attach(model, "ciou")


def test_a_function_that_reduces_is_refused():
    model = make(FCOS)
    attach(model, partial(torchvision.ops.generalized_box_iou_loss, reduction="sum"))
    with pytest.raises(ValueError, match=r"expected one number per pair, \(\d+,\), got \(\)"):
        terms(model)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda pred, target: None, "got a NoneType"),
        (lambda pred, target: 1.0, "got a float"),
        (lambda pred, target: giou_loss(pred.detach(), target), "got one without gradient"),
    ],
)
def test_a_function_without_gradient_is_refused(loss, message):
    model = make(FCOS)
    attach(model, loss)
    with pytest.raises(TypeError, match=f"expected a tensor with a gradient by pred, {message}"):
        terms(model)


class Scaled(BoxLoss):
    """Of a user: with a factor to be learned."""

    def __init__(self):
        super().__init__("giou")
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, pred, target):
        return self.factor * super().forward(pred, target)


def test_a_loss_with_parameters_of_its_own_keeps_them():
    loss, model = Scaled(), make(FCOS)
    attach(model, loss)
    terms(model)["bbox_regression"].backward()
    assert loss.factor.grad > 0
    assert loss.reduction == "mean"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("space", ["boxes", "deltas"])
def test_deltas_under_autocast_are_decoded_with_all_digits(dtype, space):
    """Corners at 1000 pixels have no digits behind the point in halves; torchvision encodes in float32, too."""
    model = make(FasterRCNN)
    attach(model, "l1", space=space)
    heads = model.roi_heads
    anchors = torch.tensor([[1000.0, 900, 1010, 915]])
    truths = torch.tensor([[1001.3, 901.7, 1011.1, 913.9]])
    deltas = torch.tensor([[0.1, 0.2, -0.1, 0.05]], dtype=dtype)
    assert heads._sum(heads.box_coder, deltas, anchors, truths) == heads._sum(
        heads.box_coder, deltas.float(), anchors, truths
    )


def test_it_says_once_what_is_active(caplog):
    model = AlmostRetinaNet()
    with caplog.at_level(logging.INFO, "boxloss"):
        attachment = attach(model, BoxLoss("cdiou", penalty_weight=0.5, gain=2.0))
    (line,) = caplog.messages
    assert line.endswith(
        "AlmostRetinaNet: cdiou(penalty_weight=0.5, gain=2) of boxes in pixels in the place of l1 of deltas"
    )
    assert repr(attachment) == f"<attached: {line}>"
    attachment.detach()
    assert repr(attachment).startswith("<detached")
    assert isinstance(attachment, Attachment)


def test_a_gain_counts_and_a_reduction_does_not():
    model = make(FCOS)
    attach(model, BoxLoss("giou", reduction="sum", gain=2.0))
    doubled = terms(model)["bbox_regression"]
    assert torch.isclose(doubled, 2 * terms(make(FCOS))["bbox_regression"])


# -- mmdet: torch alone ----------------------------------------------------------------------------------------------

PRED = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 4], [5, 5, 6, 6]], requires_grad=True)
TARGET = torch.tensor([[1.0, 1, 3, 3], [0, 1, 2, 3], [5, 5, 6, 6]])


def test_mmdets_protocol():
    each = iou_loss(PRED, TARGET)  # 6/7, 1/2, 0
    loss = mmdet_adapter.MMDetBoxLoss("iou", loss_weight=2.0)
    weight = torch.tensor([1.0, 0.5, 1.0])
    assert torch.equal(loss(PRED, TARGET), 2 * each.sum() / 3)
    assert torch.equal(loss(PRED, TARGET, reduction_override="none"), 2 * each)
    assert torch.equal(loss(PRED, TARGET, weight, reduction_override="sum"), 2 * (each * weight).sum())
    assert torch.equal(loss(PRED, TARGET, weight[:, None].expand(3, 4), reduction_override="none"), 2 * each * weight)
    assert torch.isclose(loss(PRED, TARGET, weight, avg_factor=5), 2 * (each * weight).sum() / 5)
    assert torch.isclose(loss(PRED, TARGET, avg_factor=torch.tensor(5.0)), 2 * each.sum() / 5)
    empty = loss(PRED[:0], TARGET[:0], avg_factor=0)
    assert empty == 0
    assert empty.requires_grad
    with pytest.raises(ValueError, match="avg_factor: expected reduction 'mean' or 'none'"):
        loss(PRED, TARGET, avg_factor=5, reduction_override="sum")
    with pytest.raises(ValueError, match=r"[Rr]eduction.*expected one of"):
        loss(PRED, TARGET, reduction_override="average")


def test_mmdets_configuration():
    loss = mmdet_adapter.MMDetBoxLoss(loss="ciou", convention="mmdet", reduction="none")
    assert repr(loss) == "MMDetBoxLoss(ciou(gated=True), reduction='none', loss_weight=1)"
    assert not loss.state_dict()
    with pytest.raises(TypeError, match="gamma"):
        mmdet_adapter.MMDetBoxLoss("giou", gamma=1.0)
    with pytest.raises(ValueError, match="normalize_weight needs the whole batch"):
        mmdet_adapter.MMDetBoxLoss("focal_eiou", normalize_weight=True)
    with pytest.raises(TypeError, match="beta: only of a loss given by name"):
        mmdet_adapter.MMDetBoxLoss(giou_loss, beta=1.0)


class Term(nn.Module):
    loss_weight = 5.0


class Heads(nn.Module):
    """As MMDetection's: a term, and whether it is of boxes."""

    def __init__(self, *, decoded=True, iou=False, reduction="mean"):
        super().__init__()
        self.reg_decoded_bbox = decoded
        self.loss_bbox = Term()
        self.loss_bbox.reduction = reduction
        if iou:
            self.loss_iou = Term()


def test_mmdets_heads():
    model = nn.Sequential(Heads(), Heads())
    before = [head.loss_bbox for head in model]
    attachment = mmdet_adapter.attach(model, "eiou")
    assert [head.loss_bbox.loss_weight for head in model] == [5.0, 5.0]
    assert torch.isclose(model[0].loss_bbox(PRED, TARGET), 5 * LOSSES["eiou"].function(PRED, TARGET).mean())
    with pytest.raises(ValueError, match="attached already"):
        mmdet_adapter.attach(model, "giou")
    attachment.detach()
    assert [head.loss_bbox for head in model] == before
    summed = nn.Sequential(Heads(reduction="sum"))  # YOLOX's head, which divides by itself
    mmdet_adapter.attach(summed, "eiou")
    assert torch.isclose(summed[0].loss_bbox(PRED, TARGET), 5 * LOSSES["eiou"].function(PRED, TARGET).sum())
    with pytest.raises(ValueError, match=r"0, with reg_decoded_bbox=False, compares deltas.*got giou"):
        mmdet_adapter.attach(nn.Sequential(Heads(decoded=False)), "giou")
    mmdet_adapter.attach(nn.Sequential(Heads(decoded=False)), "l1")
    with pytest.raises(ValueError, match="loss_iou"):
        mmdet_adapter.attach(nn.Sequential(Heads(iou=True)), "giou")
    detr = nn.Sequential(Heads(iou=True))
    mmdet_adapter.attach(detr, "giou", term="loss_iou")
    assert isinstance(detr[0].loss_bbox, Term)
    with pytest.raises(TypeError, match="whose heads have a loss_bbox, got Linear"):
        mmdet_adapter.attach(nn.Linear(1, 1), "giou")


# -- conventions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_are_losses_with_parameters(convention):
    for name, (loss, parameters) in CONVENTIONS[convention].items():
        module = BoxLoss(name, convention=convention, reduction="none")
        assert torch.equal(module(PRED, TARGET), LOSSES[loss].function(PRED, TARGET, **parameters))


def test_conventions_that_differ():
    iou = torch.tensor([1 / 7, 1 / 2, 1.0])
    mmdet, yolox = (BoxLoss("iou", convention=name, reduction="none")(PRED, TARGET) for name in ("mmdet", "yolox"))
    torch.testing.assert_close(mmdet, -iou.log())
    torch.testing.assert_close(yolox, 1 - iou**2)
    wide = torch.tensor([[0.0, 0, 4, 1]]), torch.tensor([[0.0, 0, 1, 4]])  # IoU = 1/7: the gate is shut
    assert BoxLoss("ciou", convention="mmdet")(*wide) == BoxLoss("diou")(*wide)
    assert BoxLoss("ciou", convention="torchvision")(*wide) > BoxLoss("diou")(*wide)
    assert BoxLoss("smooth_l1", convention="mmdet", beta=2.0).loss_parameters == {"beta": 2.0}
    assert meaning("mmdet", "ciou").parameters == {"gated": True}


@pytest.mark.parametrize(
    ("convention", "name", "message"),
    [
        ("mmdt", "iou", "no framework named 'mmdt'; did you mean 'mmdet'"),
        ("mmdet", "eiou", "Extended IoU, another loss than eiou"),
        ("yolox", "ciou", "yolox has no loss 'ciou' that boxloss could reproduce; expected one of iou, giou"),
    ],
)
def test_bad_conventions(convention, name, message):
    with pytest.raises(ValueError, match=message):
        BoxLoss(name, convention=convention)


def test_a_running_mean_waits_for_no_rank(monkeypatch):
    """A framework may skip the loss on a rank without positives, and the others would wait for ever."""
    monkeypatch.setattr("boxloss.modules.mean_over_ranks", lambda value: pytest.fail("waits for the other ranks"))
    model = make(FCOS)
    module = BoxLoss("wiou", version="v3")
    attach(model, module)
    train(model)
    assert 0 < module.running_mean < 1
