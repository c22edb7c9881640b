"""Losses of one's own: what `define` takes, and what it refuses."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from boxloss import LOSSES, BoxLoss, GIoULoss, define, find_loss, giou_loss, pairwise, smooth_l1_loss
from boxloss.cli import loss_facts, losses_text
from boxloss.geometry import BoxPair

PRED, TARGET = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])


@pytest.fixture(autouse=True)
def _own_registry():
    known = dict(LOSSES)
    yield
    LOSSES.clear()
    LOSSES.update(known)


def test_parameters_of_any_kind():
    @define(source="", bounds=(0, 1))
    def kinds_loss(
        pair: BoxPair, *, k: float, scale: Tensor | None = None, mode: Literal["a", "b"] = "a", other: Any = 0, bare=1
    ) -> Tensor:
        return pair.iou_loss * k

    assert kinds_loss(PRED, TARGET, k=2.0, scale=torch.ones(1), mode="b", other="x", bare=[]).item() == pytest.approx(
        2 * 6 / 7
    )
    for call in (lambda: kinds_loss(PRED, TARGET), lambda: BoxLoss("kinds")):
        with pytest.raises(TypeError, match=r"^kinds: parameter 'k' is required: a finite number$"):
            call()
    with pytest.raises(ValueError, match="mode: expected one of 'a', 'b', got 'c'"):
        kinds_loss(PRED, TARGET, k=1.0, mode="c")
    facts = loss_facts(LOSSES["kinds"])
    assert facts["parameters"]["k"] == {"default": None, "required": True, "accepts": "a finite number"}
    assert "parameter   k = required  (a finite number)" in losses_text([facts])


def test_numpy_numbers_are_numbers():
    expected = smooth_l1_loss(PRED, TARGET, beta=0.5)
    assert torch.equal(smooth_l1_loss(PRED, TARGET, beta=np.float32(0.5)), expected)
    assert torch.equal(BoxLoss("smooth_l1", gain=np.float32(2), beta=0.5)(PRED, TARGET), 2 * expected[0])


def test_what_is_no_formula():
    with pytest.raises(ValueError, match="half_iou: the name of a loss function ends in '_loss'"):

        @define(source="", bounds=(0, 1))
        def half_iou(pair):
            return pair.iou_loss / 2

    for wrong in ("lambda pred, target: 0", "lambda pair, k=1: 0", "lambda *pair: 0"):
        formula = eval(wrong)
        formula.__name__ = "wrong_loss"
        with pytest.raises(TypeError, match=r"wrong_loss: expected a formula \(pair, \*, own parameters\), got \("):
            define(source="", bounds=(0, 1))(formula)
    with pytest.raises(TypeError, match="weighted_loss: every loss or its module has weight; expected another name"):

        @define(source="", bounds=(0, 1))
        def weighted_loss(pair, *, weight=1.0):
            return pair.iou_loss * weight

    with pytest.raises(ValueError, match=r"giou_loss: there is a loss of this name in boxloss\.losses\.overlap"):
        define(source="", bounds=(0, 1))(type(giou_loss)((lambda pair: 0).__code__, {}, "giou_loss"))
    assert find_loss("giou").function is giou_loss


def test_a_cell_may_run_again():
    for factor in (1.0, 2.0):

        @define(source="", bounds=(0, 2))
        def twice_loss(pair: BoxPair, *, _factor: float = factor) -> Tensor:
            return pair.iou_loss * _factor

    assert find_loss("twice").function is twice_loss


def test_a_formula_gives_one_number_per_pair():
    @define(source="", bounds=(0, 1))
    def mean_loss(pair):
        return pair.iou_loss.mean()

    with pytest.raises(ValueError, match=r"mean: its formula gave \(\), expected one number per pair, \(1,\)"):
        mean_loss(PRED, TARGET)
    with pytest.raises(ValueError, match=r"mean: its formula gave \(\), expected one number per pair, \(1, 1\)"):
        pairwise("mean", PRED, TARGET)


def test_without_a_docstring():
    @define(source="", bounds=(0, 1))
    def bare_loss(pair):
        return pair.iou_loss

    assert loss_facts(LOSSES["bare"])["formula"] == loss_facts(LOSSES["bare"])["summary"] == ""


def test_signature_and_hints():
    signature = inspect.signature(smooth_l1_loss)
    assert list(signature.parameters) == ["pred", "target", "reduction", "weight", "avg_factor", "beta"]
    assert signature.parameters["reduction"].annotation is str
    assert typing.get_type_hints(smooth_l1_loss)["pred"] is Tensor


def test_a_named_class_can_be_subclassed():
    class Mine(GIoULoss):
        """My own."""

    assert Mine.__doc__ == "My own."
    assert torch.equal(Mine()(PRED, TARGET), GIoULoss()(PRED, TARGET))


def test_near_names():
    for name in ("GIoU", "giou_loss", "Giou"):
        with pytest.raises(ValueError, match="did you mean 'giou'"):
            find_loss(name)
