"""Configurations: frozen dataclasses, read from YAML and the command line, written as YAML."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import nearest
from .extras import needs
from .files import read_yaml, replacing

Config = TypeVar("Config")


def config_parser(kind: type[Any], **kwargs: Any) -> Any:
    """jsonargparse's parser of a configuration: YAML by ``--config``, and an option for every field."""
    with needs("study", "a configuration"):
        from jsonargparse import ArgumentParser
    parser = ArgumentParser(allow_abbrev=False, **kwargs)
    parser.add_argument("--config", action="config", help="YAML; options after it take precedence")
    parser.add_class_arguments(kind, as_group=False)
    return parser


def read_config(path: Path, kind: type[Config]) -> Config:
    """A configuration from YAML.

    Raises:
        ValueError: an unknown field, or a value that it cannot have.
    """
    check_file(path, kind)
    parser = config_parser(kind, exit_on_error=False)
    try:
        return parsed_config(parser, parser.parse_args(["--config", str(path)]), kind)
    except Exception as error:  # jsonargparse's own, or argparse's
        raise ValueError(f"{path}: {error}") from error


def config_from(values: dict[str, Any], kind: type[Config]) -> Config:
    """A configuration from plain values, as they stand in YAML.

    Raises:
        ValueError: an unknown field, or a value that it cannot have.
    """
    check_fields(values, kind)
    parser = config_parser(kind, exit_on_error=False)
    try:
        return parsed_config(parser, parser.parse_object(plain(values)), kind)
    except Exception as error:  # jsonargparse's own, or argparse's
        raise ValueError(str(error)) from error


def parsed_config(parser: Any, parsed: Any, kind: type[Config]) -> Config:
    try:
        made = parser.instantiate(parsed)
    except TypeError as error:  # a group that is a number
        raise ValueError(f"expected fields such as loss: ciou, and groups of them ({error})") from error
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: getattr(made, name) for name in names})


def check_file(path: Path, kind: type[Any]) -> None:
    """Find in a YAML file what the parser passes over or words badly; it checks the values.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not YAML, or not of this kind.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a configuration, YAML. A data set goes behind --data")
    values = read_yaml(path, "configuration")
    try:
        check_fields(values, kind)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_fields(values: Any, kind: type[Any], where: str = "") -> None:
    """See that plain values are those of a dataclass: a mapping of its fields, null only where that means something."""
    types = get_type_hints(kind)
    if not isinstance(values, dict):
        known = ", ".join(types)
        raise ValueError(f"{where + ': ' if where else ''}expected some of the fields {known}; got {values!r}")
    for key, value in values.items():
        name = f"{where}.{key}" if where else str(key)
        if key not in types:
            raise ValueError(f"{name}: no such field; {nearest(str(key), types) or 'known: ' + ', '.join(types)}")
        options = _options(types[key])
        if value is None and type(None) not in options:
            raise ValueError(f"{name}: expected a value, got null; leave it out for the default")
        items = [(f"{name}[{k}]", v) for k, v in enumerate(value)] if isinstance(value, list) else [(name, value)]
        for inner in options:
            if isinstance(inner, type) and is_dataclass(inner):
                for item_name, item in items:
                    if not (isinstance(item, str) and str in options):
                        check_fields(item, inner, item_name)


def _options(annotation: Any) -> list[Any]:
    """The types that a value, or an item of a list, may have."""
    if get_origin(annotation) in (list, Union, UnionType):
        return [option for argument in get_args(annotation) for option in _options(argument)]
    return [annotation]


def write_config(path: Path, config: Any) -> None:
    """A dataclass as YAML.

    Raises:
        ValueError: it holds text that YAML cannot, such as a path whose bytes are not UTF-8.
    """
    import yaml

    values = as_values(config)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    try:
        json.dumps(values, ensure_ascii=False).encode()  # YAML writes lone surrogates, and cannot read them
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{path}: a configuration cannot hold text that is not Unicode, such as a path whose bytes are not UTF-8;"
            f" rename it ({error})"
        ) from None
    with replacing(path) as file:
        file.write(text.encode())


def as_values(config: Any) -> dict[str, Any]:
    """A dataclass as plain values, without the fields that it names as ``unused``, such as ``train.network``."""
    found: dict[str, Any] = plain(asdict(config))
    for name in getattr(config, "unused", ()):
        *groups, field = name.split(".")
        inner = found
        for group in groups:
            inner = inner[group]
        del inner[field]
    return found


def plain(value: Any) -> Any:
    """YAML's safe form has no tuples."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
