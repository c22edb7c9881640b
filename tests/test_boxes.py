"""Formats and the check of values."""

import pytest
import torch

from boxloss import boxes

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("source", boxes.FORMATS)
@pytest.mark.parametrize("to", boxes.FORMATS)
def test_convert(source, to):
    same = {"xyxy": [1.0, 2, 5, 4], "xywh": [1.0, 2, 4, 2], "cxcywh": [3.0, 3, 4, 2]}
    assert torch.equal(boxes.convert(torch.tensor(same[source]), source, to), torch.tensor(same[to]))
    batch = torch.tensor(same[source]).expand(2, 3, 4)
    assert torch.equal(boxes.convert(batch, source, to), torch.tensor(same[to]).expand(2, 3, 4))


def test_convert_raises_halves_and_integers_first():
    """Half the odd sum of two integers is no integer; float16 has no 2049."""
    assert boxes.convert(torch.tensor([0, 0, 3, 3]), "xyxy", "cxcywh").tolist() == [1.5, 1.5, 3, 3]
    halves = boxes.convert(torch.tensor([2048, 0, 1, 1], dtype=torch.float16), "xywh", "xyxy")
    assert halves.tolist() == [2048, 0, 2049, 1]


def test_sides_that_were_given_are_handed_on():
    """A side formed again from rounded corners would be 0 here."""
    tiny = torch.tensor([1e6, 1e6, 1e-3, 1e-3])
    assert boxes.convert(tiny, "cxcywh", "xywh")[2:].tolist() == tiny[2:].tolist()


def test_convert_is_differentiable():
    b = torch.tensor([[3.0, 3, 4, 2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: boxes.convert(b, "cxcywh", "xyxy"), b)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0, NAN, 1, 1], r"boxes\[1, 0\] holds NaN: \[0\.0, nan"),
        ([0, 0, INF, 1], r"boxes\[1, 0\] is infinite"),
        ([2, 0, 1, 1], r"boxes\[1, 0\] is inverted \(x2 < x1\)"),
        ([0, 2, 1, 1], r"boxes\[1, 0\] is inverted \(y2 < y1\)"),
        ([2, NAN, 1, INF], r"boxes\[1, 0\] holds NaN"),
    ],
)
def test_validate_names_the_first_bad_box(bad, message):
    batch = torch.tensor([0.0, 0, 1, 1]).repeat(2, 3, 1)
    boxes.validate_boxes(batch)
    batch[1, 0] = torch.tensor(bad)
    batch[1, 2] = NAN
    with pytest.raises(ValueError, match=message):
        boxes.validate_boxes(batch)


def test_validate_other_formats():
    boxes.validate_boxes(torch.tensor([[5.0, 5, 1, 1]]), "xywh")
    with pytest.raises(ValueError, match=r"boxes\[0\] has a negative height.*xywh boxes with sides >= 0"):
        boxes.validate_boxes(torch.tensor([[5.0, 5, 1, -1]]), "xywh")
    with pytest.raises(ValueError, match="boxes is inverted"):
        boxes.validate_boxes(torch.tensor([1, 0, 0, 1]))
    boxes.validate_boxes(torch.zeros(0, 4))


def test_bad_calls():
    with pytest.raises(ValueError, match="source: unknown box format 'xyhw'; expected one of xyxy, xywh, cxcywh"):
        boxes.convert(torch.zeros(1, 4), "xyhw", "xyxy")
    with pytest.raises(ValueError, match=r"boxes: expected boxes of shape \(..., 4\), got \(2, 5\)"):
        boxes.validate_boxes(torch.zeros(2, 5))
    with pytest.raises(TypeError, match=r"boxes: expected a torch.Tensor of boxes \(..., 4\), got list"):
        boxes.convert([[0, 0, 1, 1]], "xyxy", "xywh")
