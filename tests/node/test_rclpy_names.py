"""No name of the node may be one of rclpy's own, in any supported distribution: it would replace a part of
rclpy."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from rclpy.lifecycle import LifecycleNode

from groma_ros.node import node as node_module

NAMES = json.loads((Path(__file__).parents[1] / "data" / "rclpy" / "names.json").read_text())
DISTRIBUTIONS = ("humble", "jazzy", "kilted", "lyrical", "rolling")
CALLBACKS = {f"on_{name}" for name in ("configure", "activate", "deactivate", "cleanup", "shutdown", "error")}
"""Meant to be overridden."""


def own_names() -> set[str]:
    """Methods, class attributes and attributes of self that the class GromaNode defines."""
    tree = ast.parse(Path(str(node_module.__file__)).read_text())
    (definition,) = (
        item for item in ast.walk(tree) if isinstance(item, ast.ClassDef) and item.name == "GromaNode"
    )
    names = {
        item.name for item in definition.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    names |= {
        item.attr
        for item in ast.walk(definition)
        if isinstance(item, ast.Attribute)
        and isinstance(item.ctx, ast.Store)
        and ast.unparse(item.value) == "self"
    }
    return {name for name in names if not (name.startswith("__") and name.endswith("__"))}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_no_name_is_one_of_rclpys(distribution: str) -> None:
    theirs = {*NAMES["common"], *NAMES[distribution]}
    assert len(theirs) > 100 and {"destroy_node", "_services", "_state_machine"} <= theirs
    assert own_names() & theirs == CALLBACKS


def test_no_name_is_one_of_the_installed_rclpys() -> None:
    ours = own_names()
    assert len(ours) > 20
    assert {name for name in ours if hasattr(LifecycleNode, name)} == CALLBACKS


def test_the_list_of_humble_has_the_name_that_once_collided() -> None:
    assert "_set_parameters" in NAMES["humble"]
