"""GromaClient against a real node over DDS: goals, latest answers, one search, questions, refusals."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.client import GromaClient
from groma_ros.client.demo.processes import dds_environment
from groma_ros.client.groma_client import RestDetector
from groma_ros.grounding.grounder import Grounder
from groma_ros.types import Goal
from tests.domains import own_domain
from tests.node.robot import Robot, start_node
from tests.pictures import read_rgb

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "engines" / "groma-tiny"
GOALS = ["the red mug", "the purple cone"]
DOMAIN = own_domain()

os.environ.update(dds_environment())


@pytest.fixture(scope="module")
def rgb() -> NDArray[Any]:
    return read_rgb(ROOT / "demo" / "frame.png")


@pytest.fixture(scope="module")
def client(rgb: NDArray[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GromaClient]:
    """A client of a node whose camera shows one picture five times a second."""
    log, stop = tmp_path_factory.mktemp("client") / "node.log", threading.Event()
    with ExitStack() as stack:
        start_node(stack, DOMAIN, log, {"model": TINY, "backend": "onnx", "threads": 1})
        robot = stack.enter_context(Robot(DOMAIN))

        def show() -> None:
            while not stop.wait(0.2):
                robot.images.publish(robot.image(rgb))

        client = stack.enter_context(GromaClient(domain_id=DOMAIN))
        client.wait_until_active(300.0)
        camera = threading.Thread(target=show)
        camera.start()
        try:
            yield client
        finally:
            stop.set()
            camera.join()


def test_standing_goals_are_answered(client: GromaClient, rgb: NDArray[Any]) -> None:
    version = client.set_goals(GOALS)
    answers = client.wait_for_answers(goals_version=version, timeout=90.0)
    end = time.monotonic() + 90
    # A busy machine answers later, and on an image that has passed.
    undecided = ("pending", "stale")
    while any(item.status in undecided for item in answers.groundings) and time.monotonic() < end:
        answers = client.wait_for_answers(answers.stamp, version, timeout=90.0)
    wanted = Grounder.load(TINY, backend="onnx", threads=1).ground(rgb, GOALS)
    assert [item.goal.text for item in answers.groundings] == GOALS and answers.frame_id == "camera"
    for found, expected in zip(answers.groundings, wanted, strict=True):
        assert found.present == pytest.approx(expected.present, abs=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    latest = client.latest()
    assert latest is not None and latest.stamp >= answers.stamp
    assert client.diagnostics["backend"] == "onnx"


def test_a_client_that_only_listens_keeps_no_search_alive(client: GromaClient) -> None:
    """The node considers every subscriber of the feedback a possible client of a search."""
    answers, feedback = "/groma/groundings", "/groma/ground/_action/feedback"
    before = client.node.count_subscribers(answers), client.node.count_subscribers(feedback)
    with GromaClient(domain_id=DOMAIN) as other:
        client.until(lambda: client.node.count_subscribers(answers) > before[0], 60.0, "Not discovered")
        assert before[1] == client.node.count_subscribers(feedback) == 1
        other.wait_until_active(60.0)
        client.until(lambda: client.node.count_subscribers(feedback) == 2, 60.0, "Not discovered")


def test_one_goal_is_found(client: GromaClient) -> None:
    client.find("the red mug", timeout=30.0)
    result = client.result(90.0)
    assert client.is_done() and result.success
    assert result.message == "An image came without camera_info, so no 3D positions are available."
    assert len(result.grounding.detections) == 1 and result.target_pose is None
    # Also where the last feedback arrived after the result, so that rclpy dropped it.
    client._feedback = ("looking", None)
    stage, answer = client.feedback()
    assert stage == "answered" and answer is not None and len(answer.detections) == 1


class _Preempted:
    """rclpy's handle of an action client whose thread loses the processor after each request it sends."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._handle, name)
        if not name.startswith("send_"):
            return method

        def send(request: Any) -> Any:
            number = method(request)
            time.sleep(0.5)
            return number

        return send

    def __enter__(self) -> Any:
        return self._handle.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._handle.__exit__(*error)


def test_a_response_that_comes_before_the_request_is_noted_counts(
    client: GromaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = client._ground
    monkeypatch.setattr(ground, "_client_handle", _Preempted(ground._client_handle))
    client.find("the red mug", timeout=30.0, patience=20.0)
    assert client.result(20.0).success


def test_an_absent_goal_is_not_found(client: GromaClient) -> None:
    client.find("the purple cone", timeout=0.0)
    result = client.result(90.0)
    assert not result.success and "'the purple cone' is absent" in result.message


def test_a_search_can_be_cancelled(client: GromaClient) -> None:
    client.find("the purple cone", timeout=60.0)
    assert not client.is_done()
    client.cancel()
    assert not client.result(90.0).success


def test_a_region_is_described(client: GromaClient) -> None:
    client.find("the red mug", timeout=30.0)
    box = client.result(90.0).grounding.boxes[0]
    reply = client.ask(regions=[box])
    assert "red" in reply.text and "mug" in reply.text and reply.frame_id == "camera"


def test_refusals_are_sentences(client: GromaClient) -> None:
    with pytest.raises(ValueError, match="The node refused the goals: .*empty"):
        client.set_goals([Goal("  ")])
    with pytest.raises(ValueError, match="refused the question"):
        client.ask(regions=[(5.0, 5.0, 5.0, 9.0)])


def test_no_node_is_a_sentence() -> None:
    with (
        GromaClient("nobody", domain_id=DOMAIN) as lonely,
        pytest.raises(TimeoutError, match="No node /nobody was found within 1 s"),
    ):
        lonely.wait_until_active(1.0)


def test_a_node_that_reports_late_is_waited_for() -> None:
    """However long the same report is the latest, images may have been sent after it."""

    def report(**counts: int) -> dict[str, str]:
        keys = ("received", "answered", "carried", "dropped", "skipped")
        return {key: str(counts.get(key, 0)) for key in (*keys, "refused images")}

    rest, first = RestDetector(), report(received=3, answered=2, dropped=1)
    assert not any(rest.reached(first, 2, 10) for _ in range(100))
    assert not rest.reached(first, 2, 12) and rest.reached(first, 2, 13)
    assert not rest.reached(report(received=4, answered=2, dropped=1), 2, 14), "one is in progress"
    second = report(received=4, answered=2, carried=1, dropped=1)
    assert not rest.reached(second, 2, 20), "an answer is on its way"
    assert not rest.reached(second, 3, 20) and not rest.reached(second, 3, 22) and rest.reached(second, 3, 23)
