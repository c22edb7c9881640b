"""`boxloss doctor`: what is installed, what computes each loss, and why it is no kernel where it isn't."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata

import torch

from . import kernels
from ._version import __version__
from .extras import version_of
from .losses import LOSSES


def report() -> str:
    """Lines for a terminal."""
    return "\n".join([*_versions(), "", *_extras(), _frameworks(), "", *_kernels()])


def _versions() -> Iterator[str]:
    yield f"boxloss {__version__}, Python {platform.python_version()}, {platform.platform()}"
    for requirement in metadata.requires("boxloss") or ():
        if "extra ==" not in requirement:
            name = _name(requirement)
            yield f"  {name} {version_of(name) or 'missing'}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield f"  threads {torch.get_num_threads()}, GPU {gpu}"


def _extras() -> Iterator[str]:
    """Each extra, and which of its packages are missing."""
    requirements = metadata.requires("boxloss") or []
    for extra in metadata.metadata("boxloss").get_all("Provides-Extra") or ():
        names = [_name(r) for r in requirements if f'extra == "{extra}"' in r.replace("'", '"')]
        missing = [name for name in names if version_of(name) is None]
        yield f"extra {extra}: {'lacks ' + ', '.join(missing) if missing else 'installed'}"


def _frameworks() -> str:
    """Those of `boxloss.integrations`."""
    found = (f"{name} {version_of(name) or 'not installed'}" for name in ("ultralytics", "transformers", "mmdet"))
    return f"integrations: {', '.join(found)}"


def _kernels() -> Iterator[str]:
    library = kernels.library()
    if isinstance(library, str):
        yield f"kernels: none; {library}. The formulas run, slower."
        return
    yield f"kernels: {library.path}"
    yield f"  instruction sets: {', '.join(library.instructions)}; the first is used"
    yield f"  threads: {library.threads}"
    reason = kernels.why_not()
    if reason:
        yield f"  none is used: {reason}"
    for name, loss in LOSSES.items():
        required = [parameter.name for parameter in loss.parameters.values() if parameter.required]
        found = f"it needs {', '.join(required)}" if required else reason or kernels.find(name, {}, torch.float32)
        yield f"  {name}: {'kernel' if isinstance(found, kernels.Kernel) else f'formula, {found}'}"


def _name(requirement: str) -> str:
    """The package of a requirement.

    >>> _name("jsonargparse[signatures]>=4.49; extra == 'study'")
    'jsonargparse'
    """
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
