"""The compiled kernels: found, loaded and called, through ctypes. Nothing here knows a formula."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NATIVE = Path(__file__).parent / "csrc"


class Rows(ctypes.Structure):
    """``struct rows`` of csrc/kernels.c."""

    _fields_ = (
        ("count", c_int64),
        ("pred", c_void_p),
        ("target", c_void_p),
        ("pred_stride", c_int64),
        ("target_stride", c_int64),
        ("weight", c_void_p),
        ("factor", c_double),
        ("numbers", POINTER(c_double)),
        ("values", c_void_p),
        ("pred_gradient", c_void_p),
        ("target_gradient", c_void_p),
        ("sum", POINTER(c_double)),
        ("infinite", POINTER(c_int)),
    )


class Pairs(ctypes.Structure):
    """``struct pairs`` of csrc/kernels.c."""

    _fields_ = (
        ("rows", c_int64),
        ("columns", c_int64),
        ("a", c_void_p),
        ("b", c_void_p),
        ("numbers", POINTER(c_double)),
        ("values", c_void_p),
        ("upstream", c_void_p),
        ("a_gradient", c_void_p),
        ("b_gradient", c_void_p),
        ("b_columns", c_void_p),
    )


class Descent(ctypes.Structure):
    """``struct descent`` of csrc/kernels.c."""

    _fields_ = (
        ("count", c_int64),
        ("bins", c_int64),
        ("iterations", c_int64),
        ("boxes", c_void_p),
        ("targets", c_void_p),
        ("places", c_void_p),
        ("numbers", POINTER(c_double)),
        ("rates", c_void_p),
        ("wh_factor", c_double),
        ("unit", c_double),
        ("farthest", c_double),
        ("levels", c_void_p),
        ("errors", c_void_p),
        ("above", c_void_p),
        ("last", c_void_p),
    )


class OpenMP(ctypes.Structure):
    """``struct openmp`` of csrc/kernels.c."""

    _fields_ = (("parallel", c_void_p), ("number", c_void_p), ("count", c_void_p))


class Library:
    """A shared library made from csrc/kernels.c.

    Args:
        path: its file.

    Raises:
        OSError: it can't be loaded.
    """

    def __init__(self, path: Path) -> None:
        c = ctypes.CDLL(str(path))
        c.boxloss_kernel.restype = c.boxloss_instructions.restype = c_char_p
        c.boxloss_rows.argtypes = (c_int, c_int, c_int, c_int, POINTER(Rows))
        c.boxloss_rows.restype = None
        c.boxloss_descend.argtypes = (c_int, c_int, c_int, c_int, POINTER(Descent))
        c.boxloss_descend.restype = None
        c.boxloss_pairs.argtypes = (c_int, c_int, c_int, c_int, POINTER(Pairs))
        for which, structure in enumerate((Rows, Pairs, Descent)):
            if c.boxloss_size(which) != ctypes.sizeof(structure):
                raise OSError("it is called in another way")
        c.boxloss_source.restype = c_char_p
        self.source: str = c.boxloss_source().decode()
        """The digest of what it was compiled from."""
        openmp = _openmp_of_torch()
        if openmp:
            c.boxloss_use_openmp(byref(openmp))
        self.threads = "torch's OpenMP" if openmp else "its own, started for each call"
        self._c: Any = c
        self.path = path
        self.kernels = {name: k for k, name in enumerate(_names(c.boxloss_kernel))}
        self.instructions = _names(c.boxloss_instructions)
        """The instruction sets that it has and this machine too, the best first."""
        self.block: int = c.boxloss_block()
        """Boxes in a block."""
        self.used = 0
        """The place of the one that is used."""

    def rows(
        self,
        kernel: int,
        numbers: Any,
        pred: Tensor,
        target: Tensor,
        count: int,
        strides: tuple[int, int],
        *,
        weight: Tensor | None = None,
        factor: float = 1.0,
        values: Tensor | None = None,
        gradients: tuple[Tensor | None, Tensor | None] = (None, None),
        sum: bool = False,
    ) -> tuple[float, bool]:
        """Pairs row by row; the sum of the weighted values, if it is wanted, and whether all gradients are finite."""
        total, infinite = c_double(), c_int()
        job = Rows(
            count,
            pred.data_ptr(),
            target.data_ptr(),
            *strides,
            _pointer(weight),
            factor,
            numbers,
            _pointer(values),
            *map(_pointer, gradients),
            ctypes.pointer(total) if sum else None,
            ctypes.pointer(infinite),
        )
        wide = pred.dtype == torch.float64
        self._c.boxloss_rows(kernel, wide, self.used, torch.get_num_threads(), byref(job))
        return total.value, not infinite.value

    def pairs(
        self,
        kernel: int,
        numbers: Any,
        a: Tensor,
        b: Tensor,
        *,
        values: Tensor | None = None,
        upstream: Tensor | None = None,
        gradients: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Every row of ``a`` ``(N, 4)`` with every row of ``b`` ``(M, 4)``, all contiguous."""
        job = Pairs(
            len(a),
            len(b),
            a.data_ptr(),
            b.data_ptr(),
            numbers,
            _pointer(values),
            _pointer(upstream),
            *map(_pointer, gradients),
            None,
        )
        wide = a.dtype == torch.float64
        if self._c.boxloss_pairs(kernel, wide, self.used, torch.get_num_threads(), byref(job)):
            raise MemoryError(f"no memory for {len(b)} columns")

    def descend(
        self,
        kernel: int,
        numbers: Any,
        boxes: Tensor,
        targets: Tensor,
        places: Tensor,
        rates: Tensor,
        *,
        published: bool,
        wh_factor: float,
        unit: float,
        farthest: float,
        levels: Tensor,
        errors: Tensor,
        above: Tensor,
    ) -> Tensor:
        """Let boxes ``(4, N)`` descend, and count what `simulation.descent` wants to know of them; on one thread.

        Returns:
            The error of each at the end, ``(N,)`` int64.
        """
        last = torch.empty_like(places)
        moved = _blocks(boxes, self.block)
        fixed = _blocks(targets, self.block)
        job = Descent(
            *(boxes.shape[1], errors.shape[1], len(rates)),
            *(moved.data_ptr(), fixed.data_ptr(), places.data_ptr(), numbers, rates.data_ptr()),
            *(wh_factor, unit, farthest, levels.data_ptr(), errors.data_ptr(), above.data_ptr(), last.data_ptr()),
        )
        iou = -1 if published else self.kernels["iou"]
        self._c.boxloss_descend(kernel, iou, boxes.dtype == torch.float64, self.used, byref(job))
        return last


def _blocks(columns: Tensor, size: int) -> Tensor:
    """Columns ``(4, N)`` as blocks of columns ``(N/size, 4, size)``, the last filled up with its last."""
    full = torch.cat((columns, columns[:, -1:].expand(4, -columns.shape[1] % size)), 1)
    return full.reshape(4, -1, size).transpose(0, 1).contiguous()


_forked = False
"""Since this module was imported."""


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _is_fork() -> bool:
    """Whether this process, as far as can be told, is a fork and may have been one before this module was imported.

    It has the memory of its parent's OpenMP, but not the threads, and would wait for them forever. The library itself
    notices a fork after it was loaded.
    """
    if _forked:
        return True
    try:
        flags = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[6])
    except (OSError, LookupError, ValueError):  # not Linux
        return False
    return bool(flags & 0x40)  # PF_FORKNOEXEC


def _openmp_of_torch() -> OpenMP | None:
    """The functions of the OpenMP that torch has loaded; nothing in a fork, or if they have other names."""
    if _is_fork():
        return None
    try:
        loaded = ctypes.CDLL(None)
        functions = (loaded.GOMP_parallel, loaded.omp_get_thread_num, loaded.omp_get_num_threads)
    except (AttributeError, OSError, TypeError):  # Windows has no name for what the process itself has loaded
        return None
    return OpenMP(*(ctypes.cast(function, c_void_p) for function in functions))


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _names(of: Any) -> list[str]:
    found: list[str] = []
    while name := of(len(found)):
        found.append(name.decode())
    return found


@functools.cache
def library() -> Library | str:
    """The library that was built when the package was installed, or why there is none."""
    files = sorted(NATIVE.glob("compiled.*"))
    if not files:
        return "they were not compiled when boxloss was installed: no C compiler, or one that failed"
    try:
        found = Library(files[0])
    except (OSError, AttributeError) as error:
        return f"{files[0]} can't be loaded: {error}; install boxloss again"
    source = NATIVE / "generated.h"
    if source.exists() and fingerprint(source.read_text()) != found.source:
        return f"{files[0]} was compiled from another version: install boxloss again"
    return found
