"""The SROS 2 policy that ships names what the node opens, no more and no less; without its keys the node ends
with a sentence."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import rclpy
from rclpy.action.graph import get_action_server_names_and_types_by_node
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from groma_ros.grounding.grounder import Grounder
from groma_ros.node.node import GromaNode
from tests.domains import reserved_domain
from tests.node.test_main import ended

POLICY = Path(__file__).parents[2] / "config" / "sros2" / "groma.policy.xml"
SETTINGS = (
    {"image_transport": "raw", "depth_transport": "raw", "target_frame": "map", "use_sim_time": "true"},
    {"image_transport": "compressed", "depth_transport": "compressedDepth"},
)
"""Together they open every topic that the node can open."""
SECONDS = 20.0


def allowed(kind: str, permission: str) -> set[str]:
    """Full names that the policy allows, without those of actions."""
    (profile,) = ET.parse(POLICY).getroot().iter("profile")
    names = [
        str(item.text)
        for group in profile.findall(f"{kind}s")
        if group.get(permission) == "ALLOW"
        for item in group.findall(kind)
    ]
    assert len(names) == len(set(names)) > 0
    return {re.sub("^~", "/groma", name) if name[0] in "~/" else f"/{name}" for name in names}


def opened(domain: int, settings: dict[str, str], grounder: Grounder) -> dict[str, set[str]]:
    """Full names of what an active node opened, by kind, without the parts of actions."""
    given = [part for name, value in settings.items() for part in ("-p", f"{name}:={value}")]
    rclpy.init(args=["--ros-args", *given], domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = GromaNode(lambda *_: grounder)
        done = TransitionCallbackReturn.SUCCESS
        assert (node.trigger_configure(), node.trigger_activate()) == (done, done)
        asked: dict[str, Callable[[Node], list[tuple[str, list[str]]]]] = {
            "publish": lambda node: node.get_publisher_names_and_types_by_node("groma", "/"),
            "subscribe": lambda node: node.get_subscriber_names_and_types_by_node("groma", "/"),
            "reply": lambda node: node.get_service_names_and_types_by_node("groma", "/"),
            "execute": lambda node: get_action_server_names_and_types_by_node(node, "groma", "/"),
        }
        found: dict[str, set[str]] = {}
        # The node's own graph may lag behind: it is taken when it has not changed for a while.
        end, same = time.monotonic() + SECONDS, 0
        while same < 10 and time.monotonic() < end:
            before, found = (
                found,
                {
                    kind: {name for name, _ in ask(node) if "/_action/" not in name}
                    for kind, ask in asked.items()
                },
            )
            same = same + 1 if found == before and all(found.values()) else 0
            time.sleep(0.05)
        assert same == 10, f"the graph did not come to rest: {found}"
        node.finish()
        node.destroy_node()
        return found
    finally:
        rclpy.shutdown()


def test_the_policy_names_what_the_node_opens(grounder: Grounder) -> None:
    # In domains of their own: the graph may still hold what a node of this name in an earlier context had.
    with reserved_domain() as first, reserved_domain() as second:
        found = [opened(*place, grounder) for place in zip((first, second), SETTINGS, strict=True)]
    for one in found:
        assert one["publish"] == allowed("topic", "publish")
        assert one["reply"] == allowed("service", "reply")
        assert one["execute"] == allowed("action", "execute") == {"/groma/ground"}
    assert found[0]["subscribe"] | found[1]["subscribe"] == allowed("topic", "subscribe")


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("", r"SROS 2 is on \(ROS_SECURITY_ENABLE\) and cannot be started: ROS_SECURITY_KEYSTORE must name"),
        ("enclaves", r"The node could not be created: .*secur"),  # an enclave without a key
    ],
)
def test_without_keys_the_node_ends_with_a_sentence(
    domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, sentence: str
) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, value in (("ENABLE", "true"), ("STRATEGY", "Enforce"), ("KEYSTORE", str(tmp_path))):
        monkeypatch.setenv(f"ROS_SECURITY_{name}", value)
    status, output = ended(domain, tmp_path / "log.txt", {})
    own = [line for line in output.splitlines() if line.startswith("groma_node: ")]
    assert status == 1 and len(own) == 1 and re.search(sentence, own[0]) and "Traceback" not in output
