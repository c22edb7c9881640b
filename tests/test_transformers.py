"""transformers' adapter, on small models from configurations. `make test-integrations` installs what this needs."""

from __future__ import annotations

import copy
import os
import pickle
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from variants import DEFAULTS

from boxloss import LOSSES, BoxLoss
from boxloss.integrations import transformers as adapter

pytestmark = [
    pytest.mark.skipif(
        find_spec("transformers") is None, reason="transformers is not installed: make test-integrations"
    ),
    pytest.mark.filterwarnings("default"),
]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = [
    {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.3, 0.6, 0.2, 0.2]])},
    {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.4, 0.4, 0.6, 0.5]])},
]
STAGES = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1]}
SMALL = {
    "d_model": 32,
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_labels": 3,
}
HYBRID = SMALL | {
    "encoder_in_channels": [32, 64, 128],
    "encoder_hidden_dim": 32,
    "num_queries": 20,
    "num_denoising": 5,
}


def yolos():
    from transformers import YolosConfig, YolosForObjectDetection

    config = YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[64, 64],
        num_detection_tokens=8,
        num_labels=3,
    )
    return YolosForObjectDetection(config)


def detr():
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(embedding_size=16, **STAGES, out_features=["stage4"])
    config = DetrConfig(
        **SMALL,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        encoder_layers=1,
        num_queries=10,
        auxiliary_loss=True,
    )
    return DetrForObjectDetection(config)


def rt_detr():
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(embedding_size=16, **STAGES, out_features=["stage2", "stage3", "stage4"])
    return RTDetrForObjectDetection(RTDetrConfig(**HYBRID, backbone_config=backbone, decoder_in_channels=[32] * 3))


def d_fine():
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    backbone = HGNetV2Config(
        **STAGES,
        stem_channels=[3, 8, 16],
        stage_in_channels=[16, 16, 32, 64],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 32, 64, 128],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[2, 2, 2, 2],
        out_features=["stage2", "stage3", "stage4"],
    )
    return DFineForObjectDetection(DFineConfig(**HYBRID, backbone_config=backbone, decoder_in_channels=[32] * 3))


MODELS = {"yolos": yolos, "detr": detr, "rt_detr": rt_detr, "d_fine": d_fine}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().train()


def run(model):
    torch.manual_seed(1)
    found = model(pixel_values=IMAGES, labels=LABELS)
    return found.loss, found.loss_dict


def test_transformerss_own_loss_changes_nothing(model):
    stock, terms = run(model)
    attachment = adapter.attach(model, "giou")
    total, same = run(model)
    assert torch.isclose(total, stock, rtol=1e-6, atol=1e-6)
    assert terms.keys() == same.keys()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(run(twin)[0], total)
    attachment.detach()
    assert torch.equal(run(model)[0], stock)
    assert "_loss_function" not in vars(model)


def test_another_loss_changes_its_terms_alone(model):
    """Of every decoder layer. The classes stand for the matching, which is left alone."""
    _, stock = run(model)
    for loss, term, changed in (("eiou", "giou", "loss_giou"), ("l2", "l1", "loss_bbox")):
        attachment = adapter.attach(model, loss, term=term)
        total, terms = run(model)
        for key in stock:
            same = torch.allclose(stock[key], terms[key], rtol=1e-6)
            assert same == (not key.startswith(changed)), key
        total.backward()
        attachment.detach()


@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
def test_boxes_without_area_train_on(name, required):
    torch.manual_seed(0)
    model = yolos()
    adapter.attach(model, BoxLoss(name, **required))
    logits = torch.zeros(2, 8, 4, requires_grad=True)
    boxes = torch.tensor([0.5, 0.5, 0.0, 0.0]).expand(2, 8, 4).clone().requires_grad_()
    total, *_ = model.loss_function(logits, LABELS, "cpu", boxes, model.config)
    total.backward()
    assert total.isfinite()
    assert boxes.grad.isfinite().all()


def test_a_loss_function_of_ones_own_comes_back():
    model = yolos()
    stock = model.loss_function

    def mine(*args, **kwargs):
        return stock(*args, **kwargs)

    model.loss_function = mine
    with pytest.raises(TypeError, match="builds no criterion with loss_boxes"):
        adapter.attach(model, "giou")
    model.loss_function = stock
    adapter.attach(model, "giou").detach()
    assert vars(model)["_loss_function"] is stock


class Wrapper(nn.Module):
    """As PEFT's: what it has not itself, it takes from the model. Set on it, a loss function would not reach that."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.model, name)


def test_bad_input():
    model = yolos()
    with pytest.raises(ValueError, match="term: expected one of giou, l1, got 'loss_giou'"):
        adapter.attach(model, "giou", term="loss_giou")
    with pytest.raises(TypeError, match=r"expected one of transformers' detectors.*got Linear"):
        adapter.attach(nn.Linear(1, 1), "giou")
    with pytest.raises(TypeError, match="no wrapper of it, got Wrapper"):
        adapter.attach(Wrapper(model), "giou")
    adapter.attach(model, "giou")
    with pytest.raises(ValueError, match="attached already"):
        adapter.attach(model, "ciou")


class OtherCriterion(nn.Module):
    def loss_boxes(self, outputs, matched):
        return {}


def other_loss(logits, labels):
    return OtherCriterion()


def test_another_signature_is_refused():
    model = yolos()
    model.loss_function = other_loss
    with pytest.raises(NotImplementedError, match=r"has no targets, indices, num_boxes; supported: transformers 4.50"):
        adapter.attach(model, "giou")
