"""Boxes that descend a loss, without any image: the DIoU paper's experiment, as published and with exact gradients."""

from .cases import LAYOUTS, STARTS
from .config import OPTIMIZERS, RULES, SimulationConfig
from .rules import PUBLISHED
from .run import CHUNK, simulate
from .summary import simulation_text

__all__ = [
    "CHUNK",
    "LAYOUTS",
    "OPTIMIZERS",
    "PUBLISHED",
    "RULES",
    "STARTS",
    "SimulationConfig",
    "simulate",
    "simulation_text",
]
