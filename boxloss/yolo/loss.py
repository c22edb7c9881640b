"""YOLOv3's composite loss, Darknet's by default, with any box loss in place of its coordinate terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – torch's own custom

from ..classification import cross_entropy_loss, focal_loss
from ..distributed import mean_count, world_size
from ..losses import LOSSES, similarity
from ..losses._keywords import Fits, answered
from ..losses._parameters import is_finite
from ..losses._reduce import as_class_weight
from ..modules import BoxLoss
from ..values import is_one_of, shown
from .assign import Positives, Truths, checked, overlapping, positives
from .grid import Grid, strides

REDUCTIONS = ("sum", "batch", "positives")
BOX_UNITS = ("pixel", "cell", "image")
CLASSIFICATIONS = ("bce", "focal", "softmax")
_OBJECTNESS = ("one", "iou")
_FITS: Fits = {
    "coordinates": lambda value: isinstance(value, BoxLoss) or is_one_of(value, ("darknet", "paper", *LOSSES)),
    "box_unit": lambda value: is_one_of(value, BOX_UNITS),
    "reduction": lambda value: is_one_of(value, REDUCTIONS),
    "objectness": lambda value: is_one_of(value, _OBJECTNESS),
    "classification": lambda value: is_one_of(value, CLASSIFICATIONS),
    "ignore_threshold": is_finite,
    "label_smoothing": is_finite,
}
_WHEN_MADE = dict.fromkeys((*_FITS, "gains", "class_weight"), "it is given when the module is made: YoloLoss(grid, …)")


class YoloTerms(NamedTuple):
    """What `YoloLoss` returns. The terms are reduced and multiplied by their gains; ``total`` is their sum."""

    total: Tensor
    xy: Tensor
    """Centers, of the coordinate losses "darknet" and "paper"; else 0."""
    wh: Tensor
    """Sizes, of the coordinate losses "darknet" and "paper"; else 0."""
    box: Tensor
    """The box loss; 0 with "darknet" and "paper"."""
    objectness: Tensor
    classification: Tensor
    positives: int
    """How many predictions answer for a truth, on this process."""
    iou: Tensor
    """IoU of the positives' boxes with their truths, ``(P,)``, without gradient."""


class YoloLoss(torch.nn.Module):
    r"""The loss of a YOLOv3 head.

    A positive with the true box (x, y, w, h) in a cell of scale s and anchor a has, with ``coordinates="darknet"``,

        (2 − w·h) · (BCE(σ(tx), x') + BCE(σ(ty), y') + ½(tw − ln(w/aw))² + ½(th − ln(h/ah))²)

    x', y' are the center within its cell, w·h the share of the network's input that the box covers; ``"paper"`` has
    ½(σ(t) − x')² in place of the first two terms. To this come the BCE of objectness, over positives and the negatives
    that overlap no truth by more than ``ignore_threshold``, and of the classes of each positive.

    Args:
        grid: anchors and classes.
        coordinates: ``"darknet"``, ``"paper"``, or a box loss of the decoded boxes: a name of `LOSSES` or a `BoxLoss`
            (its parameters and gain count; its format and reduction do not).
        box_unit: the unit of the boxes for a box loss: ``"pixel"`` of the network's input, ``"cell"``, or ``"image"``,
            shares of the input's sides. It matters to losses with a unit: L1, L2, smooth L1.
        reduction: ``"sum"`` (Darknet), ``"batch"`` (over the images) or ``"positives"`` (over their number, of all
            processes).
        objectness: what the objectness of a positive should be: ``"one"``, or the ``"iou"`` of its box.
        classification: ``"bce"``, or ``"focal"`` with α = ¼ and γ = 2: each class on its own; or ``"softmax"``: one of
            them, for `detect` with ``classification="softmax"``.
        class_weight: a factor of each class, ``(C,)``, such as `boxloss.classification.class_weights` gives.
        ignore_threshold: IoU above which a prediction that is no positive is not told that it is wrong.
        label_smoothing: classes become 1 − ε/2 and ε/2; of softmax 1 − ε + ε/C and ε/C.
        gains: factors of the terms: ``xy``, ``wh``, ``box``, ``objectness``, ``classification``; 1 where not given.

    Raises:
        TypeError: an unknown parameter.
        ValueError: an unknown name, or a number outside its range.

    Source: Redmon and Farhadi, YOLOv3, 2018, arXiv:1804.02767, and the behavior of its Darknet implementation
    """

    @answered(fits=_FITS)
    def __init__(
        self,
        grid: Grid,
        *,
        coordinates: str | BoxLoss = "darknet",
        box_unit: str = "pixel",
        reduction: str = "batch",
        objectness: str = "one",
        classification: str = "bce",
        class_weight: Tensor | Sequence[float] | None = None,
        ignore_threshold: float = 0.7,
        label_smoothing: float = 0.0,
        gains: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        _one_of("box_unit", box_unit, BOX_UNITS)
        _one_of("reduction", reduction, REDUCTIONS)
        _one_of("objectness", objectness, _OBJECTNESS)
        _one_of("classification", classification, CLASSIFICATIONS)
        if not 0 <= ignore_threshold <= 1:
            raise ValueError(f"ignore_threshold: expected a number in [0, 1], got {shown(ignore_threshold)}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected a number in [0, 1), got {shown(label_smoothing)}")
        terms = ("xy", "wh", "box", "objectness", "classification")
        for name, gain in (gains or {}).items():
            _one_of("gains", name, terms)
            if not 0 <= gain < math.inf:
                raise ValueError(f"gains: expected a finite number >= 0 for {name}, got {shown(gain)}")
        self.class_weight: Tensor | None
        self.register_buffer("class_weight", _class_weight(class_weight, grid.num_classes), persistent=False)
        self.grid = grid
        self.box_unit = box_unit
        self.reduction = reduction
        self.objectness = objectness
        self.classification = classification
        self.ignore_threshold = ignore_threshold
        self.label_smoothing = label_smoothing
        self.gains = dict.fromkeys(terms, 1.0) | (gains or {})
        own = is_one_of(coordinates, ("darknet", "paper"))
        if own and grid.stretch != 1:
            raise ValueError(f"coordinates: {coordinates!r} has no target for a stretched center; expected a box loss")
        self.coordinates = coordinates if isinstance(coordinates, str) else coordinates.name
        self.box_loss = None if own else _each(coordinates)

    @answered(_WHEN_MADE)
    def forward(self, outputs: Sequence[Tensor], truths: Truths, size: tuple[int, int]) -> YoloTerms:
        """The loss of a batch.

        Args:
            outputs: the head's raw output per scale, ``(B, A·(5 + C), H, W)``.
            truths: the true boxes.
            size: height and width of the network's input in pixels.

        Raises:
            TypeError: a column of ``truths`` is of another dtype.
            ValueError: its columns differ in length or device; on the CPU also: an image or a label outside its range,
                or a box that is not finite or is inverted. Elsewhere a look at values would wait for the device.
        """
        raws = self.grid.split(outputs)
        truths = checked(truths, raws[0], self.grid.num_classes)
        boxes = self.grid.decode_all([raw.detach() for raw in raws], size)
        ignore = overlapping(boxes, truths, self.ignore_threshold)
        found = positives(self.grid, raws, size, truths)
        chosen = _choose(self.grid, raws, found, size)
        box = self.grid.decode(chosen.raw[:, :4], chosen.cell, chosen.stride, chosen.anchor)
        iou = similarity("iou", box.detach(), chosen.truth)
        # Every output stays in the graph, whatever the truths: no positives must not mean no gradient.
        terms = dict.fromkeys(self.gains, chosen.raw.sum() * 0.0)
        if self.box_loss is None:
            terms["xy"], terms["wh"] = self._coordinates(chosen, size)
        else:
            terms["box"] = self._box(box, chosen, size)
        terms["objectness"] = self._objectness(raws, ignore, found, iou)
        terms["classification"] = self._classification(chosen)
        divisor = self._divisor(len(raws[0]), len(iou), raws[0])
        reduced = {name: self.gains[name] * term / divisor for name, term in terms.items()}
        total = torch.stack(tuple(reduced.values())).sum()
        return YoloTerms(total, **reduced, positives=len(iou), iou=iou)

    def _coordinates(self, chosen: _Chosen, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        sides = chosen.truth[:, 2:] - chosen.truth[:, :2]
        center = (chosen.truth[:, :2] + chosen.truth[:, 2:]) / 2 / chosen.stride - chosen.cell
        importance = (2 - sides.prod(1) / (size[0] * size[1]))[:, None]
        if self.coordinates == "darknet":
            xy = F.binary_cross_entropy_with_logits(chosen.raw[:, :2], center, reduction="none")
        else:
            xy = 0.5 * (chosen.raw[:, :2].sigmoid() - center) ** 2
        wh = 0.5 * (chosen.raw[:, 2:4] - (sides / chosen.anchor).log()) ** 2
        return (importance * xy).sum(), (importance * wh).sum()

    def _box(self, box: Tensor, chosen: _Chosen, size: tuple[int, int]) -> Tensor:
        assert self.box_loss is not None
        if self.box_unit != "pixel":
            unit = chosen.stride if self.box_unit == "cell" else box.new_tensor([[size[1], size[0]]])
            box, truth = box / unit.repeat(1, 2), chosen.truth / unit.repeat(1, 2)
        else:
            truth = chosen.truth
        each: Tensor = self.box_loss(box, truth)
        return each.sum()

    def _objectness(self, raws: list[Tensor], ignore: list[Tensor], found: list[Positives], iou: Tensor) -> Tensor:
        total = iou.new_zeros(())
        ious = torch.split(iou, [len(positives.image) for positives in found])
        for raw, ignored_here, (image, anchor, row, column, *_), mine in zip(raws, ignore, found, ious, strict=True):
            wanted = torch.zeros_like(raw[..., 4])
            wanted[image, anchor, row, column] = mine if self.objectness == "iou" else torch.ones_like(mine)
            counts = ~ignored_here
            counts[image, anchor, row, column] = True
            each = F.binary_cross_entropy_with_logits(raw[..., 4], wanted, reduction="none")
            total = total + each.masked_fill(~counts, 0.0).sum()
        return total

    def _classification(self, chosen: _Chosen) -> Tensor:
        logits, weight = chosen.raw[:, 5:], self.class_weight
        if self.classification == "softmax":
            share = chosen.classes / chosen.classes.sum(1, keepdim=True)  # one that answers for truths of two classes
            return cross_entropy_loss(
                logits, share, class_weight=weight, label_smoothing=self.label_smoothing, reduction="sum"
            )
        smooth = chosen.classes * (1 - self.label_smoothing) + self.label_smoothing / 2
        function = F.binary_cross_entropy_with_logits if self.classification == "bce" else focal_loss
        if weight is None:
            return function(logits, smooth, reduction="sum")
        return (weight * function(logits, smooth, reduction="none")).sum()

    def _divisor(self, images: int, positives: int, like: Tensor) -> Tensor | float:
        """With the gradients averaged over processes, as DistributedDataParallel does, that of the joined batch."""
        if self.reduction == "sum":
            return 1 / world_size()
        count = images if self.reduction == "batch" else positives
        return mean_count(like.new_tensor(float(count)))

    def extra_repr(self) -> str:
        return (
            f"coordinates={self.coordinates!r}, box_unit={self.box_unit!r}, reduction={self.reduction!r},"
            f" objectness={self.objectness!r}, classification={self.classification!r}"
        )


class _Chosen(NamedTuple):
    """The predictions of all scales that answer for a truth, one row each."""

    raw: Tensor
    """``(P, 5 + C)``."""
    cell: Tensor
    """``(P, 2)``: column and row."""
    stride: Tensor
    """``(P, 2)``: the sides of the cell in pixels."""
    anchor: Tensor
    """``(P, 2)``: width and height in pixels."""
    truth: Tensor
    """``(P, 4)``."""
    classes: Tensor
    """``(P, C)``."""


def _choose(grid: Grid, raws: list[Tensor], found: list[Positives], size: tuple[int, int]) -> _Chosen:
    parts = [
        _Chosen(
            raw[p.image, p.anchor, p.row, p.column],
            torch.stack((p.column, p.row), -1),
            strides(raw, size).expand(len(p.image), 2),
            raw.new_tensor(anchors)[p.anchor],
            p.box,
            p.classes,
        )
        for raw, anchors, p in zip(raws, grid.anchors, found, strict=True)
    ]
    return _Chosen(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _class_weight(given: Tensor | Sequence[float] | None, classes: int) -> Tensor | None:
    if given is None:
        return None
    weight = torch.as_tensor(given)
    as_class_weight(weight.detach().cpu(), classes, weight)  # it is looked at here once, wherever it is
    return weight.to(torch.float32)


def _each(loss: str | BoxLoss) -> BoxLoss:
    """The loss of each pair of corner boxes, with the parameters and gain of the one given."""
    given = BoxLoss(loss) if isinstance(loss, str) else loss
    if given.normalize_weight:
        raise ValueError("coordinates: a BoxLoss with normalize_weight has no value per box; expected one without")
    each = BoxLoss(given.name, reduction="none", gain=given.gain, momentum=given.momentum, **given.loss_parameters)
    each.load_state_dict(given.state_dict())
    return each


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if not is_one_of(value, known):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {shown(value)}")
