"""Kernels: they give what their formulas give, bit for bit where no function is rounded; and where they stand back."""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checks
import pairs
import pytest
import torch
import torch.utils.checkpoint
from torch.fx.experimental.proxy_tensor import make_fx
from variants import REQUIRED, VARIANTS, label
from variants import WITH_FUNCTIONS as ROUNDED

import boxloss
from boxloss import LOSSES, BoxLoss, kernels, pairwise
from boxloss.kernels import c, catalog, trace
from boxloss.kernels.native import NATIVE, Library
from boxloss.simulation import SimulationConfig
from boxloss.simulation.config import Descent
from boxloss.simulation.descent import descend

ROOT = Path(__file__).parent.parent
ENTRIES = catalog.read()
TWO = (torch.float32, torch.float64)

compiled = kernels.library()
needs_library = pytest.mark.skipif(isinstance(compiled, str), reason=f"no kernels: {compiled}")


@pytest.fixture(params=range(3), ids=["best", "second", "third"])
def instructions(request):
    """Each instruction set that this machine has."""
    if isinstance(compiled, str) or request.param >= len(compiled.instructions):
        pytest.skip("not on this machine")
    compiled.used = request.param
    yield compiled.instructions[request.param]
    compiled.used = 0


def both(function, *tensors, upstream=None):
    """Value and gradients by the kernel and by the formula."""
    results = []
    for way in (None, kernels.disabled):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        if way:
            with way():
                results.append(_value_and_gradients(function, leaves, upstream))
        else:
            results.append(_value_and_gradients(function, leaves, upstream))
    return results


def _value_and_gradients(function, leaves, upstream):
    value = function(*leaves)
    grads = torch.autograd.grad(value, leaves, torch.ones_like(value) if upstream is None else upstream)
    return value.detach(), *grads


CHAINS = {"balanced_l1", "piou", "wiou", "gwd", "kld"}
"""Losses with a function of a function: both round twice."""


def ulps(name):
    return 0 if name not in ROUNDED else 4 if name in CHAINS else 2


def assert_same(got, wanted, ulps, where, cancelled=0.0):
    """Values within ``ulps``, 0 for bit for bit; gradients within 64 eps of the pair's largest component.

    Or of ``cancelled``, (n, 1), where larger components have cancelled in its sum.
    """
    (value, *gradients), (expected, *slopes) = got, wanted
    eps = torch.finfo(value.dtype).eps
    assert torch.equal(value.isnan(), expected.isnan()), where
    if not ulps:
        assert torch.equal(value.nan_to_num(7.0), expected.nan_to_num(7.0)), where
    else:
        ulp = expected.abs().clamp(min=torch.finfo(value.dtype).tiny) * eps
        assert not ((value - expected).abs() > ulps * ulp).any(), where
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert torch.equal(gradient.isnan(), slope.isnan()), where
        finite = slope.isfinite()
        assert torch.equal(gradient[~finite].nan_to_num(7.0), slope[~finite].nan_to_num(7.0)), where
        gradient, slope = gradient.masked_fill(~finite, 0.0), slope.masked_fill(~finite, 0.0)
        bound = 64 * eps * torch.maximum(slope.abs().amax(-1, keepdim=True), torch.as_tensor(cancelled))
        assert not ((gradient - slope).abs() > bound).any(), where


def kind_of_boxes(kind, dtype):
    if kind == "degenerate":
        return checks.degenerate(dtype)
    if kind == "not finite":
        pred, target = pairs.draw("pixels", 300, dtype)
        for row, bad in enumerate((float("nan"), float("inf"), -float("inf"))):
            for column in range(4):
                pred[8 * row + column, column] = bad
                target[8 * row + 4 + column, column] = bad
        return pred, target
    return pairs.draw(kind, 300, dtype)


# -- the same as the formula -----------------------------------------------------------------------------------------


def exponents(name, pred, target):
    """W/C of nwd, P of piou: (n, 1), at most 745, 0 where not finite."""
    off, side = (pred - target).abs(), target[:, 2:] - target[:, :2]
    edges = ((off[:, :2] + off[:, 2:]) / (4 * side)).sum(1)
    found = off.amax(1) / REQUIRED["nwd"]["constant"] if name == "nwd" else edges
    return found.clamp(max=745.0).nan_to_num(0.0)[:, None]


@needs_library
@pytest.mark.parametrize("dtype", TWO, ids=str)
@pytest.mark.parametrize("kind", [*pairs.KINDS, "degenerate", "not finite"])
def test_a_kernel_is_its_formula(kind, dtype, instructions):
    """Each kernel, of every instruction set, on every kind of pairs."""
    pred, target = kind_of_boxes(kind, dtype)
    # The four corners of a box in the middle of another pull with 1/(4c) each, against one another.
    hull = torch.maximum(pred, target)[:, 2:] - torch.minimum(pred, target)[:, :2]
    corners = (0.25 / torch.linalg.vector_norm(hull, dim=1, keepdim=True)).nan_to_num(0.0, 0.0, 0.0)
    corners = corners.masked_fill(pairs.ordinary(pred.double(), target.double())[:, None], 0.0)
    for entry in ENTRIES:
        function = functools.partial(LOSSES[entry.loss].function, **REQUIRED.get(entry.loss, {}), **entry.choices)
        got, wanted = both(function, pred, target)
        cancelled = corners if entry.loss == "cdiou" else torch.zeros_like(corners)
        if entry.name in ("nwd", "piou_version_2"):
            # Slopes are a power of e: what the last place of its exponent is worth grows with the exponent.
            cancelled = 2 * exponents(entry.loss, pred, target) * wanted[1].abs().amax(1, keepdim=True)
        if entry.name == "piou_version_2":  # and the factor's slope may cancel that of version 1
            _, (_, of_version_1, _) = both(LOSSES["piou"].function, pred, target)
            cancelled = cancelled + of_version_1.abs().amax(1, keepdim=True)
        assert_same(got, wanted, ulps(entry.loss), f"{entry.name} {instructions}", cancelled)


@needs_library
def test_every_variant_has_a_kernel_or_a_reason():
    found = {label(variant): kernels.find(*variant, torch.float64) for variant in VARIANTS}
    without = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    assert without == {
        "smooth_l1-beta=0.0": "smooth_l1 computes in another way at {'beta': 0.0}",
        "log_iou-floor=0.75": "log_iou computes in another way at {'floor': 0.75}",
        "diou-inner_ratio=0.75": "none was made of diou as it is here",
        "ciou-inner_ratio=1.25": "none was made of ciou as it is here",
    } | {name: reason for name, reason in without.items() if "gamma" in name or "penalty_weight" in name}
    for variant in VARIANTS:
        if isinstance(kernel := found[label(variant)], kernels.Kernel):
            pred, target = pairs.draw("pixels", 200, torch.float64)
            name, parameters = variant
            got, wanted = both(lambda p, t: LOSSES[name].function(p, t, **parameters), pred, target)  # noqa: B023
            assert_same(got, wanted, ulps(name), kernel.name)


@needs_library
@pytest.mark.parametrize(("name", "parameters"), [("smooth_l1", {"beta": 7.5}), ("focal_eiou", {"gamma": 1.7})])
def test_numbers_are_arguments(name, parameters):
    one, other = kernels.find(name, {}, torch.float32), kernels.find(name, parameters, torch.float32)
    assert (one.name, one.place) == (other.name, other.place)
    pred, target = pairs.draw("pixels", 300, torch.float32)
    got, wanted = both(lambda p, t: LOSSES[name].function(p, t, **parameters), pred, target)
    assert_same(got, wanted, ulps(name), name)
    assert not torch.equal(got[0], LOSSES[name].function(pred, target))


@needs_library
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_any_number_of_pairs(reduction):
    for count in (*range(1, 68), 127, 128, 129, 1000):
        pred, target = pairs.draw("pixels", count, torch.float32)
        got, wanted = both(lambda p, t: boxloss.giou_loss(p, t, reduction=reduction), pred, target)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


@needs_library
def test_numbers_that_always_change_are_not_traced_for_ever(monkeypatch):
    """Such as a gamma that grows from step to step."""
    kernels.forget()
    monkeypatch.setattr(kernels, "MOST_TRACES", 2)
    pred, target = pairs.draw("pixels", 5, torch.float32)
    said = [kernels.explain("smooth_l1", pred, target, beta=beta) for beta in (2.0, 3.0, 4.0, 2.0, 1.0)]
    assert ["kernel" in text.split(",")[0] for text in said] == [True, True, True, True, True]
    assert ["formula" in text for text in said] == [False, False, True, False, False]
    assert "numbers have changed 2 times" in said[2]
    kernels.forget()


LAYOUTS = {
    "columns of a wider matrix": lambda b: torch.cat((b, b), 1)[:, :4],
    "every other row": lambda b: b.repeat_interleave(2, 0)[::2],
    "transposed": lambda b: b.T.contiguous().T,
    "from the end": lambda b: b.flip(0).flip(0),
    "one of them for all": lambda b: b[:1].expand(60, 4),
    "one row": lambda b: b[:1],
    "with more axes": lambda b: b.view(3, 4, 5, 4),
    "axes exchanged": lambda b: b.view(4, 15, 4).transpose(0, 1),
    "offset": lambda b: torch.cat((b[:1], b))[1:],
    "integers": lambda b: b.long(),
    "halves": lambda b: b.half(),
}


@needs_library
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout):
    pred, target = pairs.draw("pixels", 60, torch.float32)
    change = LAYOUTS[layout]
    if layout in ("with more axes", "axes exchanged"):
        target = change(target)
    for a, b in ((change(pred), target), (target, change(pred))):
        with kernels.disabled():
            wanted = boxloss.eiou_loss(a, b)
        assert torch.equal(boxloss.eiou_loss(a, b), wanted)
        if a.is_floating_point() and b.is_floating_point():
            got, expected = both(boxloss.eiou_loss, a, b)
            torch.testing.assert_close(got[1:], expected[1:], rtol=1e-5, atol=1e-6)


@needs_library
def test_shapes_that_broadcast():
    pred, target = pairs.draw("pixels", 60, torch.float64)
    a, b = pred.view(6, 1, 10, 4), target[:20].view(1, 2, 10, 4)
    got, wanted = both(boxloss.diou_loss, a, b)
    assert got[0].shape == (6, 2, 10)
    assert [gradient.shape for gradient in got[1:]] == [a.shape, b.shape]
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)
    assert boxloss.diou_loss(pred[0], target[0]).shape == ()


@needs_library
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("reduction", "by"), [("none", None), ("sum", None), ("mean", None), ("mean", 7.5)])
@pytest.mark.parametrize("upstream", [1.0, -0.25])
def test_reductions(weighted, reduction, by, upstream):
    pred, target = pairs.draw("pixels", 1000, torch.float32)
    weight = torch.rand(1000, generator=torch.Generator().manual_seed(0)) - 0.2 if weighted else None
    options = {"reduction": reduction, "weight": weight, "avg_factor": by}
    shape = (1000,) if reduction == "none" else ()
    seeds = torch.full(shape, upstream)
    got, wanted = both(lambda p, t: boxloss.ciou_loss(p, t, **options), pred, target, upstream=seeds)
    torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-8)
    if by:
        tensor = boxloss.ciou_loss(pred, target, **options | {"avg_factor": torch.tensor(by)})
        assert tensor == got[0]


def test_a_sum_is_nearly_the_exact_one():
    """Of a million values of about 1, in float32."""
    pred, target = pairs.draw("pixels", 2**20, torch.float32)
    values = boxloss.giou_loss(pred, target)
    total = boxloss.giou_loss(pred, target, reduction="sum")
    assert total == values.double().sum().float()


@needs_library
def test_a_million_pairs_on_two_threads():
    pred, target = pairs.draw("pixels", 300_001, torch.float32)
    one = both(lambda p, t: boxloss.ciou_loss(p, t), pred, target)[0]
    torch.set_num_threads(3)
    try:
        several = both(lambda p, t: boxloss.ciou_loss(p, t), pred, target)[0]
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, one, several))


# -- every pair ------------------------------------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize(
    "shape", [(1, 1), (300, 20), (7, 129), (128, 128), (3, 1000), (400, 1), (0, 5), (5, 0)], ids=str
)
@pytest.mark.parametrize("dtype", TWO, ids=str)
def test_every_pair(shape, dtype, instructions):
    g = torch.Generator().manual_seed(1)
    a, b = (pairs.pixels(g, max(n, 3))[0][:n].to(dtype) for n in shape)
    upstream = torch.randn(shape, generator=g, dtype=dtype)
    for name in ("giou", "ciou", "smooth_l1"):
        got, wanted = both(lambda p, t: pairwise(name, p, t), a, b, upstream=upstream)  # noqa: B023
        assert_same(got[:1], wanted[:1], ulps(name), f"{name} {instructions}")
        scale = max(float(slope.abs().max()) if slope.numel() else 0.0 for slope in wanted[1:])
        for gradient, slope in zip(got[1:], wanted[1:], strict=True):
            torch.testing.assert_close(gradient, slope, rtol=0, atol=200 * torch.finfo(dtype).eps * scale)


@needs_library
def test_every_pair_on_several_threads_and_with_more_axes():
    g = torch.Generator().manual_seed(2)
    a, b = pairs.pixels(g, 2 * 400)[0].view(2, 1, 400, 4), pairs.pixels(g, 3 * 90)[0].view(1, 3, 90, 4)
    upstream = torch.randn(2, 3, 400, 90, generator=g, dtype=torch.float64)
    one = both(lambda p, t: pairwise("giou", p, t), a, b, upstream=upstream)
    torch.testing.assert_close(*one, rtol=1e-10, atol=1e-12)
    torch.set_num_threads(3)
    try:
        several = both(lambda p, t: pairwise("giou", p, t), a, b, upstream=upstream)[0]
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(several, one[0], rtol=1e-12, atol=1e-14)


# -- what a kernel leaves to the formula ------------------------------------------------------------------------------


@needs_library
def test_gradients_of_gradients():
    pred, target = pairs.draw("normalized", 5, torch.float64)
    for loss in (lambda p: boxloss.diou_loss(p, target), lambda p: boxloss.diou_loss(p, target, reduction="mean")):
        assert torch.autograd.gradgradcheck(loss, pred.clone().requires_grad_())


@needs_library
def test_a_graph_that_is_kept_gives_the_same_again():
    pred, target = pairs.draw("pixels", 50, torch.float32)
    leaf = pred.requires_grad_()
    value = boxloss.ciou_loss(leaf, target, reduction="mean")
    first, second = (torch.autograd.grad(value, leaf, retain_graph=True)[0] for _ in range(2))
    third = torch.autograd.grad(value, leaf, torch.tensor(3.0))[0]
    assert torch.equal(first, second)
    torch.testing.assert_close(third, 3 * first)


@needs_library
def test_gradients_of_many_outputs_at_once():
    pred, target = pairs.draw("pixels", 5, torch.float32)
    leaf = pred.requires_grad_()
    value = boxloss.giou_loss(leaf, target)
    (rows,) = torch.autograd.grad(value, leaf, torch.eye(5), is_grads_batched=True, retain_graph=True)
    for k in range(5):
        torch.testing.assert_close(rows[k], torch.autograd.grad(value, leaf, torch.eye(5)[k], retain_graph=True)[0])


@needs_library
def test_a_gradient_to_what_requires_one():
    pred, target = pairs.draw("pixels", 20, torch.float32)
    value = boxloss.giou_loss(pred, target.requires_grad_(), reduction="sum")
    value.backward()
    assert pred.grad is None
    assert target.grad.shape == (20, 4)
    assert not boxloss.giou_loss(pred, pred).requires_grad
    with torch.no_grad():
        assert not boxloss.giou_loss(pred, target).requires_grad
    with torch.inference_mode():
        boxloss.giou_loss(pred, target, reduction="mean")


@needs_library
def test_a_weight_or_divisor_that_requires_a_gradient_gets_one():
    pred, target = pairs.draw("pixels", 20, torch.float32)
    weight, by = torch.ones(20, requires_grad=True), torch.tensor(4.0, requires_grad=True)
    value = boxloss.giou_loss(pred, target, weight=weight, reduction="mean", avg_factor=by)
    of_weight, of_by = torch.autograd.grad(value, (weight, by))
    torch.testing.assert_close(of_weight, boxloss.giou_loss(pred, target) / 4)
    torch.testing.assert_close(of_by, -value.detach() / 4)


@needs_library
def test_numbers_are_traced_wherever_the_caller_is():
    pred, target = pairs.draw("pixels", 20, torch.float32)
    with torch.inference_mode():
        got = boxloss.smooth_l1_loss(pred, target, beta=3.25)
    with kernels.disabled():
        assert torch.equal(got, boxloss.smooth_l1_loss(pred, target, beta=3.25))
    with torch.device("meta"):  # where new tensors would be made
        value = boxloss.smooth_l1_loss(pred, target, beta=3.5, reduction="mean")
        matrix = pairwise("giou", pred.requires_grad_(), target)
        matrix.sum().backward()
    assert value.device == matrix.device == pred.grad.device == torch.device("cpu")


@needs_library
def test_views_that_are_yet_to_be_negated():
    pred, target = pairs.draw("pixels", 20, torch.float32)
    lazy = torch.complex(torch.zeros_like(pred), -pred).conj().imag
    assert lazy.is_neg()
    assert torch.equal(boxloss.giou_loss(lazy, target), boxloss.giou_loss(pred, target))
    assert "negated" in kernels.explain("giou", lazy, target)


@needs_library
def test_boxes_that_were_changed_before_the_backward_pass():
    pred, target = pairs.draw("pixels", 20, torch.float32)
    shifted = pred.requires_grad_() * 1.0
    value = boxloss.giou_loss(shifted, target, reduction="mean")
    with torch.no_grad():
        shifted += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@needs_library
def test_kernels_are_explained():
    pred, target = pairs.draw("pixels", 4, torch.float32)
    assert kernels.explain("giou", pred, target) == f"giou: kernel giou, {compiled.instructions[0]}, 1 threads"
    assert "kernel ciou_gated_true" in kernels.explain("ciou", pred.half(), target, gated=True)
    with kernels.disabled():
        assert kernels.explain("giou", pred, target) == "giou: formula; no kernel, as they are disabled"
    assert "on meta" in kernels.explain("giou", pred.to("meta"), target.to("meta"))
    said = []
    torch.func.vmap(lambda p, t: (said.append(kernels.explain("giou", p, t)), p)[1])(pred, target)
    assert "function transform" in said[0]
    with torch.autograd.set_detect_anomaly(True):
        assert "anomaly detection" in kernels.explain("giou", pred, target)
    assert "computes in another way" in kernels.explain("smooth_l1", pred, target, beta=0.0)
    with pytest.raises(ValueError, match="no loss named 'gio'"):
        kernels.explain("gio", pred, target)


def test_a_loss_from_elsewhere_runs_as_its_formula():
    @boxloss.define(source="", bounds=(0, 1))
    def erf_loss(pair):
        """A test.

        erf(1 − I/U)
        """
        return torch.special.erf(pair.iou_loss)

    try:
        pred, target = pairs.draw("pixels", 4, torch.float32)
        torch.testing.assert_close(erf_loss(pred, target), torch.special.erf(boxloss.iou_loss(pred, target)))
        assert "none was made of erf" in kernels.explain("erf", pred, target) or isinstance(compiled, str)
        with pytest.raises(trace.NoRuleError, match=r"no rule for aten\.erf"):
            trace.trace(LOSSES["erf"].formula, {}, torch.float32)
    finally:
        del LOSSES["erf"]


def test_without_a_library_the_formulas_run(monkeypatch):
    pred, target = pairs.draw("pixels", 40, torch.float32)
    wanted = boxloss.giou_loss(pred, target, reduction="mean")
    monkeypatch.setattr(kernels, "library", lambda: "they were not compiled")
    kernels.forget()
    try:
        assert "they were not compiled" in kernels.explain("giou", pred, target)
        torch.testing.assert_close(boxloss.giou_loss(pred, target, reduction="mean"), wanted)
        torch.testing.assert_close(pairwise("giou", pred, target).diagonal().mean(), wanted)
    finally:
        kernels.forget()


@needs_library
def test_a_stale_or_damaged_library_is_not_used(tmp_path, monkeypatch):
    """As of another version, whose sources have changed since it was compiled."""
    from boxloss.kernels import native

    for name in ("generated.h", compiled.path.name):
        shutil.copy(NATIVE / name, tmp_path)
    monkeypatch.setattr(native, "NATIVE", tmp_path)
    assert isinstance(native.library.__wrapped__(), Library)
    (tmp_path / "generated.h").write_text("/* other formulas */")
    assert native.library.__wrapped__().endswith("was compiled from another version: install boxloss again")
    (tmp_path / "damaged").mkdir()  # what is loaded is found again by its path
    (tmp_path / "damaged" / compiled.path.name).write_bytes(b"")
    monkeypatch.setattr(native, "NATIVE", tmp_path / "damaged")
    assert "can't be loaded" in native.library.__wrapped__()


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_gradients_that_come_as_negative_views_or_zeros(reduction):
    """Autograd hands over what is not numbers in memory: of the imaginary part of a conjugate, say."""
    pred, target = pairs.draw("pixels", 5, torch.float32)
    for upstream in (torch.ones(5), torch._neg_view(-torch.linspace(1, 2, 5)), torch._efficientzerotensor((5,))):
        upstream = upstream if reduction == "none" else upstream.sum()
        got, wanted = both(lambda p, t: boxloss.iou_loss(p, t, reduction=reduction), pred, target, upstream=upstream)
        torch.testing.assert_close(got, wanted)
    grid = torch._neg_view(torch.linspace(-1, 1, 25).view(5, 5))
    for upstream in (grid, torch._efficientzerotensor((5, 5))):
        got, wanted = both(lambda a, b: pairwise("iou", a, b), pred, target, upstream=upstream)
        torch.testing.assert_close(got, wanted)
    value = boxloss.iou_loss(leaf := pred[:1].clone().requires_grad_(), target[:1])
    (torch.complex(torch.zeros(1), value).conj() * torch.tensor([1 + 2j])).imag.sum().backward()
    plain = pred[:1].clone().requires_grad_()
    (-boxloss.iou_loss(plain, target[:1])).sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad)


def test_zeros_without_memory():
    pred, _ = pairs.draw("pixels", 5, torch.float32)
    got = boxloss.giou_loss(pred, torch._efficientzerotensor((5, 4)))
    torch.testing.assert_close(got, boxloss.giou_loss(pred, torch.zeros(5, 4)))


# -- threads and processes -------------------------------------------------------------------------------------------


@needs_library
def test_several_python_threads():
    pred, target = pairs.draw("pixels", 200, torch.float32)
    wanted = both(lambda p, t: BoxLoss("ciou")(p, t), pred, target)[0]
    wrong = []

    def work():
        for _ in range(1000):
            leaf = pred.detach().requires_grad_()
            value = BoxLoss("ciou")(leaf, target)
            value.backward()
            if not (torch.equal(value, wanted[0]) and torch.equal(leaf.grad, wanted[1])):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


NUMBERS = [
    ("smooth_l1", "beta", 2.0),
    ("balanced_l1", "beta", 0.5),
    ("inner_iou", "ratio", 0.6),
    ("alpha_iou", "alpha", 2.5),
]
"""Losses, and a number of each that is not the default; others of its domain lie up to 0.1 above."""


@contextlib.contextmanager
def repeated_beside(job):
    """A job of the user's own, again and again in another thread, for as long as the block runs; gives its errors."""
    errors = []
    begun, done = threading.Event(), threading.Event()

    def work():
        while not done.is_set():
            try:
                job()
            except Exception as error:
                errors.append(error)
            begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield errors
    finally:
        done.set()
        thread.join()


def in_threads(count, job):
    """The results of a job of a thread's number, all begun at once; or the first error."""
    start = threading.Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        return [done.result() for done in [pool.submit(lambda k=k: (start.wait(), job(k))[1]) for k in range(count)]]


def _with_make_fx():
    module = torch.nn.Linear(4, 4)
    make_fx(lambda x: module(x).relu() + module(x))(torch.ones(3, 4))


def _with_symbolic_trace():
    torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))


def state_of_the_process():
    """What tracing in torch is known to change for all threads."""
    state = torch.utils._python_dispatch
    return torch.nn.Module.__call__, torch.nn.Module.__getattr__, state.is_in_torch_dispatch_mode()


def first_uses(thread, rounds=3):
    """Value and gradient of every loss above, by each way to call it, with numbers that no other thread has."""
    pred, target = pairs.draw("pixels", 20, torch.float32)
    found = []
    for (name, parameter, number), k in itertools.product(NUMBERS, range(rounds)):
        given = {parameter: number + 0.001 * (rounds * thread + k)}
        function = functools.partial(LOSSES[name].function, **given)
        leaf = pred.clone().requires_grad_()
        got = _value_and_gradients(function, [leaf, target.clone().requires_grad_()], None)
        # Not by a call, which another thread's symbolic trace would take for one of its own.
        module = BoxLoss(name, reduction="none", **given).forward(leaf, target).detach()
        matrix = pairwise(name, leaf, target, **given).detach()
        found.append((name, function, got, module, matrix))
    return found


def check_first_uses(found):
    pred, target = pairs.draw("pixels", 20, torch.float32)
    for name, function, got, module, matrix in found:
        _, wanted = both(function, pred, target)
        assert_same(got, wanted, ulps(name), function)
        assert torch.equal(module, got[0]), function
        with kernels.disabled():
            assert_same([matrix], [pairwise(function, pred, target)], ulps(name), function)


@needs_library
@pytest.mark.parametrize("beside", [lambda: None, _with_make_fx, _with_symbolic_trace], ids=lambda job: job.__name__)
def test_first_uses_of_numbers_in_threads_at_once(beside):
    before = state_of_the_process()
    kernels.forget()
    with repeated_beside(beside) as errors:
        found = in_threads(4, first_uses)
    kernels.forget()
    assert not errors
    assert state_of_the_process() == before
    check_first_uses(itertools.chain(*found))


@needs_library
def test_a_compiler_compiles_after_first_uses_in_threads():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    in_threads(4, lambda k: first_uses(k, rounds=2))
    compiled_loss = torch.compile(lambda p, t: boxloss.smooth_l1_loss(p, t, beta=2.0), backend=backend, fullgraph=True)
    pred, target = pairs.draw("pixels", 20, torch.float32)
    assert torch.equal(compiled_loss(pred, target), boxloss.smooth_l1_loss(pred, target, beta=2.0))
    assert len(graphs) == 1


def test_nothing_outside_the_thread_changes_while_a_formula_is_traced():
    before, seen = state_of_the_process(), []

    def formula(pair, *, factor):
        seen.append(state_of_the_process())
        return factor * pair.iou_loss

    trace.trace(formula, {"factor": 2.0}, torch.float32)
    assert seen == [before]
    assert state_of_the_process() == before


def test_a_formula_that_fails_while_it_is_traced_leaves_nothing_behind():
    before, modes = state_of_the_process(), torch._C._len_torch_dispatch_stack()

    def formula(pair):
        raise ArithmeticError("of the formula's own")

    with pytest.raises(ArithmeticError, match="own"):
        trace.trace(formula, {}, torch.float32)
    assert state_of_the_process() == before
    assert torch._C._len_torch_dispatch_stack() == modes
    assert trace.trace(LOSSES["l1"].formula, {}, torch.float32).steps


@needs_library
def test_where_tracing_fails_the_formula_runs(monkeypatch):
    def fails(*_):
        raise AssertionError("whatever it is")

    pred, target = pairs.draw("pixels", 20, torch.float32)
    kernels.forget()
    monkeypatch.setattr(trace, "trace", fails)
    try:
        got, wanted = both(lambda p, t: boxloss.smooth_l1_loss(p, t, beta=2.0), pred, target)
        assert all(map(torch.equal, got, wanted))
        assert "cannot be traced at {'beta': 2.0}" in kernels.explain("smooth_l1", pred, target, beta=2.0)
    finally:
        kernels.forget()


def test_no_number_can_be_looked_at_while_a_formula_is_traced():
    """It would be taken for a constant."""
    looks = {
        "item": lambda pair: pair.iou * float(pair.iou.detach()),
        "bool": lambda pair: pair.iou if pair.iou > 0.5 else pair.iou_loss,
        "tolist": lambda pair: pair.iou * pair.iou.detach().tolist(),
        "numpy": lambda pair: pair.iou * float(pair.iou.detach().numpy()),
        "random": lambda pair: pair.iou * torch.rand(()),
        "in place": lambda pair: pair.iou.clone().mul_(2.0),
        "from elsewhere": lambda pair: (pair.difference * torch.arange(4.0)).sum(),
    }
    for look in looks.values():
        with pytest.raises(RuntimeError, match=r"no rule for|not supported for tensor subclasses"):
            trace.trace(look, {}, torch.float32)


SURROUNDINGS = {
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "tensors kept elsewhere": torch.autograd.graph.save_on_cpu,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "profiler": torch.autograd.profiler.profile,
}


@needs_library
@pytest.mark.parametrize("where", SURROUNDINGS)
def test_a_first_use_of_a_number_anywhere(where):
    pred, target = pairs.draw("pixels", 20, torch.float32)
    kernels.forget()
    leaf = pred.clone().requires_grad_()
    with SURROUNDINGS[where]():
        value = boxloss.smooth_l1_loss(leaf, target, beta=2.0)
        if value.requires_grad:
            value.sum().backward()
    with kernels.disabled():
        assert torch.equal(value, boxloss.smooth_l1_loss(pred, target, beta=2.0))
    assert "kernel smooth_l1" in kernels.explain("smooth_l1", pred, target, beta=2.0)
    kernels.forget()


@needs_library
def test_a_first_use_of_a_number_in_a_checkpoint():
    """Its second run keeps as many tensors as its first."""
    pred, target = pairs.draw("pixels", 20, torch.float32)
    kernels.forget()
    leaf = pred.clone().requires_grad_()
    run = lambda p: boxloss.smooth_l1_loss(p, target, beta=2.0).sum()  # noqa: E731
    torch.utils.checkpoint.checkpoint(run, leaf, use_reentrant=False).backward()
    plain = pred.clone().requires_grad_()
    run(plain).backward()
    assert torch.equal(leaf.grad, plain.grad)
    kernels.forget()


class _Losses(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        pred, target = pairs.draw("pixels", 20_000, torch.float32, seed=index)
        return boxloss.giou_loss(pred, target, reduction="mean")


@needs_library
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_in_forked_processes():
    """After the kernels were used in the parent, on threads."""
    torch.set_num_threads(2)
    try:
        wanted = [_Losses()[k] for k in range(8)]
    finally:
        torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(_Losses(), num_workers=2, multiprocessing_context="fork")
    torch.testing.assert_close([value[0] for value in loader], wanted)


@needs_library
@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_fork_does_not_wait_for_threads_it_has_not():
    """The OpenMP threads that the parent has used; nobody tells the child to use one, as a DataLoader does."""
    torch.set_num_threads(2)
    try:
        pred, target = pairs.draw("pixels", 20_000, torch.float32)
        wanted = boxloss.giou_loss(pred, target, reduction="sum").item()
        child = multiprocessing.get_context("fork").Process(target=_same_in_fork, args=(pred, target, wanted))
        child.start()
        child.join(60)
        if child.is_alive():
            child.kill()
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(1)


FORKS = """
import {imported}
import multiprocessing
import os
import sys

import torch

torch.set_num_threads(2)
torch.rand(1 << 21).mul(2.0).sum()  # the threads of the process are started
pred = torch.rand(40_000, 4)
pred[:, 2:] += 1.0
target = pred.flip(0).contiguous()


def use():
    import boxloss
    from boxloss import kernels

    leaf = pred.requires_grad_()
    for number in (1.0, 2.0):
        total = boxloss.smooth_l1_loss(leaf, target, reduction="sum", beta=number)
        torch.autograd.grad(total, leaf)
    boxloss.pairwise("giou", pred[:300].detach(), target[:300])
    assert torch.get_num_threads() == 2
    assert isinstance(kernels.library(), kernels.native.Library)


def forked(generations):
    if generations == 0:
        return use()
    child = multiprocessing.get_context("fork").Process(target=forked, args=(generations - 1,))
    child.start()
    child.join(20 * generations)
    assert child.exitcode == 0, child.kill()


{before}
for _ in range(5):
    forked({generations})
"""


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("generations", [1, 2])
@pytest.mark.parametrize(
    ("imported", "before"),
    [("boxloss", "pass"), ("boxloss", "use()"), ("torch", "pass")],
    ids=["no kernel used before", "kernels used before", "imported in the fork"],
)
def test_a_fork_of_a_process_with_threads_ends(imported, before, generations):
    """It has the memory of the threads that torch started, but not the threads."""
    program = FORKS.format(imported=imported, before=before, generations=generations)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def _same_in_fork(pred, target, wanted):
    assert torch.get_num_threads() == 2
    assert boxloss.giou_loss(pred, target, reduction="sum").item() == wanted


# -- how they are made -----------------------------------------------------------------------------------------------


made_here = pytest.mark.skipif(
    not torch.__version__.startswith("2.14"), reason="`make kernels` was run with torch 2.14"
)


@made_here
@pytest.mark.slow
def test_the_kernels_are_those_of_the_formulas(monkeypatch):
    """What is committed is what `make kernels` writes."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import make_kernels

    for path, text in make_kernels.files().items():
        assert path.read_text() == text, f"{path} is not what the formulas make: run `make kernels`"


@made_here
def test_some_kernels_are_those_of_the_formulas():
    """Together they use every part of the geometry."""
    source = (NATIVE / "generated.h").read_text()
    losses = {name: LOSSES[name] for name in ("smooth_l1", "giou", "eiou")}
    for entry, programs in catalog.entries(losses):
        assert entry in ENTRIES, f"{entry.name} is not what the formula makes: run `make kernels`"
        assert c.function(entry.name, programs, entry.arguments) in source, entry.name


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcc"), reason="no GCC, which tells what it makes vectors of")
def test_every_kernel_is_vectorised(tmp_path):
    """In float32, value alone and with gradient: without, it takes ten times as long."""
    flags = re.findall(r'"(-[^"]+)"', "".join(re.findall(r"^FLAGS .*$", (ROOT / "setup.py").read_text(), re.M)))
    assert "-O3" in flags
    told = tmp_path / "vectors.txt"
    command = ["gcc", *flags, "-w", "-DBASELINE_ONLY", f"-fopt-info-vec-optimized={told}", "-c", "-o", tmp_path / "k.o"]
    subprocess.run([*command, NATIVE / "kernels.c"], check=True)
    loops = re.findall(r"generated\.h:(\d+):\d+: optimized: loop vectorized", told.read_text())
    lines = (NATIVE / "generated.h").read_text().splitlines()
    found = [lines[int(line) - 1].removeprefix("KERNEL(").partition(")")[0] for line in loops]
    # Of the slope of CIoU's α GCC makes a choice between truth values itself, whatever it is told.
    known = {entry.name for entry in ENTRIES if entry.choices.get("differentiate_alpha")}
    assert {entry.name for entry in ENTRIES if found.count(entry.name) < 2} <= known


def test_digests_tell_programs_apart():
    (entry,) = (entry for entry in ENTRIES if entry.name == "smooth_l1")
    program = trace.trace(LOSSES["smooth_l1"].formula, {"beta": 3.0}, torch.float32)
    other = trace.trace(LOSSES["l1"].formula, {}, torch.float32)
    assert catalog.digest(program, entry.arguments) == entry.digests["float32"] != catalog.digest(other, [])
    assert set(catalog.numbers_of(program, entry.arguments)) == {3.0}


def test_every_choice_is_compiled():
    for name, loss in LOSSES.items():
        of_loss = [entry for entry in ENTRIES if entry.loss == name]
        choices = [catalog._values(parameter) for parameter in loss.parameters.values()]
        assert len(of_loss) == len(list(itertools.product(*filter(None, choices))))


# -- tests that can fail ---------------------------------------------------------------------------------------------

MUTANTS = {
    "maximum that loses NaN": ("operations.h", "return a != a ? a : most;", "return most;"),
    "sign of 0 is 1": ("operations.h", "(R)(x > 0) - (R)(x < 0)", "(R)(x >= 0) - (R)(x < 0)"),
    "wrong octant": ("functions.h", "r = a > b ?", "r = a < b ?"),
    "one coefficient of atan": ("functions.h", "0x1.9998fdb6ff2dcp-3", "0x1.9998fdb6ff2dcp-4"),
    "one coefficient of log": ("functions.h", "p = p * u + 1.0 / 5;", "p = p * u + 1.0 / 5.001;"),
    "exp without its last bit": ("functions.h", "p = p * r + 0.5;", "p = p * r + 0.4999;"),
    "gather by the wrong stride": ("boxes.h", "boxes[i * stride + k] : 0", "boxes[i * 4 + k] : 0"),
    "the last block is whole": (
        "boxes.h",
        "columns[k * BLOCK + i] = i < n ? ",
        "columns[k * BLOCK + i] = i < n - 1 ? ",
    ),
    "gradients without weights": ("boxes.h", "(R)job->factor * weight[i]", "(R)job->factor"),
    "a sum that counts the rest": ("boxes.h", "for (int i = n; i < BLOCK; i++) out[i] = 0;", ""),
    "rows of a matrix do not follow": (
        "boxes.h",
        "i += m, row += 1, column = 0;\n    }\n    kernel",
        "i += m, column = 0;\n    }\n    kernel",
    ),
    "gradient by b of one coordinate": (
        "boxes.h",
        "b_gradient[k * columns + column + j] +=",
        "b_gradient[column + j] +=",
    ),
    "errors rounded down": ("boxes.h", "(double)(e * unit) + 0x1.8p52", "(double)(e * unit) - 0.5 + 0x1.8p52"),
    "a lost box that is no number": ("boxes.h", "e = e < farthest ? e : farthest;", "e = e > farthest ? farthest : e;"),
    "a level left out": ("boxes.h", " + (W)(iou[i] > l1)", ""),
    "sides without their factor": ("boxes.h", "(R)0.5 * wh_factor", "(R)0.5"),
    "steps without the factor of IoU": ("boxes.h", " * (2 - iou[i]) * rate", " * rate"),
    "threads that overlap": ("kernels.c", "shares[k].first = units * k / count * unit;", "shares[k].first = 0;"),
}
SMALL = ("giou", "ciou", "smooth_l1", "log_iou", "focal_eiou")
ALSO = ("iou", "published_giou")
"""What simulations need, in the small library."""


def compiled_from(folder, path):
    flags = ["-std=c11", "-O1", "-ffp-contract=off", "-w", "-fPIC", "-shared", "-DBASELINE_ONLY"]
    subprocess.run(["cc", *flags, "-o", str(path), str(folder / "kernels.c"), "-lm", "-pthread"], check=True)
    return Library(path)


@pytest.fixture
def small_sources(tmp_path):
    """The sources of a few kernels, which compile in seconds."""
    folder = tmp_path / "csrc"
    shutil.copytree(NATIVE, folder, ignore=shutil.ignore_patterns("compiled.*"))
    names = tuple(f"KERNEL({name})" for name in (*SMALL, *ALSO))
    parts = re.split(r"(?=KERNEL\()", (folder / "generated.h").read_text())
    (folder / "generated.h").write_text("".join(p for p in parts if p.startswith(names)))
    listed = " ".join(f"X({name})" for name in (*SMALL, *ALSO))
    (folder / "names.h").write_text(f'#define SOURCE "few"\n#define KERNELS(X) {listed}\n')
    return folder


@pytest.mark.slow
@needs_library
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("mutant", [None, *MUTANTS])
def test_every_mutant_dies(mutant, small_sources, monkeypatch):
    if mutant:
        file, old, new = MUTANTS[mutant]
        text = (small_sources / file).read_text()
        assert text.count(old) == 1, f"{file} has changed: {text.count(old)} places like {old!r}"
        (small_sources / file).write_text(text.replace(old, new))
    library = compiled_from(small_sources, small_sources.parent / "mutant.so")
    monkeypatch.setattr(kernels, "library", lambda: library)
    kernels.forget()
    try:
        if mutant is None:
            check_all()
        else:
            with pytest.raises(AssertionError):
                check_all()
    finally:
        kernels.forget()


def check_all():
    """What the tests above check of all kernels, of a few."""
    for kind in ("pixels", "nearly_equal", "degenerate", "not finite"):
        pred, target = kind_of_boxes(kind, torch.float32)
        for name in SMALL:
            got, wanted = both(LOSSES[name].function, pred, target)
            assert_same(got, wanted, ulps(name), name)
    pred, target = pairs.draw("pixels", 9001, torch.float32)
    weight = torch.linspace(0, 2, 9001)
    wide = torch.cat((pred, pred), 1)[:, :4]
    upstream = torch.linspace(-1, 1, 70 * 300).view(70, 300)
    torch.set_num_threads(2)
    try:
        got, wanted = both(lambda p, t: boxloss.giou_loss(p, t, reduction="sum", weight=weight), pred, target)
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-6)
        got, wanted = both(lambda t: boxloss.giou_loss(wide, t, reduction="sum"), target)
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-6)
        got, wanted = both(lambda a, b: pairwise("giou", a, b), pred[:70], target[:300], upstream=upstream)
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=1e-5)
    finally:
        torch.set_num_threads(1)
    at = torch.tensor([[10.0, 10.0], [11.5, 9.0]], dtype=torch.float64)  # on the targets, so at every level; and apart
    for rule, lr, wh_factor in (("exact", 0.1, 1.5), ("published", 0.1, 2.0), ("exact", 1e300, 1e300)):
        config = SimulationConfig(["giou"], rule, iterations=4, lr=lr, wh_factor=wh_factor)
        with kernels.disabled():
            wanted, wanted_last = descend(config, Descent(rule, "giou"), at)
        tally, last = descend(config, Descent(rule, "giou"), at)
        assert torch.equal(last, wanted_last)
        assert all(map(torch.equal, tally, wanted))
