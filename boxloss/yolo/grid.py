"""Where predictions are: the cells and anchors of each scale, and boxes from raw outputs.

A scale's raw output is ``(B, A·(5 + C), H, W)``: for each of A anchors and each cell x, y, w, h, objectness and C
classes. Boxes are x1, y1, x2, y2 in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = 80.0  # exp of it is still finite, with room for a product


@dataclass(frozen=True)
class Grid:
    """What turns raw outputs into boxes.

    Args:
        anchors: per scale, the anchors' widths and heights in pixels; as many for each scale.
        num_classes: C.
        stretch: 1 decodes the center as Darknet does, σ of its cell; 2 lets it move from −½ to 1½ of its cell, so that
            it can reach the border.
    """

    anchors: tuple[tuple[tuple[float, float], ...], ...]
    num_classes: int
    stretch: float = 1.0

    def __post_init__(self) -> None:
        counts = {len(scale) for scale in self.anchors}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"anchors: expected as many for each scale, got {[len(s) for s in self.anchors]}")
        if any(side <= 0 for scale in self.anchors for size in scale for side in size):
            raise ValueError("anchors: expected positive widths and heights")
        if self.num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {self.num_classes}")

    @property
    def channels(self) -> int:
        """Of a scale's raw output."""
        return len(self.anchors[0]) * (5 + self.num_classes)

    def split(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Raw outputs ``(B, A·(5 + C), H, W)`` as ``(B, A, H, W, 5 + C)``, float32 or float64."""
        if len(outputs) != len(self.anchors):
            raise ValueError(f"outputs: expected {len(self.anchors)} scales, got {len(outputs)}")
        found = []
        rows = [output.shape[-2] for output in outputs if output.ndim]
        if rows != sorted(rows, reverse=True):
            raise ValueError(f"outputs: expected the finest scale first, got scales of {rows} rows; reverse them")
        for output in outputs:
            if output.ndim != 4 or output.shape[1] != self.channels:
                raise ValueError(f"outputs: expected (B, {self.channels}, H, W), got {tuple(output.shape)}")
            batch, _, height, width = output.shape
            split = output.view(batch, len(self.anchors[0]), 5 + self.num_classes, height, width)
            found.append((split.float() if output.element_size() < 4 else split).permute(0, 1, 3, 4, 2))
        return found

    def sizes(self, like: Tensor) -> Tensor:
        """All anchors, ``(scales · A, 2)``, scale after scale."""
        return like.new_tensor(self.anchors).flatten(0, 1)

    def decode(self, raw: Tensor, cell: Tensor, stride: Tensor, anchor: Tensor) -> Tensor:
        """Boxes from raw x, y, w, h.

        Args:
            raw: ``(..., 4)``.
            cell: column and row of each, ``(..., 2)`` or what broadcasts with it, as the next ones.
            stride: the sides of its cell in pixels.
            anchor: the sides of its anchor in pixels.

        Returns:
            ``(..., 4)``, x1, y1, x2, y2 in pixels.
        """
        offset = self.stretch * (raw[..., :2].sigmoid() - 0.5) + 0.5
        center = (cell + offset) * stride
        half = raw[..., 2:].clamp(max=_LARGEST).exp() * (anchor / 2)
        return torch.cat((center - half, center + half), -1)

    def decode_all(self, raws: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Boxes of every prediction of each scale: ``(B, A, H, W, 5 + C)`` → ``(B, A, H, W, 4)``.

        Args:
            raws: from `split`.
            size: height and width of the network's input in pixels.
        """
        found = []
        for raw, anchors in zip(raws, self.anchors, strict=True):
            row, column = (torch.arange(n, device=raw.device) for n in raw.shape[2:4])
            cell = torch.stack(torch.meshgrid(column, row, indexing="xy"), -1)
            found.append(self.decode(raw[..., :4], cell, strides(raw, size), raw.new_tensor(anchors)[:, None, None]))
        return found


def strides(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Width and height of a cell in pixels, ``(2,)``, of a scale ``(B, A, H, W, …)``."""
    height, width = raw.shape[2:4]
    return raw.new_tensor([size[1] / width, size[0] / height])
