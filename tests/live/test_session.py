"""What the session reports to its engine: whether anybody watches, and whether frames need depth."""

from __future__ import annotations

import errno
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from groma_ros.io.bags import open_bag
from groma_ros.live.engine import EngineState, Shown
from groma_ros.live.session import LiveSession
from groma_ros.replay.recording import RecordingWriter
from groma_ros.types import Box3D, Frame, Intrinsics
from tests.live.stand_in import StandInEngine

SHOWN = Shown(1, Frame(np.zeros((48, 64, 3), np.uint8), 1_000_000_000, "camera"), ())
PAGE = "a page"


class Listener:
    """A page; counts its notifications."""

    def __init__(self) -> None:
        self.heard = 0

    def __call__(self) -> None:
        self.heard += 1


def following(shown: Shown) -> Shown:
    """The frame after it."""
    return replace(
        shown, number=shown.number + 1, frame=replace(shown.frame, stamp=shown.frame.stamp + 100_000_000)
    )


@pytest.fixture
def engine() -> StandInEngine:
    return StandInEngine()


@pytest.fixture
def session(engine: StandInEngine, tmp_path: Path) -> LiveSession:
    session = LiveSession(engine, tmp_path)
    session.start()
    return session


def told(engine: StandInEngine) -> tuple[bool, bool]:
    return engine.watched, engine.depth_wanted


def test_depth_is_wanted_while_a_page_shows_the_3d_view(session: LiveSession, engine: StandInEngine) -> None:
    one, two = Listener(), Listener()
    session.add_page(one)
    assert told(engine) == (True, False)
    session.add_page(two)
    session.set_space_view(one, True)
    session.set_space_view(two, True)
    session.set_space_view(two, True)
    assert told(engine) == (True, True)
    session.set_space_view(one, False)
    assert told(engine) == (True, True), "the other page shows it still"
    session.remove_page(two)  # without a word about its view
    assert told(engine) == (True, False)
    session.set_space_view(one, True)
    session.remove_page(one)
    assert told(engine) == (False, False)
    engine.show(SHOWN)
    assert one.heard == two.heard == 0


def test_a_recording_wants_depth_and_is_watched_until_it_is_stopped(
    session: LiveSession, engine: StandInEngine
) -> None:
    page = Listener()
    session.add_page(page)
    path = Path(session.do(PAGE, {"do": "record", "on": True})["file"])
    assert told(engine) == (True, True)
    with pytest.raises(ValueError, match="A recording runs already"):
        session.do(PAGE, {"do": "record", "on": True})
    session.remove_page(page)
    assert told(engine) == (True, True), "a recording goes on without a page"
    engine.show(SHOWN)
    assert session.do(PAGE, {"do": "record", "on": False}) == {"file": str(path), "frames": 1}
    assert told(engine) == (False, False)
    with open_bag(path) as bag:
        assert bag.count("/camera/image/compressed") == 1


def test_a_full_disk_lets_the_source_rest(
    session: LiveSession, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = session.do(PAGE, {"do": "record", "on": True})["file"]
    assert told(engine) == (True, True)
    monkeypatch.setattr(RecordingWriter, "add", full)
    monkeypatch.setattr(RecordingWriter, "finish", full)
    engine.show(SHOWN)
    assert told(engine) == (False, False)
    state = session.state(session.newest)
    assert state["source"]["problem"] == (
        f"The recording ended, and nothing of it is kept: {path} could not be written: the disk is full; "
        "free some space and run it again."
    )
    assert state["recording"] == {"path": "", "frames": 0} and list((tmp_path / "bags").iterdir()) == []


def test_frames_that_can_have_depth_offer_the_3d_view(session: LiveSession, engine: StandInEngine) -> None:
    def offered(shown: Shown) -> bool:
        return bool(session.state(shown)["frame"]["depth"])

    deep = replace(
        SHOWN.frame, depth=np.ones((48, 64), np.float32), intrinsics=Intrinsics(50, 50, 32, 24, 64, 48)
    )
    box = Box3D((0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0), (0.1, 0.1, 0.1))
    assert not offered(SHOWN) and not offered(replace(SHOWN, places=()))
    assert offered(replace(SHOWN, frame=deep)) and offered(replace(SHOWN, places=((0, box),)))
    engine.state = EngineState(depth_published=True)
    assert offered(SHOWN)


def test_the_rate_is_that_of_the_frames_and_falls_when_they_stay_away(
    session: LiveSession, engine: StandInEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = SHOWN
    assert session.state(shown)["rate"] == 0
    for _ in range(30):
        now += 0.1
        shown = following(shown)
        engine.show(shown)
        if shown.number > 2:
            assert session.state(shown)["rate"] == 10.0
    now += 0.1
    assert session.state(shown)["rate"] == 10.0
    now += 1.9  # 19 frames in the 1.9 s before, none since
    assert session.state(shown)["rate"] == 5.0


def test_the_last_frames_can_be_acted_on_and_earlier_ones_have_passed(
    session: LiveSession, engine: StandInEngine
) -> None:
    shown = SHOWN
    for _ in range(9):
        engine.show(shown)
        shown = following(shown)
    assert len(session.do(PAGE, {"do": "save", "frame": 2})["files"]) == 3
    with pytest.raises(ValueError, match="That frame has passed; hold the picture first"):
        session.do(PAGE, {"do": "save", "frame": 1})
