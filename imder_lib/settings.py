"""Checks of settings: values, dataclasses of values, and a copy of one with other values."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from imder_lib.errors import UserError, unknown

KINDS = {int: (Integral, "a whole number"), float: (Real, "a number"), bool: (bool, "true or false"),
         str: (str, "a text"), list: (list, "a list"), tuple: ((tuple, list), "a list"),
         dict: (dict, "a table of settings"), Mapping: (Mapping, "a table of settings")}  # fmt: skip
Config = TypeVar("Config")


def plain(value: Any) -> Any:
    """The value with NumPy's numbers as Python's, also in tables and lists: files can hold these alone."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def check_value(name: str, value: Any, kind: Any) -> Any:
    """The plain value; a UserError unless it has the type of its field's annotation ``kind``."""
    value = plain(value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{name} must be one of {get_args(kind)}, got {value!r}")
        return value
    allowed, text = KINDS.get(get_origin(kind) or kind, (kind, f"a {getattr(kind, '__name__', kind)}"))
    if not isinstance(value, allowed) or isinstance(value, bool) is not (kind is bool):
        raise UserError(f"{name} must be {text}, got {value!r}")
    return value


def whole_number(name: str, value: object, least: int = 1) -> int:
    """A whole number of any kind, such as 2.0, as an int; a UserError for other values."""
    if isinstance(value, bool) or not isinstance(value, Real) or value != value // 1 or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def changed(config: Config, **changes: Any) -> Config:
    """A copy with other values. A mapping changes fields of a part: ``changed(train, seed=2, fusion={"epochs": 3})``.

    Raises:
        UserError: a field that does not exist, or a value that it cannot have.
    """
    known, new = [f.name for f in fields(config)], {}
    for name, value in changes.items():
        if name not in known:
            raise unknown(f"{type(config).__name__} has no field", name, known)
        old = getattr(config, name)
        if is_dataclass(old) and isinstance(value, Mapping):
            value = changed(old, **value)
        new[name] = tuple(value) if isinstance(old, tuple) and isinstance(value, list) else value
    return replace(config, **new)


class Settings:
    """Base of the configurations: a value of another type than its field's is a UserError."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, check_value(name, getattr(self, name), kind))
