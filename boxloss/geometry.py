"""What two boxes have in common, exact to the last bits: the only place where box arithmetic is done.

How digits are kept, without an eps anywhere:

* Coordinates are first multiplied, axis by axis and pair by pair, by a power of two that brings the largest to
  2 … 4. That is exact, nothing overflows or underflows afterwards, and boxes times 2^k give bit-identical results.
* What vanishes for equal boxes is a sum of non-negative products of coordinate *differences*, never a
  difference of areas.
* A quotient near 1 is formed as 1 minus the small one, so that neither its value nor its gradient cancels.
* A denominator of 0 is replaced *before* the division: `where` after it would leave NaN in the gradient.
* Slopes that a coordinate gets by several ways meet in a unit in which none overflows, `_LIFT`: infinity minus infinity
  would be NaN.

Where a function has a kink (edges that coincide), every part takes the mean of the two one-sided derivatives, so that
the gradient lies between them, and is 0 for equal boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


class _lazy(Generic[_T]):  # noqa: N801 – it reads as a keyword
    """A property computed once. Not functools.cached_property: before Python 3.12 its lock breaks torch.compile."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self.compute = compute
        self.name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, owner: Any, _: type) -> _T:
        value = self.compute(owner)
        owner.__dict__[self.name] = value
        return value


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 with zero gradient where a non-negative denominator vanishes."""
    zero = denominator < torch.finfo(denominator.dtype).tiny
    return numerator.masked_fill(zero, 0.0) / denominator.masked_fill(zero, 1.0)


def log_excess(x: Tensor) -> Tensor:
    """x − ln(1 + x) of x > −1, with the digits that the difference loses next to 0."""
    far = (x - 0.25).abs() >= 0.75
    # ln(1 + x) is 2s + 2s³/3 + 2s⁵/5 + … with s = x/(2 + x), and x − 2s is sx.
    near = x.masked_fill(far, 0.0)
    s = near / (near + 2.0)
    square = s * s
    series = square * (1.0 / 39.0) + 1.0 / 37.0
    for odd in range(35, 1, -2):
        series = series * square + 1.0 / odd
    of_near = s * (near - 2.0 * square * series)
    beyond = x.masked_fill((x - 0.25).abs() < 0.75, 0.0)
    return torch.where(far, beyond - beyond.log1p(), of_near)


def one_minus_exp(x: Tensor) -> Tensor:
    """1 − e^(−x) of x >= 0, with the digits of a small value and those of a small slope."""
    small = x < 0.6875
    return torch.where(small, -(-x.masked_fill(~small, 0.0)).expm1(), 1.0 - (-x).exp())


def joint_shape(first: torch.Size, second: torch.Size) -> torch.Size:
    """Of what pairs up: each size is that of the two which is not 1."""
    return torch.Size(q if p == 1 else p for p, q in zip(first, second, strict=True))


class BoxPair:
    """Two boxes, or two batches of boxes that broadcast, and what they have in common. It lives for one call only.

    Lengths on the two axes are held together in tensors ``(2, ...)``, x first: half the operations of separate columns.
    They and the areas are in the scaled unit, which differs between the axes; only quotients leave this class, and
    ``difference`` and ``wasserstein``, which are in the unit of the boxes. Where a side or a distance can vanish in the
    scaled unit beside a larger one and still count, it is taken from the boxes in another unit, `_own`.

    An inverted box is empty: it counts as a side of 0 in areas, angles and side terms; the hull encloses all corners.
    """

    def __init__(self, pred: Tensor, target: Tensor) -> None:
        self._pred = _by_axis(pred)
        self._target = _by_axis(target)

    @property
    def shape(self) -> torch.Size:
        """Of the pairs, ``(...)``."""
        return joint_shape(self._pred.shape[2:], self._target.shape[2:])

    # -- lengths, (2, ...) -------------------------------------------------------------------------------------------

    @_lazy
    def difference(self) -> Tensor:
        """pred − target, coordinate by coordinate, ``(4, ...)``; NaN where either is not finite."""
        return (self._pred - self._target + self._not_finite).flatten(0, 1)

    @_lazy
    def _not_huge(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both boxes in their own unit times a factor, and that of each axis: 1/8 where differences could overflow."""
        bits = torch.maximum(_exponent_bits(self._pred).amax(0), _exponent_bits(self._target).amax(0))
        _, mask, unit = _EXPONENT[self._pred.dtype]
        factor = 1.0 - 0.875 * (bits >= mask - 4 * unit).to(self._pred.dtype)
        return self._pred * factor, self._target * factor, factor

    def difference_over(self, length: float) -> Tensor:
        """The same over a length, finite where only the difference would not be."""
        pred, target, factor = self._not_huge
        return ((pred - target + self._not_finite) / length / factor).flatten(0, 1)

    @_lazy
    def _lifted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both boxes times a factor, and that of each axis: `_LIFT` where all coordinates on it are tiny, else 1."""
        lift = _LIFT[self._pred.dtype]
        factor = 1.0 + (lift - 1.0) * (self._scale > lift).to(self._pred.dtype)
        return self._pred * factor, self._target * factor, factor

    @_lazy
    def _own(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both boxes times a factor, and that of each axis: `_LIFT`, or less where differences could overflow."""
        pred, target, lift = self._lifted
        # The scale brings the largest coordinate to 2 … 4.
        factor = (self._scale * (0.03125 * torch.finfo(lift.dtype).max)).clamp(max=_LIFT[lift.dtype])
        return pred * (factor / lift), target * (factor / lift), factor

    @_lazy
    def _own_shifts(self) -> Tensor:
        """pred − target, ``(2 edges, 2 axes, ...)``, in the unit of `_own`."""
        pred, target, _ = self._own
        return pred - target + self._not_finite

    @_lazy
    def _own_way(self) -> Tensor:
        """As `_way`, in the unit of `_own`."""
        pred, target, _ = self._own
        return self._own_shifts.sum(0) + _lost(pred, target).sum(0)

    @_lazy
    def _not_finite(self) -> Tensor:
        """NaN where a coordinate of either is not finite, else 0: added to a difference, since inf - 1 is infinite."""
        return self._pred.detach() * 0.0 + self._target.detach() * 0.0

    @_lazy
    def _scale(self) -> Tensor:
        largest = torch.maximum(_exponent_bits(self._pred).amax(0), _exponent_bits(self._target).amax(0))
        return _reciprocal_power(largest, self._pred.dtype)

    @_lazy
    def _edges(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        pred, target, lift = self._lifted
        pred_low, pred_high = (pred * (self._scale / lift)).unbind(0)
        target_low, target_high = (target * (self._scale / lift)).unbind(0)
        return pred_low, pred_high, target_low, target_high

    @_lazy
    def _pred_sides(self) -> Tensor:
        low, high, _, _ = self._edges
        return _positive(high - low)

    @_lazy
    def _target_sides(self) -> Tensor:
        _, _, low, high = self._edges
        return _positive(high - low)

    @_lazy
    def _low_shift(self) -> Tensor:
        pred_low, _, target_low, _ = self._edges
        return pred_low - target_low

    @_lazy
    def _high_shift(self) -> Tensor:
        _, pred_high, _, target_high = self._edges
        return pred_high - target_high

    @_lazy
    def _overlap(self) -> Tensor:
        """Length shared by both boxes; the gap between them with a minus sign."""
        pred_low, pred_high, target_low, target_high = self._edges
        return torch.minimum(pred_high, target_high) - torch.maximum(pred_low, target_low)

    @_lazy
    def _hull_sides(self) -> Tensor:
        # The lower edges are |low shift| apart, the upper ones |high shift|. Only inverted boxes make a sum negative.
        overlap = self._overlap
        below = _positive(overlap + self._low_shift.abs())
        above = _positive(overlap + self._high_shift.abs())
        return below + above - overlap

    # -- areas, (...) ------------------------------------------------------------------------------------------------

    @_lazy
    def _outside(self) -> tuple[Tensor, Tensor]:
        """Lengths of pred outside target and of target outside pred; right where the boxes overlap."""
        low, high = self._low_shift, self._high_shift
        far_low, far_high = low.abs(), high.abs()
        # |x| - x is exactly 0 or 2|x|: no cancellation.
        return ((far_low - low) + (far_high + high)) * 0.5, ((far_low + low) + (far_high - high)) * 0.5

    @_lazy
    def _shared_sides(self) -> Tensor:
        # A target without length can't be overlapped, wherever pred goes: where they touch there is no slope.
        return _positive(self._overlap).masked_fill(self._target_sides == 0.0, 0.0)

    @_lazy
    def _intersection(self) -> Tensor:
        width, height = self._shared_sides.unbind(0)
        return width * height

    @_lazy
    def _apart(self) -> Tensor:
        return self._intersection <= 0.0

    @_lazy
    def _areas(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where IoU > ½ (bool), the smaller of intersection and symmetric difference, and the union."""
        pred_width, pred_height = self._pred_sides.unbind(0)
        target_width, target_height = self._target_sides.unbind(0)
        intersection = self._intersection
        (pred_x, pred_y), (target_x, target_y) = (lengths.unbind(0) for lengths in self._outside)
        shared_width, _ = self._shared_sides.unbind(0)
        outside = pred_x * pred_height + target_x * target_height + shared_width * (pred_y + target_y)
        # The outside lengths hold where the boxes overlap; the areas cancel there, if only a little.
        areas = pred_width * pred_height + target_width * target_height - intersection
        close = intersection > outside
        return (
            close,
            torch.where(close, outside, intersection),
            torch.where(self._apart, areas, intersection + outside),
        )

    @_lazy
    def _smaller_share(self) -> tuple[Tensor, Tensor]:
        close, part, union = self._areas
        return close, ratio(part, union)

    @_lazy
    def iou(self) -> Tensor:
        """I/U, in [0, 1]; 0 where both boxes are empty."""
        close, share = self._smaller_share
        return torch.where(close, 1.0 - share, share)

    @_lazy
    def iou_loss(self) -> Tensor:
        """1 − I/U, in [0, 1]; 1 where both boxes are empty."""
        close, share = self._smaller_share
        return torch.where(close, share, 1.0 - share)

    def tversky_loss(self, too_much: float, missing: float) -> Tensor:
        """1 − I/(I + too_much · |p∖t| + missing · |t∖p|), in [0, 1]; 1 where both boxes are empty."""
        pred_width, pred_height = self._pred_sides.unbind(0)
        target_width, target_height = self._target_sides.unbind(0)
        intersection, apart = self._intersection, self._apart
        (pred_x, pred_y), (target_x, target_y) = (lengths.unbind(0) for lengths in self._outside)
        shared_width, _ = self._shared_sides.unbind(0)
        # As for the union: the outside lengths hold where the boxes overlap, the areas where they do not.
        pred_outside = pred_x * pred_height + shared_width * pred_y
        target_outside = target_x * target_height + shared_width * target_y
        pred_area, target_area = pred_width * pred_height, target_width * target_height
        pred_outside = torch.where(apart, pred_area - intersection, pred_outside)
        target_outside = torch.where(apart, target_area - intersection, target_outside)
        outside = too_much * pred_outside + missing * target_outside
        # Of equal boxes the mean of the slopes on both sides is not 0 where the weights differ; 0 lies between them.
        outside = outside.masked_fill(outside == 0.0, 0.0)
        less = outside < intersection
        share = ratio(torch.where(less, outside, intersection), intersection + outside)
        return torch.where(less, share, 1.0 - share)

    @_lazy
    def log_iou(self) -> Tensor:
        """ln(I/U), held constant where I/U is next to 0, and there at least the logarithm of the smallest number."""
        # Near 1 the digits are in 1 − IoU, else in IoU. The bounds keep the branch that isn't taken finite.
        iou = torch.where(self.next_to_0, self.iou.detach(), self.iou)
        far = iou.clamp(min=torch.finfo(iou.dtype).tiny).log()
        near = (-self.iou_loss.clamp(max=0.5)).log1p()
        return torch.where(self.iou > 0.5, near, far)

    @_lazy
    def next_to_0(self) -> Tensor:
        """Where I/U is below 2^-31 in float32 and 2^-255 in float64 (bool).

        There the slope of a logarithm or power could overflow before a small factor brings it back: hold I/U constant.
        """
        iou: Tensor = self.iou
        bound: float = torch.finfo(iou.dtype).tiny ** 0.25
        return iou <= bound

    @_lazy
    def hull_excess(self) -> Tensor:
        """(|H| − U)/|H|, the share of the hull that neither box covers, in [0, 1]; 0 where the hull has no area."""
        (pred_x, pred_y), (target_x, target_y) = (lengths.unbind(0) for lengths in self._outside)
        _, _, union = self._areas
        hull_width, hull_height = self._hull_sides.unbind(0)
        hull = hull_width * hull_height
        # Two boxes that overlap leave two corners free. Of boxes that don't, 1 - U/|H| is exact beside a loss of 1.
        corners = pred_x * target_y + target_x * pred_y
        share = ratio(torch.where(self._apart, union, corners), hull)
        return torch.where(self._apart & (hull > 0.0), 1.0 - share, share)

    def inner(self, ratio: float) -> BoxPair:
        """Both boxes with their sides times ``ratio``, about their own centers; for areas, in the scaled unit."""
        pred_low, pred_high, target_low, target_high = self._edges
        # From the differences of the boxes as they are: new corners would be rounded to their distance from the origin.
        pred, target = (pred_high - pred_low) * ratio, (target_high - target_low) * ratio
        inward = (0.5 - 0.5 * ratio) * (self._high_shift - self._low_shift)
        low, high = self._low_shift + inward, self._high_shift - inward
        inner = BoxPair.__new__(BoxPair)
        inner.__dict__ |= {
            "_pred": self._pred,
            "_target": self._target,
            "_low_shift": low,
            "_high_shift": high,
            "_pred_sides": _positive(pred),
            "_target_sides": _positive(target),
            # The least of the four distances of an upper edge from a lower one.
            "_overlap": torch.minimum(torch.minimum(pred, target), torch.minimum(pred + low, target - low)),
        }
        return inner

    # -- one axis at a time, (2, ...) --------------------------------------------------------------------------------

    @_lazy
    def _side_shift(self) -> Tensor:
        """dw and dh."""
        # The difference of two rounded sides would cancel where boxes are alike, that of shifts where they are apart.
        shared = self._overlap > 0.0
        return torch.where(shared, self._high_shift - self._low_shift, self._pred_sides - self._target_sides)

    @_lazy
    def _way(self) -> Tensor:
        """Twice dx and dy, with the digits that the distance of the edges hides where it is much larger."""
        pred_low, pred_high, target_low, target_high = self._edges
        return self._low_shift + self._high_shift + (_lost(pred_low, target_low) + _lost(pred_high, target_high))

    @_lazy
    def center_shares(self) -> Tensor:
        """|dx|/Hw and |dy|/Hh, distances of the centers over the hull's sides, in [0, 1]."""
        return ratio((self._low_shift + self._high_shift).abs() * 0.5, self._hull_sides)

    @_lazy
    def center_bounds(self) -> Tensor:
        """1 − IoU, per axis, of two boxes of the target's sides whose centers are |dx|, |dy| apart, held at most 1.

        4|dx|/(wt + 2|dx|) up to 2|dx| = wt.
        """
        _, target, _ = self._own
        twice, side = _unless_vanished((self._way, self._target_sides), (self._own_way, _sides(target)))
        twice = twice.abs()
        return ratio(2.0 * twice, side + twice).clamp(max=1.0)

    @_lazy
    def side_changes(self) -> Tensor:
        """|dw|/max(wp, wt) and |dh|/max(hp, ht), in [0, 1]; 0 where neither box has a side."""
        pred, target, _ = self._own
        own = _sides(pred), _sides(target)
        pred, target = _unless_vanished((self._pred_sides, self._target_sides), own)
        shared = self._overlap > 0.0
        change = torch.where(shared, self._high_shift - self._low_shift, pred - target)  # as `_side_shift`
        return ratio(change.abs(), torch.maximum(pred, target))

    def target_shape(self, power: float) -> Tensor:
        """2hˢ/(wˢ + hˢ) and 2wˢ/(wˢ + hˢ) of the target's sides, for x and y; both 1 where it is a point."""
        no_width, no_height = (self._target[1] <= self._target[0]).unbind(0)
        _, target, factor = self._lifted
        width, height = _direction(target, factor)
        sides = torch.stack((height, width)) / torch.maximum(width, height)
        none = sides == 0.0
        powers = (power * sides.masked_fill(none, 1.0).log()).exp().masked_fill(none, 0.0**power)
        return (2.0 * powers / powers.sum(0)).masked_fill(no_width & no_height, 1.0)

    @_lazy
    def edge_shares(self) -> Tensor:
        """(|x1p − x1t| + |x2p − x2t|)/wt, and the same of y, held at most `FAR`, also where the target has no side."""
        _, target, _ = self._own
        off, side = _unless_vanished(
            (self._low_shift.abs() + self._high_shift.abs(), self._target_sides),
            (self._own_shifts.abs().sum(0), _sides(target)),
        )
        far = off > FAR * side
        return (off.masked_fill(far, 0.0) / side.masked_fill(far | (side == 0.0), 1.0)).masked_fill(far, FAR)

    # -- distances, (...): both axes in one unit ---------------------------------------------------------------------

    @_lazy
    def _one_unit(self) -> Tensor:
        """Factors ``(2, ...)``, powers of two, to one unit for both axes, in which the hull's longer side is 32–64."""
        # Only the order of magnitude counts here, so 1/16 keeps the largest hull from overflowing.
        true_sides = self._hull_sides.detach() * 0.0625 / self._scale
        longer = _reciprocal_power(_exponent_bits(true_sides).amax(0), true_sides.dtype)
        # The bound is reached only by an axis on which the hull has no length.
        return (longer / self._scale).clamp(max=2.0**40)

    @_lazy
    def _center_shift(self) -> Tensor:
        return (self._low_shift + self._high_shift) * (0.5 * self._one_unit)

    @_lazy
    def _squared_diagonal(self) -> Tensor:
        return _squared_length(self._hull_sides * self._one_unit)

    @_lazy
    def center_ratio(self) -> Tensor:
        """ρ²/c², squared distance of the centers over the hull's squared diagonal, in [0, 1]; 0 for one point."""
        return ratio(_squared_length(self._center_shift), self._squared_diagonal)

    @_lazy
    def center_ratio_of_constant_hull(self) -> Tensor:
        """ρ²/c², with c² held constant in the backward pass."""
        return ratio(_squared_length(self._center_shift), self._squared_diagonal.detach())

    @_lazy
    def center_ratios(self) -> Tensor:
        """dx²/c² and dy²/c², ``(2, ...)``."""
        return ratio(self._center_shift * self._center_shift, self._squared_diagonal)

    @_lazy
    def obliqueness(self) -> Tensor:
        """2|dx||dy|/ρ², in [0, 1]: 0 where the centers lie along an axis, or coincide; 1 where on a diagonal."""
        own_x, own_y = _in_one_unit(self._own_way, self._own[2]).unbind(0)
        x, y = (self._way * self._one_unit).unbind(0)
        x, y = (shift.abs() for shift in _unless_vanished((x, y), (own_x, own_y)))
        return ratio(2.0 * x * y, x * x + y * y)

    @_lazy
    def side_ratio(self) -> Tensor:
        """dw²/Hw² + dh²/Hh², squared differences of the sides over the hull's, in [0, 2]."""
        return _squared_length(ratio(self._side_shift, self._hull_sides))

    @_lazy
    def corner_ratio(self) -> Tensor:
        """Mean distance of the four pairs of corresponding corners over the hull's diagonal, in [0, 1]."""
        low_x, low_y = (self._low_shift * self._one_unit).unbind(0)
        high_x, high_y = (self._high_shift * self._one_unit).unbind(0)
        across = torch.stack((low_x, high_x, low_x, high_x))
        along = torch.stack((low_y, high_y, high_y, low_y))
        hull_width, hull_height = (self._hull_sides * self._one_unit).unbind(0)
        return ratio(_length(across, along).sum(0), 4.0 * _length(hull_width, hull_height))

    # -- distances of normal distributions, (...) --------------------------------------------------------------------

    @_lazy
    def wasserstein(self) -> tuple[Tensor, Tensor]:
        """√(dx² + dy² + (dw² + dh²)/4) in the unit of the boxes times a factor; and the factor, 1 or 1/8."""
        pred, target, factors = self._not_huge
        factor = torch.minimum(*factors.unbind(0))
        low, high = (pred - target + self._not_finite).unbind(0)
        way = low + high + _lost(pred, target).sum(0)
        wider = torch.where(self._overlap > 0.0, high - low, _sides(pred) - _sides(target))  # as `_side_shift`
        wider = wider + self._not_finite.sum(0)  # the length of infinity and NaN would be infinite
        centers = _length(*(0.5 * way * (factor / factors)).unbind(0))
        sides = _length(*(0.5 * wider * (factor / factors)).unbind(0))
        return _length(centers, sides), factor

    @_lazy
    def empty(self) -> Tensor:
        """Where a box has no area, and all coordinates are finite (bool)."""
        pred, target = self._pred.detach(), self._target.detach()
        low, high = self._not_finite.unbind(0)
        width, height = (torch.minimum(pred[1] - pred[0], target[1] - target[0]) + low + high).unbind(0)
        return torch.minimum(width, height) <= 0.0

    @_lazy
    def log_divergence(self) -> Tensor:
        """ln(1 + D), D the Kullback–Leibler divergence of pred's normal distribution from target's; 0 if one is empty.

        D may exceed every number: it is the sum of both axes' shares where these are moderate, else by logarithms.
        """
        far, share, log_far = self._divergences
        log_share = torch.where(far, log_far, share.clamp(min=torch.finfo(share.dtype).tiny).log())
        one, other = log_share.unbind(0)
        larger = torch.maximum(one, other)
        log_sum = larger + (torch.minimum(one, other) - larger).exp().log1p()
        far_x, far_y = far.unbind(0)
        any_far = far_x | far_y
        beyond = log_sum + (-log_sum).masked_fill(~any_far, 0.0).exp().log1p()
        return torch.where(any_far, beyond, share.sum(0).masked_fill(any_far, 0.0).log1p())

    @_lazy
    def _divergences(self) -> tuple[Tensor, Tensor, Tensor]:
        """By axis: where the share of the divergence is vast (bool), the share elsewhere, and its logarithm there.

        2dx²/wt² + ½(wp²/wt² − 1) − ln(wp/wt), and with e = dw/wt 2dx²/wt² + ½e² + (e − ln(1 + e)).
        """
        # Of empty boxes nothing counts, and nothing may be divided by.
        pred, target = (x.masked_fill(self.empty, 1.0) for x in (self._pred_sides, self._target_sides))
        shift = (0.5 * (self._low_shift + self._high_shift)).masked_fill(self.empty, 0.0)
        change = self._side_shift.masked_fill(self.empty, 0.0)
        far = torch.maximum(shift.abs(), pred) > 2.0**16 * target
        log_target, log_ratio = self._log_sides(far | (pred < 2.0**-60 * target) | self.empty)

        over = target.masked_fill(far, 1.0)
        moved, grown = shift.masked_fill(far, 0.0) / over, change.masked_fill(far, 0.0) / over
        half = grown > -0.5
        shape = torch.where(half, log_excess(grown.masked_fill(~half, 0.0)), grown - log_ratio.masked_fill(far, 0.0))
        share = 2.0 * moved * moved + 0.5 * grown * grown + shape

        times_target = 2.0 * shift * shift + 0.5 * change * change + target * (change - target * log_ratio)
        return far, share, times_target.masked_fill(~far, 1.0).log() - 2.0 * log_target

    def _log_sides(self, vast: Tensor) -> tuple[Tensor, Tensor]:
        """ln wt in the scaled unit, and ln(wp/wt); where ``vast`` also of sides that have vanished in that unit."""
        pred, target, lift = self._lifted
        log_pred, log_target = (_log_sides(box, self.empty) for box in (pred, target))
        quotient = self._pred_sides.masked_fill(vast, 1.0) / self._target_sides.masked_fill(vast, 1.0)
        return log_target + (self._scale / lift).log(), torch.where(vast, log_pred - log_target, quotient.log())

    @_lazy
    def angle(self) -> Tensor:
        """θt − θp, θ = atan2(w, h), in [−π/2, π/2]. An empty box of no length has the angle 0."""
        pred, target, factor = self._lifted
        pred_width, pred_height = _direction(pred, factor)
        target_width, target_height = _direction(target, factor)
        # The angle between two directions: one atan2 instead of two, and no cancellation where the sides are exact.
        return torch.atan2(
            target_width * pred_height - pred_width * target_height,
            pred_height * target_height + pred_width * target_width,
        )

    @_lazy
    def angle_with_unit_gradient(self) -> Tensor:
        """θt − θp, with the factor 1/(w² + h²) of its derivatives by w and h replaced by 1."""
        return self.angle.detach() + _turn(self._target) - _turn(self._pred)


def _by_axis(boxes: Tensor) -> Tensor:
    """``(..., 4)`` → ``(2 edges, 2 axes, ...)``, contiguous: strided columns make every later operation slow."""
    columns = boxes.movedim(-1, 0)
    return columns.reshape(2, 2, *columns.shape[1:]).contiguous()


# An integer as wide as the float, the bits of the float's exponent, and their unit.
_EXPONENT = {
    torch.float32: (torch.int32, 0x7F800000, 0x00800000),
    torch.float64: (torch.int64, 0x7FF0000000000000, 0x0010000000000000),
}


_LIFT = {torch.float32: 2.0**32, torch.float64: 2.0**256}
"""Times this, no slope of tiny boxes overflows: not even 1/x of the smallest number x, some hundred times."""


def _exponent_bits(x: Tensor) -> Tensor:
    """The power of two of each number, as the bits of a float; as integers they compare like the numbers."""
    integer, mask, _ = _EXPONENT[x.dtype]
    return x.detach().view(integer) & mask


def _reciprocal_power(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """2/2^e for numbers of magnitude 2^e, from ``_exponent_bits``: exact and finite; 0 for infinity and NaN.

    Zero and subnormal numbers get the factor of the smallest normal one. Infinity * 0 is NaN, which is how a coordinate
    that is not finite makes the pair's values NaN.
    """
    _, mask, unit = _EXPONENT[dtype]
    return (mask - bits.clamp(min=unit)).view(dtype)


def _unless_vanished(scaled: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two numbers whose quotient counts, in the scaled unit; where both have nearly vanished there, from another unit.

    Not always from that: slopes by two ways may overflow with two signs.
    """
    vanished = torch.maximum(*(number.detach().abs() for number in scaled)) < 2.0**-40
    unit = _reciprocal_power(torch.maximum(*map(_exponent_bits, own)), own[0].dtype)
    one, other = own
    unit = unit.masked_fill((one == 0.0) & (other == 0.0), 1.0)  # else, in forward mode, infinity times 0
    one, other = (torch.where(vanished, y * unit, x) for x, y in zip(scaled, own, strict=True))
    return one, other


def _positive(x: Tensor) -> Tensor:
    """max(x, 0), with the derivative of x at 0: a side of no length can still grow. `clamp` has varied in this."""
    return x.masked_fill(x < 0.0, 0.0)


def _lost(x: Tensor, y: Tensor) -> Tensor:
    """What is missing in x − y, rounded: exact (Knuth's two-sum), constant."""
    x, y = x.detach(), y.detach()
    difference = x - y
    of_x = difference + y
    return (x - of_x) - (y - (of_x - difference))


def _squared_length(vector: Tensor) -> Tensor:
    x, y = vector.unbind(0)
    return x * x + y * y


def _length(x: Tensor, y: Tensor) -> Tensor:
    """√(x² + y²), with zero gradient at the origin."""
    origin = (x == 0.0) & (y == 0.0)
    return torch.hypot(x.masked_fill(origin, 1.0), y).masked_fill(origin, 0.0)


def _sides(box: Tensor) -> Tensor:
    low, high = box.unbind(0)
    return _positive(high - low)


def _log_sides(box: Tensor, empty: Tensor) -> Tensor:
    """ln w and ln h, 0 where empty, also of sides that are no finite number."""
    _, mask, unit = _EXPONENT[box.dtype]
    huge = _exponent_bits(box).amax(0) >= mask - 2 * unit
    factor = 1.0 - 0.5 * huge.to(box.dtype)
    return _sides(box * factor).masked_fill(empty, 1.0).log() - factor.log().masked_fill(empty, 0.0)


def _direction(box: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """(w, h) of a box, with a longer side of about 1, so that products neither overflow nor vanish.

    From the coordinates as they are, times a factor of each axis: a tiny box keeps its aspect beside a huge one. That
    of a point is (0, 1), with zero gradient: a point has every aspect as its neighbor.
    """
    _, mask, unit = _EXPONENT[box.dtype]
    huge = _exponent_bits(box).amax((0, 1)) >= mask - 2 * unit
    sides = _sides(box * (1.0 - 0.5 * huge.to(box.dtype)))  # halved where a difference could overflow
    sides = _in_one_unit(sides, factor)
    width, height = (sides * _reciprocal_power(_exponent_bits(sides).amax(0), box.dtype)).unbind(0)
    point = (width == 0.0) & (height == 0.0)
    return width.masked_fill(point, 0.0), height.masked_fill(point, 1.0)


def _in_one_unit(lengths: Tensor, factor: Tensor) -> Tensor:
    """Lengths ``(2, ...)``, each times the factor of its axis, both times the smaller factor."""
    return lengths * (torch.minimum(*factor.unbind(0)) / factor)


def _turn(box: Tensor) -> Tensor:
    """0, with the derivatives h by w and −w by h."""
    width, height = _sides(box).clamp(max=torch.finfo(box.dtype).max).unbind(0)
    return height.detach() * (width - width.detach()) - width.detach() * (height - height.detach())


FAR = 4096.0
"""Far more sides than any of a loss's exponentials can tell from infinitely many: e^-1024 is 0."""

ASPECT = 4.0 / math.pi**2
"""Brings a squared difference of two angles in [0, π/2] to [0, 1]."""
