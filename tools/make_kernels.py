"""Write the kernels of all losses, and of simulations' rules: C, made from their formulas; and the losses' catalog.

python tools/make_kernels.py
"""

from __future__ import annotations

import functools
from pathlib import Path

from boxloss import LOSSES
from boxloss.kernels import c, catalog
from boxloss.kernels.trace import trace_direction
from boxloss.simulation.rules import PUBLISHED, published

NATIVE = Path(catalog.__file__).parent / "csrc"


def files() -> dict[Path, str]:
    """What they are to hold."""
    made = list(catalog.entries(LOSSES))
    functions = {entry.name: c.function(entry.name, programs, entry.arguments) for entry, programs in made}
    for name in PUBLISHED:
        narrow, wide = (trace_direction(functools.partial(published, name), dtype) for dtype in catalog.DTYPES.values())
        functions[f"published_{name}"] = c.function(f"published_{name}", (narrow, wide), [])
    return {
        NATIVE / "generated.h": c.source(functions),
        NATIVE / "names.h": c.names(functions),
        catalog.FILE: catalog.text([entry for entry, _ in made]),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
