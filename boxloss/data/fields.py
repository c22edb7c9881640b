"""Values as annotation files hold them: numbers in quotation marks, ids of any type, switches of many spellings."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Sized
from typing import Any, TypeAlias

Id: TypeAlias = int | float | str
"""What a file calls an image, a category or an annotation."""

_WHOLE = re.compile(r"([+-]?\d{1,300})(?:\.0*)?", re.ASCII)
_NAMED = 3
_SHORT = reprlib.Repr()  # whose time and length are bounded, also where a value holds itself many times
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


def number(value: Any) -> float | None:
    """The number that a value plainly is, in quotation marks or not; None for anything else.

    >>> number("196.6"), number(3), number("3,5"), number(True)
    (196.6, 3.0, None, None)
    """
    if type(value) is float:  # nearly every one
        return value
    if isinstance(value, str):
        value = value.strip()
        if not value.isascii() or "_" in value:  # both of which Python's float takes
            return None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def whole(value: Any) -> int | None:
    """The whole number that a value plainly is, such as 96.0 or "96"; None for anything else."""
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) and found == int(found) else None


_SWITCH = {"0": False, "1": True, "false": False, "true": True}


def switch(value: Any) -> bool | None:
    """Yes or no, as 0, 1, true, "1", …; None for anything else.

    >>> switch("1"), switch(0.0), switch(True), switch("maybe")
    (True, False, True, None)
    """
    if isinstance(value, str):
        return _SWITCH.get(value.strip().lower())
    found = whole(int(value) if isinstance(value, bool) else value)
    return bool(found) if found in (0, 1) else None


def shown(value: Any) -> str:
    """A value as it stands in a message, cut short."""
    return _SHORT.repr(value)


def counted(things: Sized, noun: str) -> str:
    """
    >>> counted([1, 2], "box"), counted("a", "picture")
    ('2 boxes', '1 picture')
    """
    ending = "" if len(things) == 1 else "es" if noun.endswith("x") else "s"
    return f"{len(things)} {noun}{ending}"


def named(names: Iterable[str]) -> str:
    """The first of many names.

    >>> named("abcde")
    'a, b, c, …'
    """
    found = list(names)
    return ", ".join(found[:_NAMED]) + ", …" * (len(found) > _NAMED)


def is_id(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value != "")


def in_order(ids: Iterable[Id]) -> list[Id]:
    """Numbers, also those in quotation marks, by their value, then any other text.

    >>> in_order(["b", "10", 9, "a"])
    [9, '10', 'a', 'b']
    """
    return sorted(ids, key=_rank)


def _rank(value: Id) -> tuple[bool, float | int, str]:
    text = _plain(value)
    return (False, int(text), str(value)) if _WHOLE.fullmatch(text) else (True, 0, text)


def _plain(value: Id) -> str:
    """The same text for 7, 7.0, "7" and "007"."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    text = str(value).strip()
    found = _WHOLE.fullmatch(text)
    return str(int(found[1])) if found else text


class Ids:
    """Finds the records of a list by their ids.

    1, 1.0 and "1" name the same record, unless the list itself tells them apart.

    >>> ids = Ids([7, "a", "1", 1])
    >>> [ids.place(name) for name in ("7", 7.0, "a", 1, "1", 1.0, "01", 8)]
    [0, 0, 1, 3, 2, 3, None, None]
    """

    def __init__(self, ids: Iterable[Id]) -> None:
        self.own = list(ids)
        self._exact = {own: place for place, own in enumerate(self.own)}
        self._alike: dict[str, int | None] = {}
        for place, own in enumerate(self.own):
            text = _plain(own)
            self._alike[text] = None if text in self._alike else place

    def place(self, name: Id) -> int | None:
        """The place of the record with this id in the list; None if there is none, or more than one is meant."""
        found = self._exact.get(name)
        return self._alike.get(_plain(name)) if found is None else found
