"""Looking at the numbers in tensors: when that is allowed, and which numbers are refused.

A look makes a GPU wait, and under a compiler or a function transform there is nothing to see. So values are checked on
the CPU only, and not while something traces; dtypes and shapes are checked always. And how a message shows a value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

IGNORED = -100
"""The class of a prediction that is not to count, as in torch."""
IGNORING = f"{IGNORED} in a target of classes is ignored: target.masked_fill(target == ignore_index, {IGNORED})"
COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The floating dtypes that torch computes with."""
_ROUNDING = 1e-6
"""How far beyond 0 and 1 interpolated and mixed masks come in float32."""


def is_one_of(value: object, known: Collection[str]) -> bool:
    """Whether a value is one of these words; an array would be compared number by number."""
    return isinstance(value, str) and value in known


def shown(value: object) -> str:
    """A value as a message shows it; of an array its kind and shape, for its numbers would fill the screen."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"


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
    return tensor.is_cpu and tensor.layout == torch.strided and not own


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
        found = "a nested tensor; torch.stack(tensor.unbind()), or of rows that differ in number torch.cat"
    elif tensor.layout != torch.strided:
        kind = "sparse" if "sparse" in str(tensor.layout) else "packed"
        found = f"{tensor.layout}, a {kind} tensor; tensor.to_dense()"
    elif tensor.is_quantized:
        found = "a quantized tensor; tensor.dequantize()"
    elif type(tensor) is not Tensor and isinstance(tensor, torch.masked.MaskedTensor):
        found = "a masked tensor; tensor.to_tensor(value) has a value in place of what is masked"
    else:
        return
    raise TypeError(f"{name}: expected a dense tensor, got {found}")


def check_floats(tensor: Tensor, name: str) -> None:
    if isinstance(tensor, Tensor):
        check_dense(tensor, name)
        if tensor.dtype in COMPUTED:
            return
        found = f"a tensor of {tensor.dtype}"
        if tensor.is_floating_point():
            found += ", which torch does not compute with; tensor.float()"
    else:
        found = type(tensor).__name__
    raise TypeError(f"{name}: expected a tensor of floating point numbers, got {found}")


def check_share(values: Tensor, name: str, hint: str | Callable[[float], str], *, nan: bool = False) -> None:
    """Refuse what is not real, numbers outside [0, 1], beyond what rounding explains, and NaN, unless it is allowed.

    Args:
        hint: what to do about numbers far outside, or a function that says so of the greatest.
    """
    if values.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {values.dtype}")
    if values.dtype == torch.bool or not values.numel() or not readable(values):
        return
    low, high = bounds(values)
    if low >= 0 and high <= 1:  # nearly always; NaN is neither
        return
    rounding = max(torch.finfo(values.dtype).eps, _ROUNDING) if values.is_floating_point() else 0.0
    if low >= -rounding and high <= 1 + rounding:
        return
    numbers = values.detach().double()  # not every dtype can be compared
    known = numbers[~numbers.isnan()]
    if not nan and len(known) < numbers.numel():
        raise ValueError(f"{name}: expected numbers in [0, 1], got NaN")
    if not known.numel():
        return
    low, high = bounds(known)
    if low < -rounding or high > 1 + rounding:
        if low > -0.5 and high < 1.5:
            hint = f"{name}.clamp(0, 1) of what interpolation carried beyond them"
        advice = hint if isinstance(hint, str) else hint(high)
        raise ValueError(f"{name}: expected numbers in [0, 1], got numbers from {low:.7g} to {high:.7g}; {advice}")


def bounds(values: Tensor) -> tuple[float, float]:
    """The least and the greatest number; NaN if there is one."""
    if values.requires_grad:
        values = values.detach()
    if values.dtype not in (torch.float32, torch.float64, torch.int64):
        values = values.double()  # not every dtype can be compared
    low, high = values.aminmax()
    return low.item(), high.item()


def check_index(values: Tensor, count: int, name: str, *, ignored: bool = False, hint: str = "") -> bool:
    """Refuse integers outside 0 … count − 1.

    Args:
        ignored: `IGNORED` is allowed too.

    Returns:
        Whether some may be `IGNORED`.
    """
    if not values.numel():
        return False
    if not readable(values):
        return ignored
    numbers = values if values.dtype == torch.int64 else values.long()  # what is too large for it becomes negative
    low, high = bounds(numbers)
    if low >= 0 and high < count:  # one pass, where nothing is wrong
        return False
    wrong = (numbers < 0) | (numbers >= count)
    if ignored:
        wrong &= numbers != IGNORED
    index = first(wrong)
    if index is None:
        return True
    found, expected = values[index].item(), {1: "0", 2: "0 or 1"}.get(count, f"0 … {count - 1}")
    if ignored:
        expected += f", or {IGNORED} for what is to be ignored"
        if found == 255:  # what VOC and Cityscapes have for it
            expected += f": {name}.masked_fill({name} == 255, {IGNORED})"
    raise ValueError(f"{at(name, index)} is {found}; expected {expected}{hint}")
