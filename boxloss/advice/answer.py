"""What every question here gets: an answer in words and numbers, and a figure of the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """To one question, from numbers that the library has just computed."""

    sentences: Sequence[str]
    draw: Callable[[Path], None]
    """Write the figure into a file, by its ending PNG or SVG."""
    shows: str
    """What the figure shows."""
    numbers: Mapping[str, Any]
    """What the sentences quote, for tests and other programs."""
    wrong: str = ""
    """What is often read elsewhere and isn't so."""
    table: Sequence[Sequence[str]] = field(default=())
    """Rows of cells, the first row the header."""
    caption: str = ""
    """What the table's numbers are."""
