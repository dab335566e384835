"""Frames of a camera, a video, a folder of pictures or a bag, without ROS."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from groma_ros.errors import printable
from groma_ros.grounding.grounder import check_image
from groma_ros.io.bag_files import storage_suffix
from groma_ros.io.bag_topics import find_camera, find_depth
from groma_ros.io.bags import Bag, RecordedCamera, open_bag, recorded_images
from groma_ros.io.images import ImageError
from groma_ros.io.picture_files import find_pictures, read_picture
from groma_ros.replay.depth import DepthReader
from groma_ros.types import Frame

NANOSECONDS = 1_000_000_000
PICTURE_SECONDS = 1.0
"""Time for which each picture of a folder is shown at speed 1."""
VIDEO_RATE = 30.0
"""Frames per second of a video that does not state its rate."""
CAMERA_TRIES = 50
"""Consecutive failed reads after which a camera counts as gone."""

_OPENCV_SILENT, _FFMPEG_QUIET = 0, "-8"
"""Log levels of the two libraries (LOG_LEVEL_SILENT, AV_LOG_QUIET)."""


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """One frame of a source, or one that could not be read."""

    frame: Frame | None
    """None if it could not be read."""
    seconds: float
    """Time since the source's first frame at speed 1."""
    refusal: str = ""
    """Why it could not be read, a sentence."""


class Source(Protocol):
    """Frames in sequence."""

    name: str
    """Display name."""
    recorded: bool
    """Whether it has an end and can be read again; a camera does not."""
    moving: bool
    """Whether consecutive frames show the same scene a moment later."""

    def frames(self) -> Iterator[SourceFrame]:
        """Yield all frames from the start. Raises ValueError or OSError with a sentence if the source
        fails."""

    def close(self) -> None:
        """Release the source."""


def open_source(text: str, topic: str | None = None) -> Source:
    """Open a camera by its number, a video, a picture, a folder of pictures or a bag.

    topic: camera of a bag, None for its only one. Raises ValueError with a sentence if there is no such
    source.
    """
    if text.isascii() and text.isdigit():
        return CameraSource(int(text))
    path = Path(text)
    if not path.exists():
        raise ValueError(
            f"The source {printable(text)} does not exist; name a camera's number, a video, a folder of "
            "pictures, a bag, or ros for a running node."
        )
    if storage_suffix(path) or (path.is_dir() and _is_bag(path)):
        return BagSource(path, topic)
    if path.is_dir() or path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
        return PictureSource(path)
    return VideoSource(path)


def _is_bag(folder: Path) -> bool:
    return (folder / "metadata.yaml").exists() or any(storage_suffix(path) for path in folder.iterdir())


class CameraSource:
    """A camera of this machine, by its number."""

    recorded, moving = False, True

    def __init__(self, number: int) -> None:
        """Raises ValueError if it cannot be opened."""
        self.name = f"camera {number}"
        self._number = number
        with _silent_opencv():
            self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise ValueError(
                f"The camera {number} cannot be opened: it is absent, in use, or this user may not read "
                f"/dev/video{number}; `v4l2-ctl --list-devices` lists the cameras."
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def frames(self) -> Iterator[SourceFrame]:
        """Yield frames as they arrive. Raises OSError if the camera stops."""
        start, failed = time.monotonic(), 0
        while True:
            done, bgr = self._capture.read()
            failed = 0 if done else failed + 1
            if failed > CAMERA_TRIES:
                raise OSError(f"The camera {self._number} gives no images any more; is it still plugged in?")
            if not done:
                time.sleep(0.02)
                continue
            yield SourceFrame(
                Frame(_rgb(bgr), time.time_ns(), f"camera_{self._number}"), time.monotonic() - start
            )

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


class VideoSource:
    """A video file; stamps count from its start."""

    recorded, moving = True, True

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that OpenCV cannot decode."""
        self.name, self._path = path.name, path
        capture = self._open()
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self._rate = rate if 0 < rate <= 1000 else VIDEO_RATE
        capture.release()

    def frames(self) -> Iterator[SourceFrame]:
        """Yield all frames of the video."""
        capture = self._open()
        try:
            number = 0
            while True:
                done, bgr = capture.read()
                if not done:
                    return
                seconds = number / self._rate
                yield SourceFrame(Frame(_rgb(bgr), round(seconds * NANOSECONDS), self.name), seconds)
                number += 1
        finally:
            capture.release()

    def close(self) -> None:
        """Nothing is open between two readings."""

    def _open(self) -> cv2.VideoCapture:
        with _silent_opencv():
            capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise ValueError(
                f"{self._path} is neither a bag nor a video that OpenCV can decode; convert it with "
                "ffmpeg -i IN -c:v libx264 OUT.mp4."
            )
        return capture


class PictureSource:
    """One picture or the pictures of a folder, sorted by name; stamps count from the first."""

    recorded, moving = True, False

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a folder without pictures, and for a single picture that cannot be used."""
        self.name = path.name or str(path)
        self._names = find_pictures([str(path)])
        if not path.is_dir():
            try:
                check_image(read_picture(str(path))[0])
            except (ValueError, OSError) as error:
                raise ValueError(_reason(str(path), error)) from error

    def frames(self) -> Iterator[SourceFrame]:
        """Yield all pictures; unreadable ones as refused frames."""
        for number, name in enumerate(self._names):
            seconds = number * PICTURE_SECONDS
            try:
                rgb, _ = read_picture(name)
            except (ValueError, OSError) as error:
                yield SourceFrame(None, seconds, _reason(name, error))
                continue
            yield SourceFrame(Frame(rgb, round(seconds * NANOSECONDS), Path(name).name), seconds)

    def close(self) -> None:
        """Nothing is open between two pictures."""


class BagSource:
    """Camera of a bag, with depth if the bag has it."""

    recorded, moving = True, True

    def __init__(self, path: Path, topic: str | None) -> None:
        """Raises ValueError for a bag that cannot be read or has no such camera."""
        self.name, self._path, self._topic = path.name, path, topic
        with open_bag(path, allow_loss=True) as bag:
            find_camera(bag, topic)

    def frames(self) -> Iterator[SourceFrame]:
        """Yield all images; unreadable ones as refused frames, and those with unreadable depth without it."""
        with ExitStack() as stack:
            bag = stack.enter_context(open_bag(self._path, allow_loss=True))
            camera = find_camera(bag, self._topic)
            yield from self._images(bag, camera, *find_depth(bag, camera))

    def _images(self, bag: Bag, camera: RecordedCamera, topics: Any, _: str) -> Iterator[SourceFrame]:
        reader = DepthReader(bag, topics, camera.topic) if topics is not None else None
        first: int | None = None
        for image in recorded_images(bag, camera):
            first = image.time if first is None else first
            seconds = (image.time - first) / NANOSECONDS
            frame = image.frame
            if frame is not None and reader is not None:
                try:
                    frame = reader.complete(frame, image.time)
                except ImageError:
                    frame = image.frame  # without depth it is shown in 2D
            yield SourceFrame(frame, seconds, image.refusal)

    def close(self) -> None:
        """Nothing is open between two readings."""


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Silence the logs of OpenCV and of its FFmpeg inside the block: our own errors say what failed."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    logging = getattr(getattr(cv2, "utils", None), "logging", cv2)
    set_level = getattr(logging, "setLogLevel", None)  # absent from some builds
    before = set_level(_OPENCV_SILENT) if set_level is not None else None
    try:
        yield
    finally:
        if set_level is not None:
            set_level(before)


def _reason(name: str, error: ValueError | OSError) -> str:
    """Return why a picture cannot be used, a sentence."""
    return f"{name}: {error.strerror}." if isinstance(error, OSError) else f"{name}: {error}"


def _rgb(bgr: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
