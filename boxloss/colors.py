"""The colors of losses in figures: each loss the same one everywhere."""

from __future__ import annotations

LOSS_COLORS = {"iou": "#7f7f7f", "giou": "#0072b2", "diou": "#e69f00", "ciou": "#d55e00", "eiou": "#009e73"}
"""Okabe and Ito's, which people who see fewer colors can tell apart."""
MORE_COLORS = ("#cc79a7", "#56b4e9", "#000000", "#8c6d31", "#5254a3", "#b5cf6b", "#ad494a")
"""In turn, for losses without a color of their own."""
