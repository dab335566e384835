"""Read the parts of a training config from the values of a YAML file, with a sentence for each wrong key or
value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

from groma_ros.coco_files import MAX_NUMBER, is_number
from groma_ros.errors import printable, quoted
from groma_ros.network_config import GromaConfig
from groma_ros.simulation import other_worlds
from groma_ros.simulation.goal_generator import GOAL_TYPES
from groma_ros.simulation.more_goals import MORE_TYPES
from groma_ros.simulation.worlds import MIXED, WORLDS
from groma_ros.training.data_files import KINDS

Kind = TypeVar("Kind")

QUESTION_KINDS = tuple(dict.fromkeys((*KINDS, *GOAL_TYPES, *MORE_TYPES, "describe", "caption")))
"""Kinds of questions that a stage may have a share of: those of files, those of rendered scenes, and
descriptions."""
LEAST = {"batch": 1, "workers": 1, "share": 1}
"""Smallest whole number of a key; of others it is 0."""
OF_SCENES = {"scenes": 1, "size": 32}
"""The same in an entry of `pool`, `earlier` or `held_out`."""
FRACTIONS = frozenset({"cut", "recoloured", "relit", "reworded", "said"})
"""Numbers that are shares of pictures or goals, from 0 to 1; other numbers are from 0."""


def mapping(place: str, value: Any, known: Collection[str]) -> dict[str, Any]:
    """Return a mapping that has known keys only. place: its key in errors, empty for the whole file. Raises
    ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'it'} is {quoted(value)}; it must be a mapping from settings to values")
    if unknown := [key for key in value if key not in known]:
        said = f"unknown key {quoted(unknown[0])}; known are {', '.join(sorted(known))}"
        raise ValueError(f"{place}: {said}" if place else said)
    return value


def read_part(kind: type[Kind], place: str, value: Any, least: Mapping[str, int] = LEAST) -> Kind:
    """Build a dataclass from a mapping.

    place: its key in errors; least: the smallest whole numbers by key. Raises ValueError naming the place,
    the key and what must be there.
    """
    items = _fields(kind)
    given = mapping(place, value, items)
    for name, item in items.items():
        if name in given:
            _check(f"{place}: {name}", item, given[name], least.get(name, 0))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{place} has no {name}; add it")
    return kind(**given)


def _fields(kind: type) -> dict[str, Field[Any]]:
    return {item.name: item for item in fields(kind)}


def _check(place: str, item: Field[Any], value: Any, least: int) -> None:
    """Raise ValueError for a value of another type than its field's, or out of bounds."""
    name = str(item.type)
    if item.name == "world":
        one_of(place, value, (MIXED, *WORLDS, *other_worlds.WORLDS))
    elif name == "int":
        whole(place, value, least)
    elif name == "float":
        number(place, value, 1.0 if item.name in FRACTIONS else MAX_NUMBER)
    elif name == "bool" and not isinstance(value, bool):
        raise ValueError(f"{place} is {quoted(value)}; it must be true or false")
    elif name == "dict[str, float]":
        shares(place, value, QUESTION_KINDS)


def whole(place: str, value: Any, least: int) -> int:
    """Return a whole number of at least `least`. place: its key in errors. Raises ValueError."""
    if type(value) is not int or not least <= value <= MAX_NUMBER:
        raise ValueError(f"{place} is {quoted(value)}; it must be a whole number from {least}")
    return value


def number(place: str, value: Any, most: float = MAX_NUMBER) -> float:
    """Return a number from 0 to `most`. place: its key in errors. Raises ValueError."""
    if is_number(value) and 0 <= value <= most:
        return float(value)
    bounds = "from 0" if most == MAX_NUMBER else f"from 0 to {most:g}"
    hint = "; YAML reads 1e-3 as a text, so write 0.001 or 1.0e-3" if isinstance(value, str) else ""
    raise ValueError(f"{place} is {quoted(value)}; it must be a number {bounds}{hint}")


def one_of(place: str, value: Any, known: Collection[str]) -> str:
    """Return a name that is one of the known ones. place: its key in errors. Raises ValueError."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{place} is {quoted(value)}; it must be one of {', '.join(known)}")
    return value


def shares(place: str, value: Any, known: Collection[str]) -> dict[str, float]:
    """Return numbers from 0 by known names. place: their key in errors. Raises ValueError."""
    return {name: number(f"{place}: {name}", share) for name, share in mapping(place, value, known).items()}


def network(value: Any) -> GromaConfig:
    """Return the network of the section `network`. Raises ValueError for a key that no part of a network has,
    and as `GromaConfig.from_dict`."""
    _check_keys("network", value, GromaConfig().to_dict())
    try:
        return GromaConfig.from_dict(value)
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"network: {printable(error, 200)}") from error


def _check_keys(place: str, value: Any, known: Mapping[str, Any]) -> None:
    """Raise ValueError for a key that is not known, also in nested mappings."""
    given = mapping(place, value, known)
    for name, part in known.items():
        if isinstance(part, dict) and name in given:
            _check_keys(f"{place}: {name}", given[name], part)
