"""Sources without ROS: their frames, and the errors for invalid ones."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.live.sources import BagSource, CameraSource, PictureSource, VideoSource, open_source
from tests.live.conftest import BAG, PICTURE, ROOT

ONE_PIXEL = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()


def test_a_bag_gives_its_camera_with_depth() -> None:
    source = open_source(str(BAG))
    assert isinstance(source, BagSource) and source.recorded and source.moving
    first, second = islice(source.frames(), 2)
    assert first.frame is not None and second.frame is not None
    assert first.seconds == 0 and 0 < second.seconds < 1 and second.frame.stamp > first.frame.stamp
    assert any(item.frame is not None and item.frame.depth is not None for item in islice(source.frames(), 6))


def test_a_folder_gives_its_pictures_and_refuses_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(PICTURE.read_bytes())
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not taken")
    source = open_source(str(tmp_path))
    assert isinstance(source, PictureSource) and not source.moving
    broken, good = source.frames()
    assert broken.frame is None and "a.jpg" in broken.refusal and broken.refusal.endswith(".")
    assert good.frame is not None and good.frame.rgb.shape == (480, 640, 3) and good.seconds == 1.0


def test_a_video_gives_its_frames_at_its_rate(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    assert writer.isOpened()
    for _ in range(4):
        writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    source = open_source(str(path))
    assert isinstance(source, VideoSource)
    for _ in range(2):  # it can be read again
        frames = list(source.frames())
        assert [item.seconds for item in frames] == pytest.approx([0, 0.2, 0.4, 0.6])
        stamps = [item.frame.stamp / 1e9 for item in frames if item.frame]
        assert stamps == pytest.approx([0, 0.2, 0.4, 0.6])
        assert frames[0].frame is not None and frames[0].frame.rgb[24, 32, 0] > 200


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("nothing.mp4", None, "does not exist; name a camera's number, a video, a folder"),
        ("text.mp4", b"no video", "neither a bag nor a video"),
        ("broken.mcap", b"no bag", "broken.mcap"),
        ("empty", "folder", "holds no pictures"),
        ("broken.png", b"no picture", r"broken\.png: The compressed image .* is neither a JPEG nor a PNG"),
        ("none.jpg", b"", r"none\.jpg: The compressed image is empty"),
        ("dot.png", ONE_PIXEL, r"dot\.png: The image of 1x1 pixels is too small"),
    ],
)
def test_what_is_no_source_is_a_sentence(
    name: str, content: bytes | str | None, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        open_source(str(path))


class Camera:
    """A camera of three frames that then fails, in place of OpenCV's: machines of tests have none."""

    opened: ClassVar[list[int]] = []

    def __init__(self, number: int) -> None:
        self.opened.append(number)
        self.reads = 0

    def read(self) -> tuple[bool, NDArray[Any]]:
        self.reads += 1
        # One image of a camera may be lost.
        return self.reads != 2 and self.reads <= 4, np.full((48, 64, 3), (0, 0, 255), np.uint8)

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> None:
        assert (key, value) == (cv2.CAP_PROP_BUFFERSIZE, 1)

    def release(self) -> None:
        self.opened.clear()


def test_a_camera_gives_its_frames_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    source = open_source("3")
    assert isinstance(source, CameraSource) and not source.recorded and source.moving
    assert Camera.opened == [3] and source.name == "camera 3"
    frames, before = source.frames(), time.time_ns()
    for _ in range(3):
        item = next(frames)
        assert item.frame is not None and item.frame.frame_id == "camera_3"
        assert item.frame.rgb[24, 32].tolist() == [255, 0, 0]
        assert before < item.frame.stamp <= time.time_ns() and item.seconds >= 0
        before = item.frame.stamp
    with pytest.raises(OSError, match="The camera 3 gives no images any more; is it still plugged in"):
        next(frames)
    source.close()
    assert Camera.opened == []


def test_a_camera_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="The camera 97 cannot be opened"):
        open_source("97")


def test_opencv_logs_nothing_before_the_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"no video")
    before = cv2.utils.logging.getLogLevel()
    for source in ("97", str(path)):
        with pytest.raises(ValueError, match="can"):
            open_source(source)
    assert capfd.readouterr() == ("", "")
    assert cv2.utils.logging.getLogLevel() == before


def test_ffmpeg_logs_nothing_before_the_sentence(tmp_path: Path) -> None:
    """In a process of its own: the level is read once."""
    path = tmp_path / "headless.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x08free")
    code = f"from groma_ros.live.sources import open_source; open_source({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1 and done.stderr.startswith("Traceback"), done.stderr
    assert "neither a bag nor a video" in done.stderr.splitlines()[-1]
