"""The losses in arithmetic without rounding, written from their definitions and from nothing else.

Numbers are mpmath's, with so many bits that sums and products of coordinates are exact; quotients and functions are
right to hundreds of bits. Derivatives by the four coordinates of pred ride along as dual numbers. At a kink the
derivative depends on the side: `gradient` then returns both one-sided ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

from mpmath import mp, mpf

Number = Any  # mpf or Dual


class Dual:
    """A value and its slopes in some directions. Equal values are compared by their slopes: just beside the point."""

    kinks: ClassVar[set[int]] = set()
    """The directions in which equal values were seen to part."""

    def __init__(self, value: mpf, slopes: Sequence[mpf]) -> None:
        self.value = value
        self.slopes = slopes

    def chain(self, value: mpf, slope: mpf) -> Dual:
        return Dual(value, [slope * s for s in self.slopes])

    def __add__(self, other: Number) -> Dual:
        if isinstance(other, Dual):
            return Dual(self.value + other.value, [s + t for s, t in zip(self.slopes, other.slopes, strict=True)])
        return Dual(self.value + other, self.slopes)

    def __mul__(self, other: Number) -> Dual:
        if isinstance(other, Dual):
            v, w = self.value, other.value
            return Dual(v * w, [s * w + v * t for s, t in zip(self.slopes, other.slopes, strict=True)])
        return Dual(self.value * other, [s * other for s in self.slopes])

    def __truediv__(self, other: Number) -> Dual:
        if not isinstance(other, Dual):
            return self.chain(self.value / other, 1 / mpf(other))
        q = self.value / other.value
        return Dual(q, [(s - q * t) / other.value for s, t in zip(self.slopes, other.slopes, strict=True)])

    def __rtruediv__(self, other: Number) -> Dual:
        return self.chain(other / self.value, -other / (self.value * self.value))

    def __neg__(self) -> Dual:
        return self * -1

    def __sub__(self, other: Number) -> Dual:
        return self + (-other)

    def __rsub__(self, other: Number) -> Dual:
        return (-self) + other

    __radd__ = __add__
    __rmul__ = __mul__

    def exceeds(self, other: Number) -> bool:
        rest = self - other
        if rest.value == 0:
            if len(rest.slopes) == 1:
                return bool(rest.slopes[0] > 0)
            Dual.kinks |= {j for j, slope in enumerate(rest.slopes) if slope != 0}
        return bool(rest.value > 0)


def value_of(x: Number) -> mpf:
    return x.value if isinstance(x, Dual) else x


def constant(x: Number) -> Number:
    """``x`` held constant in the backward pass."""
    return value_of(x)


def exceeds(a: Number, b: Number) -> bool:
    if isinstance(a, Dual):
        return a.exceeds(b)
    return not b.exceeds(a) if isinstance(b, Dual) else bool(a > b)


def maximum(a: Number, b: Number) -> Number:
    return a if exceeds(a, b) else b


def minimum(a: Number, b: Number) -> Number:
    return b if exceeds(a, b) else a


def positive(x: Number) -> Number:
    return maximum(x, x * 0)


def absolute(x: Number) -> Number:
    return maximum(x, -x)


def over(n: Number, d: Number) -> Number:
    """n/d, and 0 for 0/0."""
    return n / d if value_of(d) != 0 else mpf(0)


def _function(x: Number, f: Callable[[mpf], mpf], slope: Callable[[mpf, mpf], mpf]) -> Number:
    with mp.workprec(max(300, mp.prec)):
        v = value_of(x)
        y = f(v)
        return x.chain(y, slope(v, y)) if isinstance(x, Dual) else y


def length(x: Number, y: Number) -> Number:
    square = x * x + y * y
    if value_of(square) != 0:
        return _function(square, mp.sqrt, lambda _, root: 1 / (2 * root))
    if not isinstance(square, Dual):
        return mpf(0)
    slopes = [mp.sqrt(s * s + t * t) for s, t in zip(x.slopes, y.slopes, strict=True)]
    Dual.kinks |= {j for j, slope in enumerate(slopes) if slope != 0}
    return Dual(mpf(0), slopes)


def log(x: Number) -> Number:
    return _function(x, mp.log, lambda v, _: 1 / v)


def power(x: Number, exponent: float) -> Number:
    if value_of(x) == 0:
        return mpf(0) ** exponent
    return _function(x, lambda v: v**exponent, lambda v, y: exponent * y / v)


def exp(x: Number) -> Number:
    return _function(x, mp.exp, lambda _, y: y)


def atan2(y: Number, x: Number) -> Number:
    with mp.workprec(300):
        v, u = value_of(y), value_of(x)
        if v == 0 and u == 0:
            return mpf(0)
        square = v * v + u * u
        angle = mp.atan2(v, u)
        if isinstance(y, Dual) and isinstance(x, Dual):
            slopes = [(u * s - v * t) / square for s, t in zip(y.slopes, x.slopes, strict=True)]
            return Dual(angle, slopes)
        return angle


class Geometry:
    """What the definitions call I, U, H, Hw, Hh, c², ρ², …"""

    def __init__(self, pred: Sequence[Number], target: Sequence[Number]) -> None:
        self.pred, self.target = pred, target
        px1, py1, px2, py2 = pred
        tx1, ty1, tx2, ty2 = target
        self.wp, self.hp = positive(px2 - px1), positive(py2 - py1)
        self.wt, self.ht = positive(tx2 - tx1), positive(ty2 - ty1)
        wi = positive(minimum(px2, tx2) - maximum(px1, tx1))
        hi = positive(minimum(py2, ty2) - maximum(py1, ty1))
        self.inter = wi * hi
        self.union = self.wp * self.hp + self.wt * self.ht - self.inter
        self.iou = over(self.inter, self.union)
        self.iou_loss = 1 - self.iou
        xs, ys = (px1, px2, tx1, tx2), (py1, py2, ty1, ty2)
        self.hull_w = _most(xs, maximum) - _most(xs, minimum)
        self.hull_h = _most(ys, maximum) - _most(ys, minimum)
        self.c2 = self.hull_w * self.hull_w + self.hull_h * self.hull_h
        self.dx, self.dy = (px1 + px2 - tx1 - tx2) / 2, (py1 + py2 - ty1 - ty2) / 2
        self.rho2 = self.dx * self.dx + self.dy * self.dy

    # What several losses are made of, computed once.

    @cached_property
    def diou_loss(self) -> Number:
        return self.iou_loss + over(self.rho2, self.c2)

    @cached_property
    def eiou_loss(self) -> Number:
        dw, dh = self.wp - self.wt, self.hp - self.ht
        sides = over(dw * dw, self.hull_w * self.hull_w) + over(dh * dh, self.hull_h * self.hull_h)
        return self.diou_loss + sides

    @cached_property
    def corner_distance(self) -> Number:
        """The mean distance of corresponding corners over the hull's diagonal."""
        px1, py1, px2, py2 = self.pred
        tx1, ty1, tx2, ty2 = self.target
        corners = [(px1 - tx1, py1 - ty1), (px2 - tx2, py1 - ty1), (px1 - tx1, py2 - ty2), (px2 - tx2, py2 - ty2)]
        return over(sum(length(x, y) for x, y in corners), 4 * length(self.hull_w, self.hull_h))

    @cached_property
    def theta_p(self) -> Number:
        return atan2(self.wp, self.hp)

    @cached_property
    def theta_t(self) -> Number:
        return atan2(self.wt, self.ht)

    @property
    def theta_p_with_unit_slopes(self) -> Number:
        """The factor 1/(w² + h²) of the derivatives replaced by 1."""
        if not isinstance(self.wp, Dual):
            return self.theta_p
        w, h = self.wp.value, self.hp.value
        slopes = [h * s - w * t for s, t in zip(self.wp.slopes, self.hp.slopes, strict=True)]
        return Dual(value_of(self.theta_p), slopes)


def _most(values: Sequence[Number], choose: Callable[[Number, Number], Number]) -> Number:
    result = values[0]
    for value in values[1:]:
        result = choose(result, value)
    return result


def _differences(g: Geometry) -> list[Number]:
    return [p - t for p, t in zip(g.pred, g.target, strict=True)]


def l1(g: Geometry) -> Number:
    return sum(absolute(d) for d in _differences(g))


def l2(g: Geometry) -> Number:
    return sum(d * d for d in _differences(g))


def smooth_l1(g: Geometry, beta: float = 1.0) -> Number:
    return sum(_smooth(absolute(d), beta) for d in _differences(g))


def _smooth(d: Number, beta: float) -> Number:
    return d - mpf(beta) / 2 if beta == 0 or exceeds(d, mpf(beta)) else d * d / (2 * mpf(beta))


def balanced_l1(g: Geometry, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> Number:
    alpha, gamma, beta = mpf(alpha), mpf(gamma), mpf(beta)

    def one(d: Number) -> Number:
        if beta == 0:
            return gamma * d
        with mp.workprec(mp.prec + 300):
            b, z = mp.exp(gamma / alpha) - 1, d / beta
            if exceeds(z, mpf(1)):
                return beta * (gamma * z + gamma / b - alpha)
            return beta * (alpha / b * (b * z + 1) * log(b * z + 1) - alpha * z)

    return sum(one(absolute(d)) for d in _differences(g))


def iou(g: Geometry) -> Number:
    return g.iou_loss


def log_iou(g: Geometry, floor: float = 1e-6) -> Number:
    return -log(maximum(g.iou, mpf(floor)))


def squared_iou(g: Geometry) -> Number:
    return 1 - g.iou * g.iou


def giou(g: Geometry) -> Number:
    hull = g.hull_w * g.hull_h
    return g.iou_loss + over(hull - g.union, hull)


def tversky_box(g: Geometry, alpha: float = 0.3, beta: float = 0.7) -> Number:
    too_much, missing = g.wp * g.hp - g.inter, g.wt * g.ht - g.inter
    return 1 - over(g.inter, g.inter + mpf(alpha) * too_much + mpf(beta) * missing)


def dice_box(g: Geometry) -> Number:
    return 1 - over(2 * g.inter, g.wp * g.hp + g.wt * g.ht)


def diou(g: Geometry, inner_ratio: float | None = None) -> Number:
    return g.diou_loss + _inner_excess(g, inner_ratio)


def _inner_excess(g: Geometry, inner_ratio: float | None) -> Number:
    return mpf(0) if inner_ratio is None else inner_iou(g, inner_ratio) - g.iou_loss


def ciou(
    g: Geometry,
    gated: bool = False,
    differentiate_alpha: bool = False,
    aspect_gradient: str = "exact",
    inner_ratio: float | None = None,
) -> Number:
    with mp.workprec(max(300, mp.prec)):
        v = _aspect(g.theta_p if aspect_gradient == "exact" else g.theta_p_with_unit_slopes, g.theta_t)
        alpha = over(v, g.iou_loss + v)
        if gated and value_of(g.iou) < 0.5:
            alpha = mpf(0)
        penalty = (alpha if differentiate_alpha else constant(alpha)) * v
        return g.diou_loss + _inner_excess(g, inner_ratio) + penalty


def _aspect(theta_p: Number, theta_t: Number) -> Number:
    angle = theta_t - theta_p
    return angle * angle * (4 / mp.pi**2)


def alpha_iou(g: Geometry, alpha: float = 3.0) -> Number:
    return 1 - power(g.iou, mpf(alpha))


def focaler_iou(g: Geometry, d: float = 0.0, u: float = 0.95) -> Number:
    share = (g.iou - mpf(d)) / (mpf(u) - mpf(d))
    return 1 - maximum(minimum(share, mpf(1)), mpf(0))


def inner_iou(g: Geometry, ratio: float = 0.75) -> Number:
    def inner(box: Sequence[Number]) -> list[Number]:
        x1, y1, x2, y2 = box
        x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * mpf(ratio) / 2, (y2 - y1) * mpf(ratio) / 2
        return [x - w, y - h, x + w, y + h]

    return Geometry(inner(g.pred), inner(g.target)).iou_loss


def _side_change(one: Number, other: Number) -> Number:
    return over(absolute(one - other), maximum(one, other))


def siou(g: Geometry, theta: float = 4.0) -> Number:
    x, y = absolute(g.dx), absolute(g.dy)
    slow = 2 - over(2 * x * y, g.rho2)
    shares = over(x, g.hull_w), over(y, g.hull_h)
    distance = sum(1 - exp(-slow * share * share) for share in shares)
    sides = _side_change(g.wp, g.wt), _side_change(g.hp, g.ht)
    return g.iou_loss + (distance + sum(power(1 - exp(-side), mpf(theta)) for side in sides)) / 2


def shape_iou(g: Geometry, scale: float = 0.0) -> Number:
    w, h = power(g.wt, mpf(scale)), power(g.ht, mpf(scale))
    point = value_of(g.wt) == 0 and value_of(g.ht) == 0
    ww, hh = (mpf(1), mpf(1)) if point else (2 * w / (w + h), 2 * h / (w + h))
    distance = over(hh * g.dx * g.dx, g.c2) + over(ww * g.dy * g.dy, g.c2)
    sides = hh * _side_change(g.wp, g.wt), ww * _side_change(g.hp, g.ht)
    return g.iou_loss + distance + sum(power(1 - exp(-side), 4) for side in sides) / 2


def mpdiou(g: Geometry, image_size: Sequence[float]) -> Number:
    width, height = map(mpf, image_size)
    return g.iou_loss + l2(g) / (width * width + height * height)


def edge_distance(g: Geometry) -> Number:
    """P of Powerful IoU; where a target without a side is missed, a million stands for infinity."""
    x1, y1, x2, y2 = map(absolute, _differences(g))

    def share(off: Number, side: Number) -> Number:
        return mpf(10**6) if value_of(side) == 0 and value_of(off) != 0 else over(off, side)

    return (share(x1 + x2, g.wt) + share(y1 + y2, g.ht)) / 4


def piou(g: Geometry, version: int = 1, lam: float = 1.3) -> Number:
    p = edge_distance(g)
    value = g.iou_loss + 1 - exp(-p * p)
    q = mpf(lam) * exp(-p)
    return value if version == 1 else 3 * q * exp(-q * q) * value


def bounded_iou(g: Geometry, beta: float = 0.2) -> Number:
    def of_center(d: Number, side: Number) -> Number:
        far = side + 2 * absolute(d)
        return 1 - maximum((side - 2 * absolute(d)) / far, mpf(0)) if value_of(far) != 0 else mpf(0)

    numbers = of_center(g.dx, g.wt), of_center(g.dy, g.ht), _side_change(g.wp, g.wt), _side_change(g.hp, g.ht)
    return sum(_smooth(number, beta) for number in numbers)


def wiou(
    g: Geometry,
    version: str = "v1",
    mean: float = 1.0,
    gamma: float = 0.5,
    a: float = 1.9,
    delta: float = 3.0,
) -> Number:
    value = exp(over(g.rho2, constant(g.c2))) * g.iou_loss
    beta = constant(g.iou_loss) / mpf(mean)
    if version == "v2":
        return power(beta, mpf(gamma)) * value
    with mp.workprec(300):
        return beta / (mpf(delta) * mpf(a) ** (beta - mpf(delta))) * value if version == "v3" else value


def nwd(g: Geometry, constant: float) -> Number:
    distance = length(length(g.dx, g.dy), length((g.wp - g.wt) / 2, (g.hp - g.ht) / 2))
    return 1 - exp(-distance / mpf(constant))


def gwd(g: Geometry, tau: float = 1.0) -> Number:
    dw, dh = g.wp - g.wt, g.hp - g.ht
    return 1 - 1 / (mpf(tau) + log(1 + g.rho2 + (dw * dw + dh * dh) / 4))


def kld(g: Geometry, tau: float = 1.0) -> Number:
    if 0 in map(value_of, (g.wp, g.hp, g.wt, g.ht)):
        return mpf(1)

    def of_axis(shift: Number, pred: Number, target: Number) -> Number:
        moved, grown = shift / target, pred / target
        return 2 * moved * moved + (grown * grown - 1) / 2 - log(grown)

    with mp.workprec(mp.prec + 300):
        return 1 - 1 / (mpf(tau) + log(1 + of_axis(g.dx, g.wp, g.wt) + of_axis(g.dy, g.hp, g.ht)))


def eiou(g: Geometry) -> Number:
    return g.eiou_loss


def focal_eiou(g: Geometry, gamma: float = 0.5, detach_weight: bool = True) -> Number:
    weight = power(g.iou, gamma)
    return (constant(weight) if detach_weight else weight) * g.eiou_loss


def cdiou(g: Geometry, base: str = "iou", penalty_weight: float = 1.0) -> Number:
    return LOSSES[base](g) + penalty_weight * g.corner_distance


LOSSES: dict[str, Callable[..., Number]] = {
    "l1": l1,
    "l2": l2,
    "smooth_l1": smooth_l1,
    "balanced_l1": balanced_l1,
    "iou": iou,
    "log_iou": log_iou,
    "squared_iou": squared_iou,
    "giou": giou,
    "tversky_box": tversky_box,
    "dice_box": dice_box,
    "alpha_iou": alpha_iou,
    "focaler_iou": focaler_iou,
    "inner_iou": inner_iou,
    "diou": diou,
    "ciou": ciou,
    "eiou": eiou,
    "focal_eiou": focal_eiou,
    "cdiou": cdiou,
    "siou": siou,
    "shape_iou": shape_iou,
    "mpdiou": mpdiou,
    "piou": piou,
    "bounded_iou": bounded_iou,
    "wiou": wiou,
    "nwd": nwd,
    "gwd": gwd,
    "kld": kld,
}


def bits_for(pairs: Sequence[Sequence[float]]) -> int:
    """A precision at which sums and products of up to four coordinates are exact."""
    exponents = [math.frexp(x)[1] for pair in pairs for x in pair if x]
    span = max(exponents, default=0) - min(exponents, default=0) + 60
    return 4 * span + 64


def values(variants: Sequence[tuple[str, dict[str, Any]]], pred: Sequence[float], target: Sequence[float]) -> list[mpf]:
    """The value of each loss (name, parameters) of one pair."""
    with mp.workprec(bits_for([pred, target])):
        g = Geometry([mpf(x) for x in pred], [mpf(x) for x in target])
        return [LOSSES[name](g, **parameters) for name, parameters in variants]


def measure(variant: tuple[str, dict[str, Any]], pred: Sequence[float], target: Sequence[float], value: mpf) -> mpf:
    """The number in whose last place a value's error is counted: the value; of two losses, as their docstrings say."""
    name, parameters = variant
    if name not in ("focaler_iou", "piou"):
        return value
    with mp.workprec(bits_for([pred, target])):
        g = Geometry([mpf(x) for x in pred], [mpf(x) for x in target])
        if name == "focaler_iou":
            return max(value, g.iou_loss / (mpf(parameters.get("u", 0.95)) - mpf(parameters.get("d", 0.0))))
        return value * (1 + edge_distance(g) / 2) if parameters.get("version") == 2 else value


def gradients(
    variants: Sequence[tuple[str, dict[str, Any]]], pred: Sequence[float], target: Sequence[float]
) -> list[list[tuple[mpf, mpf]]]:
    """Per loss, the lower and upper one-sided derivative by each coordinate of pred; equal where there is no kink."""
    with mp.workprec(bits_for([pred, target])):
        Dual.kinks = set()
        units = [[mpf(i == j) for i in range(4)] for j in range(4)]
        result = [[(s, s) for s in slopes] for slopes in _slopes(variants, pred, target, units)]
        for j in sorted(Dual.kinks):
            right = _slopes(variants, pred, target, [[mpf(i == j)] for i in range(4)])
            left = _slopes(variants, pred, target, [[-mpf(i == j)] for i in range(4)])
            for both, (r,), (m,) in zip(result, right, left, strict=True):
                both[j] = min(r, -m), max(r, -m)
        return result


def _slopes(
    variants: Sequence[tuple[str, dict[str, Any]]],
    pred: Sequence[float],
    target: Sequence[float],
    directions: Sequence[Sequence[mpf]],
) -> list[list[mpf]]:
    duals = [Dual(mpf(x), slopes) for x, slopes in zip(pred, directions, strict=True)]
    nothing = [mpf(0)] * len(directions[0])
    g = Geometry(duals, [Dual(mpf(x), nothing) for x in target])
    found = [LOSSES[name](g, **parameters) for name, parameters in variants]
    return [list(x.slopes) if isinstance(x, Dual) else nothing for x in found]
