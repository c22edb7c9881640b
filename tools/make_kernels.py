"""Write the kernels of all losses: C, made from their formulas, and the catalog of what they are.

python tools/make_kernels.py
"""

from __future__ import annotations

from pathlib import Path

from boxloss import LOSSES
from boxloss.kernels import c, catalog

NATIVE = Path(catalog.__file__).parent / "csrc"


def files() -> dict[Path, str]:
    """What they are to hold."""
    made = list(catalog.entries(LOSSES))
    functions = {entry.name: c.function(entry.name, programs, entry.arguments) for entry, programs in made}
    return {
        NATIVE / "generated.h": c.source(functions),
        NATIVE / "names.h": c.names(functions),
        catalog.FILE: catalog.text([entry for entry, _ in made]),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
