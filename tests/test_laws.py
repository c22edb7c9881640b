"""What holds of every loss, each law once for all of them."""

from __future__ import annotations

import copy
import pickle

import checks
import pairs
import pytest
import torch
from variants import (
    DEFAULTS,
    TRACED,
    VARIANTS,
    is_derivative,
    label,
    parameter,
    parameters_scaled,
    vanishes_far_apart,
)

import boxloss
from boxloss import LOSSES, BoxLoss, kernels, pairwise

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=label)
every_default = pytest.mark.parametrize("variant", DEFAULTS, ids=label)
every_graph = pytest.mark.parametrize("variant", TRACED, ids=label)
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def mixed(n=30, dtype=torch.float64, seed=3):
    """Pairs of every kind whose coordinates are within 1e-6 … 1e6 or so."""
    kinds = [kind for kind in pairs.KINDS if kind != "any_scale"]
    drawn = [pairs.draw(kind, n, dtype, seed) for kind in kinds]
    return tuple(torch.cat(boxes) for boxes in zip(*drawn, strict=True))


def apply(variant, pred, target, **options):
    name, parameters = variant
    return LOSSES[name].function(pred, target, **parameters, **options)


@every_variant
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_zero_with_zero_gradient_for_equal_boxes(variant, dtype):
    pred, _ = mixed(dtype=dtype)
    pred = pred[(pred[:, 2:] > pred[:, :2]).all(1)]
    value, gradient = checks.value_and_gradient(boxloss, variant, pred, pred)
    assert value.dtype == checks.FULL.get(dtype, dtype)
    assert (value == 0).all()
    assert (gradient == 0).all()


@every_variant
def test_positive_for_unequal_boxes(variant):
    pred, target = mixed()
    value = apply(variant, pred, target)
    unequal = (pred != target).any(1)
    if vanishes_far_apart(variant):
        unequal &= boxloss.iou_loss(pred, target) < 1
    if LOSSES[variant[0]].zero_from:
        unequal &= boxloss.iou_loss(pred, target) > 1 - parameter(variant, LOSSES[variant[0]].zero_from)
    if "floor" in variant[1]:
        unequal &= boxloss.iou_loss(pred, target) > 1 - variant[1]["floor"]
    assert (value >= 0).all()
    assert (value[unequal] > 0).all()


@every_default
def test_bounds(variant):
    low, high = LOSSES[variant[0]].bounds
    for dtype in (torch.float32, torch.float64):
        value = apply(variant, *mixed(100, dtype))
        assert (value >= low).all()
        assert (value <= high * (1 + 4 * torch.finfo(dtype).eps)).all()


@every_variant
def test_symmetric(variant):
    if not LOSSES[variant[0]].symmetric:
        pytest.skip("not symmetric, and says so")
    pred, target = mixed()
    torch.testing.assert_close(apply(variant, pred, target), apply(variant, target, pred), rtol=4e-15, atol=0)


@every_variant
def test_translation(variant):
    pred, target = (boxes.round() for boxes in pairs.draw("pixels", 100, torch.float64))
    shift = torch.tensor([1024.0, -512, 1024, -512], dtype=torch.float64)
    assert torch.equal(apply(variant, pred + shift, target + shift), apply(variant, pred, target))


def test_power_of_two_scale_to_the_bit():
    checks.check_scale(boxloss)


@every_variant
def test_degree(variant):
    if LOSSES[variant[0]].degree is None:
        pytest.skip("it scales by no power")
    pred, target = mixed()
    scaled = LOSSES[variant[0]].function(3.7 * pred, 3.7 * target, **parameters_scaled(variant, 3.7))
    expected = 3.7 ** LOSSES[variant[0]].degree * apply(variant, pred, target)
    # Coordinates times 3.7 are rounded, so nearly equal boxes lose digits before the loss is called.
    torch.testing.assert_close(scaled, expected, rtol=1e-5, atol=1e-12)


@every_variant
@pytest.mark.parametrize(
    "turned",
    [[2, 1, 0, 3], [0, 3, 2, 1], [1, 0, 3, 2]],
    ids=["mirrored left to right", "mirrored top to bottom", "transposed"],
)
def test_mirror_and_transpose(variant, turned):
    pred, target = mixed()
    sign = torch.tensor([-1.0 if turned[i] % 2 == i % 2 and turned[i] != i else 1.0 for i in range(4)])

    def turn(boxes):
        return boxes[:, turned] * sign[:, None].T.to(boxes)

    value, gradient = checks.value_and_gradient(boxloss, variant, pred, target)
    other, other_gradient = checks.value_and_gradient(boxloss, variant, turn(pred), turn(target))
    torch.testing.assert_close(other, value, rtol=4e-15, atol=0)
    scale = gradient.abs().amax(1, keepdim=True)
    # Also at kinks: there the gradient is the mean of both sides.
    ordinary = pairs.ordinary(pred, target)
    assert ((other_gradient - turn(gradient)).abs() <= 1e-12 * scale)[ordinary].all()


@every_variant
def test_grows_with_the_distance_of_translated_copies(variant):
    distance = torch.linspace(0, 5, 101, dtype=torch.float64)
    box = torch.tensor([0.0, 0, 2, 1], dtype=torch.float64)
    pred = box + distance[:, None] * torch.tensor([1.0, 0.3, 1, 0.3], dtype=torch.float64)
    value = apply(variant, pred, box.expand_as(pred))
    if vanishes_far_apart(variant):
        # It has its maximum where the weight begins to win, and ends at 0.
        assert value[0] == 0
        assert value[-1] < 0.6 * value.max()
        assert value.max() > 0
    else:
        assert (value.diff() >= -1e-15).all()
        assert value[-1] > value[0]


@every_variant
def test_pairwise_is_elementwise_on_the_grid(variant):
    name, parameters = variant
    pred, _ = mixed(2, torch.float32)
    _, target = mixed(3, torch.float32)
    matrix = pairwise(name, pred, target, **parameters)
    assert matrix.shape == (len(pred), len(target))
    rows = [apply(variant, p.expand_as(target), target) for p in pred]
    # atan2 and log of a vector unit and of its scalar tail differ in the last bit.
    torch.testing.assert_close(matrix, torch.stack(rows), rtol=5e-7, atol=0)


@every_variant
def test_batch_invariance(variant):
    """A pair's value and gradient don't depend on what else is in the batch, nor on its layout."""
    pred, target = mixed(20, torch.float32)
    value, gradient = checks.value_and_gradient(boxloss, variant, pred, target)
    order = torch.randperm(len(pred), generator=torch.Generator().manual_seed(0))
    for layout in (lambda x: x[order], lambda x: x[order].T.contiguous().T):
        other, slope = checks.value_and_gradient(boxloss, variant, layout(pred), layout(target))
        torch.testing.assert_close(other, value[order], rtol=1e-6, atol=0)
        torch.testing.assert_close(slope, gradient[order], rtol=1e-4, atol=1e-30)


@every_variant
def test_gradcheck(variant):
    if not is_derivative(variant):
        pytest.skip("a factor is held constant; test_exact compares with the same factor held constant")
    check_derivatives(variant, 2)


@pytest.mark.slow
@every_variant
def test_gradcheck_of_more_pairs(variant):
    if not is_derivative(variant):
        pytest.skip("as above")
    check_derivatives(variant, 4)


def check_derivatives(variant, second):
    """The first ones of four pairs; the ``second`` ones, which take the square of the time, of so many of them."""
    pred, target = (boxes.requires_grad_() for boxes in pairs.draw("normalized", 4, torch.float64))
    function = lambda p, t: apply(variant, p, t)  # noqa: E731
    assert torch.autograd.gradcheck(function, (pred, target))
    few = [boxes.detach()[:second].requires_grad_() for boxes in (pred, target)]
    assert torch.autograd.gradgradcheck(function, few)


@every_default
def test_the_detached_fact(variant):
    """Where nothing is held constant by default, the gradient is the derivative of the value; elsewhere it is not."""
    pred, target = pairs.draw("normalized", 4, torch.float64)
    pred.requires_grad_()
    right = torch.autograd.gradcheck(lambda p: apply(variant, p, target), (pred,), raise_exception=False)
    assert right is not LOSSES[variant[0]].detached


def test_not_finite_coordinates_touch_no_other_pair():
    checks.check_not_finite(boxloss)


@every_variant
@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (0, 0, 4)], ids=str)
def test_no_boxes(variant, shape):
    pred = torch.zeros(shape, requires_grad=True)
    target = torch.zeros(shape)
    assert apply(variant, pred, target).shape == shape[:-1]
    weight = torch.zeros(shape[:-1])
    for options in (
        {"reduction": "mean"},
        {"reduction": "sum"},
        {"reduction": "mean", "weight": weight},
        {"reduction": "mean", "avg_factor": 0},
        {"reduction": "mean", "avg_factor": torch.tensor(0.0)},
    ):
        total = apply(variant, pred, target, **options)
        (gradient,) = torch.autograd.grad(total, pred)
        assert total.item() == 0.0
        assert gradient.shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_variant
def test_halves_are_raised_before_the_first_subtraction(variant, dtype):
    pred, target = pairs.draw("pixels", 100, dtype)
    value = apply(variant, pred, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, apply(variant, pred.float(), target.float()))


@pytest.mark.parametrize(
    ("pred", "target", "expected"),
    [
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float64, torch.float64),
        (torch.float32, torch.float64, torch.float64),
        (torch.float32, torch.int64, torch.float32),
        (torch.float16, torch.uint8, torch.float32),
        (torch.uint8, torch.int64, torch.float64),
        (torch.int32, torch.int32, torch.float64),
    ],
    ids=str,
)
def test_dtype_of_the_loss(pred, target, expected):
    boxes = torch.tensor([[0, 0, 10, 10]])
    for variant in DEFAULTS:
        assert apply(variant, boxes.to(pred), boxes.to(target)).dtype == expected


def test_integers_are_exact():
    """Peers wrap uint8, overflow int32 areas and round int64 coordinates to float32."""
    bytes_ = [torch.tensor(box, dtype=torch.uint8) for box in ([0, 0, 10, 10], [20, 20, 30, 30])]
    assert boxloss.giou_loss(*bytes_).item() == pytest.approx(1 + 700 / 900, abs=1e-15)
    large = [torch.tensor(box, dtype=torch.int32) for box in ([0, 0, 50_000, 50_000], [0, 0, 50_000, 25_000])]
    assert boxloss.iou_loss(*large).item() == 0.5
    far = [torch.tensor([2**24 + i, 0, 2**24 + i + 2, 1]) for i in (0, 1)]
    assert boxloss.iou_loss(*far).item() == pytest.approx(2 / 3, abs=1e-15)


@every_variant
def test_broadcasting(variant):
    pred, target = pairs.draw("normalized", 3, torch.float64)
    one = apply(variant, pred[:1], target)
    assert torch.equal(one, apply(variant, pred[:1].expand(3, 4), target))
    assert torch.equal(apply(variant, target, pred[:1]), apply(variant, target, pred[:1].expand(3, 4)))
    single = apply(variant, pred[0], target[0])
    assert single.shape == ()
    assert torch.equal(apply(variant, pred[:, None], target[None]), pairwise(variant[0], pred, target, **variant[1]))


def quick(variants, *names):
    """Of these losses, with default parameters, in the quick suite; of the others in the slow one."""
    return pytest.mark.parametrize(
        "variant",
        [
            variant if variant in DEFAULTS and variant[0] in names else pytest.param(variant, marks=pytest.mark.slow)
            for variant in variants
        ],
        ids=label,
    )


# With angles, a pair of numbers as a parameter, and logarithms, the longest; each takes seconds.
@quick(TRACED, "ciou", "mpdiou", "kld")
def test_compiles_whole(variant):
    """aot_eager traces as every compiler does, fusing nothing, so the results have to be the same to the bit."""
    torch._dynamo.reset()
    pred, target = pairs.draw("normalized", 8, torch.float32)
    compiled = torch.compile(
        lambda p, t: apply(variant, p, t, reduction="sum"), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    expected, slope = (torch.zeros(()), torch.zeros(()))
    pred.requires_grad_()
    with kernels.disabled():
        expected = apply(variant, pred, target, reduction="sum")
        (slope,) = torch.autograd.grad(expected, pred)
    value = compiled(pred, target)
    (gradient,) = torch.autograd.grad(value, pred)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, slope)


@pytest.mark.slow
@every_graph
def test_compiles_with_inductor(variant, capsys):
    """It also says how many kernels Inductor makes of it."""
    from torch._inductor import metrics

    torch._dynamo.reset()
    metrics.reset()
    pred, target = pairs.draw("normalized", 100, torch.float32)
    pred.requires_grad_()
    value = torch.compile(lambda p, t: apply(variant, p, t), fullgraph=True, dynamic=True)(pred, target)
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    with capsys.disabled():
        print(f"{variant}: {metrics.generated_kernel_count} kernels, forward and backward")
    expected = apply(variant, pred, target)
    (slope,) = torch.autograd.grad(expected.sum(), pred)
    torch.testing.assert_close(value, expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


@quick(DEFAULTS, "smooth_l1", "giou", "ciou", "mpdiou", "focal_eiou", "wiou", "nwd", "kld")
def test_exports(variant):
    class Forward(torch.nn.Module):
        def forward(self, pred, target):
            return apply(variant, pred, target)

    pred, target = pairs.draw("normalized", 8, torch.float32)
    n = torch.export.Dim("n")
    exported = torch.export.export(Forward(), (pred, target), dynamic_shapes=({0: n}, {0: n}))
    assert torch.equal(exported.module()(pred[:3], target[:3]), apply(variant, pred[:3], target[:3]))


@every_variant
def test_function_transforms(variant):
    pred, target = pairs.draw("normalized", 8, torch.float64)
    _, expected = checks.value_and_gradient(boxloss, variant, pred, target)
    gradient = torch.func.grad(lambda p, t: apply(variant, p, t))
    torch.testing.assert_close(torch.func.vmap(gradient)(pred, target), expected, rtol=1e-12, atol=1e-14)
    forward = torch.func.vmap(torch.func.jacfwd(lambda p, t: apply(variant, p, t)))
    torch.testing.assert_close(forward(pred, target), expected, rtol=1e-12, atol=1e-14)


@every_variant
def test_module_is_the_function(variant):
    name, parameters = variant
    pred, target = pairs.draw("normalized", 5, torch.float32)
    module = BoxLoss(name, gain=2.5, **parameters)
    expected = 2.5 * apply(variant, pred, target, reduction="mean")
    for same in (module, pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(same(pred, target), expected)
    assert torch.equal(eval(repr(module), {"BoxLoss": BoxLoss})(pred, target), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_under_autocast(dtype):
    pred, target = pairs.draw("pixels", 50, torch.float32)
    for variant in VARIANTS:
        expected = apply(variant, pred, target)
        with torch.autocast("cpu", dtype):
            value = apply(variant, pred, target)
        assert torch.equal(value, expected), label(variant)


@every_variant
def test_second_derivatives_where_boxes_lie_apart(variant):
    """Ordinary pairs and degenerate ones: no NaN in forward mode nor in a Hessian."""
    pred, target = checks.degenerate(torch.float64)
    forward = torch.func.vmap(torch.func.jacfwd(lambda p, t: apply(variant, p, t)))(pred, target)
    _, reverse = checks.value_and_gradient(boxloss, variant, pred, target)
    assert not forward.isnan().any()
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-12)
    hessian = torch.func.vmap(torch.func.hessian(lambda p, t: apply(variant, p, t)))(pred, target)
    assert not hessian.isnan().any()
