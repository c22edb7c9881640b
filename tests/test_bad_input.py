"""Every misuse of a loss is a TypeError or ValueError that names the argument and what was expected."""

import functools
import inspect
import pickle
import re

import pytest
import torch
from torchvision.tv_tensors import BoundingBoxFormat
from variants import REQUIRED

from boxloss import (
    LOSSES,
    BoxLoss,
    DiceBoxLoss,
    GIoULoss,
    SmoothL1Loss,
    WIoULoss,
    boxes,
    cdiou,
    find_loss,
    giou_loss,
    kernels,
    pairwise,
    similarity,
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
from boxloss.yolo import DARKNET_ANCHORS, Grid, YoloLoss

every_loss = pytest.mark.parametrize("name", LOSSES)
GOOD = torch.tensor([[0.0, 0, 1, 1]])
YOLO = Grid(DARKNET_ANCHORS, 3)


def loss_of(name):
    return functools.partial(LOSSES[name].function, **REQUIRED.get(name, {}))


@every_loss
@pytest.mark.parametrize(
    ("pred", "target"), [((3, 4), (2, 4)), ((3, 4), (4,)), ((3, 4), (1, 3, 4)), ((2, 3, 4), (2, 1, 3, 4))]
)
def test_shapes_that_do_not_pair(name, pred, target):
    message = rf"pred {re.escape(str(pred))} and target {re.escape(str(target))} do not pair up.*boxloss\.pairwise"
    with pytest.raises(ValueError, match=message):
        loss_of(name)(torch.zeros(pred), torch.zeros(target))


@every_loss
@pytest.mark.parametrize("shape", [(3, 5), (4, 3), (), (0,)], ids=str)
def test_last_axis_is_not_4(name, shape):
    with pytest.raises(
        ValueError, match=r"target: expected boxes of shape \(\.\.\., 4\), got " + re.escape(str(shape))
    ):
        loss_of(name)(GOOD, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"pred: expected boxes of shape"):
        loss_of(name)(torch.zeros(shape), GOOD)


@every_loss
@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool], ids=str)
def test_no_real_dtype(name, dtype):
    with pytest.raises(TypeError, match=rf"target: expected boxes of a floating or integer dtype, got {dtype}"):
        loss_of(name)(GOOD, torch.zeros(1, 4, dtype=dtype))


@every_loss
def test_no_tensor(name):
    with pytest.raises(TypeError, match=r"pred: expected a torch\.Tensor of boxes \(\.\.\., 4\), got list"):
        loss_of(name)([[0, 0, 1, 1]], GOOD)


@every_loss
def test_reduction(name):
    for reduction in ("avg", "Mean", None, 0):
        with pytest.raises(ValueError, match=r"^Invalid reduction .*expected one of 'none', 'mean', 'sum'"):
            loss_of(name)(GOOD, GOOD, reduction=reduction)
    with pytest.raises(ValueError, match=r"^Invalid reduction 'avg'"):
        BoxLoss(name, reduction="avg", **REQUIRED.get(name, {}))


@every_loss
def test_unknown_parameter(name):
    known = ", ".join(LOSSES[name].parameters) or "none"
    for call in (
        lambda: loss_of(name)(GOOD, GOOD, zzz=1e-7),
        lambda: BoxLoss(name, zzz=1e-7),
        lambda: pairwise(name, GOOD, GOOD, zzz=1e-7),
    ):
        with pytest.raises(TypeError, match=f"^{name}: unknown parameter 'zzz'; its own parameters: {known}$"):
            call()


@pytest.mark.parametrize(
    ("name", "parameter", "value", "error", "expected"),
    [
        ("smooth_l1", "beta", -1.0, ValueError, "a finite number >= 0"),
        ("smooth_l1", "beta", float("nan"), ValueError, "a finite number >= 0"),
        ("smooth_l1", "beta", "1", TypeError, "a finite number >= 0"),
        ("log_iou", "floor", 0.0, ValueError, r"a finite number in \(0, 1\]"),
        ("log_iou", "floor", -1e-6, ValueError, r"a finite number in \(0, 1\]"),
        ("log_iou", "floor", 1.5, ValueError, r"a finite number in \(0, 1\]"),
        ("ciou", "gated", 1, TypeError, "True or False"),
        ("ciou", "aspect_gradient", "none", ValueError, "one of 'exact', 'unit'"),
        ("ciou", "aspect_gradient", None, TypeError, "one of 'exact', 'unit'"),
        ("focal_eiou", "gamma", -0.5, ValueError, "a finite number >= 0"),
        ("focal_eiou", "gamma", True, TypeError, "a finite number >= 0"),
        ("cdiou", "base", "eiou", ValueError, "one of 'iou', 'log_iou', 'giou', 'diou', 'ciou'"),
        ("cdiou", "penalty_weight", float("inf"), ValueError, "a finite number >= 0"),
    ],
)
def test_parameter_outside_its_domain(name, parameter, value, error, expected):
    for call in (
        lambda: loss_of(name)(GOOD, GOOD, **{parameter: value}),
        lambda: BoxLoss(name, **{parameter: value}),
    ):
        with pytest.raises(error, match=f"^{parameter}: expected {expected}, got "):
            call()


@every_loss
def test_weight_and_avg_factor(name):
    pred = torch.zeros(3, 4)
    for shape in ((3, 4), (1,), (), (3, 1), (4,)):
        with pytest.raises(ValueError, match=r"weight: expected one number per pair, shape \(3,\), got"):
            loss_of(name)(pred, pred, weight=torch.ones(shape))
    with pytest.raises(TypeError, match=r"weight: expected a torch\.Tensor, one number per pair, got list"):
        loss_of(name)(pred, pred, weight=[1, 1, 1])
    for reduction in ("none", "sum"):
        with pytest.raises(ValueError, match=rf"avg_factor.*expected reduction 'mean' with it, got '{reduction}'"):
            loss_of(name)(pred, pred, reduction=reduction, avg_factor=2)
    for factor in (torch.ones(1), torch.ones((), dtype=torch.complex64)):
        with pytest.raises(ValueError, match=r"avg_factor: expected a number or a real tensor \(\), got a tensor \("):
            loss_of(name)(pred, pred, reduction="mean", avg_factor=factor)
    for factor in ("3", [], True):
        with pytest.raises(TypeError, match="avg_factor: expected a number or a real tensor"):
            loss_of(name)(pred, pred, reduction="mean", avg_factor=factor)
    with pytest.raises(TypeError, match=r"weight: expected real numbers, got torch\.complex64"):
        loss_of(name)(pred, pred, weight=torch.ones(3, dtype=torch.complex64))
    for factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="avg_factor: expected a finite number >= 0, got"):
            loss_of(name)(pred[:0], pred[:0], reduction="mean", avg_factor=factor)
    for avg_factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="avg_factor: expected a finite number >= 0, got"):
            loss_of(name)(pred, pred, reduction="mean", avg_factor=avg_factor)


@pytest.mark.parametrize("call", [find_loss, BoxLoss, lambda name: pairwise(name, GOOD, GOOD)])
def test_unknown_loss(call):
    with pytest.raises(ValueError, match=r"^no loss named 'guou'; did you mean 'giou'\?$"):
        call("guou")
    with pytest.raises(ValueError, match=r"^no loss named 'zzz'; known: l1, l2, "):
        call("zzz")


def test_module_options():
    with pytest.raises(ValueError, match="box_format: unknown box format 'yxyx'; expected one of xyxy, xywh, cxcywh"):
        BoxLoss("giou", box_format="yxyx")
    with pytest.raises(ValueError, match="normalize_weight: 'giou' has no weight per pair"):
        GIoULoss(normalize_weight=True)
    with pytest.raises(ValueError, match="normalize_weight is a mean: expected reduction 'mean' with it, got 'sum'"):
        BoxLoss("focal_eiou", normalize_weight=True, reduction="sum")
    with pytest.raises(ValueError, match="avg_factor: normalize_weight divides by the sum of weights"):
        BoxLoss("focal_eiou", normalize_weight=True)(GOOD, GOOD, avg_factor=2)
    for gain in (float("nan"), "2", True):
        with pytest.raises(ValueError, match="gain: expected a finite number"):
            BoxLoss("giou", gain=gain)
    with pytest.raises(ValueError, match=r"avg_factor.*got 'sum'"):
        BoxLoss("giou", reduction="sum")(GOOD, GOOD, avg_factor=3)


def test_pairwise():
    for a, b in (((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (3, 4)), ((2, 3, 4), (3, 3, 4))):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., N, 4\) and \(\.\.\., M, 4\)"):
            pairwise("giou", torch.zeros(a), torch.zeros(b))
    with pytest.raises(ValueError, match=r"b: expected boxes of shape \(\.\.\., 4\), got \(3, 5\)"):
        pairwise("giou", torch.zeros(3, 4), torch.zeros(3, 5))
    for call in (pairwise, similarity):
        with pytest.raises(TypeError, match="expected the loss's own parameters only, got reduction"):
            call("giou", GOOD, GOOD, reduction="mean")
    with pytest.raises(ValueError, match=r"loss: expected one number per pair, reduction 'none', got a shape \(\)"):
        pairwise(GIoULoss(), GOOD, GOOD)


def test_losses_without_similarity():
    with pytest.raises(ValueError, match="'l1' has no upper bound and so has no similarity; expected one of iou, "):
        similarity("l1", GOOD, GOOD)
    with pytest.raises(ValueError, match="'focal_eiou' is 0 also for boxes that lie apart and so has no similarity"):
        similarity("focal_eiou", GOOD, GOOD)


def test_box_format_is_the_module_s():
    with pytest.raises(TypeError, match=r"unknown parameter 'box_format'.*boxloss\.boxes\.convert"):
        giou_loss(GOOD, GOOD, box_format="xywh")


def test_no_name_at_all():
    for name in ([], {}, 3, None):
        for call in (find_loss, BoxLoss):
            with pytest.raises(ValueError, match="no loss named "):
                call(name)


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_numbers_beyond_any_float(number):
    with pytest.raises(ValueError, match="beta: expected a finite number >= 0"):
        loss_of("smooth_l1")(GOOD, GOOD, beta=number)
    with pytest.raises(ValueError, match="gain: expected a finite number"):
        BoxLoss("giou", gain=number)


def test_beta_beyond_the_dtype():
    with pytest.raises(ValueError, match=r"beta: expected at most 3\.4.* in torch\.float32, got 1e\+39"):
        loss_of("smooth_l1")(GOOD, GOOD, beta=1e39)
    assert loss_of("smooth_l1")(GOOD.double(), GOOD, beta=10**39) == 0


def test_tensors_that_are_no_plain_ones():
    with pytest.raises(TypeError, match=r"pred: expected a dense tensor, got torch\.sparse_coo"):
        giou_loss(GOOD.to_sparse(), GOOD)
    with pytest.raises(TypeError, match="lam: expected a number, got 'x'"):
        cdiou(GOOD, GOOD, lam="x")


# -- slips of keywords -------------------------------------------------------------------------------------------------

CALLS = {
    "function": lambda name, **own: loss_of(name)(GOOD, GOOD, **own),
    "module": lambda name, **own: BoxLoss(name, **{**REQUIRED.get(name, {}), **own}),
    "pairwise": lambda name, **own: pairwise(name, GOOD, GOOD, **{**REQUIRED.get(name, {}), **own}),
}


@every_loss
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_there_is_no_eps(name, call):
    for slip in ("eps", "epsilon", "EPS"):
        message = (
            f"^{name}: unknown parameter '{slip}'; it is not needed, as there is no eps in any formula: remove it$"
        )
        with pytest.raises(TypeError, match=message):
            call(name, **{slip: 1e-7})


def test_there_is_no_eps_in_similarity_and_named_classes():
    for call in (lambda: similarity("giou", GOOD, GOOD, eps=1e-7), lambda: GIoULoss(eps=1e-7)):
        with pytest.raises(TypeError, match="there is no eps in any formula: remove it"):
            call()


@pytest.mark.parametrize(
    ("call", "slip", "hint"),
    [
        ("function", "weights", r"did you mean 'weight'\?$"),
        ("function", "reduktion", r"did you mean 'reduction'\?$"),
        ("function", "Reduction", r"did you mean 'reduction'\?$"),
        ("function", "avg_factr", r"did you mean 'avg_factor'\?$"),
        ("function", "betta", r"did you mean 'beta'\?$"),
        ("function", "box_fmt", r"did you mean 'box_format'\? .*option of BoxLoss.*boxloss\.boxes\.convert$"),
        ("function", "gain", "'gain'; that is an option of BoxLoss$"),
        ("module", "betta", r"did you mean 'beta'\?$"),
        ("module", "box_fmt", r"did you mean 'box_format'\?$"),
        ("module", "format", r"did you mean 'box_format'\?$"),
        ("module", "reducton", r"did you mean 'reduction'\?$"),
        ("module", "gian", r"did you mean 'gain'\?$"),
        ("module", "weight", r"'weight'; it is given with the boxes: loss\(pred, target, weight=…\)$"),
        ("module", "weights", r"did you mean 'weight'\? it is given with the boxes"),
        ("pairwise", "betta", r"did you mean 'beta'\?$"),
        ("pairwise", "reduktion", r"did you mean 'reduction'\? .*here only the loss's own parameters count$"),
    ],
)
def test_the_nearest_keyword(call, slip, hint):
    with pytest.raises(TypeError, match=hint):
        CALLS[call]("smooth_l1", **{slip: 1.0})


def test_the_nearest_keyword_of_other_callers():
    with pytest.raises(TypeError, match=r"dice_box: .*'reducton'; did you mean 'reduction'\?"):
        DiceBoxLoss(reducton="mean")
    with pytest.raises(TypeError, match=r"alpha_iou: .*'alfa'; did you mean 'alpha'\?"):
        similarity("alpha_iou", GOOD, GOOD, alfa=2.0)
    grid = Grid(DARKNET_ANCHORS, 3)
    with pytest.raises(TypeError, match=r"^YoloLoss: unknown parameter 'reducton'; did you mean 'reduction'\?$"):
        YoloLoss(grid, reducton="sum")
    with pytest.raises(TypeError, match=r"^YoloLoss: .*'weights'; did you mean 'class_weight'\?$"):
        YoloLoss(grid, weights=[1, 1, 1])
    with pytest.raises(TypeError, match=r"^YoloLoss: .*'zzz'; its own parameters: coordinates, box_unit, reduction, "):
        YoloLoss(grid, zzz=1)


BEFORE = "it is given when the module is made: BoxLoss"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda **own: dice_loss(GOOD, GOOD, **own), {"eps": r"no eps .*: remove it, or did you mean 'smooth'\?$"}),
        (lambda **own: tversky_loss(GOOD, GOOD, **own), {"reduktion": r"did you mean 'reduction'\?$"}),
        (lambda **own: focal_tversky_loss(GOOD, GOOD, **own), {"weight": r"did you mean 'class_weight'\?$"}),
        (lambda **own: jaccard_loss(GOOD, GOOD, **own), {"epsilon": "'smooth'", "ignore_index": "-100 in a target of"}),
        (lambda **own: dice_loss(GOOD, GOOD, **own), {"from_logits": "'activation'", "preds": "'pred'"}),
        (
            lambda **own: cross_entropy_loss(GOOD, GOOD, **own),
            {
                "weight": r"did you mean 'class_weight'\?$",
                "ignore_index": r"-100 .* ignored: target\.masked_fill\(target == ignore_index, -100\)$",
                "eps": r"no eps .*: remove it, or did you mean 'label_smoothing'\?$",
                "reduktion": r"^cross_entropy_loss: unknown parameter 'reduktion'; did you mean 'reduction'\?$",
                "size_average": r"did you mean 'reduction'\?$",
                "zzz": "its own parameters: class_weight, label_smoothing, reduction$",
            },
        ),
        (
            lambda **own: binary_cross_entropy_loss(GOOD, GOOD, **own),
            {"pos_weight": r"did you mean 'positive_weight'\?$", "weight": "'weight'; of each prediction"},
        ),
        (
            lambda **own: focal_loss(GOOD, GOOD, **own),
            {"eps": "remove it$", "gama": "'gamma'", "weight": "'class_weight'"},
        ),
        (lambda **own: entropy(GOOD, **own), {"units": "'unit'", "axis": "its own parameters: unit, dim$"}),
        (lambda **own: kl_divergence(GOOD, GOOD, **own), {"unitt": "'unit'"}),
        (lambda **own: class_weights([1], **own), {"sheme": "'scheme'"}),
        (
            lambda **own: GIoULoss()(GOOD, GOOD, **own),
            {
                "reduction": rf"^BoxLoss: unknown parameter 'reduction'; {BEFORE}\(…, reduction=…\)$",
                "eps": "remove it$",
                "weights": r"did you mean 'weight'\?$",
                "gain": BEFORE,
                "alpha": BEFORE,
                "loss_weight": rf"did you mean 'gain'\? {BEFORE}",
            },
        ),
        (
            lambda **own: YoloLoss(YOLO)([], None, (32, 32), **own),
            {"reduction": r"'reduction'; it is given when the module is made: YoloLoss\(grid, …\)$"},
        ),
        (
            lambda **own: GIoULoss(**own),
            {
                "loss_weight": r"did you mean 'gain'\?$",
                "bbox_format": r"did you mean 'box_format'\?$",
                "target": r"the module is made first and then called: loss\(pred, target\)$",
                "name": r"^GIoULoss is the loss 'giou'; one of another name is BoxLoss\(1\.0\)$",
            },
        ),
        (lambda **own: YoloLoss(YOLO, **own), {"eps": "'label_smoothing'", "loss_weight": "its own|did you mean"}),
    ],
)
def test_slips_of_keywords_are_answered_everywhere(call, message):
    for slip, said in message.items():
        with pytest.raises(TypeError, match=said) as caught:
            call(**{slip: 1.0})
        assert "unexpected keyword" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda array: BoxLoss("giou", reduction=array),
        lambda array: BoxLoss("giou", box_format=array),
        lambda array: BoxLoss("giou", convention=array),
        lambda array: BoxLoss("giou", gain=array),
        lambda array: BoxLoss("giou", momentum=array),
        lambda array: BoxLoss("giou", normalize_weight=array),
        lambda array: BoxLoss("piou", version=array),
        lambda array: BoxLoss("wiou", version=array),
        lambda array: BoxLoss("smooth_l1", beta=array),
        lambda array: giou_loss(GOOD, GOOD, reduction=array),
        lambda array: boxes.convert(GOOD, array, "xyxy"),
        lambda array: boxes.convert(GOOD, "xyxy", array),
        lambda array: find_loss(array),
        lambda array: pairwise(array, GOOD, "giou"),
        lambda array: kernels.explain(array, GOOD, "giou"),
        lambda array: dice_loss(GOOD, GOOD, activation=array),
        lambda array: dice_loss(GOOD, GOOD, smooth=array),
        lambda array: cross_entropy_loss(GOOD, GOOD, label_smoothing=array),
        lambda array: focal_loss(GOOD, GOOD, activation=array),
        lambda array: entropy(GOOD / 10, unit=array),
        lambda array: class_weights([1], array),
        lambda array: YoloLoss(YOLO, reduction=array),
        lambda array: YoloLoss(YOLO, box_unit=array),
    ],
)
def test_an_array_in_place_of_a_word_or_a_number_is_named_by_its_shape(call):
    for array in (torch.rand(37, 4), torch.rand(37, 4).numpy()):
        with pytest.raises((TypeError, ValueError), match=rf"{type(array).__name__} \(37, 4\)"):
            call(array)


def test_functions_keep_their_signatures():
    assert str(inspect.signature(binary_cross_entropy_loss)).startswith(
        "(logits: 'Tensor', target: 'Tensor', *, positi"
    )
    assert list(inspect.signature(BoxLoss.forward).parameters) == ["self", "pred", "target", "weight", "avg_factor"]
    assert pickle.loads(pickle.dumps(dice_loss)) is dice_loss


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GIoULoss("mean"), "^GIoULoss takes keywords only: write reduction='mean'$"),
        (lambda: GIoULoss("xywh"), "^GIoULoss takes keywords only: write box_format='xywh'$"),
        (lambda: GIoULoss(2.0), "^GIoULoss takes keywords only: write gain=2.0$"),
        (lambda: GIoULoss("sum", 2), "write reduction='sum', gain=2$"),
        (lambda: GIoULoss("yolox"), "write convention='yolox'$"),
        (lambda: SmoothL1Loss(2.0), "write beta=2.0 or gain=2.0$"),
        (lambda: WIoULoss("v3"), "write version='v3'$"),
        (lambda: GIoULoss("zzz"), "keywords only, reduction, box_format, convention, gain; got 'zzz' by place$"),
        (lambda: GIoULoss(float("nan")), "keywords only, reduction, box_format, convention, gain; got nan by place$"),
        (
            lambda: giou_loss(GOOD, GOOD, float("inf")),
            "keywords only, reduction, weight, avg_factor; got inf by place$",
        ),
        (lambda: GIoULoss("avg"), "write reduction='mean'$"),
        (lambda: GIoULoss("MEAN"), "write reduction='mean'$"),
        (lambda: GIoULoss("menn", "XYXY"), "write reduction='mean', box_format='xyxy'$"),
        (lambda: GIoULoss(BoundingBoxFormat.CXCYWH), "write box_format='cxcywh'$"),
        (lambda: giou_loss(GOOD, GOOD, "Mean"), "write reduction='mean'$"),
        (lambda: BoxLoss("giou", "mean"), r"^BoxLoss\('giou', …\) takes keywords only: write reduction='mean'$"),
        (lambda: BoxLoss("giou", "cxcywh"), "write box_format='cxcywh'$"),
        (lambda: giou_loss(GOOD, GOOD, "mean"), r"^giou_loss\(pred, target, …\) .*: write reduction='mean'$"),
        (lambda: giou_loss(GOOD, GOOD, torch.ones(1)), "write weight=…$"),
        (lambda: giou_loss(GOOD, GOOD, "sum", torch.ones(1)), "write reduction='sum', weight=…$"),
        (lambda: giou_loss(GOOD, GOOD, 8), "write avg_factor=8$"),
        (lambda: giou_loss(GOOD, GOOD, None), "keywords only, reduction, weight, avg_factor; got None by place$"),
        (lambda: GIoULoss(GOOD, GOOD), r"made without boxes and then called with them: GIoULoss\(\)\(pred, target\)"),
        (lambda: BoxLoss("giou", GOOD, GOOD), r"called with the boxes: BoxLoss\('giou'\)\(pred, target\)$"),
        (lambda: GIoULoss(GOOD.numpy()), r"called with them: GIoULoss\(\)\(pred, target\)$"),
        (lambda: GIoULoss("mean", GOOD.numpy()), r"called with them: GIoULoss\(\)\(pred, target\)$"),
        (lambda: BoxLoss("giou", GOOD.numpy(), GOOD.numpy()), r"boxes: BoxLoss\('giou'\)\(pred, target\)$"),
        (
            lambda: BoxLoss(GOOD, GOOD),
            r'^BoxLoss is made of a loss\'s name .* boxes: BoxLoss\("giou"\)\(pred, target\)$',
        ),
        (lambda: BoxLoss(GOOD), r'boxes: BoxLoss\("giou"\)\(pred, target\)$'),
        (lambda: BoxLoss(GOOD.numpy()), r'boxes: BoxLoss\("giou"\)\(pred, target\)$'),
        (lambda: giou_loss(GOOD, GOOD, GOOD.numpy()), r"keywords only, .*; got ndarray \(\d, 4\) by place$"),
        (lambda: dice_loss(GOOD, GOOD, "sigmoid"), r"^dice_loss\(pred, target, …\) .*: write activation='sigmoid'$"),
        (lambda: jaccard_loss(GOOD, GOOD, "sigmod", "sum"), "write activation='sigmoid', reduction='sum'$"),
        (lambda: tversky_loss(GOOD, GOOD, 0.5), "write alpha=0.5 or beta=0.5 or smooth=0.5$"),
        (lambda: focal_tversky_loss(GOOD, GOOD, True), "write per_image=True$"),
        (lambda: cross_entropy_loss(GOOD, GOOD, torch.ones(4)), "write class_weight=…$"),
        (lambda: binary_cross_entropy_loss(GOOD, GOOD, "mean"), "write reduction='mean'$"),
        (lambda: focal_loss(GOOD, GOOD, "softmax"), "write activation='softmax'$"),
        (lambda: entropy(GOOD, "bits"), r"^entropy\(probability, …\) .*: write unit='bits'$"),
        (lambda: kl_divergence(GOOD, GOOD, "nats"), "write unit='nats'$"),
        (lambda: class_weights([1], "median", 0.5), r"^class_weights\(counts, …\) .*: write beta=0.5$"),
        (lambda: YoloLoss(YOLO, "darknet"), r"^YoloLoss\(grid, …\) takes keywords only: write coordinates='darknet'$"),
        (lambda: YoloLoss(YOLO, "ciou", "cell"), "write coordinates='ciou', box_unit='cell'$"),
        (lambda: GIoULoss()(GOOD, GOOD, None, None, "mean"), r"^BoxLoss\(pred, target, …\) .*; got 'mean' by place$"),
        (lambda: GIoULoss()(GOOD, GOOD, "mean"), "got str; a module takes its reduction when it is made$"),
    ],
)
def test_values_given_by_place(call, message):
    with pytest.raises(TypeError, match=message):
        call()
