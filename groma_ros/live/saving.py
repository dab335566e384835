"""Save single frames with their answers, and bags."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import cv2

from groma_ros.atomic_write import naming_file, replacing, write_file
from groma_ros.live.engine import Shown
from groma_ros.live.labels import QUALITY, jpeg
from groma_ros.replay.recording import CameraTopics, RecordingWriter
from groma_ros.replay.records import FrameRecord, goal_record
from groma_ros.visualization import draw_groundings

TOPICS = CameraTopics("/camera/image/compressed", "/camera/depth/compressedDepth", "/camera/camera_info")
MAX_FRAMES = 100_000
"""Maximum number of frames of one recording; later ones are skipped."""


def save_frame(folder: Path, shown: Shown) -> list[Path]:
    """Write a frame as three files and return them: the picture, its answers in the form of `groma ground
    --json`, and the picture with boxes."""
    stem = folder / "frames" / f"{shown.frame.stamp:019d}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "stamp": shown.frame.stamp,
        "frame_id": shown.frame.frame_id,
        "answered": shown.answered,
        "groundings": [item.to_dict() for item in shown.groundings],
    }
    drawn = draw_groundings(shown.frame.rgb, shown.groundings)
    contents = {
        stem.with_suffix(".png"): _png(shown),
        stem.with_suffix(".json"): json.dumps(document, ensure_ascii=False, indent=1).encode(),
        stem.with_name(f"{stem.name}-boxes.jpg"): jpeg(drawn, QUALITY),
    }
    for path, data in contents.items():
        write_file(path, data)
    return list(contents)


class Recorder:
    """Records the shown frames with their answers as a bag, from `start` to `stop`."""

    def __init__(self, folder: Path, model: str) -> None:
        """model: its name, which the bag contains."""
        self._folder, self._model = folder, model
        self._lock = threading.Lock()
        self._writer: RecordingWriter | None = None
        self._stack = ExitStack()
        self._goals: tuple[str, ...] | None = None
        self._last = -1
        self.path: Path | None = None
        """The bag being written; None if nothing is being recorded."""
        self.frames = 0
        """Number of frames in that bag."""

    def start(self) -> Path:
        """Start a bag, which appears under its name when it is complete. Raises ValueError if one is being
        recorded."""
        with self._lock:
            if self._writer is not None:
                raise ValueError("A recording runs already; stop it first.")
            folder = self._folder / "bags"
            folder.mkdir(parents=True, exist_ok=True)
            name = time.strftime("%Y-%m-%d-%H-%M-%S")
            taken = sum(path.name.startswith(name) for path in folder.iterdir())
            path = folder / (f"{name}-{taken}.mcap" if taken else f"{name}.mcap")
            stream = self._stack.enter_context(replacing(path))
            self._writer = RecordingWriter(stream, camera=TOPICS)
            self._goals, self._last, self.frames, self.path = None, -1, 0, path
            return path

    def add(self, shown: Shown) -> None:
        """Record a new frame while recording. Raises OSError with a sentence if it cannot be written."""
        with self._lock:
            if (
                self._writer is None
                or self.path is None
                or shown.frame.stamp == self._last
                or self.frames >= MAX_FRAMES
            ):
                return
            frame, answers = shown.frame, tuple(goal_record(item) for item in shown.groundings)
            height, width = frame.rgb.shape[:2]
            now, self._last = time.time_ns(), frame.stamp
            goals = tuple(item.goal for item in answers)
            own = shown.answered == frame.stamp
            record = FrameRecord(
                self.frames, now, frame.stamp, frame.frame_id, width, height, own, shown.answered, "", answers
            )
            with naming_file(self.path):
                if goals != self._goals:
                    self._writer.set_goals(now, goals, self._model)
                    self._goals = goals
                self._writer.add_frame(now, frame, jpeg(frame.rgb, QUALITY))
                self._writer.add(record)
            self.frames += 1

    def stop(self) -> Path | None:
        """Finish the bag and return its path, None if nothing was recorded. Raises OSError if it could not be
        written, leaving nothing of it."""
        with self._lock:
            writer, path = self._writer, self.path
            self._writer = self.path = None
            if writer is not None:
                with self._stack.pop_all():
                    writer.finish()
            return path


def _png(shown: Shown) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(shown.frame.rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError("The frame could not be encoded as PNG.")
    return bytes(data.tobytes())
