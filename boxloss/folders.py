"""Folders that hold one thing, made by one configuration, and are used by one process at a time."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .config import Config, check_file, read_config
from .extras import version_of
from .files import PARTS, FolderGoneError, is_used_here, make_folder, read_yaml, using
from .imports import named_in, refuse_missing

_PACKAGES = ("boxloss", "torch", "torchvision", "numpy", "pycocotools", "pillow", "ultralytics")
_TRIES = 100  # to lock a folder that others make and remove


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A folder, made if need be, in which one process at a time works, where the system has such locks.

    The work of a thread may lock it again within. Folders that were made and left empty are removed.

    Raises:
        ValueError: another process works in it, or it is not a folder.
        FolderGoneError: it was moved or deleted meanwhile.
    """
    if is_used_here(folder):
        yield
        return
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    with _lock(folder):
        try:
            with using(folder):
                remove_parts(folder)
                yield
        except FolderGoneError:
            made = []  # what is there now is another's
            raise
        finally:
            with suppress(OSError):  # one is not empty
                for one in made:
                    one.rmdir()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    handle = None
    try:
        for left in reversed(range(_TRIES)):  # each may meet a process that removes the folder it made
            try:
                make_folder(folder)
                handle = _locked_handle(folder) if os.name == "posix" else None
                break
            except (FileExistsError, NotADirectoryError):
                text = f"{folder} is a file, or in one; expected a folder: choose another with --out"
                raise ValueError(text) from None
            except FileNotFoundError:
                if not left:
                    raise
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked_handle(folder: Path) -> int:
    """An open folder that this process has locked.

    Raises:
        FileNotFoundError: it was removed just before that.
        ValueError: another process has locked it.
    """
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.stat(folder)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"{folder}: another process is working in it") from None
    except OSError:
        os.close(handle)
        raise
    return handle


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in old:
        if isinstance(old[key], dict) and isinstance(new[key], dict) and old[key].keys() == new[key].keys():
            found += differences(old[key], new[key], f"{prefix}{key}.")
        elif old[key] != new[key]:
            found.append(f"{prefix}{key} is {old[key]!r} there and {new[key]!r} here")
    return found


def remove_parts(folder: Path) -> None:
    """Of a process that was killed as it wrote in a folder."""
    for left in folder.glob(PARTS):
        if not left.is_dir():
            left.unlink(missing_ok=True)


def refuse_others(path: Path, config: Config, fits: Callable[[Config], bool], what: str, hint: str = "") -> None:
    """See that a configuration in a folder fits, or that nothing is there.

    Raises:
        ValueError: it does not fit, or there is something else.
    """
    if not path.exists():
        return refuse_foreign(path, what)
    other = read_recorded(path, type(config))
    if not fits(other):
        changed = "; ".join(differences(asdict(other), asdict(config)))  # type: ignore[call-overload]  # dataclasses
        where = "choose another folder with --out, or remove it"
        raise ValueError(f"{path.parent} holds another {what} ({changed}): {where}{hint}")


def read_recorded(path: Path, kind: type[Config]) -> Config:
    """The configuration that a folder was made with; what it was made with of a user's own must be imported.

    Raises:
        ValueError: something is not imported, or has changed; or as `read_config`.
    """
    check_file(path, kind)
    refuse_missing(named_in(read_yaml(path, "configuration")), path.parent)
    return read_config(path, kind)


def refuse_foreign(path: Path, what: str) -> None:
    """See that a folder without the file that marks it as ours is new or empty.

    Raises:
        ValueError: it is not.
    """
    folder = path.parent
    if not path.exists() and folder.is_dir() and any(not entry.match(PARTS) for entry in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no {what}: choose another folder with --out")


def environment() -> dict[str, Any]:
    """What figures may depend on beside the configuration."""
    return {
        "command": ["boxloss", *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """Of boxloss itself, where it runs from a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
