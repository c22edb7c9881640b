"""Losses of boxes as normal distributions: the mean is the center, the standard deviations are half the sides."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import BoxPair, one_minus_exp
from ._define import define
from ._parameters import Length, OneToThousand


@define(source="Wang et al., 2021, arXiv:2110.13389", bounds=(0, 1), lengths=("constant",))
def nwd_loss(pair: BoxPair, *, constant: Length) -> Tensor:
    """Normalized Gaussian Wasserstein distance, for tiny objects: it knows lengths, not shares.

        1 − e^(−W/C), W² = dx² + dy² + (dw² + dh²)/4

    dx, dy, dw, dh are the differences of the boxes' centers and sides, C is the ``constant``. The formula is from
    knowledge of the paper; it could not be compared with the authors' code.

    Args:
        {common}
        constant: C, a length in the unit of the boxes; the paper takes the mean size of the data set's objects. Boxes
            many times C apart have hardly a gradient, e^(−W/C)/C.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> p, t = torch.tensor([0.0, 0, 2, 2]), torch.tensor([3.0, 4, 5, 6])
    >>> nwd_loss(p, t, constant=10)  # W = √(3² + 4²): 1 - e^(-5/10)
    tensor(0.3935)
    """
    distance, factor = pair.wasserstein
    return one_minus_exp(distance / constant / factor)


@define(source="Yang et al., ICML 2021, arXiv:2101.11952", bounds=(0, 1), degree=None)
def gwd_loss(pair: BoxPair, *, tau: OneToThousand = 1.0) -> Tensor:
    """Gaussian Wasserstein distance, from the detection of rotated boxes.

        1 − 1/(τ + ln(1 + W²)), W² = dx² + dy² + (dw² + dh²)/4

    dx, dy, dw, dh are the differences of the boxes' centers and sides. W² is an area, and its logarithm makes the value
    depend on the unit: boxes in pixels and in [0, 1] are two different losses. The formula is from knowledge of the
    paper; it could not be compared with the authors' code.

    Args:
        {common}
        tau: τ; with more than 1 the loss of equal boxes is 1 − 1/τ.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide.

    Raises:
        {raises}

    >>> gwd_loss(torch.tensor([0.0, 0, 2, 2]), torch.tensor([3.0, 4, 5, 6]))  # 1 - 1/(1 + ln 26)
    tensor(0.7652)
    """
    distance, factor = pair.wasserstein
    far = distance > factor  # W > 1
    near = distance.masked_fill(far, 0.0) / factor
    beyond = distance.masked_fill(~far, 1.0)
    inverse = factor / beyond
    of_far = 2.0 * (beyond.log() - factor.log()) + (inverse * inverse).log1p()
    log = torch.where(far, of_far, (near * near).log1p())
    return _bounded(log, tau)


@define(source="Yang et al., NeurIPS 2021, arXiv:2106.01883", bounds=(0, 1), symmetric=False)
def kld_loss(pair: BoxPair, *, tau: OneToThousand = 1.0) -> Tensor:
    """Kullback–Leibler divergence of the boxes' distributions, from the detection of rotated boxes.

        1 − 1/(τ + ln(1 + D)), D = 2dx²/wt² + 2dy²/ht² + ½(wp²/wt² + hp²/ht²) + ln(wt/wp) + ln(ht/hp) − 1

    dx and dy are the differences of the boxes' centers. The formula is from knowledge of the paper; it could not be
    compared with the authors' code.

    Args:
        {common}
        tau: τ; with more than 1 the loss of equal boxes is 1 − 1/τ.

    Returns:
        ``(...)``, without unit, in [0, 1]. 0 where two boxes coincide; 1 where one is empty.

    Raises:
        {raises}

    >>> # dx = wt, wp = 2wt: D = 2 + 4/2 + ln(1/2) - 1/2 = 2.8069
    >>> kld_loss(torch.tensor([0.0, 0, 4, 2]), torch.tensor([3.0, 0, 5, 2]))  # 1 - 1/(1 + ln 3.8069)
    tensor(0.5721)
    """
    return _bounded(pair.log_divergence, tau).masked_fill(pair.empty, 1.0)


def _bounded(log: Tensor, tau: float) -> Tensor:
    """1 − 1/(τ + log) of log >= 0, with the digits of a small value and those of a small slope."""
    total = log + tau
    return torch.where(log > 1.0, 1.0 - 1.0 / total, (log + (tau - 1.0)) / total)
