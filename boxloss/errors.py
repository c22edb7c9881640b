"""Errors that end a command with their message instead of a traceback, and a hint for them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class BoxlossError(RuntimeError):
    """Something went wrong that is no wrong argument or file, such as a loss that is not finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like a misspelled one; nothing if none is.

    >>> nearest("guou", ["giou", "l1"])
    "did you mean 'giou'?"
    """
    near = closest(name, known)
    return f"did you mean {near!r}?" if near else ""


def closest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like a misspelled one; nothing if none is."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), "")


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


def unknown_loss(name: object, known: Collection[str]) -> ValueError:
    """The error for a loss that there is not; it names the nearest."""
    near = nearest(name.lower().removesuffix("_loss"), known) if isinstance(name, str) else ""
    return ValueError(f"no loss named {shown(name)}; {near or 'known: ' + ', '.join(known)}")


FORESEEN = (ValueError, OSError, ImportError, BoxlossError)
"""What a command catches."""
