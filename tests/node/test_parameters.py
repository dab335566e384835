"""The one list of parameters: what ROS is told, what is refused, and what the documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from groma_ros.node.parameters import (
    NAMES,
    Parameters,
    check_none_deleted,
    declare,
    schema,
    table,
    with_values,
)
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.tracking.region_tracker import RegionTrackerConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def context(domain: int) -> Iterator[Context]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    yield context
    context.shutdown()


def started(context: Context, **overrides: Any) -> tuple[Node, Parameters]:
    given = [Parameter(name, value=value) for name, value in overrides.items()]
    node = Node("parameters", context=context, parameter_overrides=given)
    return node, declare(node)


def test_defaults_and_overrides(context: Context) -> None:
    assert started(context)[1] == Parameters()
    node, parameters = started(
        context, goals=["the cup", "", " "], min_score=0.25, max_goals=3, image_transport="compressed"
    )
    assert parameters == Parameters(
        goals=("the cup",), min_score=0.25, max_goals=3, image_transport="compressed"
    )
    assert {name for name in NAMES if not node.has_parameter(name)} == set()


@pytest.mark.parametrize(
    ("name", "value"), [("min_presence", 1.01), ("min_score", -0.1), ("max_goals", 0), ("max_goals", 257)]
)
def test_values_outside_their_range_are_refused(context: Context, name: str, value: float) -> None:
    with pytest.raises(InvalidParameterValueException):
        started(context, **{name: value})


def test_texts_that_are_no_choice_are_refused(context: Context) -> None:
    with pytest.raises(ValueError, match="image_transport is 'theora'; it must be one of raw, compressed"):
        started(context, image_transport="theora")


def test_ros_is_told_description_range_and_what_is_read_only(context: Context) -> None:
    node, _ = started(context)
    descriptors = {name: node.describe_parameter(name) for name in NAMES}
    assert all(item.description.endswith(".") for item in descriptors.values())
    read_only = {
        "model",
        "backend",
        "device",
        "precision",
        "threads",
        "cameras",
        "image_transport",
        "image_reliability",
        "depth_transport",
        "rectified",
        "autostart",
    }
    assert {name for name, item in descriptors.items() if item.read_only} == read_only
    ranges = descriptors["min_presence"].floating_point_range
    assert [(item.from_value, item.to_value) for item in ranges] == [(0.0, 1.0)]
    assert [(item.from_value, item.to_value) for item in descriptors["max_goals"].integer_range] == [(1, 256)]
    refused = node.set_parameters([Parameter("min_score", value=2.0), Parameter("model", value="other")])
    assert [item.successful for item in refused] == [False, False]


@pytest.mark.parametrize(
    ("cameras", "sentence"),
    [(["a b"], "holds 'a b', which is no namespace"), (["left", "/left"], "a camera twice")],
)
def test_cameras_are_namespaces(context: Context, cameras: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        started(context, cameras=cameras)


def test_the_rules_of_following_are_parameters_of_the_same_defaults() -> None:
    assert Parameters().tracking == TrackingConfig()
    changed = Parameters(
        answer_period=2.0, track_min_similarity=0.3, track_min_affinity=0.2, track_embedding_momentum=0.5
    ).tracking
    assert changed == TrackingConfig(
        answer_period=2.0,
        min_similarity=0.3,
        tracks=RegionTrackerConfig(min_affinity=0.2, embedding_momentum=0.5),
    )
    with pytest.raises(ValueError, match=r"track_min_affinity is 1.5; it must be between 0.0 and 1.0"):
        Parameters(track_min_affinity=1.5)


def test_changes_leave_other_names_alone() -> None:
    changes = [
        Parameter("min_score", value=0.5),
        Parameter("use_sim_time", value=True),
        Parameter("goals", value=[""]),
    ]
    assert with_values(Parameters(goals=("a",)), changes) == Parameters(min_score=0.5)


def test_the_documentation_is_the_table() -> None:
    assert table() in (ROOT / "docs" / "parameters.md").read_text(), (
        "write it anew: python -m groma_ros.node.parameters"
    )


def test_the_schema_is_written_anew() -> None:
    text = (ROOT / "config" / "parameters.yaml").read_text()
    assert text == schema(), "python -m groma_ros.node.parameters --yaml > config/parameters.yaml"
    assert set(yaml.safe_load(text)["groma"]) == set(NAMES)


@pytest.mark.parametrize("value", [[], [""], ["", " "]])
def test_an_empty_list_is_none(context: Context, value: list[str]) -> None:
    """ROS hands [] of a file over without a type, and of a service as an array of whatever type."""
    given = [Parameter("goals", Parameter.Type.NOT_SET) if not value else Parameter("goals", value=value)]
    node = Node("parameters", context=context, parameter_overrides=given)
    assert declare(node).goals == ()
    for kind in (Parameter.Type.BOOL_ARRAY, Parameter.Type.BYTE_ARRAY, Parameter.Type.DOUBLE_ARRAY):
        (result,) = node.set_parameters([Parameter("goals", kind, [])])
        assert result.successful
        assert with_values(Parameters(goals=("a",)), [node.get_parameter("goals")]).goals == ()


def test_whole_numbers_are_numbers_and_truth_values_choices(context: Context) -> None:
    _, parameters = started(context, min_presence=1, rectified=True)
    assert parameters == Parameters(min_presence=1.0, rectified="true")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("min_presence", "high", "min_presence is 'high'; it must be a number"),
        ("min_presence", True, "min_presence is True; it must be a number"),
        ("max_goals", 2.5, "max_goals is 2.5; it must be a whole number"),
        ("carry", 1, "carry is 1; it must be true or false"),
        ("model", 7, "model is 7; it must be a text"),
        ("goals", "the mug", "goals is 'the mug'; it must be a list of texts"),
        ("goals", [1, 2], "it must be a list of texts"),
        ("rectified", False, ""),
        ("max_rate", 1e-310, r"max_rate is 1e-310; it must be 0 \(no limit\) or between 0.001 and 1000.0"),
        ("max_rate", float("nan"), "max_rate"),
        ("track_max_distance", float("inf"), "track_max_distance"),
        ("answer_wait", 10**400, "answer_wait"),
    ],
)
def test_values_of_another_type_and_values_that_overflow_are_refused(
    name: str, value: Any, sentence: str
) -> None:
    change: Any = SimpleNamespace(name=name, value=value)
    if not sentence:
        assert with_values(Parameters(), [change]).rectified == "false"
        return
    with pytest.raises(ValueError, match=sentence):
        with_values(Parameters(), [change])


def test_the_shipped_file_names_parameters_that_exist() -> None:
    values = yaml.safe_load((ROOT / "config" / "groma.yaml").read_text())["/**"]["ros__parameters"]
    given = [Parameter(name, value=value) for name, value in values.items()]
    assert set(values) <= set(NAMES)
    assert with_values(Parameters(), given) == Parameters(goals=("the red mug", "all the boxes"))


def test_no_parameter_of_the_node_is_deleted() -> None:
    check_none_deleted([Parameter("qos_overrides.x"), Parameter("goals", value=[])])
    with pytest.raises(ValueError, match=r"The parameter goals cannot be deleted; set it to \[\] instead."):
        check_none_deleted([Parameter("goals")])
    with pytest.raises(ValueError, match="max_goals cannot be deleted; set it to"):
        check_none_deleted([Parameter("max_goals")])
