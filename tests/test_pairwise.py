"""The matrix of every box with every other: tiled, with gradients, at a bounded cost."""

from __future__ import annotations

import pairs
import pytest
import torch
from variants import DEFAULTS

from boxloss import LOSSES, giou_loss, pairwise
from boxloss.losses import _pairwise


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(_pairwise, "TILE", 7)


def boxes(n, seed=0, leading=()):
    drawn, _ = pairs.draw("normalized", max(n, 1) * max(1, torch.Size(leading).numel()), torch.float64, seed)
    return drawn[: n * torch.Size(leading).numel()].reshape(*leading, n, 4)


@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
@pytest.mark.parametrize(("n", "m"), [(5, 3), (3, 20), (1, 8), (8, 1)])
def test_tiles_make_up_the_matrix(small_tiles, name, required, n, m):
    a, b = boxes(n).requires_grad_(), boxes(m, seed=1).requires_grad_()
    weights = torch.rand(n, m, dtype=torch.float64)
    matrix = pairwise(name, a, b, **required)
    whole = LOSSES[name].function(a[:, None], b[None], **required)
    torch.testing.assert_close(matrix, whole, rtol=1e-14, atol=0)
    for got, expected in zip(
        torch.autograd.grad((matrix * weights).sum(), (a, b)),
        torch.autograd.grad((whole * weights).sum(), (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("first", "second"), [((2,), (2,)), ((2,), (1,)), ((1, 3), (2, 1)), ((2, 0), (2, 1))])
def test_leading_axes(small_tiles, first, second):
    a, b = boxes(3, leading=first), boxes(4, seed=1, leading=second)
    matrix = pairwise("giou", a, b)
    assert matrix.shape == (*torch.broadcast_shapes(first, second), 3, 4)
    torch.testing.assert_close(matrix, giou_loss(a.unsqueeze(-2), b.unsqueeze(-3)), rtol=1e-14, atol=0)


def test_only_the_gradient_that_is_asked_for(small_tiles):
    for wanted in (0, 1):
        both = [boxes(4), boxes(5, seed=1)]
        both[wanted].requires_grad_()
        pairwise("giou", *both).sum().backward()
        assert both[wanted].grad is not None
        assert both[1 - wanted].grad is None


def test_second_derivatives(small_tiles):
    a, b = boxes(3).requires_grad_(), boxes(4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pairwise("giou", a, b), (a, b))
    assert torch.autograd.gradgradcheck(lambda a, b: pairwise("giou", a, b), (a, b))


def test_function_transforms_and_compilers_take_it_whole(small_tiles):
    a, b = boxes(3), boxes(4, seed=1)
    total = lambda a: pairwise("giou", a, b).sum()  # noqa: E731
    expected = torch.autograd.functional.jacobian(total, a)
    torch.testing.assert_close(torch.func.grad(total)(a), expected)
    compiled = torch.compile(lambda a, b: pairwise("giou", a, b), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(a, b), giou_loss(a[:, None], b[None]))


def test_no_boxes():
    for n, m in ((0, 3), (3, 0), (0, 0)):
        a = boxes(n).requires_grad_()
        matrix = pairwise("ciou", a, boxes(m))
        assert matrix.shape == (n, m)
        matrix.sum().backward()
        assert a.grad.shape == (n, 4)


def test_a_function_may_stand_for_the_name():
    a, b = boxes(3), boxes(4, seed=1)
    assert torch.equal(pairwise(giou_loss, a, b), pairwise("giou", a, b))


def test_parameters_are_handed_on():
    a, b = boxes(3), boxes(4, seed=1)
    expected = LOSSES["smooth_l1"].function(a[:, None], b[None], beta=0.5)
    assert torch.equal(pairwise("smooth_l1", a, b, beta=0.5), expected)


def test_dtypes_are_promoted_as_elementwise():
    a, b = boxes(2).half(), boxes(3)
    assert pairwise("iou", a, b.half()).dtype == torch.float32
    assert pairwise("iou", a, b).dtype == torch.float64


def test_one_bad_box_spoils_its_row_only(small_tiles):
    a, b = boxes(6), boxes(5, seed=1)
    expected = pairwise("giou", a, b)
    a[2, 1] = float("nan")
    matrix = pairwise("giou", a, b)
    assert matrix[2].isnan().all()
    rest = torch.arange(6) != 2
    assert torch.equal(matrix[rest], expected[rest])


def test_scratch_is_bounded():
    """33,600 × 300 pairs, as an anchor-free detector's assigner has them, forward and backward, in a process apart."""
    import subprocess
    import sys

    program = """
import resource, torch
from boxloss import pairwise
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
low = torch.rand(33_900, 2, generator=g)
boxes = torch.cat((low, low + torch.rand(33_900, 2, generator=g)), 1)
a, b = boxes[:33_600].requires_grad_(), boxes[33_600:]
pairwise("ciou", a[:400], b).sum().backward()  # what a first call costs once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pairwise("ciou", a, b).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    output = 33_600 * 300 * 4 / 2**20
    # The output, the gradient of the sum by it where it is not a view, and a scratch; all intermediates were 4 GB.
    assert float(done.stdout) < 2 * output + 64


def test_forward_mode_and_batched_gradients(small_tiles):
    a, b = boxes(3), boxes(4, seed=1)
    whole = giou_loss(a[:, None], b[None])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(a, torch.ones_like(a))
        expected = torch.autograd.forward_ad.unpack_dual(giou_loss(dual[:, None], b[None])).tangent
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(pairwise("giou", dual, b)).tangent, expected)
    a.requires_grad_()
    cotangents = torch.rand(2, *whole.shape, dtype=torch.float64)
    matrix = pairwise("giou", a, b)
    (batched,) = torch.autograd.grad(matrix, a, cotangents, is_grads_batched=True, retain_graph=True)
    for got, cotangent in zip(batched, cotangents, strict=True):
        torch.testing.assert_close(got, *torch.autograd.grad(matrix, a, cotangent, retain_graph=True))


def test_what_a_function_closes_over_keeps_its_gradient(small_tiles):
    a, b = boxes(3), boxes(4, seed=1)
    factor = torch.tensor(2.0, requires_grad=True)
    pairwise(lambda p, t: factor * giou_loss(p, t), a, b).sum().backward()
    torch.testing.assert_close(factor.grad, pairwise("giou", a, b).sum().float())


def test_boxes_made_in_inference_mode(small_tiles):
    with torch.inference_mode():
        b = boxes(4, seed=1)
    a = boxes(3).requires_grad_()
    pairwise("giou", a, b).sum().backward()
    assert a.grad.isfinite().all()
