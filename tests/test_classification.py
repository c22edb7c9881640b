"""Classification losses: worked values, torch's and torchvision's own, identities, digits, refusals."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torchvision.ops
from torch.nn import functional as F  # noqa: N812

from boxloss.classification import (
    binary_cross_entropy_loss,
    class_weights,
    cross_entropy_loss,
    entropy,
    focal_loss,
    kl_divergence,
)


def draw(*shape, scale=3.0, seed=0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distributions(count=50, classes=7):
    return draw(count, classes).softmax(1), draw(count, classes, seed=1).softmax(1)


def test_worked_values():
    halves = torch.tensor([0.5, 0.25, 0.125, 0.125])
    assert entropy(halves, unit="bits") == 1.75
    p = torch.tensor([0.35, 0.35, 0.1, 0.1, 0.04, 0.04, 0.01, 0.01], dtype=torch.float64)
    q = 2.0 ** -torch.tensor([5, 5, 4, 4, 3, 3, 2, 2], dtype=torch.float64)
    assert q.sum() == 15 / 16
    assert entropy(p, unit="bits").item() == pytest.approx(2.2290, abs=5e-5)
    assert kl_divergence(p, q, unit="bits").item() == pytest.approx(2.3510, abs=5e-5)
    assert (entropy(p, unit="bits") + kl_divergence(p, q, unit="bits")).item() == pytest.approx(4.58, abs=1e-9)
    logits = torch.tensor([[0.3, 0.7], [0.5, 0.5]]).log()
    values = cross_entropy_loss(logits, torch.tensor([0, 1]))
    assert [f"{v:.3f}" for v in values.tolist()] == ["1.204", "0.693"]


def test_cross_entropy_is_entropy_and_divergence():
    p, q = distributions()
    cross = cross_entropy_loss(q.log(), p)
    torch.testing.assert_close(cross, entropy(p) + kl_divergence(p, q))
    assert (kl_divergence(p, q) > 0).all()
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(50, dtype=torch.float64))
    torch.testing.assert_close(entropy(p, unit="bits") * math.log(2), entropy(p))


def test_zeros_of_distributions():
    sure = torch.tensor([1.0, 0.0], requires_grad=True)
    assert entropy(sure) == 0
    assert kl_divergence(sure, torch.tensor([0.5, 0.5])).item() == pytest.approx(math.log(2))
    assert kl_divergence(torch.tensor([0.5, 0.5]), sure) == math.inf
    assert kl_divergence(sure, sure) == 0


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 3, 2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(shape, smoothing):
    logits, target = draw(*shape), torch.randint(5, shape[:1] + shape[2:], generator=torch.Generator().manual_seed(1))
    weight = torch.arange(1.0, 6.0, dtype=torch.float64)
    own = {"class_weight": weight, "label_smoothing": smoothing}
    expected = F.cross_entropy(logits, target, weight, label_smoothing=smoothing, reduction="none")
    assert torch.equal(cross_entropy_loss(logits, target, **own), expected)
    assert torch.equal(cross_entropy_loss(logits, target, reduction="sum", **own), expected.sum())
    torch.testing.assert_close(cross_entropy_loss(logits, target, reduction="mean", **own), expected.mean())


def test_binary_cross_entropy_is_torchs():
    logits, target = draw(6, 4), draw(6, 4, seed=1).sigmoid()
    for weight in (1.0, 3.0):
        expected = F.binary_cross_entropy_with_logits(
            logits, target, pos_weight=torch.tensor(weight, dtype=torch.float64), reduction="none"
        )
        torch.testing.assert_close(binary_cross_entropy_loss(logits, target, positive_weight=weight), expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 0.5), (None, 1.0)])
def test_sigmoid_focal_is_torchvisions(alpha, gamma):
    logits, target = draw(20, 4), (draw(20, 4, seed=1) > 0).double()
    expected = torchvision.ops.sigmoid_focal_loss(logits, target, -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(focal_loss(logits, target, alpha=alpha, gamma=gamma), expected)
    soft = draw(20, 4, seed=2).sigmoid()
    expected = torchvision.ops.sigmoid_focal_loss(logits, soft, -1 if alpha is None else alpha, gamma)
    torch.testing.assert_close(focal_loss(logits, soft, alpha=alpha, gamma=gamma), expected)


def test_focal_with_gamma_0_is_cross_entropy():
    logits, classes = draw(20, 4), torch.randint(4, (20,), generator=torch.Generator().manual_seed(1))
    yes = F.one_hot(classes, 4).double()
    torch.testing.assert_close(focal_loss(logits, yes, alpha=None, gamma=0), binary_cross_entropy_loss(logits, yes))
    softmax = focal_loss(logits, classes, activation="softmax", alpha=None, gamma=0)
    torch.testing.assert_close(softmax, cross_entropy_loss(logits, classes))
    weight = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    weighted = focal_loss(logits, classes, activation="softmax", alpha=0.5, gamma=0, class_weight=weight)
    torch.testing.assert_close(weighted, 0.5 * cross_entropy_loss(logits, classes, class_weight=weight))


def test_two_classes_of_softmax_are_sigmoid():
    x, target = draw(30), (draw(30, seed=1) > 0).long()
    logits = torch.stack((torch.zeros_like(x), x), 1)
    softmax = focal_loss(logits, target, activation="softmax", alpha=None, gamma=1.5)
    torch.testing.assert_close(softmax, focal_loss(x, target.double(), alpha=None, gamma=1.5))


@pytest.mark.parametrize("gamma", [0.0, 0.2, 1.0, 2.0])
@pytest.mark.parametrize("x", [-30.0, -2.0, 0.1, 8.0, 17.0])
def test_focal_keeps_its_digits(gamma, x):
    """Where the answer is nearly sure, 1 - p computed as a difference has none left in float32."""
    with mpmath.workdps(50):
        logit = mpmath.mpf(float(torch.tensor(x)))
        p = 1 / (1 + mpmath.exp(-logit))
        exact = float(-((1 - p) ** mpmath.mpf(gamma)) * mpmath.log(p))
    found = focal_loss(torch.tensor([x]), torch.tensor([1.0]), alpha=None, gamma=gamma)
    assert found.item() == pytest.approx(exact, rel=2e-6)
    if gamma == 0:
        assert binary_cross_entropy_loss(torch.tensor([x]), torch.tensor([1.0])) == found
    logits = torch.tensor([[x, 0.0]])
    softmax = focal_loss(logits, torch.tensor([0]), activation="softmax", alpha=None, gamma=gamma)
    assert softmax.item() == pytest.approx(exact, rel=2e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("gamma", [0.0, 0.2, 2.0])
def test_gradients(activation, gamma):
    target = torch.tensor([0, 2, 1])
    if activation == "sigmoid":
        target = F.one_hot(target, 3).double()
    logits = draw(3, 3).requires_grad_()
    own = {"activation": activation, "gamma": gamma}
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, target, **own), logits)
    sure = torch.tensor([[300.0, -300, -300], [-300, 300, 300], [0, 0, 0]], requires_grad=True)
    focal_loss(sure, target.to(sure.dtype) if activation == "sigmoid" else target, reduction="sum", **own).backward()
    assert sure.grad.isfinite().all()


def test_a_single_class():
    logits = draw(3, 1).requires_grad_()
    value = focal_loss(logits, torch.zeros(3, dtype=torch.long), activation="softmax", gamma=0.5)
    value.sum().backward()
    assert (value.abs() == 0).all()
    assert (logits.grad == 0).all()


def test_no_predictions():
    logits = torch.zeros(0, 3, requires_grad=True)
    for loss in (cross_entropy_loss, lambda x, t, **own: focal_loss(x, t, activation="softmax", **own)):
        value = loss(logits, torch.zeros(0, dtype=torch.long), reduction="mean")
        assert value == 0
        value.backward()


def test_class_weights():
    counts = [10, 30, 60]
    torch.testing.assert_close(class_weights(counts), torch.tensor([10 / 3, 10 / 9, 5 / 9], dtype=torch.float64))
    n = torch.tensor(counts, dtype=torch.float64)
    assert (class_weights(n) * n).sum() / n.sum() == pytest.approx(1)  # the mean over all boxes
    torch.testing.assert_close(class_weights(counts, "median"), torch.tensor([3, 1, 0.5], dtype=torch.float64))
    effective = class_weights(counts, "effective", beta=0.9)
    expected = torch.tensor([0.1 / (1 - 0.9**k) for k in counts], dtype=torch.float64)
    torch.testing.assert_close(effective, expected / expected.mean())
    assert torch.equal(class_weights(counts, "effective", beta=0.0), torch.ones(3, dtype=torch.float64))
    near = class_weights(counts, "effective", beta=1 - 1e-12)
    inverse = class_weights(counts)
    torch.testing.assert_close(near, inverse / inverse.mean(), rtol=1e-9, atol=0)
    assert class_weights([2, 4], "median").tolist() == [1.5, 0.75]  # of an even number the mean of the middle two


X, YES, CLASSES = torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, dtype=torch.long)
BAD = [
    (lambda: entropy([0.5, 0.5]), TypeError, "probability: expected a tensor of floating point numbers, got list"),
    (lambda: entropy(torch.tensor([1, 0])), TypeError, "got a tensor of torch.int64"),
    (lambda: entropy(X, unit="bytes"), ValueError, "unit: expected one of nats, bits, got 'bytes'"),
    (lambda: kl_divergence(X, X[:1]), ValueError, r"q: expected the shape of p, \(2, 3\), got \(1, 3\)"),
    (lambda: cross_entropy_loss(X[0], CLASSES), ValueError, r"logits: expected \(N, C, ...\)"),
    (lambda: cross_entropy_loss(X, CLASSES.int()), ValueError, "expected classes, int64"),
    (lambda: cross_entropy_loss(X, CLASSES[:1]), ValueError, r"int64 \(2,\), or probabilities \(2, 3\), got"),
    (lambda: cross_entropy_loss(X, YES[:1]), ValueError, "target: expected the shape of logits"),
    (lambda: cross_entropy_loss(X, [0, 1]), TypeError, "target: expected a tensor, got list"),
    (lambda: cross_entropy_loss(X, CLASSES, class_weight=torch.ones(2)), ValueError, r"class_weight: expected \(3,\)"),
    (lambda: cross_entropy_loss(X, CLASSES, label_smoothing=1.5), ValueError, r"label_smoothing: .* in \[0, 1\]"),
    (lambda: cross_entropy_loss(X, CLASSES, reduction="avg"), ValueError, "expected one of 'none', 'mean', 'sum'"),
    (lambda: binary_cross_entropy_loss(X, YES[:1]), ValueError, "target: expected the shape of logits"),
    (lambda: binary_cross_entropy_loss(X, YES, positive_weight=-1), ValueError, "positive_weight: .* >= 0, got -1"),
    (lambda: focal_loss(X, YES, gamma=math.nan), ValueError, "gamma: expected a finite number >= 0, got nan"),
    (lambda: focal_loss(X, YES, alpha=1.5), ValueError, r"alpha: expected a number in \[0, 1\]"),
    (lambda: focal_loss(X, YES, activation="relu"), ValueError, "activation: expected 'sigmoid' or 'softmax'"),
    (lambda: focal_loss(X, YES, activation="softmax"), TypeError, "takes classes, integers .* got probabilities"),
    (lambda: focal_loss(X, YES, class_weight=torch.ones(3)), ValueError, "class_weight: of softmax"),
    (lambda: class_weights([1, 0, 2]), ValueError, "expected each class to occur, got 0 for class 1"),
    (lambda: class_weights([]), ValueError, "one number per class"),
    (lambda: class_weights([1], "log"), ValueError, "scheme: expected one of inverse, effective, median, got 'log'"),
    (lambda: class_weights([1], beta=1.0), ValueError, r"beta: expected a number in \[0, 1\)"),
]


@pytest.mark.parametrize("k", range(len(BAD)))
def test_bad_input(k):
    call, kind, message = BAD[k]
    with pytest.raises(kind, match=message):
        call()
