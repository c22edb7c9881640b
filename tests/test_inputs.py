"""Tensors that are plainly wrong, or say more than their numbers: each is answered, by every function that takes it."""

from __future__ import annotations

import copy
import functools
import pickle
import re
import subprocess
import sys
import warnings

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torchvision import tv_tensors

from boxloss import (
    BoxLoss,
    GIoULoss,
    boxes,
    cdiou,
    giou_loss,
    iou_loss,
    kernels,
    pairwise,
    similarity,
    validate_boxes,
    values,
)
from boxloss.classification import (
    binary_cross_entropy_loss,
    class_weights,
    cross_entropy_loss,
    entropy,
    focal_loss,
    kl_divergence,
)
from boxloss.region import dice_loss, focal_tversky_loss, jaccard_loss, tversky_loss
from boxloss.yolo import DARKNET_ANCHORS, Grid, Truths, YoloLoss, assign, ignored

NAN, INF = float("nan"), float("inf")

# -- truths ----------------------------------------------------------------------------------------------------------

GRID = Grid(DARKNET_ANCHORS, 3)
SIZE = (160, 160)
GOOD = {
    "image": torch.tensor([0, 0, 1]),
    "box": torch.tensor([[5.0, 5, 40, 25], [60, 60, 120, 130], [100, 20, 130, 50]]),
    "label": torch.tensor([0, 1, 2]),
    "crowd": torch.tensor([False, False, False]),
}


def outputs():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, GRID.channels, 160 // s, 160 // s, generator=g) for s in (8, 16, 32)]


def terms(**columns):
    return YoloLoss(GRID, coordinates="ciou", reduction="sum")(outputs(), Truths(**{**GOOD, **columns}), SIZE)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_an_integer_crowd_is_a_bool_one(dtype):
    assert terms().positives == 3
    for flags, positives in (([0, 0, 0], 3), ([0, 1, 0], 2)):
        found, expected = (terms(crowd=torch.tensor(flags, dtype=kind)) for kind in (dtype, torch.bool))
        assert found.positives == positives
        assert torch.equal(found.total, expected.total)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_indices_of_any_integer_dtype(dtype):
    """torch would take uint8 for a mask."""
    narrow = terms(image=GOOD["image"].to(dtype), label=GOOD["label"].to(dtype), box=GOOD["box"].to(torch.int32))
    assert torch.equal(narrow.total, terms().total)


BOX = GOOD["box"]
BAD_TRUTHS = {
    "crowd of 2": ({"crowd": torch.tensor([0, 2, 0])}, ValueError, r"truths\.crowd\[1\] is 2; expected 0 or 1"),
    "crowd of -1": ({"crowd": torch.tensor([0, 0, -1])}, ValueError, r"truths\.crowd\[2\] is -1"),
    "crowd of floats": ({"crowd": torch.zeros(3)}, TypeError, r"truths\.crowd: expected bool, .* got torch\.float32"),
    "label -1": ({"label": torch.tensor([0, 1, -1])}, ValueError, r"truths\.label\[2\] is -1; expected 0 … 2"),
    "label C": ({"label": torch.tensor([1, 2, 3])}, ValueError, r"truths\.label\[2\] is 3; expected 0 … 2.*3 classes"),
    "label -100": ({"label": torch.tensor([-100, 2, 1])}, ValueError, r"truths\.label\[0\] is -100"),
    "labels of floats": ({"label": torch.zeros(3)}, TypeError, r"truths\.label: expected integers, got torch\.float32"),
    "labels of bools": ({"label": GOOD["crowd"]}, TypeError, r"truths\.label: expected integers, got torch\.bool"),
    "image B": ({"image": torch.tensor([0, 2, 2])}, ValueError, r"truths\.image\[1\] is 2; expected 0 or 1.*2 images"),
    "image -1": ({"image": torch.tensor([0, 0, -1])}, ValueError, r"truths\.image\[2\] is -1"),
    "images of floats": ({"image": torch.zeros(3)}, TypeError, r"truths\.image: expected integers"),
    "inverted": (
        {"box": BOX[:, [0, 1, 2, 3]].index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(30.0))},
        ValueError,
        r"truths\.box\[1\] is inverted \(x2 < x1\): \[60\.0, 60\.0, 30\.0, 130\.0\];.*x1 <= x2.*cxcywh or xywh",
    ),
    "cxcywh": (
        {"box": boxes.convert(BOX, "xyxy", "cxcywh")},
        ValueError,
        r"truths\.box\[1\] is inverted \(x2 < x1\).*cxcywh",
    ),
    "NaN": ({"box": BOX.index_fill(0, torch.tensor(2), NAN)}, ValueError, r"truths\.box\[2\] holds NaN"),
    "infinite": ({"box": BOX.index_fill(0, torch.tensor(0), INF)}, ValueError, r"truths\.box\[0\] is infinite"),
    "boxes (4, T)": ({"box": torch.zeros(4, 3)}, ValueError, r"truths\.box: expected boxes of shape \(\.\.\., 4\)"),
    "boxes (1, T, 4)": ({"box": BOX[None]}, ValueError, r"truths\.box: expected \(T, 4\), got \(1, 3, 4\)"),
    "a list": ({"box": BOX.tolist()}, TypeError, r"truths\.box: expected a torch\.Tensor"),
    "labels (T, 1)": ({"label": GOOD["label"][:, None]}, ValueError, r"truths\.label: expected \(T,\), got \(3, 1\)"),
    "a list of labels": ({"label": [0, 1, 2]}, TypeError, r"truths\.label: expected a tensor \(T,\), got list"),
    "lengths": ({"label": torch.tensor([0, 1])}, ValueError, r"columns of one length, got .*'label': 2"),
    "label 2**63": (
        {"label": torch.tensor([0, 2**63, 1], dtype=torch.uint64)},
        ValueError,
        r"truths\.label\[1\] is 9223372036854775808; expected 0 … 2",
    ),
    "image 2**64 - 100": (
        {"image": torch.tensor([0, 1, 2**64 - 100], dtype=torch.uint64)},
        ValueError,
        r"truths\.image\[2\] is 18446744073709551516; expected 0 or 1",
    ),
    "devices": ({"label": torch.empty(3, dtype=torch.long, device="meta")}, ValueError, r"all on cpu.*'label': 'meta'"),
}


@pytest.mark.parametrize("name", BAD_TRUTHS)
def test_truths_that_are_refused(name):
    columns, kind, message = BAD_TRUTHS[name]
    with pytest.raises(kind, match=message):
        terms(**columns)
    truths = Truths(**{**GOOD, **columns})
    with pytest.raises(kind, match=message):
        assign(GRID, GRID.split(outputs()), SIZE, truths)
    if "classes" not in message and not ("label" in columns and kind is ValueError and " is " in message):
        with pytest.raises(kind, match=message):
            ignored([torch.zeros(2, 3, 4, 4, 4)], truths, 0.5)


def test_truths_of_a_batch_without_images():
    nothing = [output[:0] for output in outputs()]
    for call in (
        lambda: YoloLoss(GRID)(nothing, Truths(**GOOD), SIZE),
        lambda: assign(GRID, GRID.split(nothing), SIZE, Truths(**GOOD)),
        lambda: ignored([torch.zeros(0, 3, 4, 4, 4)], Truths(**GOOD), 0.5),
    ):
        with pytest.raises(ValueError, match=r"^truths: the batch has no images, but truths has 3 rows$"):
            call()


def test_truths_are_truths():
    with pytest.raises(TypeError, match=r"truths: expected Truths\(image, box, label, crowd\), got dict"):
        YoloLoss(GRID)(outputs(), GOOD, SIZE)


def test_no_truths_and_truths_without_area():
    nothing = Truths(*(column[:0] for column in Truths(**GOOD)))
    assert YoloLoss(GRID)(outputs(), nothing, SIZE).positives == 0
    flat = BOX.clone()
    flat[1, 2] = flat[1, 0]
    assert terms(box=flat).positives == 2


def test_truths_elsewhere_are_not_looked_at():
    """There is nothing to see on the meta device; shapes and dtypes are checked all the same."""
    from boxloss.yolo.assign import checked

    far = Truths(*(column.to("meta") for column in Truths(**GOOD)))
    like = torch.empty(2, 1, device="meta")
    assert checked(far._replace(crowd=far.image), like, 3).crowd.dtype == torch.bool
    with pytest.raises(TypeError, match=r"truths\.label"):
        checked(far._replace(label=far.crowd), like, 3)


def test_truths_that_name_their_format():
    given = tv_tensors.BoundingBoxes(boxes.convert(BOX, "xyxy", "cxcywh"), format="CXCYWH", canvas_size=SIZE)
    assert torch.equal(terms(box=given).total, terms().total)


# -- masks, probabilities and classes ----------------------------------------------------------------------------------

REGION = [dice_loss, tversky_loss, focal_tversky_loss, jaccard_loss]
every_region = pytest.mark.parametrize("loss", REGION, ids=lambda loss: loss.__name__)
LOGITS = torch.linspace(-3, 3, 24).view(2, 3, 4)
SHARES = torch.linspace(0, 1, 24).view(2, 3, 4)
CLASSES = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])


@every_region
@pytest.mark.parametrize(
    ("target", "found"),
    [
        (torch.tensor([0, 255], dtype=torch.uint8), "numbers from 0 to 255; a mask of 0 and 255: divide it by 255"),
        (torch.tensor([0.0, 255.0]), "numbers from 0 to 255"),
        (torch.tensor([0, 65535], dtype=torch.uint16), "numbers from 0 to 65535"),
        (torch.tensor([-1, 1]), "numbers from -1 to 1; 1 is inside and 0 is outside: (target > 0)"),
        (torch.tensor([0.0, 2.0]), "numbers from 0 to 2; 1 is inside"),
        (torch.tensor([-0.22, 1.23]), "numbers from -0.22 to 1.23; target.clamp(0, 1) of what interpolation"),
        (torch.tensor([0.0, 1.01]), "numbers from 0 to 1.01; target.clamp(0, 1)"),
        (torch.tensor([0.0, NAN]), "NaN"),
        (torch.tensor([2.0, NAN]), "NaN"),
        (torch.tensor([0.0, INF]), "numbers from 0 to inf"),
    ],
    ids=str,
)
def test_masks_outside_0_to_1(loss, target, found):
    message = r"^target: expected numbers in \[0, 1\], got " + re.escape(found)
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(1, 1, 2), target.view(1, 1, 2))


def test_a_mask_of_torchvision_is_looked_at():
    mask = tv_tensors.Mask(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8))
    with pytest.raises(ValueError, match="from 255 to 255"):
        dice_loss(torch.zeros(1, 1, 4, 4), mask)
    half = dice_loss(torch.zeros(1, 1, 4, 4), tv_tensors.Mask(torch.ones(1, 1, 4, 4, dtype=torch.uint8)))
    assert half.item() == pytest.approx(1 - 2 * 0.5 / 1.5)


@every_region
def test_predictions_without_activation(loss):
    with pytest.raises(ValueError, match=r"^pred: expected numbers in \[0, 1\], got numbers from -3 to 3; logits: act"):
        loss(LOGITS, SHARES, activation="none")
    assert loss(torch.full((1, 1, 2), NAN), torch.ones(1, 1, 2), activation="none").isnan().all()


def test_what_rounding_explains_is_no_fault():
    above = torch.tensor([[[1 + 2**-23, 0.5]]])
    assert dice_loss(above, above, activation="none").item() == pytest.approx(1 - 2 * 1.25 / 3)
    assert dice_loss(above.double(), above.half(), activation="none").item() == pytest.approx(1 - 2 * 1.25 / 3)
    with pytest.raises(ValueError, match=r"numbers from 0\.500002 to 1\.000002"):
        dice_loss(above + 2e-6, above, activation="none")
    for dtype in HALVES:  # of both in their own dtype
        half = torch.tensor([[[1.0, 0.5]]], dtype=dtype) * (1 + torch.finfo(dtype).eps)
        assert half.max() > 1
        assert dice_loss(half, half, activation="none").isfinite()
        with pytest.raises(ValueError, match=r"^pred: "):
            dice_loss(half * 1.1, half, activation="none")


@every_region
@pytest.mark.parametrize("garbage", [255.0, -7.0, NAN, INF])
def test_predictions_at_ignored_places_are_not_looked_at(loss, garbage):
    gone = CLASSES.clone()
    gone[:, 1] = -100
    pred = SHARES.clone()
    expected = loss(pred, gone, activation="none")
    pred[..., 1] = garbage
    pred.requires_grad_()
    found = loss(pred, gone, activation="none")
    assert torch.equal(found, expected)
    found.sum().backward()
    assert not pred.grad[..., 1].any()
    pred.data[..., 2] = 7.0
    with pytest.raises(ValueError, match=r"^pred: expected numbers in \[0, 1\]"):
        loss(pred, gone, activation="none")


@pytest.mark.parametrize("loss", [binary_cross_entropy_loss, focal_loss], ids=lambda loss: loss.__name__)
def test_yes_and_no(loss):
    for target, found in ((2.0, "from 2 to 2"), (-1.0, "from -1 to -1"), (NAN, "NaN")):
        with pytest.raises(ValueError, match=rf"^target: expected numbers in \[0, 1\], got .*{found}"):
            loss(torch.zeros(3), torch.full((3,), target))
    with pytest.raises(TypeError, match=r"target: expected real numbers, got torch\.complex64"):
        loss(torch.zeros(3), torch.zeros(3, dtype=torch.complex64))


def test_probabilities():
    for wrong in ([1.5, -0.5], [2.0, 0.0], [INF, 0.0]):
        p, half = torch.tensor([wrong]), torch.tensor([[0.5, 0.5]])
        for name, call in (
            ("probability", lambda p=p: entropy(p)),
            ("p", lambda p=p, half=half: kl_divergence(p, half)),
            ("q", lambda p=p, half=half: kl_divergence(half, p)),
            ("target", lambda p=p, half=half: cross_entropy_loss(half, p)),
        ):
            with pytest.raises(ValueError, match=rf"^{name}: expected numbers in \[0, 1\], got numbers from"):
                call()
    assert entropy(torch.tensor([NAN, 0.5])).isnan()  # of a network that has diverged
    with pytest.raises(ValueError, match=r"target: .* NaN"):
        cross_entropy_loss(torch.zeros(1, 2), torch.tensor([[NAN, 0.5]]))


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [3, 3001, 70_000])
@pytest.mark.parametrize("looked", [True, False], ids=["looked at", "elsewhere"])
def test_a_mean_is_the_sum_over_the_number_of_predictions(count, dtype, looked, monkeypatch):
    """To the last bit where none is ignored, however many there are: float16 holds no number beyond 65504.

    So also where that none is ignored can't be seen, as on a GPU.
    """
    if not looked:
        monkeypatch.setattr(values, "readable", lambda tensor: False)
    logits = torch.linspace(-1, 2, 3 * count, dtype=torch.float64).view(count, 3).to(dtype)
    classes = torch.arange(count) % 3
    yes = classes[:, None] == torch.arange(3)
    for loss, target in (
        (cross_entropy_loss, classes),
        (softmax_focal, classes),
        (focal_loss, yes),
        (focal_loss, yes.long()),
        (binary_cross_entropy_loss, yes.long()),
    ):
        each = loss(logits, target)
        mean = loss(logits, target, reduction="mean")
        assert torch.equal(mean, each.sum() / each.numel())
        assert mean > 0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kept", [3, 3001, 70_000])
def test_the_mean_over_what_is_kept_has_all_digits_of_halves(kept, dtype):
    logits = torch.tensor([0.0, 3.0, 4.0], dtype=dtype).expand(100_000, 3).clone().requires_grad_()
    target = torch.full((100_000,), -100)
    target[:kept] = 2
    mean = softmax_focal(logits, target, reduction="mean")
    (gradient,) = torch.autograd.grad(mean, logits)
    assert mean.item() == pytest.approx(softmax_focal(logits[:1], target[:1]).item(), rel=2 * torch.finfo(dtype).eps)
    assert not gradient[kept:].any()
    one = torch.autograd.grad(softmax_focal(logits[:1], target[:1]).sum(), logits)[0][0] / kept
    torch.testing.assert_close(gradient[0], one, rtol=4 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny / 512)


def test_a_yes_or_no_of_minus_100_is_not_ignored():
    with pytest.raises(ValueError, match=r"target: expected numbers in \[0, 1\], got numbers from -100 to 1"):
        focal_loss(torch.zeros(2), torch.tensor([1, -100]), reduction="mean")


def softmax_focal(logits, target, **own):
    return focal_loss(logits, target, activation="softmax", **own)


both_of_classes = pytest.mark.parametrize("loss", [cross_entropy_loss, softmax_focal], ids=["cross_entropy", "focal"])


@both_of_classes
def test_ignored_predictions(loss):
    """They are 0 and count in no mean, as in torch; with weights the mean is over predictions all the same."""
    gone = CLASSES.clone()
    gone[0, 1] = gone[1, 3] = -100
    weight = torch.tensor([1.0, 2.0, 3.0])
    for own in ({}, {"class_weight": weight}):
        each = loss(LOGITS, gone, **own)
        assert (each == 0).nonzero().tolist() == [[0, 1], [1, 3]]
        kept = gone != -100
        assert torch.equal(each[kept], loss(LOGITS, CLASSES, **own)[kept])
        torch.testing.assert_close(loss(LOGITS, gone, reduction="mean", **own), each.sum() / 6)
    expected = torch.nn.functional.cross_entropy(LOGITS, gone)
    torch.testing.assert_close(cross_entropy_loss(LOGITS, gone, reduction="mean"), expected)


@both_of_classes
def test_all_ignored_is_0_with_a_graph(loss):
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, torch.full((2, 4), -100), reduction="mean")
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize(("wrong", "name"), [(-1, "-1"), (3, "3"), (255, "255"), (-101, "-101")])
def test_classes_outside_their_range(wrong, name):
    target = CLASSES.clone()
    target[1, 2] = wrong
    message = rf"^target\[1, 2\] is {name}; expected 0 … 2, or -100 for what is to be ignored"
    message += re.escape(": target.masked_fill(target == 255, -100)" if wrong == 255 else "") + "$"
    for loss in (cross_entropy_loss, softmax_focal, *REGION):
        with pytest.raises(ValueError, match=message):
            loss(LOGITS, target)
    with pytest.raises(ValueError, match=r"expected 0, or -100 .*; a mask of a single class has the shape of pred"):
        dice_loss(torch.zeros(1, 1, 2), torch.tensor([[0, 1]]))


@every_region
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_ignored_places_count_in_no_region(loss, activation):
    pred = LOGITS if activation != "none" else SHARES
    gone = CLASSES.clone()
    gone[:, 1] = -100
    kept = [0, 2, 3]
    expected = loss(pred[..., kept], CLASSES[:, kept], activation=activation)
    torch.testing.assert_close(loss(pred, gone, activation=activation), expected)
    nothing = torch.full_like(gone, -100)
    assert torch.equal(loss(pred, nothing, activation=activation), torch.zeros(2, 3))


def test_complement_and_squares_of_ignored_places():
    gone = CLASSES.clone()
    gone[:, 1] = -100
    for own in ({"complement": True}, {"squared": True}):
        expected = dice_loss(LOGITS[..., [0, 2, 3]], CLASSES[:, [0, 2, 3]], **own)
        torch.testing.assert_close(dice_loss(LOGITS, gone, **own), expected)


def test_class_weights_fit_as_they_come():
    weight = class_weights([1, 2, 3])
    assert weight.dtype == torch.float64
    narrow = weight.float()
    for call in (
        lambda w: cross_entropy_loss(LOGITS, CLASSES, class_weight=w),
        lambda w: cross_entropy_loss(LOGITS, SHARES, class_weight=w),
        lambda w: softmax_focal(LOGITS, CLASSES, class_weight=w),
        lambda w: dice_loss(LOGITS, SHARES, class_weight=w),
    ):
        assert call(weight).dtype == torch.float32
        assert torch.equal(call(weight), call(narrow))
        with pytest.raises(TypeError, match=r"class_weight: expected a tensor \(3,\), got list"):
            call([1.0, 2.0, 3.0])
        refuses_class_weights(call)
    for kind in ("bce", "softmax"):
        loss = YoloLoss(GRID, classification=kind, class_weight=weight)
        assert loss(outputs(), Truths(**GOOD), SIZE).total.dtype == torch.float32
    refuses_class_weights(lambda w: YoloLoss(GRID, class_weight=w))


def refuses_class_weights(call):
    with pytest.raises(TypeError, match=r"class_weight: expected real numbers, got torch\.complex64"):
        call(torch.ones(3, dtype=torch.complex64))
    for wrong, said in ((NAN, "nan"), (-1.0, r"-1\.0"), (INF, "inf")):
        for dtype in (torch.float32, torch.float16):
            with pytest.raises(ValueError, match=rf"class_weight: expected 3 finite numbers >= 0, got {said}$"):
                call(torch.tensor([1.0, wrong, 2.0], dtype=dtype))


WATCHED = {
    "dice": (dice_loss, SHARES),
    "dice of classes": (dice_loss, CLASSES),
    "dice of probabilities": (lambda x, t: dice_loss(x.sigmoid(), t, activation="none"), SHARES),
    "binary": (binary_cross_entropy_loss, SHARES),
    "focal": (focal_loss, SHARES),
    "softmax focal": (softmax_focal, CLASSES),
    "cross-entropy": (cross_entropy_loss, CLASSES),
    "cross-entropy of probabilities": (cross_entropy_loss, SHARES),
    "weighted cross-entropy": (lambda x, t: cross_entropy_loss(x, t, class_weight=torch.ones(3)), CLASSES),
    "mean cross-entropy": (lambda x, t: len(x) * cross_entropy_loss(x, t, reduction="mean"), CLASSES),
    "entropy": (lambda x, t: entropy(x.softmax(1)) + kl_divergence(t, x.softmax(1)), SHARES),
}


@pytest.mark.parametrize("name", WATCHED)
def test_nothing_is_looked_at_while_something_traces(name):
    loss, target = WATCHED[name]
    total = lambda x, t: loss(x, t).sum()  # noqa: E731
    expected = total(LOGITS, target)
    torch._dynamo.reset()
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(LOGITS, target), expected)
    torch.testing.assert_close(make_fx(total)(LOGITS, target)(LOGITS, target), expected)
    torch.testing.assert_close(make_fx(total, tracing_mode="fake")(LOGITS, target)(LOGITS, target), expected)
    each = torch.func.vmap(lambda x, t: total(x[None], t[None]))(LOGITS, target)
    torch.testing.assert_close(each.sum(), expected)
    assert torch.func.grad(total)(LOGITS, target).isfinite().all()
    assert total(LOGITS.to("meta"), target.to("meta")).is_meta


def test_other_devices_are_not_looked_at():
    far = torch.full((1, 1, 4), 255.0, device="meta")
    assert dice_loss(far, far).shape == (1, 1)
    assert cross_entropy_loss(torch.empty(2, 3, device="meta"), torch.full((2,), 7, device="meta")).shape == (2,)


# -- tensors that are not dense ----------------------------------------------------------------------------------------

Z, Y = torch.zeros(2, 4), torch.ones(2, 4)


def _odd():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch calls most of these prototypes
        return {
            "nested": torch.nested.nested_tensor([Z, Z]),
            "jagged": torch.nested.nested_tensor([Z, Z[:1]], layout=torch.jagged),
            "quantized": torch.quantize_per_tensor(Z, 0.1, 0, torch.qint8),
            "masked": torch.masked.masked_tensor(Z, torch.ones(2, 4, dtype=torch.bool)),
            "sparse": Z.to_sparse(),
            "compressed": Z.to_sparse_csr(),
        }


SAYS = {"jagged": "nested", "compressed": r"sparse_csr, a sparse"}
ODD = _odd()
TAKES_BOXES = {
    "giou_loss": lambda odd: giou_loss(odd, Y),
    "giou_loss, target": lambda odd: giou_loss(Y, odd),
    "giou_loss, weight": lambda odd: giou_loss(Y, Y, weight=odd),
    "BoxLoss": lambda odd: BoxLoss("giou", box_format="cxcywh")(odd, Y),
    "pairwise": lambda odd: pairwise("giou", odd, Y),
    "pairwise, b": lambda odd: pairwise("giou", Y, odd),
    "similarity": lambda odd: similarity("giou", odd, Y),
    "cdiou": lambda odd: cdiou(odd, Y),
    "convert": lambda odd: boxes.convert(odd, "xyxy", "xywh"),
    "validate_boxes": validate_boxes,
    "explain": lambda odd: kernels.explain("giou", odd, Y),
    "Truths": lambda odd: terms(box=odd),
    "dice_loss": lambda odd: dice_loss(odd, Y),
    "dice_loss, target": lambda odd: dice_loss(Y, odd),
    "cross_entropy_loss": lambda odd: cross_entropy_loss(odd, Y),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("taker", TAKES_BOXES)
def test_tensors_that_are_not_dense(kind, taker):
    with pytest.raises(TypeError, match=rf"expected a dense tensor, got .*{SAYS.get(kind, kind)}"):
        TAKES_BOXES[taker](ODD[kind])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_predictions_of_a_dtype_that_torch_does_not_compute_with(dtype):
    pred, target = torch.zeros(2, 3).to(dtype), torch.zeros(2, 3)
    for loss in (*REGION, cross_entropy_loss, focal_loss, binary_cross_entropy_loss, kl_divergence):
        name = {kl_divergence: "p"}.get(loss, "pred" if loss in REGION else "logits")
        with pytest.raises(TypeError, match=rf"^{name}: .* got a tensor of {dtype}, .*tensor\.float\(\)$"):
            loss(pred, target)
    assert dice_loss(target, pred).shape == (2, 3)
    for wrong in (2.0, NAN):
        with pytest.raises(ValueError, match=r"^target: expected numbers in \[0, 1\], got "):
            dice_loss(target, torch.full((2, 3), wrong).to(dtype))


def test_what_to_do_about_tensors_that_are_not_dense_works():
    """As the messages say it."""
    nested, masked = ODD["nested"], ODD["masked"]
    with pytest.raises(TypeError, match=r"torch\.stack\(tensor\.unbind\(\)\)"):
        dice_loss(nested, nested)
    assert torch.equal(torch.stack(nested.unbind()), torch.stack([Z, Z]))
    with pytest.raises(TypeError, match=r"tensor\.to_tensor\(value\)"):
        dice_loss(Z, masked)
    assert torch.equal(masked.to_tensor(0.0), Z)


@pytest.mark.parametrize("name", ["float4_e2m1fn_x2", "bits8", "uint4"])
def test_dtypes_that_torch_does_not_compute_with(name):
    if not hasattr(torch, name):
        pytest.skip("not in this torch")
    odd = torch.empty(2, 4, dtype=getattr(torch, name))
    for taker in ("giou_loss", "BoxLoss", "pairwise", "convert", "validate_boxes", "Truths"):
        with pytest.raises(TypeError, match=f"expected boxes of a floating or integer dtype, got torch.{name}"):
            TAKES_BOXES[taker](odd)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.uint16, torch.uint64], ids=str)
def test_dtypes_that_are_converted(dtype):
    pred, target = torch.tensor([[0, 0, 2, 2]]).to(dtype), torch.tensor([[1.0, 1, 3, 3]])
    assert iou_loss(pred, target).item() == pytest.approx(6 / 7)
    assert boxes.convert(pred, "xywh", "xyxy").tolist() == [[0, 0, 2, 2]]


# -- boxes that name their format --------------------------------------------------------------------------------------

CORNERS = {"pred": torch.tensor([[2.0, 2, 5, 5], [0, 1, 8, 4]]), "target": torch.tensor([[1.0, 2, 6, 4], [3, 1, 7, 9]])}
named_format = pytest.mark.parametrize("name", ["XYXY", "XYWH", "CXCYWH"])


def named(corners, name, **options):
    there = boxes.convert(corners, "xyxy", name.lower()).clone()
    return tv_tensors.BoundingBoxes(there, format=name, canvas_size=(10, 10), **options)


@named_format
@pytest.mark.parametrize("which", [("pred",), ("target",), ("pred", "target")], ids="+".join)
def test_boxes_that_name_their_format(name, which):
    """Each is read in its own; the other may be a plain tensor of corners. What comes out is a plain tensor."""
    pred, target = CORNERS["pred"], CORNERS["target"]
    p = named(pred, name) if "pred" in which else pred
    t = named(target, name) if "target" in which else target
    for function in (
        giou_loss,
        lambda p, t: pairwise("giou", p, t),
        lambda p, t: similarity("giou", p, t),
        cdiou,
        BoxLoss("eiou"),
        GIoULoss(reduction="none"),
        BoxLoss("wiou", version="v2"),
    ):
        expected = copy.deepcopy(function)(pred, target)  # one of them keeps a mean
        found = function(p, t)
        assert type(found) is torch.Tensor
        torch.testing.assert_close(found, expected)
    assert kernels.explain("giou", p, t) == kernels.explain("giou", pred, target)


def test_two_formats_in_one_call():
    p, t = named(CORNERS["pred"], "XYWH"), named(CORNERS["target"], "CXCYWH")
    torch.testing.assert_close(giou_loss(p, t), giou_loss(**CORNERS))
    torch.testing.assert_close(BoxLoss("giou")(p, t), BoxLoss("giou")(**CORNERS))


def test_corners_are_formed_near_boxes_that_name_their_format():
    """A box of 1e-8 at 0.5 has two equal corners in float32; beside itself it is what it is."""
    tiny, wide = ([[0.5, 0.5, side, 1e-8]] for side in (1e-8, 2e-8))
    p, t = (tv_tensors.BoundingBoxes(box, format="XYWH", canvas_size=(1, 1)) for box in (tiny, wide))
    assert iou_loss(p, t).item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["XYWH", "CXCYWH"])
@pytest.mark.parametrize("far", [(1e6, 1e6), (-1e6, 1e6), (-1e6, -1e6)], ids=str)
def test_pairs_far_from_the_origin_are_as_exact_as_rows(name, far):
    """Corners at 1e6 are rounded to 1/16 in float32; from one of the boxes all digits remain."""
    places = torch.tensor([far, far]) + torch.tensor([[0.0, 0.0], [0.125, 0.0625]])
    sides = torch.tensor([[0.3, 0.3], [0.2, 0.3]])
    p, t = (
        tv_tensors.BoundingBoxes(torch.cat(parts, 1), format=name, canvas_size=(9, 9))
        for parts in ((places, sides), (places.flip(0), sides.flip(0)))
    )
    expected = iou_loss(p, t)
    torch.testing.assert_close(pairwise("iou", p, t).diagonal(), expected)
    torch.testing.assert_close(pairwise("iou", t, p).diagonal(), expected)
    assert 0.1 < expected[0] < 0.9


def test_pairs_of_boxes_that_name_their_format_and_nothing_or_nonsense():
    p, t = named(CORNERS["pred"], "XYWH"), CORNERS["target"]
    assert pairwise("giou", p, t[:0]).shape == (2, 0)
    empty = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYWH", canvas_size=(9, 9))
    assert pairwise("giou", empty, t[:0]).shape == (0, 0)
    for odd in (NAN, INF, -INF):
        bad = torch.cat((t, torch.full((1, 4), odd)))
        torch.testing.assert_close(pairwise("giou", p, bad)[:, :2], pairwise("giou", CORNERS["pred"], t))


def test_a_function_of_one_s_own_sees_the_boxes_where_they_are():
    p = named(CORNERS["pred"], "XYWH")
    assert torch.equal(pairwise(lambda a, b: (a + 0 * b)[..., 0], p, CORNERS["target"])[:, 0], CORNERS["pred"][:, 0])


def test_why_not_says_of_boxes_that_name_their_format_what_is_so():
    p, t = named(CORNERS["pred"], "XYWH"), named(CORNERS["target"], "CXCYWH")
    assert kernels.why_not(p, t) == kernels.why_not(*CORNERS.values())


@named_format
def test_gradients_reach_boxes_that_name_their_format(name):
    leaf = named(CORNERS["pred"], name).requires_grad_()
    plain = boxes.convert(CORNERS["pred"], "xyxy", name.lower()).clone().requires_grad_()
    giou_loss(leaf, CORNERS["target"], reduction="sum").backward()
    giou_loss(boxes.convert(plain, name.lower(), "xyxy"), CORNERS["target"], reduction="sum").backward()
    torch.testing.assert_close(torch.Tensor(leaf.grad), plain.grad)


@named_format
def test_convert_and_validate_read_the_format(name):
    given = named(CORNERS["pred"], name)
    for to in boxes.FORMATS:
        found = boxes.convert(given, None, to)
        assert type(found) is torch.Tensor
        assert torch.equal(found, boxes.convert(given, name.lower(), to))
        torch.testing.assert_close(found, boxes.convert(CORNERS["pred"], "xyxy", to))
    validate_boxes(given)
    validate_boxes(given, name.lower())
    assert torch.equal(boxes.convert(CORNERS["pred"], None, "xywh"), boxes.convert(CORNERS["pred"], "xyxy", "xywh"))


def test_integers_and_halves_that_name_their_format():
    ints = tv_tensors.BoundingBoxes([[2, 2, 3, 3]], format="XYWH", canvas_size=(9, 9))
    halves = tv_tensors.BoundingBoxes(torch.tensor([[2048, 0, 1, 1]]).half(), format="XYWH", canvas_size=(9, 9))
    assert iou_loss(ints, torch.tensor([[2.0, 2, 5, 5]])) == 0
    assert iou_loss(halves, torch.tensor([[2048.0, 0, 2049, 1]])) == 0


def test_a_format_given_beside_the_tensor_s_own():
    given, plain = named(CORNERS["pred"], "XYWH"), CORNERS["target"]
    for box_format in ("xyxy", "cxcywh"):
        said = rf"own format is 'xywh', but {{}} is '{box_format}'; expected 'xywh' or None"
        loss = BoxLoss("giou", box_format=box_format)
        for name, call in (
            ("pred: .*" + said.format("box_format"), lambda loss=loss: loss(given, plain)),
            ("target: .*" + said.format("box_format"), lambda loss=loss: loss(plain, given)),
            ("boxes: .*" + said.format("source"), lambda f=box_format: boxes.convert(given, f, "xyxy")),
            ("boxes: .*" + said.format("box_format"), lambda f=box_format: validate_boxes(given, f)),
        ):
            with pytest.raises(ValueError, match=name):
                call()
    same = BoxLoss("giou", box_format="xywh")
    torch.testing.assert_close(same(given, boxes.convert(plain, "xyxy", "xywh")), BoxLoss("giou")(given, plain))


@pytest.mark.parametrize(("name", "numbers"), [("XYWHR", 5), ("CXCYWHR", 5), ("XYXYXYXY", 8)])
def test_rotated_boxes_are_refused(name, numbers):
    tilted = tv_tensors.BoundingBoxes(torch.zeros(2, numbers), format=name, canvas_size=(9, 9))
    message = rf"rotated boxes \({name.lower()}\) are not supported; expected one of xyxy, xywh, cxcywh"
    for taker in ("giou_loss", "giou_loss, target", "BoxLoss", "pairwise", "convert", "validate_boxes", "Truths"):
        with pytest.raises(ValueError, match=r"^[a-z.]+: " + message):
            TAKES_BOXES[taker](tilted)
    with pytest.raises(ValueError, match="box_format: " + message):
        BoxLoss("giou", box_format=name.lower())


def test_the_default_format_is_kept_apart_from_a_given_one():
    default, given = BoxLoss("giou"), BoxLoss("giou", box_format="xyxy")
    assert repr(default) == "BoxLoss('giou', reduction='mean', gain=1.0)"
    assert repr(given) == "BoxLoss('giou', box_format='xyxy', reduction='mean', gain=1.0)"
    assert (default.box_format, given.box_format) == (None, "xyxy")
    boxed = named(CORNERS["pred"], "XYWH")
    for way in (
        copy.deepcopy,
        lambda module: pickle.loads(pickle.dumps(module)),
        lambda module: eval(repr(module)),
        lambda module: BoxLoss("giou", box_format=module.box_format),
    ):
        assert torch.equal(way(default)(boxed, boxed), torch.zeros(()))
        with pytest.raises(ValueError, match="own format is 'xywh'"):
            way(given)(boxed, boxed)
    default.box_format = "xywh"
    assert "box_format='xywh'" in repr(default)
    with pytest.raises(ValueError, match="box_format: unknown box format 'yxyx'"):
        default.box_format = "yxyx"
    assert not default.state_dict()


def as_before(module):
    """As it was pickled when ``box_format`` was an attribute, "xyxy" by default."""
    for one in module.modules():
        if isinstance(one, BoxLoss):
            vars(one)["box_format"] = vars(one).pop("_box_format") or "xyxy"
    return pickle.loads(pickle.dumps(module))


@pytest.mark.parametrize("box_format", [None, "xywh", "cxcywh"])
@pytest.mark.parametrize(
    "make",
    [
        functools.partial(BoxLoss, "giou"),
        GIoULoss,
        functools.partial(BoxLoss, "wiou", version="v2"),
        functools.partial(BoxLoss, "focal_eiou", normalize_weight=True),
    ],
    ids=["BoxLoss", "GIoULoss", "wiou", "normalized"],
)
def test_modules_pickled_before_work_as_they_did(make, box_format):
    old, new = as_before(make(box_format=box_format, gain=2.0)), make(box_format=box_format, gain=2.0)
    assert old.box_format == box_format
    assert repr(old) == repr(new)
    assert torch.equal(old(**CORNERS), new(**CORNERS))
    if box_format is None:
        boxed = named(CORNERS["pred"], "XYWH"), CORNERS["target"]
        assert torch.equal(old(*boxed), new(*boxed))
    assert copy.deepcopy(old).box_format == box_format


def test_a_detector_s_loss_pickled_before_works_as_it_did():
    old = as_before(YoloLoss(GRID, coordinates="wiou"))
    expected = YoloLoss(GRID, coordinates="wiou")(outputs(), Truths(**GOOD), SIZE)
    assert torch.equal(old(outputs(), Truths(**GOOD), SIZE).total, expected.total)


@pytest.mark.parametrize("spelled", [tv_tensors.BoundingBoxFormat.CXCYWH, "CXCYWH", "cxcywh"], ids=str)
def test_a_format_in_other_spellings(spelled):
    given, corners = boxes.convert(CORNERS["pred"], "xyxy", "cxcywh"), CORNERS["target"]
    assert BoxLoss("giou", box_format=spelled).box_format == "cxcywh"
    assert torch.equal(boxes.convert(given, spelled, "xyxy"), CORNERS["pred"])
    assert torch.equal(boxes.convert(CORNERS["pred"], "xyxy", spelled), given)
    validate_boxes(given, spelled)
    assert BoxLoss("iou", box_format=spelled)(given, boxes.convert(corners, "xyxy", "cxcywh")).isfinite()
    with pytest.raises(ValueError, match=r"^box_format: unknown box format ndarray \(2, 4\); expected one of xyxy"):
        BoxLoss("giou", box_format=CORNERS["pred"].numpy())


class Raises:
    def __get__(self, tensor, kind):
        raise RuntimeError("not yet")


@pytest.mark.parametrize("meaning", ["NCHW", 3, None, Raises()], ids=["word", "number", "None", "raises"])
def test_a_format_of_another_meaning_is_none_of_boxes(meaning):
    Mine = type("Mine", (torch.Tensor,), {"format": meaning})
    mine = CORNERS["pred"].as_subclass(Mine)
    assert torch.equal(torch.Tensor(giou_loss(mine, CORNERS["target"])), giou_loss(**CORNERS))
    assert torch.equal(torch.Tensor(BoxLoss("giou")(mine, CORNERS["target"])), BoxLoss("giou")(**CORNERS))


def test_a_parameter_that_names_a_format_is_in_it():
    given = torch.nn.Parameter(boxes.convert(CORNERS["pred"], "xyxy", "cxcywh"))
    given.format = "cxcywh"
    giou_loss(given, CORNERS["target"], reduction="sum").backward()
    torch.testing.assert_close(giou_loss(given, CORNERS["target"]), giou_loss(**CORNERS))
    assert given.grad.abs().sum() > 0


def test_a_compiler_cannot_open_boxes_and_says_so():
    given, corners = named(CORNERS["pred"], "CXCYWH"), CORNERS["target"]
    for loss in (giou_loss, BoxLoss("giou"), lambda p, t: pairwise("giou", p, t)):
        torch._dynamo.reset()
        with pytest.raises(
            torch._dynamo.exc.Unsupported, match=r"(pred|a): a compiler cannot open a BoundingBoxes; bef"
        ):
            torch.compile(loss, fullgraph=True, backend="eager")(given, corners)
    opened, of_target = given.as_subclass(torch.Tensor), boxes.convert(corners, "xyxy", "cxcywh")
    torch._dynamo.reset()
    compiled = torch.compile(BoxLoss("giou", box_format="cxcywh"), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(opened, of_target), BoxLoss("giou")(**CORNERS))


def test_parameters_and_other_subclasses_are_boxes_as_ever():
    class Mine(torch.Tensor):
        pass

    expected = giou_loss(**CORNERS)
    assert torch.equal(giou_loss(torch.nn.Parameter(CORNERS["pred"]), CORNERS["target"]), expected)
    assert torch.equal(torch.Tensor(giou_loss(CORNERS["pred"].as_subclass(Mine), CORNERS["target"])), expected)


def test_torchvision_is_not_imported_for_it():
    program = """
import sys, torch
from boxloss import BoxLoss, boxes
class Said(torch.Tensor):
    format = "CXCYWH"
pred = torch.tensor([[1.0, 1, 2, 2]]).as_subclass(Said)
assert BoxLoss("iou")(pred, torch.tensor([[0.0, 0, 2, 2]])) == 0
assert not any(name.startswith("torchvision") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
