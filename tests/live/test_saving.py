"""Frames and bags that the page keeps."""

from __future__ import annotations

import errno
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groma_ros.io.bag_topics import find_camera
from groma_ros.io.bags import open_bag, recorded_images
from groma_ros.io.message_definitions import typestore
from groma_ros.live.engine import Shown
from groma_ros.live.saving import Recorder
from groma_ros.live.sources import open_source
from groma_ros.replay.recording import RecordingWriter
from groma_ros.types import Detection, Frame, Goal, Grounding
from tests.live.conftest import BAG, PICTURE, Serve
from tests.pictures import read_picture

MUG = "the red mug"


def recorded_more_than(number: int, state: dict[str, Any]) -> bool:
    return bool(state["recording"]["frames"] > number)


def test_a_frame_is_saved_with_its_answers(serve: Serve) -> None:
    with serve(PICTURE, MUG).page() as page:
        state = page.until(lambda state: state["goals"][0]["status"] == "present")
        files = [Path(name) for name in page.do("save", frame=state["frame"]["number"])["files"]]
    assert [path.suffix for path in files] == [".png", ".json", ".jpg"]
    np.testing.assert_array_equal(read_picture(files[0]), read_picture(PICTURE))
    (answer,) = json.loads(files[1].read_text())["groundings"]
    assert answer["goal"] == MUG
    np.testing.assert_allclose(
        answer["detections"][0]["box"], state["goals"][0]["detections"][0]["box"], atol=0.1
    )


def test_a_bag_is_recorded_that_replays(serve: Serve) -> None:
    with serve(BAG, MUG).page() as page:
        page.until(lambda state: state["goals"][0]["status"] == "present")
        path = Path(page.do("record", on=True)["file"])
        assert "runs already" in page.do("record", on=True)["error"]
        page.until(lambda state: state["recording"]["frames"] >= 3)
        page.goals(MUG, "the blue ball")
        page.until(lambda state: all(goal["status"] == "present" for goal in state["goals"]))
        stopped = page.do("record", on=False)
        assert stopped["file"] == str(path) and stopped["frames"] >= 3
        assert page.next()["recording"]["path"] == ""
    with open_bag(path) as bag:
        images = list(recorded_images(bag, find_camera(bag)))
        assert len(images) == stopped["frames"] == bag.count("/groma/groundings")
        assert all(image.frame is not None for image in images)
        assert np.all(np.diff([image.stamp for image in images]) > 0)
        store, kind = typestore(), "groma_ros/msg/GroundingArray"
        answers: list[Any] = [
            store.deserialize_cdr(item.data, kind) for item in bag.messages("/groma/groundings")
        ]
        assert [item.goal for item in answers[0].groundings] == [MUG]
        assert [item.goal for item in answers[-1].groundings] == [MUG, "the blue ball"]
        assert len(answers[0].groundings[0].detections) == 1
        assert bag.count("/groma/label_info") == 2  # once for each set of goals


def test_the_depth_of_a_bag_is_in_the_recording(serve: Serve) -> None:
    """What is recorded places its objects where the source does."""
    with serve(BAG, MUG).page() as page:
        page.until(lambda state: state["goals"][0]["status"] == "present")
        page.do("pause")
        page.do("record", on=True)
        for number in range(1, 4):  # in steps, so that no frame is left out
            page.do("step")
            page.until(partial(recorded_more_than, number))
        path = Path(page.do("record", on=False)["file"])
    kept, known = (
        {item.frame.stamp: item.frame for item in open_source(str(bag)).frames() if item.frame is not None}
        for bag in (path, BAG)
    )
    assert len(kept) == 4 and any(frame.depth is not None for frame in kept.values())
    for stamp, frame in kept.items():
        wanted = known[stamp]
        # The bag has depth for every other image.
        assert (frame.depth is None) == (wanted.depth is None) and frame.intrinsics == wanted.intrinsics
        if frame.depth is None or wanted.depth is None:
            continue
        np.testing.assert_allclose(frame.depth, wanted.depth, atol=0.00051)  # whole millimetres


def test_runner_ups_and_old_answers_are_in_the_recording(tmp_path: Path) -> None:
    def detection(left: float, score: float) -> Detection:
        return Detection((left, 10, left + 20, 40), score, 0)

    answers = (
        Grounding(
            Goal(MUG), (detection(5, 0.6),), 0.9, 0.1, status="ambiguous", alternatives=(detection(50, 0.5),)
        ),
        Grounding(Goal("the cup"), (), 0.0, 0.0, status="stale"),
        Grounding(Goal("a cone"), (), 0.1, 0.0, status="absent"),
    )
    recorder = Recorder(tmp_path, "a model")
    path = recorder.start()
    recorder.add(Shown(1, Frame(np.zeros((60, 80, 3), np.uint8), 1_000_000_000), answers, answered=7))
    recorder.stop()
    store, kind = typestore(), "groma_ros/msg/GroundingArray"
    with open_bag(path) as bag:
        message: Any
        (message,) = [store.deserialize_cdr(item.data, kind) for item in bag.messages("/groma/groundings")]
    mug, cup, cone = message.groundings
    assert [item.status for item in message.groundings] == [mug.AMBIGUOUS, mug.STALE, mug.ABSENT]
    (other,) = mug.alternatives
    assert (other.bbox.center.position.x, other.bbox.size_x) == (60, 20)
    assert other.results[0].hypothesis.score == pytest.approx(0.5)
    assert not (cup.alternatives or cone.alternatives or cup.detections)


def test_a_recording_goes_on_without_a_page(serve: Serve) -> None:
    serving = serve(BAG, MUG)
    with serving.page() as page:
        page.do("record", on=True)
        before = page.until(lambda state: state["recording"]["frames"])["recording"]["frames"]
    with serving.page() as page:
        page.until(lambda state: state["recording"]["frames"] > before)
        page.do("record", on=False)


def test_an_out_folder_that_cannot_be_written_is_a_sentence(serve: Serve, tmp_path: Path) -> None:
    serving = serve(PICTURE, MUG)
    (tmp_path / "out").write_text("a file")
    with serving.page() as page:
        state = page.until(lambda state: state["goals"][0]["status"] == "present")
        for action, values in (("save", {}), ("record", {"on": True}), ("label", {"goal": MUG})):
            answer = page.do(action, frame=state["frame"]["number"], **values)
            assert str(tmp_path / "out") in answer["error"], action
        assert page.next()["labels"]["frames"] == 0


def test_a_full_disk_ends_the_recording_and_nothing_else(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serve(BAG, MUG).page() as page:
        page.until(lambda state: state["frame"])
        path = Path(page.do("record", on=True)["file"])
        monkeypatch.setattr(RecordingWriter, "add", full)
        monkeypatch.setattr(RecordingWriter, "finish", full)
        state = page.until(lambda state: "The recording ended" in state["source"]["problem"])
        number = state["frame"]["number"]
        after = page.until(lambda state: state["frame"]["number"] > number)
        assert after["recording"]["path"] == ""
    assert list(path.parent.iterdir()) == []
