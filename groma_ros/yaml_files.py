"""Read YAML files with bounds on size, nesting and aliases.

An alias repeats a whole branch, so a few hundred bytes can expand to gigabytes (the "billion laughs" attack).
The bounds are checked on the parsed nodes, in which a branch is still shared, before anything is expanded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from groma_ros.errors import printable

MAX_BYTES = 1_000_000
"""Larger files are refused; a hundred goals take 5 kB."""
MAX_NODES = 100_000
"""Maximum number of keys and values in a file, each counted as often as aliases repeat it."""
MAX_DEPTH = 100
"""Maximum nesting of lists and mappings."""
MAX_NUMBER_LENGTH = 1000
"""Maximum number of characters of a number; the conversion of a longer one can take minutes."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS = yaml.constructor.SafeConstructor.yaml_constructors.keys() - {None}
_YAML = "tag:yaml.org,2002:"
_NUMBERS = (f"{_YAML}int", f"{_YAML}float")


class YamlError(ValueError):
    """A refused YAML file; the message is the reason, without the name of the file."""


def compose(path: Path) -> yaml.Node | None:
    """Return the root node of a file, None for an empty one. The encoding is UTF-8, or UTF-16 with a byte
    order mark.

    Raises OSError if the file cannot be read, YamlError naming the line if it is not YAML or exceeds a bound.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise YamlError(f"it has more than {MAX_BYTES} bytes, the most that are read")
    try:
        _check_depth(data)
        root = yaml.compose(data, _LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"in line {mark.line + 1}: " if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be decoded"
        raise YamlError(f"it is not YAML: {where}{printable(reason, 200)}") from error
    if root is not None:
        _count(root, {})
    return root


def load(path: Path) -> Any:
    """Return the plain values of a file, None for an empty one. Raises as `compose`."""
    root = compose(path)
    if root is None:
        return None
    constructor = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"in line {mark.line + 1}: " if mark else ""
        raise YamlError(f"{where}{printable(getattr(error, 'problem', None) or error, 200)}") from error
    except (ValueError, OverflowError) as error:  # e.g. for a date that does not exist
        raise YamlError(printable(error, 200)) from error
    except (KeyError, IndexError) as error:  # e.g. for the tag of a number on an empty text
        raise YamlError("a value does not fit its tag (!!bool, !!int or !!float)") from error


def _check_depth(data: bytes) -> None:
    """Check the nesting on the parser's events, which are produced without recursion; composing recurses, in
    C, as deep as the file says."""
    depth = 0
    for event in yaml.parse(data, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1
                raise YamlError(f"in line {line}: it is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the nodes of this branch after expansion. known: counts by id, 0 for a branch that is being
    counted, which an alias inside it would repeat forever."""
    if id(node) in known:
        if not known[id(node)]:
            raise YamlError(f"in line {node.start_mark.line + 1}: an alias repeats the branch it stands in")
        return known[id(node)]
    known[id(node)] = 0
    if node.tag not in _PLAIN_TAGS:
        tag = printable(node.tag.removeprefix(_YAML), 60)
        raise YamlError(f"in line {node.start_mark.line + 1}: the tag {tag} is not of a plain value")
    if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_LENGTH:
        raise YamlError(
            f"in line {node.start_mark.line + 1}: a number has more than {MAX_NUMBER_LENGTH} characters"
        )
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count(item, known) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(f"in line {key.start_mark.line + 1}: a key is a {key.id} and must be a text")
            total += 1 + _count(value, known)
    if total > MAX_NODES:
        raise YamlError(
            f"in line {node.start_mark.line + 1}: its aliases expand to more than {MAX_NODES} values"
        )
    known[id(node)] = total
    return total
