"""Errors that end a command with their message instead of a traceback."""

from __future__ import annotations


class BoxlossError(RuntimeError):
    """Something went wrong that is no wrong argument or file, such as a loss that is not finite."""


FORESEEN = (ValueError, OSError, ImportError, BoxlossError)
"""What a command catches."""
