"""A small detector to try losses on: a plain convolutional network with YOLOv3's head on two or three scales."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from .grid import Grid

_FINEST = 8  # pixels a cell of the finest scale has a side


def convolution(channels: int, out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.LeakyReLU(0.1, inplace=True),
    )


class TinyYolo(nn.Module):
    """Images ``(B, 3, H, W)`` → raw outputs per scale ``(B, A·(5 + C), H/s, W/s)``, s = 8, 16 and, of three, 32.

    Every halving of the resolution doubles the channels; a coarser scale's features are enlarged and joined to the
    finer one's before its outputs.

    Args:
        grid: anchors and classes; as many scales as it has, two or three.
        width: the channels at half the resolution; 16 makes about half a million parameters.
    """

    def __init__(self, grid: Grid, width: int = 16) -> None:
        super().__init__()
        scales = len(grid.anchors)
        if scales not in (2, 3):
            raise ValueError(f"grid: expected anchors of 2 or 3 scales, got {scales}")
        if width < 1:
            raise ValueError(f"width: expected at least 1, got {width}")
        self.grid = grid
        depth = int(math.log2(_FINEST))
        channels = [width * 2**k for k in range(depth + scales - 1)]
        self.stem = convolution(3, channels[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(a, b, stride=2), convolution(b, b)) for a, b in pairwise(channels)
        )
        features = channels[depth - 1 :]  # of the scales, from the finest
        self.joins = nn.ModuleList(convolution(a + b, a, kernel=1) for a, b in pairwise(features))
        self.outputs = nn.ModuleList(nn.Sequential(convolution(c, c), nn.Conv2d(c, grid.channels, 1)) for c in features)
        self._start_doubtful()

    def _start_doubtful(self) -> None:
        """Objectness begins at 1 %, near the share of positives: else the negatives' loss drowns the first steps."""
        for output in self.outputs:
            bias = output.get_parameter("1.bias")
            nn.init.zeros_(bias)
            with torch.no_grad():
                bias.view(-1, 5 + self.grid.num_classes)[:, 4] = -math.log(99)

    @property
    def multiple(self) -> int:
        """What height and width of the images have to be multiples of."""
        return int(_FINEST * 2 ** (len(self.outputs) - 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or any(n % self.multiple for n in images.shape[2:]):
            raise ValueError(
                f"images: expected (B, 3, H, W) with H and W multiples of {self.multiple}, got {tuple(images.shape)}"
            )
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features = features[-len(self.outputs) :]
        for k in reversed(range(len(self.joins))):
            coarse = nn.functional.interpolate(features[k + 1], scale_factor=2.0, mode="nearest")
            features[k] = self.joins[k](torch.cat((features[k], coarse), 1))
        return [output(feature) for output, feature in zip(self.outputs, features, strict=True)]
