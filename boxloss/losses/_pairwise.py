"""A loss of every box with every other, in tiles, so that only the output is ever held whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..boxes import corners_of_all, in_one_dtype, opened, to_corners
from ..geometry import joint_shape
from ..kernels import Kernel
from ._define import LOSSES, Loss, LossFunction, check_own, find_loss
from ._fused import finite_or, gradients_by_graph, gradients_of, in_memory, keep, needs_graph

TILE = 1 << 16
"""Pairs computed at a time. Some 60 intermediate numbers a pair: 16 MB in float32."""

_Tile = tuple[slice, slice, slice]


def pairwise(loss: str | LossFunction, a: Tensor, b: Tensor, /, **parameters: Any) -> Tensor:
    """The loss of every box of ``a`` with every box of ``b``.

    By a kernel it costs the output alone. By the formula it costs the output and a bounded scratch, some 60 MB: the
    matrix is computed in tiles. Either way the backward pass computes it anew. Under a compiler, function transforms,
    forward mode and ``create_graph=True``, and of a function that is not in `LOSSES`, it is computed whole.

    Args:
        loss: a name, such as ``"giou"``, or a loss function, such as `giou_loss`.
        a: boxes ``(..., N, 4)`` as x1, y1, x2, y2, taken as predictions; torchvision's ``BoundingBoxes`` in the format
            that they name, where they are; a slice or a stack of them is a plain tensor.
        b: boxes ``(..., M, 4)``, taken as targets, in the same unit; leading axes as many, sizes equal or 1.
        parameters: the loss's own.

    Returns:
        ``(..., N, M)``, in the unit of the loss.

    Raises:
        TypeError: not dense tensors of real numbers; an unknown parameter.
        ValueError: the loss is unknown, or the leading axes do not pair up.

    >>> a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 2]])
    >>> pairwise("iou", a, a)  # 1 - 4/4, 1 - 4/8
    tensor([[0.0000, 0.5000],
            [0.5000, 0.0000]])
    """
    function = loss if callable(loss) else find_loss(loss).function
    check_own(parameters)
    a, of_a = opened(a, "a")
    b, of_b = opened(b, "b")
    batched = a.ndim == b.ndim >= 2 and all(
        p == q or p == 1 or q == 1 for p, q in zip(a.shape[:-2], b.shape[:-2], strict=True)
    )
    if not batched:
        raise ValueError(
            f"a {tuple(a.shape)} and b {tuple(b.shape)}: expected (..., N, 4) and (..., M, 4) with the same number of"
            " axes and leading sizes equal or 1"
        )
    a, b = in_one_dtype(a, b)
    formula = functools.partial(function, **parameters)
    compiling = torch.compiler.is_compiling()
    ours = None if compiling else next((loss for loss in LOSSES.values() if loss.function is function), None)
    # Another function may change when all boxes move.
    a, b = corners_of_all(a, of_a, b, of_b) if ours else (to_corners(a, of_a), to_corners(b, of_b))
    kernel = _kernel(ours, parameters, a, b) if ours else None
    small = a.shape[:-1].numel() * b.shape[-2] <= TILE
    # What a function that is not in `LOSSES` closes over can't be seen into tiles either.
    if kernel is None and (ours is None or small or _needs_whole(a, b)):
        return _every_pair(formula, a, b)
    leading = joint_shape(a.shape[:-2], b.shape[:-2])
    flat_a = a.expand(*leading, *a.shape[-2:]).reshape(-1, *a.shape[-2:])
    flat_b = b.expand(*leading, *b.shape[-2:]).reshape(-1, *b.shape[-2:])
    matrix: Tensor = (
        _ByKernel.apply(kernel, formula, flat_a, flat_b) if kernel else _Tiled.apply(formula, flat_a, flat_b)
    )
    return matrix.reshape(*leading, *matrix.shape[-2:])


def _kernel(loss: Loss, parameters: dict[str, Any], a: Tensor, b: Tensor) -> Kernel | None:
    """The kernel of a loss, if it has one that can be used here."""
    loss.check_parameters(parameters)
    return loss.kernel(parameters, a, b)


def _needs_whole(a: Tensor, b: Tensor) -> bool:
    """Function transforms and forward mode can't see into tiles."""
    unpack = torch.autograd.forward_ad.unpack_dual
    forward_mode = any(unpack(boxes).tangent is not None for boxes in (a, b))  # type: ignore[no-untyped-call]
    return forward_mode or torch._C._are_functorch_transforms_active()


def _every_pair(formula: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    matrix = formula(a.unsqueeze(-2), b.unsqueeze(-3))
    if matrix.shape[-2:] != (a.shape[-2], b.shape[-2]):
        raise ValueError(f"loss: expected one number per pair, reduction 'none', got a shape {tuple(matrix.shape)}")
    return matrix


def _tiles(batch: int, rows: int, columns: int) -> Iterator[_Tile]:
    """Slices of a ``(batch, rows, columns)`` matrix, each of at most `TILE` pairs."""
    across = min(columns, TILE)
    down = min(rows, TILE // across)
    deep = min(batch, TILE // (across * down))
    for i in range(0, batch, deep):
        for j in range(0, rows, down):
            for k in range(0, columns, across):
                yield slice(i, i + deep), slice(j, j + down), slice(k, k + across)


class _Tiled(torch.autograd.Function):
    """The matrix of ``(B, N, 4)`` with ``(B, M, 4)``; keeps only the boxes for the backward pass."""

    @staticmethod
    def forward(ctx: Any, formula: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
        ctx.formula = formula
        keep(ctx, a, b)
        matrix = a.new_empty(a.shape[0], a.shape[1], b.shape[1])
        for i, j, k in _tiles(*matrix.shape):
            matrix[i, j, k] = _every_pair(formula, a[i, j], b[i, k])
        return matrix

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        if needs_graph(grad):
            return None, *gradients_by_graph(ctx, functools.partial(_every_pair, ctx.formula), grad)
        return None, *_by_tiles(ctx, grad)


def _by_tiles(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by the two boxes that were kept, tile by tile."""
    a, b = ctx.saved_tensors
    needs_a, needs_b = ctx.needs_input_grad[-2:]
    grad_a = torch.zeros_like(a) if needs_a else None
    grad_b = torch.zeros_like(b) if needs_b else None
    for i, j, k in _tiles(*grad.shape):
        tile_a = a[i, j].detach().requires_grad_(needs_a)
        tile_b = b[i, k].detach().requires_grad_(needs_b)
        with torch.enable_grad():
            tile = _every_pair(ctx.formula, tile_a, tile_b)
        part_a, part_b = gradients_of(tile, tile_a, tile_b, grad[i, j, k], (needs_a, needs_b))
        if grad_a is not None and part_a is not None:
            grad_a[i, j] += part_a
        if grad_b is not None and part_b is not None:
            grad_b[i, k] += part_b
    return grad_a, grad_b


class _ByKernel(torch.autograd.Function):
    """The same by a kernel, which has no scratch."""

    @staticmethod
    def forward(ctx: Any, kernel: Kernel, formula: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
        ctx.kernel, ctx.formula = kernel, formula
        keep(ctx, a, b)
        matrix = a.new_empty(a.shape[0], a.shape[1], b.shape[1])
        for values, of_a, of_b in zip(matrix, a.detach().contiguous(), b.detach().contiguous(), strict=True):
            kernel.library.pairs(kernel.place, kernel.numbers, of_a, of_b, values=values)
        return matrix

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        if needs_graph(grad):
            with kernels.disabled():
                return None, None, *gradients_by_graph(ctx, functools.partial(_every_pair, ctx.formula), grad)
        a, b = ctx.saved_tensors
        _, _, needs_a, needs_b = ctx.needs_input_grad
        kernel: Kernel = ctx.kernel
        sums_a = a.new_zeros(a.shape, dtype=torch.float64)
        sums_b = b.new_zeros(b.shape[0], 4, b.shape[1], dtype=torch.float64) if needs_b else None
        for k, (upstream, of_a, of_b) in enumerate(zip(in_memory(grad), a.contiguous(), b.contiguous(), strict=True)):
            gradients = (sums_a[k], None if sums_b is None else sums_b[k])
            kernel.library.pairs(kernel.place, kernel.numbers, of_a, of_b, upstream=upstream, gradients=gradients)
        gradients = (
            sums_a.to(a.dtype) if needs_a else None,
            None if sums_b is None else sums_b.mT.to(b.dtype).contiguous(),
        )
        if not all(gradient.isfinite().all() for gradient in gradients if gradient is not None):
            with kernels.disabled():
                gradients = finite_or(gradients, _by_tiles(ctx, grad))  # as of single pairs
        return None, None, *gradients
