"""The launch file, with recorders in place of launch and launch_ros, which have no wheels: what it hands to
them.

That launch 3.7 and launch_ros 0.28 make the command lines of these values was tried with their sources.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, List  # noqa: UP035  as launch spells it

import pytest
import yaml

from groma_ros.node.parameters import Parameters

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch" / "groma.launch.py"
NAMES = {
    "launch": ["LaunchContext", "LaunchDescription"],
    "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction"],
    "launch.substitutions": ["LaunchConfiguration"],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}
Start = Callable[..., Any]


def recorder(kind: str) -> Any:
    """A constructor that keeps what it was given."""
    return lambda *given, **named: SimpleNamespace(kind=kind, given=given, **named)


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The launch file as a module."""
    for name, classes in NAMES.items():
        module = ModuleType(name)
        vars(module).update({kind: recorder(kind) for kind in classes})
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("groma_launch", LAUNCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start(launch_file: ModuleType) -> Start:
    """The node that the launch file starts for these arguments, those not named at their defaults."""

    def node(**arguments: str) -> Any:
        *declared, action = launch_file.generate_launch_description().given[0]
        defaults = {item.given[0]: item.default_value for item in declared}
        context = SimpleNamespace(launch_configurations=defaults | arguments)
        (found,) = action.function(context)
        return found

    return node


def values(node: Any) -> dict[str, Any]:
    """The parameters of a node by value, each of a type that launch_ros takes."""
    found: dict[str, Any] = {}
    for item in node.parameters:
        if isinstance(item, dict):
            for name, value in item.items():
                (content,) = value.given
                # launch_ros compares with `is` (list[str] would be refused), and refuses empty lists.
                assert value.value_type in (bool, int, float, str, List[str])  # noqa: UP006
                assert type(content) is (list if value.value_type is List[str] else value.value_type)  # noqa: UP006
                assert content != []
                found[name] = content
    return found


def test_every_parameter_is_an_argument(launch_file: ModuleType) -> None:
    *arguments, _ = launch_file.generate_launch_description().given[0]
    described = {item.given[0]: item for item in arguments}
    assert {item.name for item in fields(Parameters)} | {"use_sim_time", "camera", "image"} <= set(described)
    assert all(item.description.endswith(".") and isinstance(item.default_value, str) for item in arguments)


def test_only_what_was_given_is_handed_on(start: Start) -> None:
    """A parent's use_sim_time, parameters and remappings would be overridden by defaults."""
    node = start()
    assert (node.package, node.executable, node.output) == ("groma_ros", "groma_node", "screen")
    assert (node.remappings, node.parameters, node.arguments, node.namespace) == ([], [], None, None)
    assert values(start(use_sim_time="true")) == {"use_sim_time": True}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("goals", "the red mug", ["the red mug"]),
        ("goals", "['the red mug', 'all the boxes']", ["the red mug", "all the boxes"]),
        ("goals", "yes", ["yes"]),
        ("goals", "[1, 2]", ["1", "2"]),
        ("goals", "mug: the red one", ["mug: the red one"]),
        ("goals", "[]", [""]),
        ("cameras", "[left, right]", ["left", "right"]),
        ("min_presence", "1", 1.0),
        ("max_rate", "1e1", 10.0),
        ("max_goals", "3", 3),
        ("carry", "false", False),
        ("autostart", "False", False),
        ("rectified", "true", "true"),
        ("model", "7", "7"),
    ],
)
def test_values_have_the_type_of_the_parameter(start: Start, name: str, text: str, value: Any) -> None:
    found = values(start(**{name: text}))
    assert found == {name: value} and type(found[name]) is type(value)


@pytest.mark.parametrize(("name", "text"), [("max_goals", "many"), ("carry", "2"), ("min_score", "high")])
def test_values_of_another_type_are_one_sentence(start: Start, name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"The argument {name}:={text} is no (int|bool|double)"):
        start(**{name: text})


def test_topics_log_level_and_a_parameter_file(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.touch()
    node = start(
        image="/cam/image_raw", params_file=str(file), log_level="debug", namespace="arm", max_goals="3"
    )
    assert node.remappings == [("image", "/cam/image_raw")] and node.namespace == "arm"
    assert node.parameters[0] == str(file) and values(node) == {"max_goals": 3}
    assert node.arguments == ["--ros-args", "--log-level", "debug"]
    assert start(**{"cameras": "[left]", "left/image": "/l/image_raw"}).remappings == [
        ("left/image", "/l/image_raw")
    ]


@pytest.mark.parametrize(
    ("camera", "image", "depth"),
    [
        ("realsense", "/camera/camera/color/image_raw", "/camera/camera/aligned_depth_to_color/image_raw"),
        ("zed", "/zed/zed_node/rgb/color/rect/image", "/zed/zed_node/depth/depth_registered"),
        ("oak", "/oak/rgb/image_raw", "/oak/stereo/image_raw"),
        ("orbbec", "/camera/color/image_raw", "/camera/depth/image_raw"),
        ("usb_cam", "/camera1/image_raw", None),
    ],
)
def test_cameras_have_the_topics_of_their_drivers(
    start: Start, camera: str, image: str, depth: str | None
) -> None:
    topics = dict(start(camera=camera).remappings)
    assert (topics["image"], topics.get("depth")) == (image, depth)
    # The camera_info lies beside the image, as image_transport expects.
    assert topics["camera_info"].rpartition("/")[0] == image.rpartition("/")[0]


def test_every_camera_file_is_tried() -> None:
    files = {path.stem for path in (ROOT / "config" / "cameras").iterdir()}
    assert files == {"realsense", "zed", "oak", "orbbec", "usb_cam"}


def test_a_topic_and_a_namespace_override_the_cameras(start: Start) -> None:
    topics = dict(start(camera="realsense", camera_namespace="/front/cam/", depth="/other/depth").remappings)
    assert topics["image"] == "/front/cam/color/image_raw" and topics["depth"] == "/other/depth"
    assert dict(start(camera="usb_cam", camera_namespace="/").remappings)["image"] == "/image_raw"


def test_a_file_of_several_cameras(start: Start, tmp_path: Path) -> None:
    content = {
        "cameras": {
            "left": {"driver": "realsense", "namespace": "/left/camera"},
            "right": {"image": "/right/image_raw"},
        },
        "parameters": {"image_transport": "compressed"},
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(content))
    node = start(camera=str(path))
    topics = dict(node.remappings)
    assert (
        topics["left/image"] == "/left/camera/color/image_raw" and topics["right/image"] == "/right/image_raw"
    )
    assert (
        topics["left/depth"] == "/left/camera/aligned_depth_to_color/image_raw"
        and "right/depth" not in topics
    )
    assert values(node) == {"cameras": ["left", "right"], "image_transport": "compressed"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is neither a file nor one of oak, orbbec, realsense, usb_cam, zed"),
        ("- image", "holds no mapping of image, depth and camera_info"),
        ("parameters: {speed: 3}", "sets speed, which is no parameter"),
        ("parameters: {max_goals: many}", "max_goals:=many is no int"),
        ("parameters: 3", "under parameters no mapping but 3"),
        ("cameras: [left, right]", r"under cameras no mapping but \['left', 'right'\]"),
        ("cameras: {left: }", "camera left, holds no mapping"),
        ("cameras: {left: {imgae: /a}}", "camera left, has the key imgae, which is none of image"),
        ("image: [a]", r"under image no text but \['a'\]"),
        ("image: {", "is no YAML file: "),
    ],
)
def test_a_wrong_camera_file_is_one_sentence(
    start: Start, tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "camera.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        start(camera=str(path))


def test_a_camera_files_parameters_are_read_as_arguments_are(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text("image: /a/image\ndepth:\nparameters: {min_presence: 1, rectified: true, goals: []}\n")
    node = start(camera=str(path))
    assert values(node) == {"min_presence": 1.0, "rectified": "true", "goals": [""]}
    assert dict(node.remappings) == {"image": "/a/image"}


def test_an_image_of_its_own_has_the_camera_info_beside_it(start: Start, tmp_path: Path) -> None:
    left = "/zed/zed_node/left/color/rect/image"
    assert "camera_info" not in dict(start(camera="zed", image=left).remappings)
    given = dict(start(camera="zed", image=left, camera_info="/info").remappings)
    assert (given["image"], given["camera_info"]) == (left, "/info")
    path = tmp_path / "one.yaml"
    path.write_text("cameras: {left: {driver: zed, image: left/image}}")
    topics = dict(start(camera=str(path)).remappings)
    assert topics["left/image"] == "/zed/zed_node/left/image" and "left/camera_info" not in topics


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"params_file": "~/nowhere.yaml"}, "params_file:=~/nowhere.yaml is no file"),
        ({"log_level": "verbose"}, "log_level:=verbose is none of debug, info, warn, error, fatal"),
        ({"log_level": "groma:=loud"}, "log_level:=groma:=loud is none of"),
    ],
)
def test_wrong_options_are_one_sentence(start: Start, arguments: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        start(**arguments)


def test_importing_it_needs_neither_the_package_nor_its_libraries(tmp_path: Path) -> None:
    """ros2 launch runs with the system's Python, where the node's environment may not be active."""
    lines = ["import importlib.util, sys, types"]
    for name, classes in NAMES.items():
        lines.append(f"sys.modules[{name!r}] = types.SimpleNamespace(**dict.fromkeys({classes!r}, object))")
    lines += [
        f"spec = importlib.util.spec_from_file_location('groma_launch', {str(LAUNCH)!r})",
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))",
        "print({'cv2', 'numpy', 'onnxruntime', 'rclpy', 'groma_ros'} & set(sys.modules))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.stdout, result.stderr) == ("set()\n", "")
