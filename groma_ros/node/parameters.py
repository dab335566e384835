"""The node's parameters: one frozen dataclass from which defaults, ROS descriptors and documentation are
derived."""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from groma_ros.geometry3d.approach_pose import APPROACHES
from groma_ros.grounding.grounder import MIN_MARGIN, MIN_PRESENCE
from groma_ros.io.rectification import SETTINGS as RECTIFIED
from groma_ros.runtime.load import PRECISIONS
from groma_ros.runtime.options import BACKENDS, RuntimeOptions
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.tracking.region_tracker import RegionTrackerConfig

CAMERA = re.compile(r"/?[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")
"""A ROS namespace, relative or absolute."""
MIN_RATE = 0.001
"""Images per second: a limit below one image in a quarter of an hour is considered a mistake."""
_TRACKING, _TRACK = TrackingConfig(), RegionTrackerConfig()


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
    """Parameters of the node.

    Raises ValueError for a value out of range, a text that is not one of the choices, and for camera names
    that are not valid namespaces or are repeated.
    """

    model: str = _parameter(
        "", "Folder or name of the model bundle; empty: the shipped groma-tiny.", read_only=True
    )
    backend: str = _parameter(
        "auto",
        "Backend that runs the model; auto: tensorrt if there is a GPU and the package is installed, "
        "else onnx if the bundle has its graphs, else torch.",
        choices=BACKENDS,
        read_only=True,
    )
    device: str = _parameter(
        "auto",
        "Device the model runs on; auto: the backend's choice.",
        choices=("auto", "cpu", "cuda"),
        read_only=True,
    )
    precision: str = _parameter(
        "auto", "Precision of the model; auto: the bundle's default.", choices=PRECISIONS, read_only=True
    )
    threads: int = _parameter(
        0, "CPU threads of the model; 0: the backend's choice.", range=(0, 256), read_only=True
    )
    cameras: tuple[str, ...] = _parameter(
        (),
        "Namespaces of the cameras: [left, right] subscribes to left/image and right/image; empty: to image.",
        read_only=True,
    )
    image_transport: str = _parameter(
        "raw",
        "Camera topic to subscribe to: image (raw) or image/compressed.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    image_reliability: str = _parameter(
        "auto",
        "Reliability of the image subscription; auto: reliable while every publisher offers it, else "
        "best_effort.",
        choices=("auto", "reliable", "best_effort"),
        read_only=True,
    )
    depth_transport: str = _parameter(
        "raw",
        "Depth topic to subscribe to: depth (raw) or depth/compressedDepth.",
        choices=("raw", "compressedDepth"),
        read_only=True,
    )
    rectified: str = _parameter(
        "auto",
        "Whether images are rectified, so that P of camera_info applies instead of K; auto: by the words "
        "rect and raw in the topic name.",
        choices=RECTIFIED,
        read_only=True,
    )
    autostart: bool = _parameter(True, "Activate the node when it starts.", read_only=True)
    goals: tuple[str, ...] = _parameter(
        (), "Initial standing goals; replaced by ~/goal, ~/set_goals or by setting this parameter."
    )
    max_goals: int = _parameter(16, "Maximum number of standing goals; more are refused.", range=(1, 256))
    min_presence: float = _parameter(
        MIN_PRESENCE, "Goals with a lower presence are reported absent.", range=(0.0, 1.0)
    )
    min_margin: float = _parameter(
        MIN_MARGIN,
        "If one object is wanted and the best region's probability exceeds the next one's by less than "
        "this, the answer is ambiguous and lists the runners-up; 0: never.",
        range=(0.0, 1.0),
    )
    min_score: float = _parameter(0.0, "Boxes with a lower score are not returned.", range=(0.0, 1.0))
    max_rate: float = _parameter(
        0.0,
        "Maximum images per second processed from each camera, others are dropped; 0: no limit, "
        "otherwise at least 0.001.",
        range=(0.0, 1000.0),
    )
    answer_period: float = _parameter(
        _TRACKING.answer_period,
        "Seconds after which the language model is asked again in any case; 0: on every image for which "
        "it is idle.",
        range=(0.0, 3600.0),
    )
    answer_wait: float = _parameter(
        _TRACKING.answer_wait,
        "Seconds an image waits for its own answer, as long as answers take no longer than that.",
        range=(0.0, 60.0),
    )
    max_answer_age: float = _parameter(
        _TRACKING.max_answer_age,
        "Seconds beyond answer_period after which an answer is stale and its boxes are no longer "
        "published; 0: never.",
        range=(0.0, 86400.0),
    )
    track_min_similarity: float = _parameter(
        _TRACKING.min_similarity,
        "If the cosine similarity between a box and its track falls below this, the language model is "
        "asked again.",
        range=(0.0, 1.0),
    )
    scene_change: float = _parameter(
        _TRACKING.scene_change,
        "If the share of new regions in the image reaches this, the language model is asked again.",
        range=(0.0, 1.0),
    )
    track_max_coast: float = _parameter(
        _TRACKING.max_coast,
        "Seconds an unseen box is extrapolated by its motion; for images between perceived ones, two and "
        "a half frame intervals longer.",
        range=(0.0, 60.0),
    )
    carry: bool = _parameter(
        True,
        "Answer images that arrive too fast to be perceived by extrapolating the boxes; otherwise they "
        "are dropped.",
    )
    track_min_affinity: float = _parameter(
        _TRACK.min_affinity,
        "Mean of IoU and similarity above which a region is matched to a track.",
        range=(0.0, 1.0),
    )
    track_max_distance: float = _parameter(
        _TRACK.max_distance,
        "Maximum distance, in box diagonals, between a track's predicted position and a region that does "
        "not overlap it.",
        range=(0.0, 10.0),
    )
    track_max_age: float = _parameter(
        _TRACK.max_age, "Seconds a track is kept, with its id, without being seen.", range=(0.0, 600.0)
    )
    track_max_gap: float = _parameter(
        _TRACK.max_gap,
        "Gap between two stamps in seconds, forwards or backwards, after which all tracks are new; "
        "forwards at least two and a half times the previous interval.",
        range=(0.0, 3600.0),
    )
    track_velocity_momentum: float = _parameter(
        _TRACK.velocity_momentum,
        "Share of a track's previous velocity that remains after a tenth of a second.",
        range=(0.0, 1.0),
    )
    track_embedding_momentum: float = _parameter(
        _TRACK.embedding_momentum,
        "Share of a track's previous embedding that remains at each observation.",
        range=(0.0, 1.0),
    )
    sync_tolerance: float = _parameter(
        0.02,
        "Maximum difference in seconds between the stamps of depth or camera_info and the image; equal "
        "stamps are preferred.",
        range=(0.0, 10.0),
    )
    depth_wait: float = _parameter(
        0.05, "Seconds that the 3D answers of an image wait for its depth.", range=(0.0, 10.0)
    )
    target_frame: str = _parameter(
        "",
        "Frame of ~/target_pose, e.g. map or base_link, looked up in /tf and /tf_static; empty: the "
        "camera's frame.",
    )
    target_approach: str = _parameter(
        "above",
        "Approach direction of ~/target_pose: above for a hand (z down into the object, x along its "
        "shorter side), front for a base (z up, x from the camera towards the object).",
        choices=APPROACHES,
    )
    target_standoff: float = _parameter(
        0.0,
        "Distance in metres of ~/target_pose from the object's centre, back along the approach direction.",
        range=(-10.0, 10.0),
    )
    ask_timeout: float = _parameter(
        60.0, "Seconds of the node's clock after which a question of ~/ask fails.", range=(0.1, 3600.0)
    )
    max_timeout: float = _parameter(
        3600.0,
        "Maximum timeout of a goal of ~/ground in seconds; longer ones are refused.",
        range=(1.0, 86400.0),
    )
    max_asks: int = _parameter(
        64,
        "Maximum number of open questions of ~/ask and goals of ~/ground; more are refused.",
        range=(1, 1024),
    )
    max_sessions: int = _parameter(
        8,
        "Maximum number of stored conversations of ~/ask; the least recently used is dropped.",
        range=(1, 256),
    )
    class_id: str = _parameter(
        "text",
        "Class of the boxes: text, the goal as it was set, or index, the number of the goal that "
        "~/label_info has for it.",
        choices=("text", "index"),
    )
    debug_image: bool = _parameter(True, "Publish ~/debug/image while it has a subscriber.")

    def __post_init__(self) -> None:
        for item in fields(self):
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices and value not in choices:
                raise ValueError(
                    f"The parameter {item.name} is {value!r}; it must be one of {', '.join(choices)}."
                )
            if item.metadata["range"]:
                low, high = item.metadata["range"]
                if not low <= value <= high:
                    raise ValueError(
                        f"The parameter {item.name} is {value}; it must be between {low} and {high}."
                    )
        if 0 < self.max_rate < MIN_RATE:
            raise ValueError(
                f"The parameter max_rate is {self.max_rate}; it must be 0 (no limit) or between "
                f"{MIN_RATE} and 1000.0."
            )
        for name in self.cameras:
            if not CAMERA.fullmatch(name):
                raise ValueError(
                    f"The parameter cameras holds {name!r}, which is no namespace; use letters, digits, _ "
                    "and / between them."
                )
        if len({name.strip("/") for name in self.cameras}) != len(self.cameras):
            raise ValueError("The parameter cameras names a camera twice.")

    @property
    def numbered(self) -> bool:
        """Whether the class of a box is the number of its goal."""
        return self.class_id == "index"

    @property
    def runtime_options(self) -> RuntimeOptions:
        """The runtime options."""
        return RuntimeOptions(
            backend=self.backend,
            device=None if self.device == "auto" else self.device,
            precision=self.precision,
            threads=self.threads or None,
        )

    @property
    def tracking(self) -> TrackingConfig:
        """The config of the tracker."""
        tracks = RegionTrackerConfig(
            self.track_min_affinity,
            self.track_max_distance,
            self.track_max_age,
            self.track_max_gap,
            self.track_velocity_momentum,
            self.track_embedding_momentum,
        )
        return TrackingConfig(
            self.answer_period,
            self.answer_wait,
            self.track_min_similarity,
            self.scene_change,
            self.track_max_coast,
            self.max_answer_age,
            tracks,
        )


NAMES = tuple(item.name for item in fields(Parameters))
_DEFAULTS = {item.name: item.default for item in fields(Parameters)}
_TYPES = {bool: "bool", int: "int", float: "double", str: "string", tuple: "string_array"}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def declare(node: Node) -> Parameters:
    """Declare all parameters on the node and return their initial values.

    Raises ValueError for a value of the wrong type, out of range or not among the choices; rclpy's
    InvalidParameterValueException where rclpy checks the range first.
    """
    for item in fields(Parameters):
        node.declare_parameter(item.name, _to_ros(item.default), _descriptor(item.name, item.metadata))
    return with_values(Parameters(), [node.get_parameter(name) for name in NAMES])


def with_values(parameters: Parameters, changes: Sequence[Parameter]) -> Parameters:
    """Return the parameters with the given changes; names that are not ours (use_sim_time, QoS) are ignored.

    Raises ValueError for a value of the wrong type, out of range or not among the choices.
    """
    return replace(
        parameters,
        **{change.name: _from_ros(change.name, change.value) for change in changes if change.name in NAMES},
    )


def check_none_deleted(changes: Sequence[Parameter]) -> None:
    """Raise ValueError for a change that deletes a parameter of the node: it could not be set again."""
    for change in changes:
        if change.name in NAMES and change.type_ == Parameter.Type.NOT_SET:
            empty = "[]" if isinstance(_DEFAULTS[change.name], tuple) else repr(_DEFAULTS[change.name])
            raise ValueError(f"The parameter {change.name} cannot be deleted; set it to {empty} instead.")


def table() -> str:
    """Render the parameters as a Markdown table, the content of docs/parameters.md; a test compares them."""
    rows = ["| parameter | type | default | range | description |", "|---|---|---|---|---|"]
    for item in fields(Parameters):
        kind = (
            "string array"
            if isinstance(item.default, tuple)
            else type(item.default).__name__.replace("str", "string")
        )
        note = " Read-only." if item.metadata["read_only"] else ""
        default = (
            str(item.default).lower()
            if isinstance(item.default, bool)
            else repr(_to_ros(item.default)).replace("'", '"')
        )
        default = "[]" if item.default == () else default
        rows.append(
            f"| `{item.name}` | {kind} | `{default}` | {_range_text(item.metadata)} | "
            f"{item.metadata['description']}{note} |"
        )
    return "\n".join(rows) + "\n"


def schema() -> str:
    """Describe the parameters in the format of generate_parameter_library, the content of
    config/parameters.yaml."""
    lines = [
        "# Written by python -m groma_ros.node.parameters --yaml, for the launch file and for editors.",
        "groma:",
    ]
    for item in fields(Parameters):
        default = [] if item.default == () else item.default
        lines += [
            f"  {item.name}:",
            f"    type: {_TYPES[type(item.default)]}",
            f"    default_value: {json.dumps(default)}",
            f"    description: {json.dumps(item.metadata['description'], ensure_ascii=False)}",
        ]
        if item.metadata["read_only"]:
            lines.append("    read_only: true")
        if item.metadata["range"]:
            lines.append("    validation: {{bounds<>: [{}, {}]}}".format(*item.metadata["range"]))
        if item.metadata["choices"]:
            lines.append(f"    validation: {{one_of<>: [{json.dumps(list(item.metadata['choices']))}]}}")
    return "\n".join(lines) + "\n"


def _range_text(metadata: Any) -> str:
    if metadata["range"]:
        return "{} to {}".format(*metadata["range"])
    return ", ".join(f"`{choice}`" for choice in metadata["choices"])


def _descriptor(name: str, metadata: Any) -> ParameterDescriptor:
    constraints = f"One of: {', '.join(metadata['choices'])}." if metadata["choices"] else ""
    descriptor = ParameterDescriptor(
        name=name,
        description=metadata["description"],
        read_only=metadata["read_only"],
        additional_constraints=constraints,
        # Static typing would reject 1 for a float and cannot infer the type of []; `_from_ros` checks types
        # instead.
        dynamic_typing=True,
    )
    if metadata["range"]:
        low, high = metadata["range"]
        if isinstance(low, int):
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


def _to_ros(value: Any) -> Any:
    """Declare an empty list as [""], because ROS cannot infer the type of an empty array."""
    return (list(value) or [""]) if isinstance(value, tuple) else value


def _from_ros(name: str, value: Any) -> Any:
    """Convert a value to the type of its field: [] of any type is an empty list, 1 is accepted as a float,
    and true and false as texts if they are among the choices."""
    default = _DEFAULTS[name]
    if isinstance(default, tuple):
        if value is None or (
            isinstance(value, (Sequence, array)) and not isinstance(value, str) and not len(value)
        ):
            return ()
        if isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value):
            return tuple(text for text in value if text.strip())
        raise ValueError(
            f"The parameter {name} is {value!r}; it must be a list of texts, e.g. ['the red mug']."
        )
    if isinstance(default, float) and type(value) is int and abs(value) < 2**63:
        return float(value)
    if isinstance(default, str) and isinstance(value, bool):
        return str(value).lower()
    if type(value) is not type(default):
        raise ValueError(f"The parameter {name} is {value!r}; it must be {_KINDS[type(default)]}.")
    return value


if __name__ == "__main__":
    print(schema() if "--yaml" in sys.argv else table(), end="")
