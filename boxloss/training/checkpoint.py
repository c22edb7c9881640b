"""Checkpoints: written whole, with a digest, the one before kept, and read back from whichever is sound.

A checkpoint is torch's file with a line after it that holds the SHA-256 of what comes before. torch.load() reads it,
and older versions of boxloss, whose checkpoints end with torch's file, do, too.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..files import read_bytes, replacing

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
NEW = "checkpoint.pt.new"
_MARK = b"\nboxloss sha256 "
_PLAIN_END, _END = b"PK\5\6", 22  # of a ZIP file, as torch ends it: the last record and its length


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write ``state``, tensors and plain values, beside the checkpoint; then it takes its place, and that one is kept.

    Raises:
        OSError: it could not be written; both checkpoints are as they were.
    """
    current, previous = folder / NAME, folder / PREVIOUS
    new = folder / NEW
    # Made in memory first: of a full disk torch's writer says "unexpected pos".
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(new) as file:
        file.write(_with_digest(buffer.getvalue()))
    # Killed between these two, the folder still holds the previous one and the whole new one.
    if current.exists():
        os.replace(current, previous)
    os.replace(new, current)


def load_checkpoint(folder: Path, use: Callable[[dict[str, Any]], None], warn: Callable[[str], None]) -> bool:
    """Give ``use`` the checkpoint of a folder, or if that cannot be read or used, the previous one.

    Args:
        use: takes the state; raises ValueError or RuntimeError if it does not fit. Another state then takes its place.
        warn: is told why a checkpoint was passed over.

    Returns:
        False where there is none.

    Raises:
        ValueError: there are checkpoints, and none can be used.
    """
    reasons = {}
    for path in (folder / NAME, folder / NEW, folder / PREVIOUS):
        if not path.exists() or (path.name == NEW and (folder / NAME).exists()):
            continue
        try:
            use(_read(path))
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            reasons[path] = f"{path} cannot be used: {error}"
            continue
        for bad, reason in reasons.items():
            warn(f"{reason}; going on from {path}")
            os.replace(bad, bad.with_name(f"{bad.name}.damaged"))  # else it would take the place of the previous one
        return True
    if reasons:
        raise ValueError("; ".join(reasons.values()) + "; move them away to start anew")
    return False


def _with_digest(content: bytes) -> bytes:
    return content + _MARK + hashlib.sha256(content).hexdigest().encode()


def _is_whole(content: bytes) -> bool:
    """Whether nothing has changed since it was written, as far as can be told of one without a digest."""
    before, mark, _ = content.rpartition(_MARK)
    return _with_digest(before) == content if mark else content[-_END:].startswith(_PLAIN_END)


def _read(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    if not _is_whole(content):
        raise ValueError("it is damaged or no checkpoint: it is not what was written")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways: zipfile's, pickle's, torch's own, a bad seek
        # Not the error's own text: torch's advises to load the file in a way that may run code in it.
        raise ValueError(f"it is damaged or no checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise ValueError("it is no checkpoint of boxloss")
    return state
