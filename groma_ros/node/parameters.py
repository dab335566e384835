"""The node's parameters: one frozen dataclass that is the list, the defaults, the ROS descriptors and the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from groma_ros.grounding.grounder import MIN_PRESENCE
from groma_ros.runtime.load import BACKENDS


def _parameter(
    default: Any,
    description: str,
    *,
    range: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    metadata = {"description": description, "range": range, "choices": choices, "read_only": read_only}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """What the node can be told. Raises ValueError for a text that is not one of a parameter's choices."""

    model: str = _parameter("", "Folder of the model bundle; empty takes the groma-tiny that ships.", read_only=True)
    backend: str = _parameter(
        "auto", "What runs the model; auto takes onnx where the bundle holds its graphs, else torch.", choices=BACKENDS, read_only=True
    )
    goals: tuple[str, ...] = _parameter((), "Goals that stand at the start; ~/goal or setting this replaces them.")
    image_transport: str = _parameter(
        "raw", "Which camera topic is read: image (raw) or image/compressed.", choices=("raw", "compressed"), read_only=True
    )
    autostart: bool = _parameter(True, "Go to active without being told to.", read_only=True)
    min_presence: float = _parameter(MIN_PRESENCE, "Goals less likely than this to be in the image are reported absent.", range=(0.0, 1.0))
    min_score: float = _parameter(0.0, "Boxes with a lower score are not returned.", range=(0.0, 1.0))
    max_goals: int = _parameter(16, "More standing goals than this are refused.", range=(1, 256))
    debug_image: bool = _parameter(True, "Draw ~/debug/image while somebody listens to it.")

    def __post_init__(self) -> None:
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices and value not in choices:
                raise ValueError(f"The parameter {item.name} is {value!r}; it must be one of {', '.join(choices)}.")


NAMES = tuple(item.name for item in fields(Parameters))


def declare(node: Node) -> Parameters:
    """Declare every parameter on the node and return the values it was started with.

    Raises rclpy's InvalidParameterValueException or InvalidParameterTypeException for a value outside its range or of another
    type, and ValueError for one that is not among its choices.
    """
    for item in fields(Parameters):
        node.declare_parameter(item.name, _to_ros(item.default), _descriptor(item.name, item.metadata))
    return with_values(Parameters(), [node.get_parameter(name) for name in NAMES])


def with_values(parameters: Parameters, changes: Sequence[Parameter]) -> Parameters:
    """The parameters with the changes that concern them; other names (use_sim_time, QoS) are left to rclpy."""
    return replace(parameters, **{change.name: _from_ros(change.value) for change in changes if change.name in NAMES})


def table() -> str:
    """The parameters as a table in Markdown: docs/parameters.md is this, and a test holds it to it."""
    rows = ["| parameter | type | default | range | description |", "|---|---|---|---|---|"]
    for item in fields(Parameters):
        kind = "string array" if isinstance(item.default, tuple) else type(item.default).__name__.replace("str", "string")
        note = " Read-only." if item.metadata["read_only"] else ""
        default = str(item.default).lower() if isinstance(item.default, bool) else repr(_to_ros(item.default)).replace("'", '"')
        default = "[]" if item.default == () else default
        rows.append(f"| `{item.name}` | {kind} | `{default}` | {_range_text(item.metadata)} | {item.metadata['description']}{note} |")
    return "\n".join(rows) + "\n"


def _range_text(metadata: Any) -> str:
    if metadata["range"]:
        return "{} to {}".format(*metadata["range"])
    return ", ".join(f"`{choice}`" for choice in metadata["choices"])


def _descriptor(name: str, metadata: Any) -> ParameterDescriptor:
    constraints = f"One of: {', '.join(metadata['choices'])}." if metadata["choices"] else ""
    descriptor = ParameterDescriptor(
        name=name, description=metadata["description"], read_only=metadata["read_only"], additional_constraints=constraints
    )
    if metadata["range"]:
        low, high = metadata["range"]
        if isinstance(low, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


def _to_ros(value: Any) -> Any:
    """ROS cannot tell the type of an empty array, so an empty list of goals is declared as one empty text."""
    return (list(value) or [""]) if isinstance(value, tuple) else value


def _from_ros(value: Any) -> Any:
    return tuple(text for text in value if text.strip()) if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    print(table(), end="")
