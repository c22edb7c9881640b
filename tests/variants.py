"""Every loss with its default parameters, and with those that change its formula or gradient."""

from __future__ import annotations

from typing import Any

from boxloss import LOSSES

Variant = tuple[str, dict[str, Any]]

DEFAULTS: list[Variant] = [(name, {}) for name in LOSSES]

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
]

TRACED = [
    variant
    for variant in VARIANTS
    if variant in DEFAULTS or any(isinstance(value, (bool, str)) or value == 0 for value in variant[1].values())
]
"""Those whose graphs of operations differ; numbers alone do not change one."""

# 4 ulp of the exact value; 8 where a loss has atan, log, pow or sqrt.
ULPS = {"log_iou": 8, "ciou": 8, "cdiou": 8, "focal_eiou": 8}


def ulp_limit(name: str) -> int:
    return ULPS.get(name, 4)


def label(variant: Variant) -> str:
    name, parameters = variant
    return "-".join([name, *(f"{key}={value}" for key, value in parameters.items())])


def parameters_scaled(variant: Variant, factor: float) -> dict[str, Any]:
    """The parameters with its lengths, given or by default, multiplied by ``factor``."""
    name, given = variant
    loss = LOSSES[name]
    lengths = {key: given.get(key, loss.parameters[key].default) * factor for key in loss.lengths}
    return given | lengths


def is_derivative(variant: Variant) -> bool:
    """The gradient is the derivative of the value: nothing is held constant or replaced."""
    name, given = variant
    if name == "cdiou":
        return given.get("base") != "ciou"
    return not LOSSES[name].detached or bool(given.get("differentiate_alpha")) or given.get("detach_weight") is False
