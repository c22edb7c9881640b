"""Box losses as torch modules: they bind a loss's arguments, nothing else."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from .boxes import FORMATS, as_format, as_pair
from .conventions import CONVENTIONS, meaning
from .distributed import mean_over_ranks
from .geometry import BoxPair
from .losses import LOSSES, find_loss
from .losses._keywords import OF_MODULES, answered, is_array, is_reduction, placed
from .losses._parameters import is_finite
from .losses._reduce import check_reduction, reduce_pairs
from .values import is_one_of, shown

# Of words that a call of a module doesn't take.
_WHEN_MADE = {
    word: f"it is given when the module is made: BoxLoss(…, {word}=…)"
    for word in (*OF_MODULES, *(word for loss in LOSSES.values() for word in loss.parameters))
}


class BoxLoss(torch.nn.Module):
    """Any loss of `LOSSES` as a module.

    Args:
        name: the loss, such as ``"eiou"``.
        convention: the framework whose name it is: ``"torchvision"``, ``"ultralytics"``, ``"mmdet"`` or ``"yolox"``,
            some of which mean another loss by it (`boxloss.conventions`): mmdet's ``"iou"`` is −ln(I/U), its CIoU is
            gated; YOLOX's ``"iou"`` is 1 − (I/U)².
        box_format: the format of both inputs: ``"xyxy"``, ``"xywh"`` or ``"cxcywh"``; None: of each the one that the
            tensor itself names, as torchvision's ``BoundingBoxes`` do, else ``"xyxy"``. Slices of ``BoundingBoxes``,
            stacks and collated batches of them are plain tensors that name none: give their format here. So with
            ``torch.compile``, which needs plain tensors: ``boxes.as_subclass(torch.Tensor)``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the pairs.
        gain: the result is multiplied by it.
        normalize_weight: for a loss with a weight per pair (focal_eiou): Σ W·L / Σ W, with the sum of weights averaged
            over the ranks of a process group; 0 where every weight is 0.
        momentum: for a loss that needs the mean of 1 − I/U over all pairs (wiou, versions v2 and v3) and is not given
            ``mean``: what a batch counts beside all before it; 0.01 in the authors' code. The mean is the buffer
            ``running_mean``, 1 at first. In training mode each call takes in its finite pairs, on all ranks of a
            process group; so every rank has to call, also one without boxes. Without gradients, as under
            `torch.no_grad` and `torch.inference_mode`, and under the transforms of `torch.func`, whose functions have
            no side effects, the mean is read and stays.
        parameters: the loss's own.

    Raises:
        TypeError: a parameter that the loss does not have, or a value without a keyword.
        ValueError: an unknown loss, convention, format or reduction; a parameter outside its domain.

    >>> BoxLoss("iou", convention="yolox")
    BoxLoss('squared_iou', reduction='mean', gain=1.0)
    >>> loss = BoxLoss("giou", box_format="cxcywh")
    >>> loss(torch.tensor([[1.0, 1, 2, 2]]), torch.tensor([[2.0, 2, 2, 2]]))  # 1 - 1/7 + 2/9
    tensor(1.0794)
    """

    def __init__(
        self,
        name: str,
        *values: NoReturn,  # so that a type checker refuses any
        convention: str | None = None,
        box_format: str | None = None,
        reduction: str = "mean",
        gain: float = 1.0,
        normalize_weight: bool = False,
        momentum: float = 0.01,
        **parameters: Any,
    ) -> None:
        super().__init__()
        if values or is_array(name):
            raise self._placed(name, values)
        if convention is not None:
            name, own = meaning(convention, name)
            parameters = own | parameters
        loss = find_loss(name)
        loss.check_parameters(parameters, OF_MODULES)
        check_reduction(reduction, None)
        if not isinstance(normalize_weight, bool):
            raise TypeError(f"normalize_weight: expected True or False, got {shown(normalize_weight)}")
        if not is_finite(gain):
            raise ValueError(f"gain: expected a finite number, got {shown(gain)}")
        if normalize_weight and loss.focus is None:
            raise ValueError(f"normalize_weight: {name!r} has no weight per pair to normalize by")
        if normalize_weight and reduction != "mean":
            raise ValueError(f"normalize_weight is a mean: expected reduction 'mean' with it, got {reduction!r}")
        if not is_finite(momentum) or not 0 < momentum <= 1:
            raise ValueError(f"momentum: expected a number in (0, 1], got {shown(momentum)}")
        self.name = name
        self.box_format = box_format
        self.reduction = reduction
        self.gain = float(gain)
        self.normalize_weight = normalize_weight
        self.loss_parameters = parameters
        self.momentum = momentum
        self.across_ranks = True  # whether the running mean is
        running = loss.running_mean is not None and "mean" not in parameters and loss.running_mean(**parameters)
        self.running_mean: Tensor | None
        with torch.inference_mode(False):  # what is made there could never be updated
            self.register_buffer("running_mean", torch.ones(()) if running else None)

    def _placed(self, name: str, values: tuple[Any, ...]) -> TypeError:
        """The error for values given by place."""
        mine = type(self).__name__
        own = getattr(self, "_loss", None)
        if any(map(is_array, (name, *values))):
            if own:
                return TypeError(f"{mine} is made without boxes and then called with them: {mine}()(pred, target)")
            made = f"{mine}({name!r})" if isinstance(name, str) else f'{mine}("giou")'
            return TypeError(f"{mine} is made of a loss's name and then called with the boxes: {made}(pred, target)")
        fits = {
            "reduction": is_reduction,
            "box_format": lambda value: is_one_of(value, FORMATS),
            "convention": lambda value: is_one_of(value, CONVENTIONS),
            **find_loss(name).fits,
            "gain": is_finite,
        }
        return placed(mine if own else f"{mine}({name!r}, …)", values, fits)

    @property
    def box_format(self) -> str | None:
        """As it was given; None: of each input the one that it names, else ``"xyxy"``."""
        return self._box_format

    @box_format.setter
    def box_format(self, box_format: str | None) -> None:
        self._box_format = None if box_format is None else as_format(box_format, "box_format")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a pickle, perhaps one made when ``box_format`` was "xyxy" where it was not given."""
        if "box_format" in state:
            state = dict(state)
            before = state.pop("box_format")
            state["_box_format"] = None if before == "xyxy" else before
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    @answered(_WHEN_MADE)
    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
    ) -> Tensor:
        """The loss of ``pred`` against ``target``, boxes ``(..., 4)`` in ``box_format``.

        Args:
            weight: one factor per pair, ``(...)``.
            avg_factor: what reduction ``"mean"`` divides the (weighted) sum by instead of the number of pairs. With 0
                it is 0 where the sum is 0 too, as in a batch without positives, else infinite; without gradient.

        Returns:
            ``()``, or ``(...)`` with reduction ``"none"``, in the unit of the loss, times ``gain``.
        """
        check_reduction(self.reduction, avg_factor)
        pred, target = as_pair(pred, target, self._box_format)
        if self.normalize_weight and avg_factor is not None:
            raise ValueError("avg_factor: normalize_weight divides by the sum of weights; give one of the two")
        loss = find_loss(self.name)
        if not self.normalize_weight and self.running_mean is None:
            return self.gain * loss.function(
                pred, target, reduction=self.reduction, weight=weight, avg_factor=avg_factor, **self.loss_parameters
            )
        pair = BoxPair(pred, target)
        parameters = dict(self.loss_parameters)
        learns = self.training and torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        if self.running_mean is not None:
            mean = self._next_mean(pair, self.running_mean) if learns else self.running_mean
            parameters["mean"] = mean.clamp(min=1e-6)  # not quite 0, however long all pairs were equal
        values = loss.values(pair, parameters)
        if self.normalize_weight:
            assert loss.focus is not None
            weights = mean_over_ranks(reduce_pairs(loss.focus(pair, **parameters).detach(), "sum", weight))
            found = reduce_pairs(values, "sum", weight) / weights.masked_fill(weights == 0.0, 1.0)
        else:
            found = reduce_pairs(values, self.reduction, weight, avg_factor)
        if self.running_mean is not None and learns:
            self.running_mean.copy_(mean)  # now that nothing was refused
        return self.gain * found

    def _next_mean(self, pair: BoxPair, before: Tensor) -> Tensor:
        """The running mean with the pair's values in it."""
        values = pair.iou_loss.detach()
        finite = values.isfinite()
        sums = torch.stack((values.masked_fill(~finite, 0.0).sum(), finite.sum().to(values.dtype)))
        total, count = (mean_over_ranks(sums) if self.across_ranks else sums).unbind()
        mean = torch.lerp(before, (total / count).to(before), self.momentum)
        return torch.where(count > 0, mean, before)

    def _apply(self, fn: Any, recurse: bool = True) -> BoxLoss:
        """What moves a module or changes its dtype. The mean stays float32: its steps are lost in 8 bits."""
        before = self.running_mean
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None and self.running_mean is not None:
            self.running_mean = before.to(self.running_mean.device)
        return self

    def extra_repr(self) -> str:
        options: dict[str, Any] = {} if self.box_format is None else {"box_format": self.box_format}
        options |= {"reduction": self.reduction, "gain": self.gain}
        if self.normalize_weight:
            options["normalize_weight"] = True
        if self.running_mean is not None:
            options["momentum"] = self.momentum
        options |= self.loss_parameters
        bound = [f"{key}={value!r}" for key, value in options.items()]
        return ", ".join(bound if getattr(self, "_loss", None) == self.name else [repr(self.name), *bound])


class _NamedLoss(BoxLoss):
    """A `BoxLoss` whose class names the loss."""

    _loss: str

    def __init_subclass__(cls, *, loss: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if loss:  # not given by a user's subclass
            cls._loss = loss
            cls.__doc__ = f'``BoxLoss("{loss}", …)``: its options are those of `BoxLoss` and `{loss}_loss`.'

    def __init__(self, *values: NoReturn, **options: Any) -> None:
        if "name" in options:
            mine, other = type(self).__name__, shown(options["name"])
            raise TypeError(f"{mine} is the loss {self._loss!r}; one of another name is BoxLoss({other})")
        super().__init__(self._loss, *values, **options)


class L1Loss(_NamedLoss, loss="l1"): ...


class L2Loss(_NamedLoss, loss="l2"): ...


class SmoothL1Loss(_NamedLoss, loss="smooth_l1"): ...


class IoULoss(_NamedLoss, loss="iou"): ...


class LogIoULoss(_NamedLoss, loss="log_iou"): ...


class SquaredIoULoss(_NamedLoss, loss="squared_iou"): ...


class TverskyBoxLoss(_NamedLoss, loss="tversky_box"): ...


class DiceBoxLoss(_NamedLoss, loss="dice_box"): ...


class GIoULoss(_NamedLoss, loss="giou"): ...


class DIoULoss(_NamedLoss, loss="diou"): ...


class CIoULoss(_NamedLoss, loss="ciou"): ...


class EIoULoss(_NamedLoss, loss="eiou"): ...


class FocalEIoULoss(_NamedLoss, loss="focal_eiou"): ...


class CDIoULoss(_NamedLoss, loss="cdiou"): ...


class AlphaIoULoss(_NamedLoss, loss="alpha_iou"): ...


class FocalerIoULoss(_NamedLoss, loss="focaler_iou"): ...


class InnerIoULoss(_NamedLoss, loss="inner_iou"): ...


class SIoULoss(_NamedLoss, loss="siou"): ...


class ShapeIoULoss(_NamedLoss, loss="shape_iou"): ...


class MPDIoULoss(_NamedLoss, loss="mpdiou"): ...


class PIoULoss(_NamedLoss, loss="piou"): ...


class BoundedIoULoss(_NamedLoss, loss="bounded_iou"): ...


class WIoULoss(_NamedLoss, loss="wiou"): ...


class NWDLoss(_NamedLoss, loss="nwd"): ...


class GWDLoss(_NamedLoss, loss="gwd"): ...


class KLDLoss(_NamedLoss, loss="kld"): ...


class BalancedL1Loss(_NamedLoss, loss="balanced_l1"): ...
