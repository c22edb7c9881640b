"""Every loss with its default parameters, and with those that change its formula or gradient."""

from __future__ import annotations

from typing import Any

from boxloss import LOSSES

Variant = tuple[str, dict[str, Any]]

REQUIRED: dict[str, dict[str, Any]] = {"mpdiou": {"image_size": (640, 480)}, "nwd": {"constant": 64.0}}
"""Parameters without a default."""

DEFAULTS: list[Variant] = [(name, REQUIRED.get(name, {})) for name in LOSSES]

VARIANTS: list[Variant] = [
    *DEFAULTS,
    ("smooth_l1", {"beta": 0.0}),
    ("smooth_l1", {"beta": 0.125}),
    ("log_iou", {"floor": 1e-3}),
    ("log_iou", {"floor": 0.75}),
    ("tversky_box", {"alpha": 2.5, "beta": 0.125}),
    ("ciou", {"gated": True}),
    ("ciou", {"differentiate_alpha": True}),
    ("ciou", {"aspect_gradient": "unit"}),
    ("cdiou", {"base": "log_iou"}),
    ("cdiou", {"base": "giou", "penalty_weight": 0.5}),
    ("cdiou", {"base": "diou", "penalty_weight": 0.0}),
    ("cdiou", {"base": "ciou"}),
    ("focal_eiou", {"gamma": 0.0}),
    ("focal_eiou", {"gamma": 2.0}),
    ("focal_eiou", {"detach_weight": False}),
    ("focal_eiou", {"gamma": 2.0, "detach_weight": False}),
    ("balanced_l1", {"alpha": 0.25, "gamma": 1.0, "beta": 0.125}),
    ("alpha_iou", {"alpha": 0.5}),
    ("focaler_iou", {"d": 0.25, "u": 0.75}),
    ("inner_iou", {"ratio": 1.25}),
    ("diou", {"inner_ratio": 0.75}),
    ("ciou", {"inner_ratio": 1.25}),
    ("shape_iou", {"scale": 1.5}),
    ("piou", {"version": 2}),
    ("wiou", {"version": "v2", "mean": 0.5}),
    ("wiou", {"version": "v3", "mean": 0.5}),
]

TRACED = [
    variant
    for variant in VARIANTS
    if variant in DEFAULTS or any(isinstance(value, (int, str)) or value == 0 for value in variant[1].values())
]
"""Those whose graphs of operations differ; numbers alone do not change one."""

WITH_FUNCTIONS = set(
    "log_iou ciou cdiou focal_eiou balanced_l1 alpha_iou siou shape_iou piou wiou nwd gwd kld".split()  # noqa: SIM905
)
"""Losses with atan, exp, log, pow or sqrt, which torch and a kernel round each in its own way."""


def ulp_limit(variant: Variant) -> int:
    """4 ulp of the exact value; 8 where a loss has a function; 6 of inner boxes, whose edges are rounded once more."""
    name, given = variant
    return 8 if name in WITH_FUNCTIONS else 6 if name == "inner_iou" or "inner_ratio" in given else 4


def label(variant: Variant) -> str:
    name, parameters = variant
    return "-".join([name, *(f"{key}={value}" for key, value in parameters.items())])


def parameter(variant: Variant, key: str) -> Any:
    """A parameter's value, given or by default."""
    name, given = variant
    return given.get(key, LOSSES[name].parameters[key].default)


def vanishes_far_apart(variant: Variant) -> bool:
    """Its value is 0, or tends to it, where the boxes do not overlap."""
    name, given = variant
    return given.get("version") == 2 or (LOSSES[name].zero_without_overlap and given.get("gamma") != 0)


def parameters_scaled(variant: Variant, factor: float) -> dict[str, Any]:
    """The parameters with its lengths, given or by default, multiplied by ``factor``."""
    name, given = variant
    loss = LOSSES[name]
    lengths = {key: parameter(variant, key) for key in loss.lengths}
    scaled = {
        key: tuple(factor * x for x in value) if isinstance(value, tuple) else factor * value
        for key, value in lengths.items()
    }
    return given | scaled


def is_derivative(variant: Variant) -> bool:
    """The gradient is the derivative of the value: nothing is held constant or replaced."""
    name, given = variant
    if name == "cdiou":
        return given.get("base") != "ciou"
    return not LOSSES[name].detached or bool(given.get("differentiate_alpha")) or given.get("detach_weight") is False
