"""``python -m boxloss.study FOLDER``: run the trial whose configuration stands in a folder, or go on with it."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from ..errors import FORESEEN
from ..files import write_any_text
from ..imports import import_installed, import_losses
from .trial import REFUSED, run_trial


def main() -> int:
    write_any_text()
    parser = argparse.ArgumentParser(prog="python -m boxloss.study", description="Run a trial of a study.")
    parser.add_argument("folder", type=Path, help="of the trial, with its config.yaml")
    parser.add_argument("--import", dest="imports", metavar="FILE.py|MODULE", action="append", default=[])
    parser.add_argument("--until-eof", action="store_true", help="end when the standard input does")
    chosen = parser.parse_args()
    if chosen.until_eof:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import_installed()
        import_losses(chosen.imports)
        run_trial(chosen.folder)
    except FORESEEN as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return REFUSED
    return 0


def _end_with_parent() -> None:
    """The other end of the standard input closes when the parent ends, even by SIGKILL."""
    os.read(0, 1)  # not by sys.stdin, whose lock this thread would hold when the process ends
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
