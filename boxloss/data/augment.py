"""Random changes of a training batch: flips, zoom and shift, colors. Whatever is drawn depends on a seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – torch's own custom

from ..yolo import Truths
from .images import GRAY


@dataclass(frozen=True)
class Augment:
    """How training images are changed.

    Args:
        flip: share of images mirrored left to right.
        flip_vertical: share turned upside down.
        zoom: images are enlarged or reduced by a factor up to 1 + zoom.
        shift: images are moved by up to this share of their sides.
        color: brightness, contrast and saturation change by up to this share.
    """

    flip: float = 0.5
    flip_vertical: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    color: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "flip_vertical", "shift", "color"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name}: expected a number in [0, 1], got {getattr(self, name)!r}")
        if not self.zoom >= 0:
            raise ValueError(f"augment.zoom: expected a number >= 0, got {self.zoom!r}")

    @property
    def only_flips(self) -> bool:
        """Left to right, and nothing else: what cached features allow."""
        return self.flip_vertical == self.zoom == self.shift == self.color == 0


class Draws(NamedTuple):
    """What is done to each image of a batch."""

    mirrored: Tensor
    """``(B, 2)`` bool: by x, by y."""
    factor: Tensor
    """``(B, 1)``: of the zoom, about the middle."""
    shift: Tensor
    """``(B, 2)``: by x and y, in shares of the sides."""
    color: Tensor
    """``(B, 3)``: factors of brightness, contrast, saturation."""

    def share(self, rank: int, ranks: int) -> Draws:
        """Of one process, which has every ``ranks``-th image."""
        return Draws(*(column[rank::ranks] for column in self))


def draw(augment: Augment, images: int, generator: torch.Generator) -> Draws:
    def uniform(columns: int) -> Tensor:
        return torch.rand(images, columns, generator=generator)

    return Draws(
        mirrored=uniform(2) < torch.tensor([augment.flip, augment.flip_vertical]),
        factor=(1 + augment.zoom) ** (2 * uniform(1) - 1),
        shift=augment.shift * (2 * uniform(2) - 1),
        color=1 + augment.color * (2 * uniform(3) - 1),
    )


def change_images(images: Tensor, draws: Draws) -> Tensor:
    """``(B, 3, H, W)`` uint8 → the same in [0, 1], changed."""
    changed = _colored(images.float() / 255, draws.color)
    if (draws.factor == 1).all() and (draws.shift == 0).all():
        for axis, mirrored in enumerate(draws.mirrored.unbind(1)):
            changed = torch.where(mirrored.view(-1, 1, 1, 1), changed.flip(3 - axis), changed)
        return changed
    # Where each pixel of the changed image comes from, in coordinates from -1 to 1.
    factor, shift = _affine(draws)
    theta = torch.cat((torch.diag_embed(1 / factor), (-shift / factor)[..., None]), 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    gray = GRAY / 255  # sampled around it, since beyond the border there is 0
    return F.grid_sample(changed - gray, grid, align_corners=False) + gray


def change_truths(truths: Truths, draws: Draws, size: tuple[int, int]) -> Truths:
    """Boxes moved with their images and cut at the border; those of which less than a quarter is left are dropped."""
    half = truths.box.new_tensor([size[1], size[0]]) / 2
    factor, shift = (column[truths.image][:, None] for column in _affine(draws))
    corners = ((truths.box.view(-1, 2, 2) / half - 1) * factor + shift + 1) * half
    low, high = corners.amin(1), corners.amax(1)
    cut = torch.cat((low.clamp(min=0), torch.minimum(high, 2 * half)), 1)
    left = (cut[:, 2:] - cut[:, :2]).clamp(min=0).prod(1)
    kept = left >= 0.25 * (high - low).prod(1)
    return Truths(truths.image[kept], cut[kept], truths.label[kept], truths.crowd[kept])


def _affine(draws: Draws) -> tuple[Tensor, Tensor]:
    """Factor and shift, by x and y, of coordinates from -1 to 1."""
    return draws.factor * torch.where(draws.mirrored, -1.0, 1.0), 2 * draws.shift


def _colored(images: Tensor, color: Tensor) -> Tensor:
    if (color == 1).all():
        return images
    brightness, contrast, saturation = color.view(-1, 3, 1, 1, 1).unbind(1)
    images = images * brightness
    gray = images.mean(1, keepdim=True)
    images = gray + saturation * (images - gray)
    mean = gray.mean((2, 3), keepdim=True)
    return (mean + contrast * (images - mean)).clamp(0, 1)
