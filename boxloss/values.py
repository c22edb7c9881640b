"""Looking at the numbers in tensors: when that is allowed, and which numbers are refused.

A look makes a GPU wait, and under a compiler or a function transform there is nothing to see. So values are checked on
the CPU only, and not while something traces; dtypes and shapes are checked always.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -100
"""The class of a prediction that is not to count, as in torch."""
_ROUNDING = 1e-6
"""How far beyond 0 and 1 interpolated and mixed masks come in float32."""


def watcher() -> str:
    """What sees each operation here and now, and so must not meet a look at values; nothing if nothing does."""
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return "a function transform or another mode looks at each operation"
    if torch.autograd.forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return "forward mode or tracing looks at each operation"
    return ""


def readable(tensor: Tensor) -> bool:
    """Whether the numbers may be looked at: they lie in this machine's memory, and nothing traces."""
    if torch.compiler.is_compiling() or watcher():
        return False
    own = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__  # a fake tensor, or one with parts elsewhere
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not own


def first(wrong: Tensor) -> tuple[int, ...] | None:
    """The index of the first True."""
    return tuple(wrong.nonzero()[0].tolist()) if wrong.any() else None


def at(name: str, index: tuple[int, ...]) -> str:
    """
    >>> at("target", (0, 3)), at("target", ())
    ('target[0, 3]', 'target')
    """
    return name + (f"[{', '.join(map(str, index))}]" if index else "")


def check_dense(tensor: Tensor, name: str) -> None:
    """Refuse a tensor that does not have a number, as it is, in every place."""
    if tensor.is_nested:
        found = "a nested tensor; torch.cat(tensor.unbind()) has its rows"
    elif tensor.layout != torch.strided:
        kind = "sparse" if "sparse" in str(tensor.layout) else "packed"
        found = f"{tensor.layout}, a {kind} tensor; tensor.to_dense()"
    elif tensor.is_quantized:
        found = "a quantized tensor; tensor.dequantize()"
    elif type(tensor) is not Tensor and isinstance(tensor, torch.masked.MaskedTensor):
        found = "a masked tensor; tensor.get_data(), and the mask as a weight"
    else:
        return
    raise TypeError(f"{name}: expected a dense tensor, got {found}")


def check_floats(tensor: Tensor, name: str) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        found = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: expected a tensor of floating point numbers, got {found}")
    check_dense(tensor, name)


def check_share(values: Tensor, name: str, hint: str, *, nan: bool = False) -> None:
    """Refuse what is not real, numbers outside [0, 1], beyond what rounding explains, and NaN, unless it is allowed.

    Args:
        hint: what to do about other numbers.
    """
    if values.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {values.dtype}")
    if values.dtype == torch.bool or not values.numel() or not readable(values):
        return
    numbers = values.detach()
    if numbers.dtype not in (torch.float32, torch.float64):
        numbers = numbers.double()  # not every dtype can be compared
    rounding = max(torch.finfo(values.dtype).eps, _ROUNDING) if values.is_floating_point() else 0.0
    low, high = (bound.item() for bound in numbers.aminmax())  # NaN if there is one
    if -rounding <= low and high <= 1 + rounding:
        return
    known = numbers[~numbers.isnan()]
    if not nan and len(known) < numbers.numel():
        raise ValueError(f"{name}: expected numbers in [0, 1], got NaN")
    if not known.numel():
        return
    low, high = (bound.item() for bound in known.aminmax())
    if low < -rounding or high > 1 + rounding:
        raise ValueError(f"{name}: expected numbers in [0, 1], got numbers from {low:.7g} to {high:.7g}; {hint}")


def check_index(values: Tensor, count: int, name: str, *, ignored: bool = False, hint: str = "") -> None:
    """Refuse integers outside 0 … count − 1.

    Args:
        ignored: `IGNORED` is allowed too.
    """
    if not values.numel() or not readable(values):
        return
    low, high = values.aminmax()
    if low.item() >= 0 and high.item() < count:  # one pass, where nothing is wrong
        return
    wrong = (values < 0) | (values >= count)
    if ignored:
        wrong &= values != IGNORED
    index = first(wrong)
    if index is not None:
        expected = f"0 … {count - 1}" + (f", or {IGNORED} for what is to be ignored" if ignored else "")
        raise ValueError(f"{at(name, index)} is {values[index].item()}; expected {expected}{hint}")
