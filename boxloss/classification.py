"""What a detection head needs beside boxes: cross-entropies, focal loss, and the quantities they are discussed in.

Thin over torch where torch has it. One signature for all: ``x_loss(logits, target, *, …, reduction="none")``, with
classes on axis 1, one number per prediction, nats unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – torch's own custom

from .losses._keywords import answered
from .losses._parameters import check_not_negative, is_finite
from .losses._reduce import as_class_weight, check_reduction, reduce_pairs
from .values import IGNORED, IGNORING, check_dense, check_floats, check_index, check_share, is_one_of, shown

UNITS = {"nats": 1.0, "bits": math.log(2.0)}
"""Of information, in nats."""
SCHEMES = ("inverse", "effective", "median")


@answered()
def entropy(probability: Tensor, *, unit: Literal["nats", "bits"] = "nats", dim: int = -1) -> Tensor:
    """How uncertain a distribution is: the least mean length of a code for what is drawn from it.

        −Σ p ln p, with 0 ln 0 = 0

    Args:
        probability: p, ``(..., C)``, in [0, 1]; it is taken as it is, not normalized.
        unit: ``"nats"``, or ``"bits"``, with the logarithm to base 2.
        dim: the axis that is summed over.

    Returns:
        ``(...)``, in [0, ln C] for a distribution.

    Raises:
        TypeError: not a tensor of floating point numbers.
        ValueError: an unknown unit; a number outside [0, 1], which is looked for on the CPU only.

    Source: Shannon, Bell System Technical Journal 1948

    >>> entropy(torch.tensor([0.5, 0.25, 0.125, 0.125]), unit="bits")  # 1/2 + 2/4 + 3/8 + 3/8
    tensor(1.7500)
    """
    p = _probabilities(probability, "probability")
    found: Tensor = torch.special.entr(p).sum(dim) / _unit(unit)
    return found


@answered()
def kl_divergence(p: Tensor, q: Tensor, *, unit: Literal["nats", "bits"] = "nats", dim: int = -1) -> Tensor:
    """How much longer a code for q is than one for p, of what is drawn from p: cross-entropy less entropy.

        Σ p ln(p/q), with 0 ln(0/q) = 0

    Args:
        p: the true distribution, ``(..., C)``, in [0, 1].
        q: the other one, of the shape of p and in [0, 1]; not normalized, so that it may be that of a code with
            lengths −log2 q.
        unit: ``"nats"`` or ``"bits"``.
        dim: the axis that is summed over.

    Returns:
        ``(...)``, at least 0 for distributions; infinite where q is 0 and p is not.

    Raises:
        TypeError: not tensors of floating point numbers.
        ValueError: the shapes differ; an unknown unit; a number outside [0, 1], which is looked for on the CPU only.

    Source: Kullback and Leibler, Annals of Mathematical Statistics 1951

    >>> kl_divergence(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]), unit="bits")  # (log2 2 + log2 2/3) / 2
    tensor(0.2075)
    """
    p, q = _probabilities(p, "p"), _probabilities(q, "q")
    _same_shape(p, q, "p", "q")
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim) / _unit(unit)


@answered({"ignore_index": IGNORING})
def cross_entropy_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Tensor:
    """Softmax and cross-entropy: one class of several.

        −ln softmax(logits)[target]

    Args:
        logits: ``(N, C, ...)``.
        target: the class of each prediction, ``(N, ...)`` int64, 0 … C − 1, or −100 for one that is to be ignored; or
            probabilities, ``(N, C, ...)``, in [0, 1].
        class_weight: ``(C,)``, a factor of each class, of any dtype; `class_weights` makes them of counts.
        label_smoothing: e: targets become 1 − e + e/C and e/C.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``. The mean is over predictions, also with weights, where
            `torch.nn.CrossEntropyLoss` divides by the sum of the weights; as there without those that are ignored,
            which are 0. Of none it is 0, with a graph, where torch's is NaN.

    Returns:
        ``(N, ...)``, or ``()``, in nats.

    Raises:
        TypeError: not tensors, or of other kinds.
        ValueError: shapes that do not go together; a parameter outside its domain; a class or a probability outside its
            range, which is looked for on the CPU only.

    >>> cross_entropy_loss(torch.tensor([[0.3, 0.7]]).log(), torch.tensor([0]))  # -ln 0.3
    tensor([1.2040])
    """
    check_floats(logits, "logits")
    check_reduction(reduction, None)
    if not is_finite(label_smoothing) or not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: expected a number in [0, 1], got {shown(label_smoothing)}")
    ignored = _ignored(logits, target)
    weight = None if class_weight is None else as_class_weight(class_weight, logits.shape[1], logits)
    value = F.cross_entropy(logits, target, weight=weight, label_smoothing=label_smoothing, reduction="none")
    return _reduced(value, reduction, ignored)


@answered({"weight": 'of each prediction: (weight * binary_cross_entropy_loss(…, reduction="none")).sum()'})
def binary_cross_entropy_loss(
    logits: Tensor, target: Tensor, *, positive_weight: float = 1.0, reduction: str = "none"
) -> Tensor:
    """Sigmoid and cross-entropy: yes or no, for each class on its own.

        −w·t ln σ(x) − (1 − t) ln(1 − σ(x))

    Args:
        logits: x, ``(...)``.
        target: t in [0, 1], of the shape of the logits.
        positive_weight: w, the factor of what is yes.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.

    Returns:
        ``(...)``, or ``()``, in nats.

    Raises:
        TypeError: not tensors of floating point numbers.
        ValueError: the shapes differ; a parameter outside its domain; a target outside [0, 1], which is looked for on
            the CPU only.

    >>> binary_cross_entropy_loss(torch.tensor([0.0, math.log(4.0)]), torch.tensor([1.0, 0.0]))  # -ln 1/2, -ln(1 - 4/5)
    tensor([0.6931, 1.6094])
    """
    check_floats(logits, "logits")
    _check_yes_or_no(logits, target)
    check_reduction(reduction, None)
    check_not_negative(positive_weight=positive_weight)
    return reduce_pairs(_binary(logits, target.to(logits.dtype), positive_weight), reduction)


@answered({"ignore_index": IGNORING})
def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    activation: Literal["sigmoid", "softmax"] = "sigmoid",
    alpha: float | None = 0.25,
    gamma: float = 2.0,
    class_weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Cross-entropy with less weight on what is already right.

        −α (1 − p)^γ ln p

    p is the probability of the right answer: σ(x) where the target is 1, 1 − σ(x) where it is 0; or the softmax of the
    right class. γ = 0 is the cross-entropy.

    Args:
        logits: sigmoid: x, ``(...)``; softmax: ``(N, C, ...)``.
        target: sigmoid: in [0, 1], of the shape of the logits; softmax: classes, ``(N, ...)`` int64, 0 … C − 1, or
            −100 for a prediction that is to be ignored.
        activation: ``"sigmoid"`` or ``"softmax"``.
        alpha: sigmoid: α where the target is 1, and 1 − α where it is 0; softmax: a factor of all. None: 1.
        gamma: γ ≥ 0; 2 in the paper, which tries 0 to 5.
        class_weight: softmax: ``(C,)``, a factor of each class, of any dtype.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``; detectors divide the sum by their number of positives. The mean
            is that of `cross_entropy_loss`.

    Returns:
        ``(...)`` or ``(N, ...)``, or ``()``, in nats.

    Raises:
        TypeError: not tensors, or of other kinds.
        ValueError: shapes that do not go together; a parameter outside its domain; a target outside its range, which
            is looked for on the CPU only.

    Source: Lin et al., ICCV 2017, arXiv:1708.02002

    >>> focal_loss(torch.tensor([math.log(3.0)]), torch.tensor([1.0]))  # -1/4 (1 - 3/4)² ln 3/4
    tensor([0.0045])
    """
    check_floats(logits, "logits")
    check_reduction(reduction, None)
    check_not_negative(gamma=gamma)
    if alpha is not None:
        check_not_negative(alpha=alpha)
    if not is_one_of(activation, ("sigmoid", "softmax")):
        raise ValueError(f"activation: expected 'sigmoid' or 'softmax', got {shown(activation)}")
    if activation == "sigmoid":
        if class_weight is not None:
            raise ValueError("class_weight: of softmax; sigmoid takes alpha")
        return reduce_pairs(_sigmoid_focal(logits, target, alpha, gamma), reduction)
    ignored = _ignored(logits, target)
    classes = target if ignored is None else target.masked_fill(ignored, 0)
    value = _softmax_focal(logits, classes, 1.0 if alpha is None else alpha, gamma)
    if ignored is not None:
        value = value.masked_fill(ignored, 0.0)
    if class_weight is not None:
        value = as_class_weight(class_weight, logits.shape[1], logits)[classes] * value
    return _reduced(value, reduction, ignored)


def _sigmoid_focal(logits: Tensor, target: Tensor, alpha: float | None, gamma: float) -> Tensor:
    _check_yes_or_no(logits, target)
    if alpha is not None and alpha > 1:
        raise ValueError(f"alpha: expected a number in [0, 1], got {alpha}")
    t = target.to(logits.dtype)
    wrong = torch.sigmoid(logits) * (1 - t) + torch.sigmoid(-logits) * t  # 1 − p, all its digits
    value = _power(wrong, gamma) * _binary(logits, t)
    return value if alpha is None else (alpha * t + (1 - alpha) * (1 - t)) * value


def _softmax_focal(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    if target.is_floating_point():
        raise TypeError(
            f"target: focal_loss takes classes, integers {_listed(_without_classes(logits))}, got probabilities"
        )
    log_p = _log_softmax_of(logits, target)
    return -alpha * _power(-log_p.expm1(), gamma) * log_p


def _binary(logits: Tensor, t: Tensor, weight: float = 1.0) -> Tensor:
    """Not torch's, which forms x − x·t + … and has no digits left where the answer is nearly sure."""
    return weight * t * _softplus(-logits) + (1 - t) * _softplus(logits)


def _log_softmax_of(logits: Tensor, target: Tensor) -> Tensor:
    """ln softmax of the right class, from the others alone: x less the logarithm of all exponentials would cancel."""
    place = target[:, None]
    apart = (logits - logits.gather(1, place)).scatter(1, place, -math.inf)
    return -_softplus(apart.logsumexp(1))


def _softplus(x: Tensor) -> Tensor:
    """ln(1 + e^x)."""
    return F.softplus(x, threshold=40.0)  # beyond, e^-x is nothing beside x, in float64 too


def _power(base: Tensor, gamma: float) -> Tensor:
    """base^γ; for γ < 1 its slope at 0 is infinite, and times a loss of 0 it would be NaN."""
    return torch.ones_like(base) if gamma == 0 else base.clamp(min=torch.finfo(base.dtype).tiny).pow(gamma)


@answered()
def class_weights(
    counts: Tensor | Sequence[float],
    scheme: Literal["inverse", "effective", "median"] = "inverse",
    *,
    beta: float = 0.999,
) -> Tensor:
    """A weight of each class of a data set, larger for rarer ones.

        inverse: Σn/(C·n), the mean over all boxes is 1
        effective: (1 − β)/(1 − βⁿ), scaled to mean 1 over the classes
        median: median(n)/n

    Args:
        counts: n, how often each class occurs, ``(C,)``.
        scheme: one of these.
        beta: β of effective, in [0, 1); 0 weights all classes the same, towards 1 it is as inverse.

    Returns:
        ``(C,)``, float64.

    Raises:
        ValueError: an unknown scheme; no classes, or one that does not occur.

    Source: effective: Cui et al., CVPR 2019, arXiv:1901.05555; median: Eigen and Fergus, ICCV 2015, arXiv:1411.4734

    >>> class_weights([1, 1, 2])  # 4/(3 * 1), 4/(3 * 1), 4/(3 * 2)
    tensor([1.3333, 1.3333, 0.6667], dtype=torch.float64)
    """
    if not is_one_of(scheme, SCHEMES):
        raise ValueError(f"scheme: expected one of {', '.join(SCHEMES)}, got {shown(scheme)}")
    if not is_finite(beta) or not 0 <= beta < 1:
        raise ValueError(f"beta: expected a number in [0, 1), got {shown(beta)}")
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.ndim != 1 or not len(n):
        raise ValueError(f"counts: expected one number per class, (C,), got {tuple(n.shape)}")
    bad = torch.where(~(n.isfinite() & (n > 0)))[0].tolist()
    if bad:
        raise ValueError(f"counts: expected each class to occur, got {n[bad[0]].item():g} for class {bad[0]}")
    if scheme == "inverse":
        return n.sum() / (len(n) * n)
    if scheme == "median":
        return n.quantile(0.5) / n
    effective = -torch.expm1(n * math.log(beta)) if beta else torch.ones_like(n)  # 1 − βⁿ, also for β near 1
    return len(n) / effective / (1 / effective).sum()


def _probabilities(tensor: Tensor, name: str) -> Tensor:
    """They may be of a network; NaN goes on to the result."""
    check_floats(tensor, name)
    check_share(tensor, name, "probabilities, such as logits.softmax(-1)", nan=True)
    return tensor


def _same_shape(a: Tensor, b: Tensor, name: str, other: str) -> None:
    if not isinstance(b, Tensor):
        raise TypeError(f"{other}: expected a tensor, got {type(b).__name__}")
    check_dense(b, other)
    if a.shape != b.shape:
        raise ValueError(f"{other}: expected the shape of {name}, {_listed(a.shape)}, got {_listed(b.shape)}")


def _check_yes_or_no(logits: Tensor, target: Tensor) -> None:
    _same_shape(logits, target, "logits", "target")
    check_share(target, "target", "1 is yes and 0 is no: (target > 0) for other codes of the two")


def _ignored(logits: Tensor, target: Tensor) -> Tensor | None:
    """Where predictions are to be ignored, after a check of the targets; None: nowhere."""
    if logits.ndim < 2:
        raise ValueError(f"logits: expected (N, C, ...), classes on axis 1, got {_listed(logits.shape)}")
    if not isinstance(target, Tensor):
        raise TypeError(f"target: expected a tensor, got {type(target).__name__}")
    if target.is_floating_point():
        _same_shape(logits, target, "logits", "target")
        check_share(target, "target", "probabilities, such as logits.softmax(1)")
        return None
    if target.dtype != torch.int64 or target.shape != _without_classes(logits):
        raise ValueError(
            f"target: expected classes, int64 {_listed(_without_classes(logits))}, or probabilities"
            f" {_listed(logits.shape)}, got {target.dtype} {_listed(target.shape)}"
        )
    return target == IGNORED if check_index(target, logits.shape[1], "target", ignored=True) else None


def _reduced(value: Tensor, reduction: str, ignored: Tensor | None) -> Tensor:
    """The mean is over what is not ignored."""
    if ignored is None or reduction != "mean":
        return reduce_pairs(value, reduction)
    wide = torch.promote_types(value.dtype, torch.float32)  # float16 holds no count beyond 65504
    kept = (~ignored).sum().clamp(min=1).to(wide)
    # As the mean over all where nothing turns out to be ignored, to the last bit.
    return (value.sum().to(wide) / value.numel() * (value.numel() / kept)).to(value.dtype)


def _without_classes(logits: Tensor) -> torch.Size:
    return logits.shape[:1] + logits.shape[2:]


def _unit(unit: str) -> float:
    if not is_one_of(unit, UNITS):
        raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {shown(unit)}")
    return UNITS[unit]


def _listed(shape: torch.Size) -> str:
    return str(tuple(shape))
