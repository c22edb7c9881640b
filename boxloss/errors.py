"""Errors that end a command with their message instead of a traceback, and a hint for them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from .values import shown


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


def unknown_loss(name: object, known: Collection[str]) -> ValueError:
    """The error for a loss that there is not; it names the nearest."""
    near = nearest(name.lower().removesuffix("_loss"), known) if isinstance(name, str) else ""
    return ValueError(f"no loss named {shown(name)}; {near or 'known: ' + ', '.join(known)}")


FORESEEN = (ValueError, OSError, ImportError, BoxlossError)
"""What a command catches."""
