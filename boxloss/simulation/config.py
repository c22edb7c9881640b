"""What a simulation depends on. Read from YAML and the command line, written into its folder."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from ..losses import find_loss
from ..losses._parameters import is_number
from .cases import LAYOUTS
from .rules import PUBLISHED

PUBLISHED_RULE, EXACT_RULE, BOTH = "published", "exact", "both"
RULES = (BOTH, PUBLISHED_RULE, EXACT_RULE)
OPTIMIZERS = ("sgd", "adam")
_MOST = {"centres": 1_000_000, "iterations": 10_000}
_MOST_DECAYS = 20
_EXPECTED = {
    **dict.fromkeys(("centres", "seed", "iterations"), "a whole number"),
    "decay": "a list of shares",
    "parameters": "a mapping of losses to their parameters",
}


def _plain_item(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    return name, float(value) if is_number(value) else value


class Descent(NamedTuple):
    """All cases under one loss and rule."""

    rule: str
    loss: str

    @property
    def name(self) -> str:
        return f"{self.rule}-{self.loss}"


@dataclass(frozen=True)
class SimulationConfig:
    """Boxes descending losses, as in the DIoU paper: 343 cases at each of many anchor centers.

    Args:
        losses: names, as in boxloss losses; the published rule exists for iou, giou, diou and ciou.
        rule: published: the hand-written directions of the paper's experiment; exact: the losses' own gradients; both.
        parameters: of losses, by name, such as {smooth_l1: {beta: 2.0}}; exact rule only.
        centres: how many anchor centers; the paper has 5,000.
        centres_layout: random: drawn from the disc, as in the paper; sunflower: spread evenly.
        seed: of the draw.
        iterations: how many steps.
        optimizer: sgd: boxes += lr · (2 − IoU) · direction; adam: Adam on the same.
        lr: learning rate.
        decay: shares of the iterations after which it falls to a tenth.
        imports: files and modules that define losses of your own.
        wh_factor: of the exact direction's components of width and height; the published rules have 2.
    """

    losses: list[str] = field(default_factory=lambda: ["iou", "giou", "diou", "ciou", "eiou"])
    rule: str = BOTH
    parameters: dict[str, dict[str, float | bool | str]] = field(default_factory=dict)
    centres: int = 5000
    centres_layout: str = LAYOUTS[0]
    seed: int = 0
    iterations: int = 200
    optimizer: str = OPTIMIZERS[0]
    lr: float = 0.1
    decay: list[float] = field(default_factory=lambda: [0.8, 0.9])
    wh_factor: float = 2.0
    imports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._make_plain()
        for name, known in (("rule", RULES), ("centres_layout", LAYOUTS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name, most in _MOST.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected 1 to {most:,}, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2^63 - 1, got {self.seed}")
        for name in ("lr", "wh_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number > 0, got {getattr(self, name)}")
        if len(self.decay) > _MOST_DECAYS:
            raise ValueError(f"decay: expected {_MOST_DECAYS} shares at most, got {len(self.decay)}")
        if not all(0 < share < 1 for share in self.decay):
            raise ValueError(f"decay: expected shares of the iterations between 0 and 1, got {self.decay}")
        self._check_losses()

    def _make_plain(self) -> None:
        """Numbers of the types that YAML gives, so that the same configuration is the same whoever made it."""
        plain: dict[str, Any] = {}
        try:
            for name in ("centres", "seed", "iterations"):
                plain[name] = operator.index(getattr(self, name))
            for name in ("lr", "wh_factor"):
                plain[name] = float(getattr(self, name))
            name = "decay"
            plain[name] = list(map(float, self.decay))
            name = "parameters"
            plain[name] = {loss: dict(map(_plain_item, own.items())) for loss, own in self.parameters.items()}
        except (TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{name}: expected {_EXPECTED.get(name, 'a number')}, got {getattr(self, name)!r}"
            ) from None
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def _check_losses(self) -> None:
        if not isinstance(self.losses, list) or not self.losses or len(set(self.losses)) < len(self.losses):
            raise ValueError(f"losses: expected names, none twice, got {self.losses}")
        for name in self.losses:
            find_loss(name)
        if self.rule == PUBLISHED_RULE and (others := [name for name in self.losses if name not in PUBLISHED]):
            raise ValueError(f"rule published: there is none for {', '.join(others)}; of {', '.join(PUBLISHED)} only")
        for name, parameters in self.parameters.items():
            if name not in self.losses:
                raise ValueError(f"parameters: {name} is none of the losses {', '.join(self.losses)}")
            try:
                find_loss(name).check_parameters(parameters)
            except TypeError as error:  # from YAML it is a bad value like any other
                raise ValueError(f"parameters: {error}") from error

    def descents(self) -> Iterator[Descent]:
        """Loss by loss, those of the published rule first."""
        for rule in (PUBLISHED_RULE, EXACT_RULE):
            if self.rule in (rule, BOTH):
                yield from (Descent(rule, loss) for loss in self.losses if rule == EXACT_RULE or loss in PUBLISHED)

    def rates(self) -> list[float]:
        """The learning rate of each iteration.

        >>> config = SimulationConfig(iterations=10, lr=1.0, decay=[0.5, 0.9])
        >>> config.rates()  # 5 iterations, 4, 1
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.01]
        """
        ends = [share * self.iterations for share in self.decay]
        return [self.lr / 10 ** sum(k >= end for end in ends) for k in range(self.iterations)]

    def of_descent(self, descent: Descent) -> dict[str, Any]:
        """All that the outcome of a descent depends on."""
        values = asdict(replace(self, losses=[descent.loss], rule=descent.rule, parameters={}))
        if descent.rule == PUBLISHED_RULE:
            values["wh_factor"] = None
        return values | {"parameters": self.parameters.get(descent.loss, {}) if descent.rule == EXACT_RULE else {}}
