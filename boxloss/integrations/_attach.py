"""What the adapters of all frameworks share: the loss as they call it, the way back, and what is refused."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Collection

from torch import Tensor

from ..extras import version_of
from ..losses import LOSSES, Loss
from ..modules import BoxLoss

LossLike = str | BoxLoss | Callable[[Tensor, Tensor], Tensor]
"""What ``attach`` takes: the name of a loss, a `BoxLoss`, or a function of two box tensors ``(N, 4)``, x1, y1, x2, y2,
that gives one number per pair, ``(N,)``."""

logger = logging.getLogger("boxloss")


class PerPair:
    """A loss as adapters call it: corner boxes ``(N, 4)`` twice → one number per pair, ``(N,)``.

    A `BoxLoss` counts with its name, parameters and gain; the reduction is the framework's.

    Raises:
        TypeError: no name, `BoxLoss` or callable.
        ValueError: an unknown name; a `BoxLoss` that takes other boxes, or normalizes by itself.
    """

    def __init__(self, loss: LossLike) -> None:
        if isinstance(loss, BoxLoss):
            if loss.box_format not in (None, "xyxy"):
                raise ValueError(f"loss: it is given corners; expected box_format 'xyxy', got {loss.box_format!r}")
            if loss.normalize_weight:
                raise ValueError("loss: normalize_weight needs the whole batch, and the framework has its own divisor")
            loss = copy.copy(loss)  # of a subclass the parameters stay the user's
            loss.reduction = "none"
            loss.across_ranks = False  # the framework may not call it on a rank without positives
        elif isinstance(loss, str):
            loss = BoxLoss(loss, reduction="none")
        elif isinstance(loss, type) or not callable(loss):
            raise TypeError(f"loss: expected a name, a BoxLoss or a function (pred, target), got {loss!r}")
        self.function = loss

    @property
    def facts(self) -> Loss | None:
        """What is known of the loss; of a function, nothing."""
        return LOSSES[self.function.name] if isinstance(self.function, BoxLoss) else None

    def __call__(self, pred: Tensor, target: Tensor) -> Tensor:
        if not len(pred):
            return pred.sum(-1)  # (0,), with a graph
        value = self.function(pred, target)
        if not isinstance(value, Tensor) or (pred.requires_grad and not value.requires_grad):
            what = f"a {type(value).__name__}" if not isinstance(value, Tensor) else "one without gradient"
            raise TypeError(f"loss: expected a tensor with a gradient by pred, got {what}")
        if value.shape != pred.shape[:1]:
            raise ValueError(
                f"loss: expected one number per pair, {tuple(pred.shape[:1])}, got {tuple(value.shape)}; a function"
                " that reduces, or keeps an axis of 1, does not fit"
            )
        return value

    def __repr__(self) -> str:
        if isinstance(self.function, BoxLoss):
            own = [f"{key}={value!r}" for key, value in self.function.loss_parameters.items()]
            factor = [f"gain={self.function.gain:g}"] if self.function.gain != 1.0 else []
            return f"{self.function.name}({', '.join(own + factor)})" if own or factor else self.function.name
        return getattr(self.function, "__name__", repr(self.function))


class Attachment:
    """A loss in a framework's detector, until ``detach()``.

    Args:
        text: what is active where, and what it replaced.
        undo: puts the framework's own loss back.
    """

    def __init__(self, text: str, undo: Callable[[], None]) -> None:
        self.text = text
        self._undo: Callable[[], None] | None = undo

    def detach(self) -> None:
        """Put the framework's own loss back; again, it does nothing."""
        if self._undo:
            self._undo()
            self._undo = None

    def __repr__(self) -> str:
        return f"<{'detached' if self._undo is None else 'attached'}: {self.text}>"


def attached(package: str, where: str, active: str, replaced: str, undo: Callable[[], None]) -> Attachment:
    """Say once what is active; the way back."""
    text = described(package, where, active, replaced)
    logger.info(text)
    return Attachment(text, undo)


def described(package: str, where: str, active: str, replaced: str) -> str:
    return f"boxloss in {package} {version_of(package)}, {where}: {active} in the place of {replaced}"


def already_attached() -> ValueError:
    return ValueError("model: a loss of boxloss is attached already; detach() it first")


def check_signature(function: Callable[..., object], needed: Collection[str], package: str, supported: str) -> None:
    """See that a framework's function takes what an adapter gives and reads, by name.

    Raises:
        NotImplementedError: it doesn't; the message says which versions do.
    """
    missing = [name for name in needed if name not in inspect.signature(function).parameters]
    if missing:
        raise NotImplementedError(
            f"{package} {version_of(package)}: {function.__qualname__}{inspect.signature(function)} has no"
            f" {', '.join(missing)}; supported: {package} {supported}"
        )


def refuse_without_unit(loss: PerPair, what: str) -> None:
    """A loss of boxes where the four numbers are no corners.

    Raises:
        ValueError: the loss is one of areas, centers, sides.
    """
    if loss.facts and not loss.facts.degree:
        coordinates = ", ".join(name for name, known in LOSSES.items() if known.degree)
        raise ValueError(f"loss: {what}; expected a loss of coordinates ({coordinates}), got {loss}")
