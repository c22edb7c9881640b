"""Any box loss in torchvision's FCOS, RetinaNet, and Faster, Mask and Keypoint R-CNN.

The heads keep their weights and names: only their class changes, to one that computes the box term anew.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetRegressionHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from ._attach import Attachment, LossLike, PerPair, already_attached, attached, check_signature, refuse_without_unit

PARTS = ("rpn", "box_head")
"""Where an R-CNN has a box loss."""
SPACES = ("boxes", "deltas")
SUPPORTED = "0.19 to 0.29"


def attach(
    model: nn.Module, loss: LossLike, *, space: str = "boxes", parts: Collection[str] | None = None
) -> Attachment:
    """Replace the box loss of a detector; the divisor stays torchvision's.

    Args:
        model: FCOS, RetinaNet, or Faster, Mask or Keypoint R-CNN, with any backbone.
        loss: a name, a `BoxLoss`, or a function of two box tensors that gives one number per pair.
        space: ``"boxes"``: in pixels of the network's input; ``"deltas"``: of the four numbers that the network
            predicts and those it should, without unit, which torchvision's own L1 and smooth L1 compare. Not of FCOS.
        parts: of an R-CNN, ``["rpn"]`` or ``["box_head"]``; given nothing, both.

    Raises:
        TypeError: no such detector.
        ValueError: a loss or option that does not fit; a loss is attached already.
        NotImplementedError: a torchvision with other functions than the supported ones (0.19 to 0.29).

    >>> from torchvision.models.detection import fcos_resnet50_fpn
    >>> model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    >>> attachment = attach(model, "ciou")
    >>> attachment.detach()
    """
    found = PerPair(loss)
    if space not in SPACES:
        raise ValueError(f"space: expected one of {', '.join(SPACES)}, got {space!r}")
    heads = _heads(model, parts)
    for head, mixin in heads:
        if isinstance(head, _Replaced):
            raise already_attached()
        mixin.check(head, found, space)
    replaced = " and ".join(dict.fromkeys(mixin.own(head) for head, mixin in heads))
    before = [type(head) for head, _ in heads]
    for head, mixin in heads:
        head.__class__ = _subclass(mixin, type(head))  # type: ignore[arg-type]
        head._box_loss, head._space = found, space  # type: ignore[assignment]

    def undo() -> None:
        for (head, _), own in zip(heads, before, strict=True):
            head.__class__ = own
            del head._box_loss, head._space

    active = f"{found} of {space}" + (" in pixels" if space == "boxes" else "")
    return attached("torchvision", type(model).__name__, active, replaced, undo)


def _heads(model: nn.Module, parts: Collection[str] | None) -> list[tuple[nn.Module, type[_Replaced]]]:
    """The modules of a detector that have a box term, and what changes it."""
    wanted = PARTS if parts is None else parts if isinstance(parts, str) else tuple(parts)
    if not wanted or isinstance(wanted, str) or not set(wanted) <= set(PARTS):
        raise ValueError(f"parts: expected a list of {', '.join(PARTS)}, got {parts!r}")
    found = [
        (module, mixin)
        for module in (model.modules() if isinstance(model, nn.Module) else ())
        for kind, (mixin, part) in _MIXINS.items()
        if isinstance(module, kind) and part in (None, *wanted)
    ]
    if not found:
        raise TypeError(
            "model: expected torchvision's FCOS, RetinaNet or Faster R-CNN (or one made of their heads), got"
            f" {type(model).__name__}"
        )
    if parts is not None and any(mixin in (_FCOS, _RetinaNet) for _, mixin in found):
        raise ValueError(f"parts: {type(model).__name__} is no R-CNN and has one box loss; expected it not to be given")
    return found


class _Replaced:
    """A head whose box term is another loss."""

    needs: ClassVar[dict[str, tuple[str, ...]]]
    """Arguments of the head's functions, by function."""
    _box_loss: PerPair
    _space: str
    fg_bg_sampler: Any

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled as what it was made of, since its class has no name that could be imported."""
        return _empty, type(self).__bases__, self.__dict__

    @classmethod
    def check(cls, head: nn.Module, loss: PerPair, space: str) -> None:
        for name, arguments in cls.needs.items():
            check_signature(getattr(type(head), name), arguments, "torchvision", SUPPORTED)
        if space == "deltas":
            refuse_without_unit(loss, "deltas are no boxes")

    @staticmethod
    def own(head: nn.Module) -> str:
        """What torchvision computes."""
        return "smooth_l1 of deltas"

    def _sum(self, coder: Any, deltas: Tensor, anchors: Tensor, truths: Tensor) -> Tensor:
        """The loss of predictions, ``(N, 4)`` each, summed up."""
        if deltas.dtype in (torch.float16, torch.bfloat16):  # under autocast; coordinates need more digits
            deltas = deltas.float()
        if self._space == "deltas":
            return self._box_loss(deltas, coder.encode_single(truths, anchors)).sum()
        decode = getattr(coder, "decode_single", coder.decode)  # FCOS's coder has one for boxes of any shape
        return self._box_loss(decode(deltas, anchors), truths).sum()


class _FCOS(_Replaced):
    needs: ClassVar = {"compute_loss": ("targets", "head_outputs", "anchors", "matched_idxs")}

    @classmethod
    def check(cls, head: nn.Module, loss: PerPair, space: str) -> None:
        if space != "boxes":
            raise ValueError(f"space: FCOS compares boxes; expected 'boxes', got {space!r}")
        super().check(head, loss, space)

    @staticmethod
    def own(head: nn.Module) -> str:
        return "giou of boxes"

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = super().compute_loss(  # type: ignore[misc]
            targets=targets, head_outputs=head_outputs, anchors=anchors, matched_idxs=matched_idxs
        )
        found = _positives(matched_idxs)
        deltas = torch.cat([d[p] for d, p in zip(head_outputs["bbox_regression"], found, strict=True)])
        points = torch.cat([a[p] for a, p in zip(anchors, found, strict=True)])
        truths = torch.cat([t["boxes"][m[p]] for t, m, p in zip(targets, matched_idxs, found, strict=True)])
        total = self._sum(self.box_coder, deltas, points, truths)  # type: ignore[attr-defined]
        return losses | {"bbox_regression": total / max(1, len(deltas))}


class _RetinaNet(_Replaced):
    needs: ClassVar = _FCOS.needs

    @staticmethod
    def own(head: nn.Module) -> str:
        kind = str(head._loss_type)
        return f"{kind} of {'deltas' if kind.endswith('l1') else 'boxes'}"

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Tensor:
        found = _positives(matched_idxs)
        # As torchvision has it: a mean over the image's positives, then over the images.
        images = [
            self._sum(self.box_coder, d[p], a[p], t["boxes"][m[p]]) / max(1, len(p))  # type: ignore[attr-defined]
            for d, a, t, m, p in zip(
                head_outputs["bbox_regression"], anchors, targets, matched_idxs, found, strict=True
            )
        ]
        return torch.stack(images).sum() / max(1, len(targets))


class _RoIHeads(_Replaced):
    needs: ClassVar = {
        "select_training_samples": ("proposals", "targets"),
        "forward": ("features", "proposals", "targets"),
    }

    def select_training_samples(self, proposals: list[Tensor], targets: list[dict[str, Tensor]] | None) -> Any:
        sampled = super().select_training_samples(proposals=proposals, targets=targets)  # type: ignore[misc]
        self._sampled = (*sampled[:3], targets)
        return sampled

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        seen: list[Tensor] = []
        predictor = self.box_predictor  # type: ignore[attr-defined]
        hook = predictor.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs[1]))
        try:
            result, losses = super().forward(*args, **kwargs)  # type: ignore[misc]
        finally:
            hook.remove()
            sampled = self.__dict__.pop("_sampled", None)
        if sampled:
            losses = losses | {"loss_box_reg": self._of_samples(seen[0], *sampled)}
        return result, losses

    def _of_samples(
        self,
        deltas: Tensor,
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> Tensor:
        label, positives = torch.cat(labels), [torch.where(of_image > 0)[0] for of_image in labels]
        place = torch.where(label > 0)[0]
        of_class = deltas.view(len(label), -1, 4)[place, label[place]]
        truths = torch.cat([t["boxes"][m[p]] for t, m, p in zip(targets, matched, positives, strict=True)])
        total = self._sum(self.box_coder, of_class, torch.cat(proposals)[place], truths)  # type: ignore[attr-defined]
        return total / label.numel()


class _RPN(_Replaced):
    needs: ClassVar = {
        "assign_targets_to_anchors": ("anchors", "targets"),
        "compute_loss": ("objectness", "pred_bbox_deltas", "labels", "regression_targets"),
    }

    def assign_targets_to_anchors(self, anchors: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        labels, truths = super().assign_targets_to_anchors(anchors=anchors, targets=targets)  # type: ignore[misc]
        self._assigned = torch.cat(anchors), torch.cat(truths)
        return labels, truths

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        anchors, truths = self.__dict__.pop("_assigned")
        with self._same_sample(labels) as (positive, negative):
            own = super().compute_loss(  # type: ignore[misc]
                objectness=objectness,
                pred_bbox_deltas=pred_bbox_deltas,
                labels=labels,
                regression_targets=regression_targets,
            )
        place = torch.where(positive)[0]
        total = self._sum(self.box_coder, pred_bbox_deltas[place], anchors[place], truths[place])  # type: ignore[attr-defined]
        return own[0], total / (positive.sum() + negative.sum()).clamp(min=1)

    @contextmanager
    def _same_sample(self, labels: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The random sample of anchors, positive and negative ones, that torchvision's function then takes too."""
        sampler = self.fg_bg_sampler
        sampled = sampler(labels)
        self.fg_bg_sampler = lambda _: sampled
        try:
            yield torch.cat(sampled[0]), torch.cat(sampled[1])
        finally:
            self.fg_bg_sampler = sampler


def _positives(matched: list[Tensor]) -> list[Tensor]:
    """The places of each image's positives."""
    return [torch.where(of_image >= 0)[0] for of_image in matched]


_MIXINS: dict[type[nn.Module], tuple[type[_Replaced], str | None]] = {
    FCOSHead: (_FCOS, None),
    RetinaNetRegressionHead: (_RetinaNet, None),
    RoIHeads: (_RoIHeads, "box_head"),
    RegionProposalNetwork: (_RPN, "rpn"),
}
"""The class that replaces a head's box term, and which part of an R-CNN it is."""


@functools.cache
def _subclass(mixin: Any, head: Any) -> Any:
    return type(f"{head.__name__}WithBoxLoss", (mixin, head), {})


def _empty(mixin: Any, head: Any) -> Any:
    """A changed head before it has its state."""
    kind = _subclass(mixin, head)
    return kind.__new__(kind)
