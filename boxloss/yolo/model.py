"""Small detectors to try losses on: a backbone, plain or pretrained, under YOLOv3's head on two or three scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .grid import Grid

FINEST = 8
"""Pixels that a cell of the finest scale has a side; each further scale doubles it."""


def coarsest(scales: int) -> int:
    """Pixels that a cell of the coarsest of so many scales has a side."""
    return int(FINEST * 2 ** (scales - 1))


def convolution(channels: int, out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.LeakyReLU(0.1, inplace=True),
    )


class PlainBackbone(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] → features of each scale; every halving of the resolution doubles the channels.

    Args:
        width: the channels at half the resolution.
        scales: how many, from 8 pixels a cell.
    """

    def __init__(self, width: int, scales: int) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width: expected at least 1, got {width}")
        depth = int(math.log2(FINEST))
        channels = [width * 2**k for k in range(depth + scales - 1)]
        self.channels = tuple(channels[depth - 1 :])
        self.stem = convolution(3, channels[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(a, b, stride=2), convolution(b, b)) for a, b in pairwise(channels)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[-len(self.channels) :]


class YoloHead(nn.Module):
    """Features of each scale, from the finest → raw outputs ``(B, A·(5 + C), H, W)``.

    A coarser scale's features are enlarged and joined to the finer one's before its outputs.

    Args:
        grid: anchors and classes.
        channels: of the features of each scale.
        widths: the channels that the head works with, of each scale.
        dropout: the share of the features' channels that are zeroed in training.
    """

    def __init__(self, grid: Grid, channels: Sequence[int], widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.grid = grid
        self.dropout = nn.Dropout2d(dropout)
        coarser = [*widths[1:], 0]
        self.joins = nn.ModuleList(
            convolution(c + above, w, kernel=1) for c, above, w in zip(channels, coarser, widths, strict=True)
        )
        self.outputs = nn.ModuleList(nn.Sequential(convolution(w, w), nn.Conv2d(w, grid.channels, 1)) for w in widths)
        self._start_doubtful()

    def _start_doubtful(self) -> None:
        """Objectness begins at 1 %, near the share of positives: else the negatives' loss drowns the first steps."""
        for output in self.outputs:
            bias = output.get_parameter("1.bias")
            nn.init.zeros_(bias)
            with torch.no_grad():
                bias.view(-1, 5 + self.grid.num_classes)[:, 4] = -math.log(99)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        joined: list[Tensor] = []
        for k in reversed(range(len(self.joins))):
            x = self.dropout(features[k])
            if joined:
                x = torch.cat((x, nn.functional.interpolate(joined[0], scale_factor=2.0, mode="nearest")), 1)
            joined.insert(0, self.joins[k](x))
        return [output(x) for output, x in zip(self.outputs, joined, strict=True)]


class Yolo(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] → raw outputs per scale ``(B, A·(5 + C), H/s, W/s)``, s = 8, 16, 32.

    Args:
        grid: anchors and classes; as many scales as it has, two or three.
        backbone: images → features per scale, with their ``channels``.
        head: features → raw outputs.
    """

    def __init__(self, grid: Grid, backbone: nn.Module, head: YoloHead) -> None:
        super().__init__()
        self.grid = grid
        self.backbone = backbone
        self.head = head

    @property
    def multiple(self) -> int:
        """What height and width of the images have to be multiples of."""
        return coarsest(len(self.grid.anchors))

    def forward(self, images: Tensor) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or any(n % self.multiple for n in images.shape[2:]):
            raise ValueError(
                f"images: expected (B, 3, H, W) with H and W multiples of {self.multiple}, got {tuple(images.shape)}"
            )
        outputs: list[Tensor] = self.head(self.backbone(images))
        return outputs


class TinyYolo(Yolo):
    """A plain convolutional network, trained from scratch.

    Args:
        grid: anchors and classes; as many scales as it has, two or three.
        width: the channels at half the resolution; 16 makes about half a million parameters.
    """

    def __init__(self, grid: Grid, width: int = 16) -> None:
        backbone = PlainBackbone(width, check_scales(grid))
        super().__init__(grid, backbone, YoloHead(grid, backbone.channels, backbone.channels))


def check_scales(grid: Grid) -> int:
    scales = len(grid.anchors)
    if scales not in (2, 3):
        raise ValueError(f"grid: expected anchors of 2 or 3 scales, got {scales}")
    return scales
