"""What an installation may lack: the packages of an extra, and how to get them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata


def version_of(package: str) -> str | None:
    """Of an installed package; None if it isn't."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around imports: a package that is missing is an error that names the extra.

    >>> with needs("study", "a figure"):
    ...     import a_package_that_nobody_has
    Traceback (most recent call last):
    ImportError: a figure needs the extra: pip install 'boxloss[study]' (No module named 'a_package_that_nobody_has')
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what} needs the extra: pip install 'boxloss[{extra}]' ({error})") from error
