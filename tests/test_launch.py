"""The launch file, with recorders in place of launch and launch_ros, which have no wheels: what it hands to
them."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, List  # noqa: UP035  as launch spells it

import pytest
import yaml

from groma_ros.node.parameters import Parameters

LAUNCH = Path(__file__).resolve().parents[1] / "launch" / "groma.launch.py"
NAMES = {
    "launch": ["LaunchDescription"],
    "launch.actions": ["DeclareLaunchArgument"],
    "launch.substitutions": ["LaunchConfiguration"],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
}


def recorder(kind: str) -> Any:
    """A constructor that keeps what it was given."""
    return lambda *given, **named: SimpleNamespace(kind=kind, given=given, **named)


@pytest.fixture
def entities(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the launch description holds: the arguments, then the node."""
    for name, classes in NAMES.items():
        module = ModuleType(name)
        vars(module).update({kind: recorder(kind) for kind in classes})
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("groma_launch", LAUNCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.generate_launch_description().given[0])


def test_every_parameter_is_an_argument_with_its_default_and_its_type(entities: list[Any]) -> None:
    *arguments, node = entities
    given = {argument.given[0]: argument for argument in arguments}
    (parameters,) = node.parameters
    assert all(
        argument.description.endswith(".") and isinstance(argument.default_value, str)
        for argument in arguments
    )
    for item in fields(Parameters):
        default = item.default if item.default != () else [""]
        text, value = given[item.name].default_value, parameters[item.name]
        assert (text if isinstance(default, str) else yaml.safe_load(text)) == default
        assert value.given[0].given == (item.name,)
        # launch compares with `is`: list[str] would be refused when the node starts.
        assert value.value_type is (List[str] if isinstance(default, list) else type(default))  # noqa: UP006
    assert parameters["use_sim_time"].value_type is bool and given["use_sim_time"].default_value == "false"


def test_the_camera_is_remapped(entities: list[Any]) -> None:
    *arguments, node = entities
    assert (node.package, node.executable) == ("groma_ros", "groma_node")
    names = {topic: substitution.given[0] for topic, substitution in node.remappings}
    same = {"image": "image", "depth": "depth", "camera_info": "camera_info"}
    assert names == {**same, "image/compressed": "image_compressed"}
    assert set(names.values()) <= {argument.given[0] for argument in arguments}
