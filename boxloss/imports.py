"""Losses of a user's own, for commands: files and modules that a user names, and packages that offer losses.

What is imported runs. So only what a user names on a command line, or in a configuration that they pass, is imported,
and never what is found in the folder of a run or a study: it only says what it was, with a digest of its content.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

GROUP = "boxloss.losses"
"""The entry points of installed packages that offer losses."""
_LENGTH = 64  # hexadecimal digits of a digest
_PREFIX = "boxloss_import_"

_imported: dict[str, str] = {}
"""What was imported, by the digest of its content, as `import_losses` gives it back."""


def import_losses(names: Iterable[str]) -> list[str]:
    """Import files and modules that define losses.

    Args:
        names: each ``FILE.py`` or a module's name; with ``#`` and a digest behind it, its content must be that.

    Returns:
        The names with their digests, files by their absolute paths.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file or module that cannot be imported, or has another content: the message names it.
    """
    return [_import(*split(name)) for name in names]


def split(name: str) -> tuple[str, str]:
    """A name and the digest behind it, which may be empty.

    >>> split("my.py"), split("my.py#" + "0" * 64) == ("my.py", "0" * 64)
    (('my.py', ''), True)
    """
    before, _, digest = name.rpartition("#")
    return (before, digest) if before and len(digest) == _LENGTH else (name, "")


def named_in(values: object) -> list[str]:
    """The names under ``imports`` in a configuration's plain values, whatever else stands there.

    >>> named_in({"imports": ["my.py", 5]}), named_in({"imports": 5}), named_in(None)
    (['my.py'], [], [])
    """
    names = values.get("imports") if isinstance(values, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def refuse_missing(recorded: Sequence[str], where: Path) -> None:
    """See that all that a folder was made with is imported, with the content that it had.

    Raises:
        ValueError: it is not; the message names the file.
    """
    given = {Path(split(entry)[0]).name: split(entry)[0] for entry in _imported.values()}
    for entry in recorded:
        name, digest = split(entry)
        if digest in _imported:
            continue
        if Path(name).name in given:
            raise ValueError(f"{given[Path(name).name]} has changed since {where} was made with it")
        raise ValueError(f"{where} was made with losses of your own, from {name}: name that file with --import {name}")


@functools.cache
def import_installed() -> None:
    """Import the losses that installed packages offer as entry points of the group ``boxloss.losses``."""
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:  # whatever is wrong with it
            raise ValueError(f"the entry point {point.name} of {GROUP}, {point.value}: {_text(error)}") from error


def copied(names: Iterable[str], folder: Path) -> list[str]:
    """Copies of the files for other processes, and the modules as they are.

    Args:
        names: as `import_losses` gives them back.
        folder: gets the copies, named by their content.
    """
    found = []
    for entry in names:
        name, digest = split(entry)
        if not name.endswith(".py"):
            found.append(entry)
            continue
        content = _content(Path(name), name, digest)
        copy = (folder / f"{digest[:16]}-{Path(name).name}").absolute()
        if not copy.is_file() or copy.read_bytes() != content:
            from .files import replacing

            with replacing(copy) as file:
                file.write(content)
        found.append(f"{copy}#{digest}")
    return found


def refuse_what_others_cannot(names: Sequence[str]) -> None:
    """See that a process of its own can import what this one has imported.

    Raises:
        ValueError: it cannot; the message says what it said.
    """
    if not names:
        return
    command = [sys.executable, "-m", __name__, *names]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=own_process(), check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ValueError(f"a trial, a process of its own, cannot import it: {lines[-1]}")


def is_importable(formula: Callable[..., object], names: Sequence[str]) -> bool:
    """Whether a process of its own knows a formula: of boxloss, of an installed package, or of what it imports."""
    where = formula.__module__
    files = {split(name)[0] for name in names}
    code = getattr(formula, "__code__", None)
    return (
        where.partition(".")[0] == __name__.partition(".")[0]
        or where in files
        or (code is not None and os.path.abspath(code.co_filename) in files)
        or where.partition(".")[0] in _offered()
    )


def _offered() -> set[str]:
    return {point.module.partition(".")[0] for point in metadata.entry_points(group=GROUP)}


def own_process() -> dict[str, str]:
    """The environment of a process that is to import what this one can."""
    safe = "" not in sys.path and os.getcwd() not in sys.path  # nor may a file here called random.py be imported there
    return os.environ | ({"PYTHONSAFEPATH": "1"} if safe else {})


def _import(name: str, wanted: str) -> str:
    path = Path(name)
    if path.suffix == ".py" or os.sep in name:
        digest = hashlib.sha256(_content(path, name, wanted)).hexdigest()
        entry = f"{path.absolute()}#{digest}"
        if digest not in _imported:
            _load(path, name, digest)
    else:
        module = _module(name)
        content = Path(module.__file__).read_bytes() if module.__file__ else b""
        digest = hashlib.sha256(content).hexdigest()
        if wanted not in ("", digest):
            raise ValueError(f"{name} has changed: expected the content that has the digest {wanted[:12]}…")
        entry = f"{name}#{digest}"
    _imported[digest] = entry
    return entry


def _content(path: Path, name: str, wanted: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"import: no file {name}") from None
    if wanted not in ("", hashlib.sha256(content).hexdigest()):
        raise ValueError(f"{name} has changed: expected the content that has the digest {wanted[:12]}…")
    return content


def _load(path: Path, name: str, digest: str) -> None:
    """Run a file as a module whose name tells its content, so that pickles find it again."""
    called = f"{_PREFIX}{path.stem}_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(called, path.absolute())
    if spec is None or spec.loader is None:
        raise ValueError(f"import: expected a file ending in .py, got {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[called]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ValueError(f"{name} cannot be imported: {_text(error)}") from error


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever is wrong with it
        raise ValueError(f"{name} cannot be imported: {_text(error)}") from error


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    from boxloss.imports import import_losses as import_all  # the module itself, not this copy of it

    try:
        import_all(sys.argv[1:])
    except (OSError, ValueError) as failed:
        sys.exit(str(failed))
