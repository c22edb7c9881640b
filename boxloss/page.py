"""HTML pages: one file each, which needs no network and no other file; and how numbers are shown.

The only file that imports jinja2.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .extras import needs
from .files import encoded, replacing

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template of this package into a file.

    Templates extend ``page.html.jinja`` (blocks ``title``, ``lead``, ``content``) and have the filters `number`,
    `fixed`, `signed`, `agreement`, `percent` and `data_url`. What is inserted is escaped.

    Args:
        path: the page; it is replaced whole.
        template: a file's name in `TEMPLATES`.
        content: the template's variables.

    Raises:
        ImportError: jinja2 is missing.
        jinja2.UndefinedError: the template uses a variable that is not given.
        OSError: a picture can't be read, or the page not be written.
    """
    text = environment().get_template(template).render(version=__version__, **content)
    with replacing(path) as file:
        file.write(encoded(text))


def environment() -> Environment:
    """How templates are rendered; asked for early, it is an error now, not when there is something to show."""
    with needs("study", "a page"):
        import jinja2
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "number": number,
        "fixed": fixed,
        "agreement": agreement,
        "signed": signed,
        "percent": percent,
        "data_url": data_url,
    }
    return made


def data_url(picture: Path) -> str:
    """A PNG or GIF file as the ``src`` of an ``<img>``, so that the page holds it; of one that could not be drawn none.

    The reader then sees the ``alt`` text.
    """
    if not picture.is_file():
        return "data:,"
    return f"data:image/{picture.suffix[1:]};base64," + base64.b64encode(picture.read_bytes()).decode()


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, for people; None is a dash.

    >>> [number(x) for x in (None, 0, -0.012345, 1, 1234.5, 1.2345e9)]
    ['–', '0', '−0.0123', '1.00', '1,230', '1.23e+09']
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    ordinary = -5 <= exponent <= 6
    text = f"{rounded:,.{max(0, digits - 1 - exponent)}f}" if ordinary else f"{rounded:.{digits - 1}e}"
    return text.replace("-", "−", 1) if value < 0 else text


def fixed(value: float | None, decimals: int = 3) -> str:
    """A number with so many decimals; None is a dash.

    >>> fixed(-0.98765), fixed(None)
    ('−0.988', '–')
    """
    return "–" if value is None else f"{value:.{decimals}f}".replace("-", "−")


def signed(value: float | None, decimals: int = 3) -> str:
    """A difference with its sign, and so many decimals; None is a dash.

    >>> signed(0.0123), signed(-0.0123), signed(None)
    ('+0.012', '−0.012', '–')
    """
    return "–" if value is None else f"{value:+.{decimals}f}".replace("-", "−")


def agreement(value: float | None) -> str:
    """A correlation to three decimals; what is not quite 1 does not read as 1.

    >>> [agreement(x) for x in (None, -0.98765, 0.9997, 1)]
    ['–', '−0.988', '> 0.999', '1.000']
    """
    return "> 0.999" if value is not None and 0.9995 <= value < 1 else fixed(value)


def percent(share: float | None) -> str:
    """A share of 1, to a percent: 0 % and 100 % are said only of none and all.

    >>> [percent(share) for share in (None, 0, 0.001, 0.174, 0.999, 1)]
    ['–', '0 %', '< 1 %', '17 %', '> 99 %', '100 %']
    """
    if share is None:
        return "–"
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"], "or")
    ('a', 'a, b or c')
    """
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of a terminal: the first column to the left, the others to the right.

    >>> aligned([["loss", "AP"], ["l1", "0.5"]])
    ['loss   AP', 'l1    0.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines
