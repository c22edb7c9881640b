"""mmdet's module where mmengine and MMDetection are installed. `make test-integrations` installs them.

mmcv's compiled operators are not there for a current Python; MMDetection's loss functions do without them, and are
imported in a process where mmcv.ops is a dummy.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from boxloss.integrations.mmdet import MMDetBoxLoss

pytestmark = [
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("mmengine", "mmcv", "mmdet")),
        reason="mmengine, mmcv-lite and mmdet are not installed: make test-integrations",
    ),
    pytest.mark.filterwarnings("default"),
]

PARITY = """
import os, sys, types
from unittest.mock import MagicMock
for name in ("", ".nms", ".roi_align", ".nms_rotated"):
    sys.modules["mmcv.ops" + name] = MagicMock()
import mmdet
for name in ("models", "models.losses"):
    module = types.ModuleType("mmdet." + name)
    module.__path__ = [os.path.join(os.path.dirname(mmdet.__file__), *name.split("."))]
    sys.modules["mmdet." + name] = module
import torch
from mmdet.models.losses import iou_loss, smooth_l1_loss
from mmdet.registry import MODELS
import boxloss.integrations.mmdet

draw = torch.Generator().manual_seed(0)
low = 50 * torch.rand(2, 1000, 2, generator=draw, dtype=torch.float64)
pred, target = torch.cat((low, low + 1 + 50 * torch.rand(2, 1000, 2, generator=draw, dtype=torch.float64)), 2)
weight = torch.rand(1000, 1, generator=draw, dtype=torch.float64).expand(1000, 4)
OWN = {
    "iou": iou_loss.IoULoss, "giou": iou_loss.GIoULoss, "diou": iou_loss.DIoULoss, "ciou": iou_loss.CIoULoss,
    "l1": smooth_l1_loss.L1Loss, "smooth_l1": smooth_l1_loss.SmoothL1Loss,
}
for name, own in OWN.items():
    ours = MODELS.build(dict(type="BoxLoss", loss=name, convention="mmdet", loss_weight=2.0))
    theirs = own(loss_weight=2.0)
    a, b = (loss(pred, target, weight, avg_factor=77.0) for loss in (ours, theirs))
    assert torch.isclose(a, b, rtol=1e-6), (name, a, b)
    if "l1" not in name:
        a, b = (loss(pred, target, reduction_override="none") for loss in (ours, theirs))
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6), name
print("equal")
"""


def test_mmdets_own_losses():
    """Their losses through the registry, ours under their convention: values, weights, avg_factor, loss_weight."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PARITY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("equal")


def test_built_from_a_configuration():
    from mmengine.config import Config
    from mmengine.registry import MODELS, Registry

    text = (
        'custom_imports = dict(imports=["boxloss.integrations.mmdet"])\nloss_bbox = dict(type="BoxLoss", loss="eiou")'
    )
    loss = Registry("mine", parent=MODELS, scope="mine").build(Config.fromstring(text, ".py").loss_bbox)
    assert isinstance(loss, MMDetBoxLoss)
    assert repr(loss) == "MMDetBoxLoss(eiou, reduction='mean', loss_weight=1)"
