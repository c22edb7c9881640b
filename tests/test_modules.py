"""Reductions, modules and the normalizer across ranks."""

from __future__ import annotations

import functools
import inspect
import math

import pairs
import pytest
import torch
import torch.multiprocessing
from variants import DEFAULTS, label

import boxloss
from boxloss import LOSSES, BoxLoss, boxes, eiou_loss, focal_eiou_loss, iou_loss, kernels, wiou_loss


@pytest.fixture
def batch():
    return pairs.draw("pixels", 10, torch.float32)


@pytest.mark.parametrize("variant", DEFAULTS, ids=label)
def test_reductions(variant, batch):
    """Of the formula; a kernel adds up with more digits, and is held against the formula."""
    name, required = variant
    with kernels.disabled():
        check_reductions(functools.partial(LOSSES[name].function, **required), batch)


def check_reductions(function, batch):
    each = function(*batch)
    weight = torch.linspace(0, 2, 10)
    assert torch.equal(function(*batch, reduction="sum"), each.sum())
    assert torch.equal(function(*batch, reduction="mean"), each.sum() / 10)
    assert torch.equal(function(*batch, weight=weight), each * weight)
    assert torch.equal(function(*batch, weight=weight, reduction="sum"), (each * weight).sum())
    assert torch.equal(function(*batch, weight=weight, reduction="mean"), (each * weight).sum() / 10)
    assert torch.equal(function(*batch, weight=weight, reduction="mean", avg_factor=4), (each * weight).sum() / 4)
    factor = torch.tensor(2.5)
    assert torch.equal(function(*batch, reduction="mean", avg_factor=factor), each.sum() / 2.5)
    assert function(*batch, weight=weight.double()).dtype == torch.float32


# -- avg_factor ------------------------------------------------------------------------------------------------------

PAIRS = [([0, 0, 2, 2], [0, 0, 2, 4]), ([0, 0, 2, 2], [0, 0, 2, 4]), ([0, 0, 4, 4], [1, 1, 5, 4])]


def averaged(variant, dtype, by, weight=None, by_formula=False):
    """The loss of `PAIRS` and its gradient."""
    name, parameters = variant
    pred, target = (torch.tensor(boxes, dtype=dtype) for boxes in zip(*PAIRS, strict=True))
    weight = None if weight is None else torch.tensor(weight, dtype=dtype)
    pred.requires_grad_()
    with kernels.disabled() if by_formula else torch.enable_grad():
        value = LOSSES[name].function(pred, target, reduction="mean", weight=weight, avg_factor=by, **parameters)
    (gradient,) = torch.autograd.grad(value, pred)
    return value.detach(), gradient


@pytest.mark.parametrize("by_formula", [False, True], ids=["kernel", "formula"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("variant", DEFAULTS, ids=label)
def test_avg_factor_of_0(variant, dtype, by_formula):
    """0 where the sum is 0, as without positives, else infinite; by every kind of 0, and without gradient."""
    zeros = [0, 0.0, torch.tensor(0.0), torch.tensor(0), torch.tensor(0.0, dtype=torch.float64)]
    zeros += [1e-46, 5e-324] if dtype == torch.float32 else []  # rounded
    for by in zeros:
        for weight, expected in (
            (None, math.inf),
            ([0.0, 0.0, 0.0], 0.0),
            ([1.0, -1.0, 0.0], 0.0),
            ([0.0, 0.0, -1.0], -math.inf),
        ):
            value, gradient = averaged(variant, dtype, by, weight, by_formula)
            assert value.item() == expected
            assert value.dtype == dtype
            assert (gradient == 0).all()


@pytest.mark.parametrize("variant", DEFAULTS, ids=label)
def test_division_is_that_of_torch(variant):
    """By numbers that are next to 0 in the dtype, and of weights that are infinite."""
    for dtype, factors in ((torch.float32, (1e-40, 1e-45, 3, 0.1)), (torch.float64, (5e-324, 1e-310, 3, 0.1))):
        for by in factors:
            for weight in (None, [1.0, 1.0, 0.0], [math.inf, 1.0, 1.0], [0.0, 1.0, -math.inf]):
                value, gradient = averaged(variant, dtype, by, weight)
                expected, slope = averaged(variant, dtype, by, weight, by_formula=True)
                torch.testing.assert_close(value, expected, rtol=1e-6, atol=0, equal_nan=True)
                torch.testing.assert_close(gradient, slope, rtol=1e-5, atol=1e-6, equal_nan=True)
                total = (averaged(variant, dtype, 1, weight, by_formula=True)[0] / by).item()
                assert value.item() == pytest.approx(total, rel=1e-6, nan_ok=True)


def test_avg_factor_of_0_in_a_module(batch):
    for gain in (1.0, 2.5, -1.0):
        module = BoxLoss("giou", gain=gain)
        assert module(*batch, avg_factor=0) == gain * math.inf
        assert module(*batch, torch.zeros(10), torch.tensor(0)) == 0
    running = BoxLoss("wiou", version="v3")
    assert running(*batch, torch.zeros(10), 0) == 0
    assert running(*batch, avg_factor=0.0) == math.inf
    assert BoxLoss("focal_eiou", normalize_weight=True)(*batch, torch.zeros(10)) == 0


def test_avg_factor_of_0_under_transforms(batch):
    pred, target = batch
    nothing = torch.zeros(10)

    def mean(pred, weight, by):
        return iou_loss(pred, target, reduction="mean", weight=weight, avg_factor=by)

    torch._dynamo.reset()
    for run in (mean, torch.compile(mean, fullgraph=True, backend="aot_eager")):
        for by in (torch.tensor(0.0), 0):
            moved = pred.clone().requires_grad_()
            value = run(moved, nothing, by)
            value.backward()
            assert value == 0
            assert (moved.grad == 0).all()
    torch._dynamo.reset()
    factors, weights = torch.tensor([0.0, 0.0, 4.0]), torch.stack((nothing, nothing + 1, nothing + 1))
    gradient, values = torch.func.vmap(torch.func.grad_and_value(mean), in_dims=(None, 0, 0))(pred, weights, factors)
    torch.testing.assert_close(values, torch.tensor([0.0, math.inf, mean(pred, None, 4.0)]))
    assert (gradient[:2] == 0).all()
    assert gradient[2].isfinite().all()
    assert (gradient[2] != 0).any()


def test_a_gradient_by_avg_factor():
    by = torch.tensor([0.0, 2.0], requires_grad=True)
    box, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 4]])
    sum(boxloss.iou_loss(box, target, reduction="mean", avg_factor=each) for each in by).backward()
    assert by.grad.tolist() == [0.0, -0.5 / 4]


def test_every_loss_has_a_named_class(batch):
    named = {
        cls._loss: cls
        for _, cls in inspect.getmembers(boxloss, inspect.isclass)
        if issubclass(cls, BoxLoss) and cls is not BoxLoss
    }
    assert set(named) == set(LOSSES)
    for name, required in DEFAULTS:
        cls = named[name]
        expected = LOSSES[name].function(*batch, reduction="sum", **required)
        assert torch.equal(cls(reduction="sum", **required)(*batch), expected)
        assert repr(cls(**required)).startswith(f"{cls.__name__}(reduction='mean', gain=1.0")
        assert name in cls.__doc__


@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_box_format(box_format, dtype, batch):
    pred, target = (boxes.convert(b, "xyxy", box_format).to(dtype) for b in batch)
    expected = eiou_loss(boxes.convert(pred, box_format, "xyxy"), boxes.convert(target, box_format, "xyxy"))
    got = BoxLoss("eiou", box_format=box_format, reduction="none")(pred, target)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
def test_corners_are_formed_near_the_box(name, required, box_format):
    """A box of 1e-8 at 0.5 has two equal corners in float32; equal boxes are equal all the same."""
    tiny = torch.tensor([[0.5, 0.5, 1e-8, 1e-8], [4000, 10, 1e-4, 5], [0, 0, 1e-45, 1e-45], [3e38, 0, 2e38, 1]])
    module = BoxLoss(name, box_format=box_format, reduction="none", **required)
    assert (module(tiny, tiny) == 0).all()
    pred, target = torch.tensor([[639.7, 639.3, 0.011, 0.01]]), torch.tensor([[639.7, 639.3, 0.01, 0.01]])
    torch.testing.assert_close(module(pred, target).double(), module(pred.double(), target.double()), rtol=1e-6, atol=0)
    assert module(pred.expand(2, 4)[:, None], target.expand(3, 4)[None]).shape == (2, 3)


def test_weight_and_avg_factor_reach_the_loss(batch):
    weight = torch.linspace(0, 2, 10)
    module = BoxLoss("ciou", gain=3)
    expected = 3 * LOSSES["ciou"].function(*batch, reduction="mean", weight=weight, avg_factor=7.0)
    assert torch.equal(module(*batch, weight, 7.0), expected)
    assert torch.equal(module(*batch, weight=weight, avg_factor=7.0), expected)


def test_normalized_weight(batch):
    """Σ W L / Σ W with W = IoU^γ held constant, as the paper's batch form has it."""
    pred, target = batch
    pred.requires_grad_()
    w = (1 - iou_loss(pred, target)).detach() ** 0.5
    weight = torch.linspace(0.5, 2, 10)
    for given, factor in ((None, 1.0), (weight, weight)):
        expected = (factor * w * eiou_loss(pred, target)).sum() / (factor * w).sum()
        got = BoxLoss("focal_eiou", normalize_weight=True)(pred, target, given)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(torch.autograd.grad(got, pred), torch.autograd.grad(expected, pred))
    extreme = BoxLoss("focal_eiou", normalize_weight=True, gamma=20.0)
    lonely = torch.tensor([[0.0, 0, 90, 90]]), torch.tensor([[0.0, 0, 10, 10]])
    torch.testing.assert_close(extreme(*lonely), eiou_loss(*lonely)[0])  # its weight, 81^-20, cancels
    assert "normalize_weight=True" in repr(BoxLoss("focal_eiou", normalize_weight=True, gamma=1.0))


def test_normalized_weight_where_every_weight_is_zero():
    pred = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    for target in (torch.tensor([[5.0, 5, 6, 6]]), torch.zeros(0, 4)):
        loss = BoxLoss("focal_eiou", normalize_weight=True)(pred[: len(target)], target)
        (gradient,) = torch.autograd.grad(loss, pred)
        assert loss.item() == 0
        assert (gradient == 0).all()


def _rank(rank, address, results):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    results[rank] = normalized_in_rank(rank), running_in_rank(rank)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Per rank what the two functions below give: two processes start once for both."""
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        address = f"file://{tmp_path_factory.mktemp('ranks')}/store"
        torch.multiprocessing.spawn(_rank, (address, results), nprocs=2)
        return [results[0], results[1]]


def normalized_in_rank(rank):
    pred, target = (boxes[[0, 3, 0][rank] : [3, 10][rank]] for boxes in pairs.draw("normalized", 10, torch.float64))
    pred = pred.requires_grad_()
    loss = BoxLoss("focal_eiou", normalize_weight=True)(pred, target)
    loss.backward()
    return loss.item(), pred.grad


def test_normalized_weight_across_ranks(ranks):
    """The mean over the ranks, which is what DistributedDataParallel forms, is the loss of the whole batch."""
    results = [of_rank[0] for of_rank in ranks]
    pred, target = pairs.draw("normalized", 10, torch.float64)
    pred.requires_grad_()
    whole = BoxLoss("focal_eiou", normalize_weight=True)(pred, target)
    whole.backward()
    assert (results[0][0] + results[1][0]) / 2 == pytest.approx(whole.item(), rel=1e-14)
    torch.testing.assert_close(torch.cat((results[0][1], results[1][1])) / 2, pred.grad, rtol=1e-12, atol=1e-16)


def test_focal_eiou_is_blind_where_boxes_lie_apart():
    pred = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    target = torch.tensor([[5.0, 5, 6, 6]])
    for options in ({}, {"detach_weight": False}):
        loss = focal_eiou_loss(pred, target, **options)
        loss.sum().backward()
        assert loss.item() == 0
        assert (pred.grad == 0).all()
    assert LOSSES["focal_eiou"].warning.startswith("0, with zero gradient")


def test_similarity_and_cdiou(batch):
    pred, target = batch
    for name in ("iou", "giou", "diou", "ciou"):
        assert torch.equal(boxloss.similarity(name, pred, target), 1 - LOSSES[name].function(pred, target))
    gated = boxloss.similarity("ciou", pred, target, gated=True)
    assert torch.equal(gated, 1 - boxloss.ciou_loss(pred, target, gated=True))
    d = boxloss.cdiou_loss(pred, target) - iou_loss(pred, target)
    torch.testing.assert_close(boxloss.cdiou(pred, target, lam=0.5), 1 - iou_loss(pred, target) + 0.5 * (1 - d))
    assert (boxloss.cdiou(pred, pred) == 1.001).all()


def test_ciou_gate_and_alpha():
    target = torch.tensor([[0.0, 0, 2, 2]], dtype=torch.float64)
    near, far = torch.tensor([[[0.0, 0, 2, 3]], [[0.0, 0, 2, 8]]], dtype=torch.float64)  # IoU 2/3 and 1/4
    assert torch.equal(boxloss.ciou_loss(near, target, gated=True), boxloss.ciou_loss(near, target))
    assert torch.equal(boxloss.ciou_loss(far, target, gated=True), boxloss.diou_loss(far, target))
    near.requires_grad_()
    slopes = [
        torch.autograd.grad(boxloss.ciou_loss(near, target, differentiate_alpha=flag).sum(), near)[0]
        for flag in (False, True)
    ]
    assert not torch.allclose(*slopes)


def test_unit_aspect_gradient_is_the_exact_one_times_the_squared_diagonal():
    pred = torch.tensor([[0.0, 0, 3, 4]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 0, 4, 4]], dtype=torch.float64)
    values, slopes = [], []
    for kind in ("exact", "unit"):
        value = boxloss.ciou_loss(pred, target, aspect_gradient=kind) - boxloss.diou_loss(pred, target)
        values.append(value.detach())
        slopes.append(torch.autograd.grad(value.sum(), pred)[0])
    assert torch.equal(*values)
    torch.testing.assert_close(slopes[1], 25 * slopes[0])  # w² + h² = 9 + 16


def test_tversky_of_boxes_holds_iou_and_dice(batch):
    """alpha = beta = 1 is IoU, 1/2 is Dice, and Dice is 2 IoU/(1 + IoU)."""
    tversky, dice = LOSSES["tversky_box"].function, LOSSES["dice_box"].function
    torch.testing.assert_close(tversky(*batch, alpha=1.0, beta=1.0), iou_loss(*batch))
    assert torch.equal(tversky(*batch, alpha=0.5, beta=0.5), dice(*batch))
    iou = 1 - iou_loss(*batch)
    torch.testing.assert_close(dice(*batch), 1 - 2 * iou / (1 + iou))
    large, small = torch.tensor([0.0, 0, 4, 4]), torch.tensor([0.0, 0, 2, 4])
    assert tversky(large, small) == pytest.approx(1 - 8 / (8 + 0.3 * 8))  # too much
    assert tversky(small, large) == pytest.approx(1 - 8 / (8 + 0.7 * 8))  # too little


# -- WIoU's running mean ---------------------------------------------------------------------------------------------


def steps(n, dtype=torch.float32):
    """Batches of pairs, the last of them without boxes."""
    return [*(pairs.draw("pixels", 10, dtype, seed) for seed in range(n - 1)), (torch.zeros(0, 4), torch.zeros(0, 4))]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_running_mean(version):
    """That of the authors' code: the batch's mean enters before it is used; the value is the function's with it."""
    module, mean = BoxLoss("wiou", version=version, momentum=0.25), 1.0
    for pred, target in steps(4):
        if len(pred):
            mean = 0.75 * mean + 0.25 * iou_loss(pred, target).mean().item()
        value = module(pred, target)
        assert module.running_mean.item() == pytest.approx(mean, rel=1e-6)
        torch.testing.assert_close(value, wiou_loss(pred, target, reduction="mean", version=version, mean=mean))
    assert mean < 0.9
    module.eval()
    value = module(*steps(2)[0])
    assert module.running_mean.item() == pytest.approx(mean, rel=1e-6)
    torch.testing.assert_close(
        value, wiou_loss(*steps(2)[0], reduction="mean", version=version, mean=module.running_mean.item())
    )


def test_running_mean_takes_finite_pairs_only():
    pred, target = pairs.draw("pixels", 10, torch.float32)
    clean, spoiled = BoxLoss("wiou", version="v3"), BoxLoss("wiou", version="v3", reduction="none")
    clean(pred[1:], target[1:])
    value = spoiled(pred.index_fill(0, torch.tensor([0]), float("nan")), target)
    assert value.isnan().tolist() == [True] + [False] * 9
    assert spoiled.running_mean == clean.running_mean < 1
    spoiled(pred[:1] * float("nan"), target[:1])
    assert spoiled.running_mean == clean.running_mean


def test_running_mean_of_equal_boxes_never_divides_by_zero():
    module = BoxLoss("wiou", version="v3", momentum=1.0)
    box = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    value = module(box, box.detach())
    value.backward()
    assert module.running_mean == 0 == value
    assert (box.grad == 0).all()
    assert module.eval()(torch.tensor([[0.0, 0, 1, 2]]), box.detach()).isfinite()


def test_running_mean_is_state():
    """Saved and loaded amid training it goes on to the same losses; a fresh one would not."""
    batches = steps(6)
    module = BoxLoss("wiou", version="v3", momentum=0.3)
    whole = [module(*batch).item() for batch in batches]
    first, second, fresh = (BoxLoss("wiou", version="v3", momentum=0.3) for _ in range(3))
    for batch in batches[:3]:
        first(*batch)
    assert list(first.state_dict()) == ["running_mean"]
    second.load_state_dict(first.state_dict())
    assert [second(*batch).item() for batch in batches[3:]] == whole[3:]
    assert fresh(*batches[3]).item() != whole[3]
    for without in (BoxLoss("wiou"), BoxLoss("wiou", version="v3", mean=0.5), BoxLoss("giou")):
        assert not without.state_dict()
        assert "momentum" not in repr(without)
    assert "momentum=0.3" in repr(module)
    with pytest.raises(ValueError, match=r"momentum: expected a number in \(0, 1\], got 0"):
        BoxLoss("wiou", momentum=0)


def test_normalized_weight_with_a_running_mean(batch):
    module = BoxLoss("wiou", version="v2", normalize_weight=True, momentum=1.0)
    quality = (iou_loss(*batch) / iou_loss(*batch).mean()) ** 0.5
    expected = (quality * wiou_loss(*batch)).sum() / quality.sum()
    torch.testing.assert_close(module(*batch), expected)


def running_in_rank(rank):
    """The second rank has no boxes in the first step, and fewer in the others."""
    module = BoxLoss("wiou", version="v3", momentum=0.5, reduction="sum")
    for seed in range(3):
        pred, target = (
            boxes[[0, 7][rank] : [7, 10][rank]] for boxes in pairs.draw("normalized", 10, torch.float64, seed)
        )
        kept = slice(0, 0) if (rank, seed) == (1, 0) else slice(None)
        value = module(pred[kept], target[kept])
    return module.running_mean.item(), value.item()


def test_ranks_keep_one_running_mean(ranks):
    results = [of_rank[1] for of_rank in ranks]
    whole = BoxLoss("wiou", version="v3", momentum=0.5, reduction="sum")
    for seed in range(3):
        pred, target = pairs.draw("normalized", 10, torch.float64, seed)
        kept = slice(0, 7) if seed == 0 else slice(None)
        value = whole(pred[kept], target[kept])
    assert results[0][0] == results[1][0] == pytest.approx(whole.running_mean.item(), rel=1e-6)
    assert results[0][1] + results[1][1] == pytest.approx(value.item(), rel=1e-6)


def test_running_mean_in_half_precision_and_in_validation(batch):
    """Its steps would be lost in 8 bits; a validation's pairs are none of training."""
    whole, half = BoxLoss("wiou", version="v3"), BoxLoss("wiou", version="v3").to(torch.bfloat16).half()
    for _ in range(20):
        whole(*batch)
        half(*batch)
    assert half.running_mean.dtype == torch.float32
    assert half.running_mean == whole.running_mean < 0.95
    before = whole.running_mean.clone()
    with torch.no_grad():
        whole(*batch)
    with pytest.raises(ValueError, match="weight: expected one number per pair"):
        whole(*batch, weight=torch.ones(3))
    assert whole.running_mean == before


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_running_mean_stays_where_nothing_may_change(version, batch):
    """Function transforms have no side effects, and without gradients nothing is learned; the mean is read."""
    pred, target = batch
    module = BoxLoss("wiou", version=version)
    module(*batch)
    before = module.running_mean.clone()
    own = functools.partial(wiou_loss, version=version, mean=before.item())

    def value(pred):
        return module(pred, target)

    def expected(pred):
        return own(pred, target, reduction="mean")

    for transform in (torch.func.grad, torch.func.grad_and_value, torch.func.jacfwd, torch.func.hessian):
        # torch makes float64 of a number times a scalar in forward mode.
        torch.testing.assert_close(transform(value)(pred), transform(expected)(pred), check_dtype=False)
    for got, wanted in zip(*(torch.func.jvp(f, (pred,), (pred,)) for f in (value, expected)), strict=True):
        torch.testing.assert_close(got, wanted, check_dtype=False)
    torch.testing.assert_close(torch.func.vmap(module)(pred, target), own(pred, target))
    per_pair = torch.func.vmap(torch.func.grad(module))(pred, target)
    torch.testing.assert_close(per_pair, torch.func.vmap(torch.func.grad(own))(pred, target))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(value(pred), expected(pred))
    torch.testing.assert_close(module.eval()(pred, target), expected(pred))
    assert torch.equal(module.running_mean, before)


def test_a_module_from_inference_mode_learns(batch):
    with torch.inference_mode():
        module = BoxLoss("wiou", version="v3")
        module(*batch)
    module(*batch)
    assert module.running_mean < 1


def test_running_mean_in_a_functional_call(batch):
    """The buffer that is given takes the batch in, as that of batch normalization does, except under a transform."""
    module, given = BoxLoss("wiou", version="v3"), torch.tensor(0.5)
    value = torch.func.functional_call(module, {"running_mean": given}, batch)
    assert module.running_mean == 1
    assert given != 0.5
    assert torch.equal(value, wiou_loss(*batch, reduction="mean", version="v3", mean=given.item()))
    means = torch.tensor([0.5, 0.25])
    each = torch.func.vmap(lambda mean: torch.func.functional_call(module, {"running_mean": mean}, batch))(means)
    expected = [wiou_loss(*batch, reduction="mean", version="v3", mean=mean) for mean in means.tolist()]
    torch.testing.assert_close(each, torch.stack(expected))
    assert means.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("version", [pytest.param("v2", marks=pytest.mark.slow), "v3"])
def test_running_mean_when_compiled(version, batch):
    pred, target = batch
    torch._dynamo.reset()
    plain, module = BoxLoss("wiou", version=version), BoxLoss("wiou", version=version)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(pred, target), plain(pred, target))
        assert torch.equal(module.running_mean, plain.running_mean)
    before = module.running_mean.clone()
    gradient = torch.compile(torch.func.grad(lambda p: module(p, target)), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradient(pred), torch.func.grad(lambda p: plain(p, target))(pred))
    assert torch.equal(module.running_mean, before)
    torch._dynamo.reset()


def test_a_yolo_loss_takes_the_mean_over(batch):
    from boxloss.yolo import DARKNET_ANCHORS, Grid, YoloLoss

    module = BoxLoss("wiou", version="v3", momentum=0.5)
    module(*batch)
    head = YoloLoss(Grid(DARKNET_ANCHORS, num_classes=3), coordinates=module)
    assert head.box_loss.running_mean == module.running_mean < 1
    assert head.box_loss.momentum == 0.5
