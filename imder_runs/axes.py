"""Axes of a sweep: settings under model, train and sampler, of which a list stands for one cell for each value."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import reduce
from itertools import product
from operator import getitem
from typing import Any, get_origin, get_type_hints

from imder_lib.config import ModelConfig, TrainConfig
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import unknown
from imder_lib.settings import check_value

KINDS = {"model": ModelConfig, "train": TrainConfig, "sampler": Sampler}
# Fields that other keys of the grid, the data or the recoverer set.
SET_ELSEWHERE = {"model.widths", "model.recoverer", "model.rules", "model.sampler", "model.fusion.outputs",
                 "train.seed", "train.recipe"}  # fmt: skip


def axes(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, list]:
    """The values of each setting, by names such as "train.fusion.lr".

    Raises:
        UserError: a key that is no field, or a value of another type than the field's.
    """
    return dict(pair for group, given in settings.items() for pair in _axes(group, KINDS[group], given))


def _axes(name: str, kind: type, given: Mapping[str, Any]) -> Iterator[tuple[str, list]]:
    kinds = {k: v for k, v in get_type_hints(kind).items() if f"{name}.{k}" not in SET_ELSEWHERE}
    for key, value in given.items():
        if key not in kinds:
            raise unknown(f"{name}: unknown setting", key, kinds)
        if is_dataclass(kinds[key]):
            check_value(f"{name}: {key}", value, Mapping)
            yield from _axes(f"{name}.{key}", kinds[key], value)
            continue
        values = value if isinstance(value, list) else [value]
        if get_origin(kinds[key]) is tuple and not any(isinstance(v, list) for v in values):
            values = [value]  # one list: the axis of such a field is a list of lists
        for v in values:
            check_value(f"{name}: {key}", v, kinds[key])
        yield f"{name}.{key}", values


def combinations(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, dict[str, Any]]]:
    """The settings of each combination, with one value in place of each list."""
    found = axes(settings)
    for each in product(*found.values()):
        out: dict[str, dict] = {group: {} for group in settings}
        for name, value in zip(found, each, strict=True):
            *parts, key = name.split(".")
            reduce(lambda table, part: table.setdefault(part, {}), parts, out)[key] = value
        yield out


def varied(settings: Mapping[str, Mapping[str, Any]], one: Mapping[str, Mapping[str, Any]]) -> str:
    """What tells one combination from the others, such as "fusion.lr0.001-steps3"."""
    paths = [name.split(".") for name, values in axes(settings).items() if len(values) > 1]
    return "-".join(".".join(path[1:]) + str(reduce(getitem, path, one)) for path in paths)
