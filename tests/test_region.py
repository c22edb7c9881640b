"""Region losses: identities, worked values, digits, empty masks, refusals."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from boxloss.region import dice_loss, focal_tversky_loss, jaccard_loss, tversky_loss

LOSSES = {
    "dice": dice_loss,
    "dice-squared": lambda p, t, **own: dice_loss(p, t, squared=True, **own),
    "dice-complement": lambda p, t, **own: dice_loss(p, t, complement=True, **own),
    "tversky": tversky_loss,
    "focal-tversky": focal_tversky_loss,
    "jaccard": jaccard_loss,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(*shape):
    return draw(*shape), (draw(*shape, seed=1) > 0.3).double()


def test_identities():
    logits, target = masks(4, 3, 8, 8)
    torch.testing.assert_close(tversky_loss(logits, target, alpha=0.5, beta=0.5), dice_loss(logits, target))
    torch.testing.assert_close(tversky_loss(logits, target, alpha=1, beta=1), jaccard_loss(logits, target))
    torch.testing.assert_close(focal_tversky_loss(logits, target, gamma=1), tversky_loss(logits, target))
    dice, jaccard = 1 - dice_loss(logits, target), 1 - jaccard_loss(logits, target)
    torch.testing.assert_close(jaccard, dice / (2 - dice))
    torch.testing.assert_close(dice_loss(logits, target, complement=True), dice_loss(-logits, 1 - target))


def test_dice_is_f1_on_binary_masks():
    found, target = (draw(5, 2, 40, seed=k) > 0 for k in (2, 3))
    tp, fp, fn = (x.sum(2).double() for x in (found & target, found & ~target, ~found & target))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    f1 = 2 * precision * recall / (precision + recall)
    for squared in (False, True):  # of 0 and 1 the squares are the same
        value = dice_loss(found.double(), target.double(), activation="none", squared=squared)
        torch.testing.assert_close(1 - value, f1)
    torch.testing.assert_close(1 - jaccard_loss(found.double(), target, activation="none"), tp / (tp + fp + fn))


def test_what_is_too_much_and_what_is_missing():
    target = torch.tensor([[[1.0, 1, 0, 0]]])
    large, small = torch.tensor([[[1.0, 1, 1, 1]]]), torch.tensor([[[1.0, 0, 0, 0]]])
    assert tversky_loss(large, target, alpha=0.5, beta=9, activation="none") == 1 - 2 / (2 + 0.5 * 2)
    assert tversky_loss(small, target, alpha=9, beta=3, activation="none") == 1 - 1 / (1 + 3 * 1)


@every_loss
def test_equal_empty_and_apart(loss):
    target = torch.zeros(3, 1, 4)
    target[1:, :, :2] = 1
    p = target.clone()
    p[2] = 1 - p[2]
    p.requires_grad_()
    value = loss(p, target, activation="none")
    assert value.tolist() == [[0.0], [0.0], [1.0]]
    value.sum().backward()
    assert p.grad.isfinite().all()
    filled = torch.ones(1, 1, 4)
    nothing = torch.zeros(1, 1, 4)
    assert loss(filled, nothing, activation="none") == 1
    assert loss(nothing, filled, activation="none") == 1


@every_loss
def test_smooth(loss):
    """It takes the edge off empty regions: s/(n + s) is left of 1 - 0."""
    filled, nothing = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    assert 0 < loss(filled, nothing, activation="none", smooth=2.0) < 1
    assert loss(filled, filled, activation="none", smooth=2.0) == 0
    assert dice_loss(filled, nothing, activation="none", smooth=2.0).item() == pytest.approx(1 - 2 / (4 + 2))
    assert tversky_loss(filled, nothing, activation="none", alpha=0.5, smooth=2.0).item() == pytest.approx(1 - 2 / 4)
    assert jaccard_loss(filled, nothing, activation="none", smooth=2.0).item() == pytest.approx(1 - 2 / 6)


@every_loss
def test_gradient(loss):
    logits, target = masks(2, 2, 5)
    for activation in ("sigmoid", "softmax"):
        x = logits.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda x, activation=activation: loss(x, target, activation=activation), x)


@every_loss
def test_sums_and_reductions(loss):
    logits, target = masks(4, 3, 6, 2)
    each = loss(logits, target)
    assert each.shape == (4, 3)
    for k in range(4):
        torch.testing.assert_close(loss(logits[k : k + 1], target[k : k + 1]), each[k : k + 1])
    assert torch.equal(loss(logits, target, reduction="mean"), each.sum() / 12)
    assert torch.equal(loss(logits, target, reduction="sum"), each.sum())
    weight = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    assert torch.equal(loss(logits, target, class_weight=weight), each * weight)
    batch = loss(logits, target, per_image=False)
    assert batch.shape == (3,)
    joined = [x.movedim(0, 1).reshape(1, 3, -1) for x in (logits, target)]
    torch.testing.assert_close(batch, loss(*joined)[0])


@every_loss
def test_classes_as_targets(loss):
    logits = draw(2, 3, 4, 4)
    classes = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    masks = F.one_hot(classes, 3).movedim(-1, 1)
    assert torch.equal(loss(logits, classes, activation="softmax"), loss(logits, masks, activation="softmax"))


@every_loss
def test_halves_are_summed_in_float32(loss):
    logits, target = masks(1, 1, 100, 100)
    half = logits.bfloat16()
    value = loss(half, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(half.float(), target))


@pytest.mark.parametrize("sure", [5.0, 12.0, 17.0])
def test_digits_where_all_is_nearly_right(sure):
    """1 - 2 Σpt/(Σp + Σt) has no digits left in float32 when p is nearly t."""
    logits = torch.tensor([[[sure, sure, -sure, -sure]]])
    target = torch.tensor([[[1.0, 1, 0, 0]]])
    with mpmath.workdps(50):
        p = 1 / (1 + mpmath.exp(-mpmath.mpf(sure)))
        exact = float(1 - 2 * (2 * p) / (2 * p + 2 * (1 - p) + 2))
        squared = float(1 - 2 * (2 * p) / (2 * p**2 + 2 * (1 - p) ** 2 + 2))
    assert dice_loss(logits, target).item() == pytest.approx(exact, rel=1e-6)
    assert dice_loss(logits, target, squared=True).item() == pytest.approx(squared, rel=1e-6)


X, T = torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
BAD = [
    (
        lambda: dice_loss(X.long(), T),
        TypeError,
        "pred: expected a tensor of floating point numbers, got a tensor of torch.int64",
    ),
    (lambda: dice_loss(X, [1]), TypeError, "target: expected a tensor, got list"),
    (lambda: dice_loss(X[0, 0], T), ValueError, r"pred: expected \(N, C, ...\), got \(4,\)"),
    (lambda: dice_loss(X, T[:1]), ValueError, r"target: expected the shape of pred, \(2, 3, 4\), got \(1, 3, 4\)"),
    (lambda: dice_loss(X, T, activation="tanh"), ValueError, "activation: expected 'sigmoid', 'softmax' or 'none'"),
    (lambda: dice_loss(X, T, smooth=-1), ValueError, "smooth: expected a finite number >= 0, got -1"),
    (lambda: tversky_loss(X, T, alpha=-1), ValueError, "alpha: expected a finite number >= 0"),
    (lambda: focal_tversky_loss(X, T, gamma=0), ValueError, "gamma: expected a finite number > 0"),
    (lambda: jaccard_loss(X, T, class_weight=torch.ones(2)), ValueError, r"class_weight: expected \(3,\), got \(2,\)"),
    (lambda: jaccard_loss(X, T, reduction="average"), ValueError, "expected one of 'none', 'mean', 'sum'"),
]


@pytest.mark.parametrize("k", range(len(BAD)))
def test_bad_input(k):
    call, kind, message = BAD[k]
    with pytest.raises(kind, match=message):
        call()
