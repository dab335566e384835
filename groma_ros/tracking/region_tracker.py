"""Match the regions of a frame to the objects of the previous one by overlap with the predicted box and by
similarity of region tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.matching import best_pairs
from groma_ros.types import FloatArray, IntArray, Scene

SECOND = 1_000_000_000
BEAT = 0.1
"""Period in seconds to which `RegionTrackerConfig.velocity_momentum` refers."""


@dataclass(frozen=True)
class RegionTrackerConfig:
    """Conditions under which two regions are the same object."""

    # Minimum affinity of a pair (exclusive): mean of IoU and the tokens' cosine (negative counts as 0).
    min_affinity: float = 0.45
    # Pairs that do not overlap count too, up to this distance between their centres, in box diagonals.
    max_distance: float = 1.0
    # Seconds that a track is kept without being seen.
    max_age: float = 1.0
    # Gap between stamps in seconds, in either direction, after which all tracks are dropped; forwards at
    # least `StreamContinuity.SLOW` times the previous interval.
    max_gap: float = 2.0
    # Share of the previous velocity that remains after `BEAT` seconds.
    velocity_momentum: float = 0.5
    # Share of the previous token that remains at each observation.
    embedding_momentum: float = 0.8


@dataclass(eq=False)
class Track:
    """A tracked object."""

    number: int
    box: FloatArray
    """float32 4 xyxy, pixels, at `time`."""
    token: FloatArray
    """Unit vector of D."""
    time: int
    """Stamp of the last scene it was seen in, ns."""
    region: int
    """Index in the newest scene, -1 if unseen there."""
    velocity: FloatArray = field(default_factory=lambda: np.zeros(2, np.float32))
    """float32 2 of its centre, pixels/s."""
    likeness: float = 1.0
    """Cosine between its newest token and its previous ones."""
    sightings: int = 1
    """Number of scenes it was seen in."""

    def at(self, time: int) -> FloatArray:
        """Predict its box at a time (ns) with constant velocity."""
        step = self.velocity * np.float32(max(0, time - self.time) / SECOND)
        moved: FloatArray = self.box + np.concatenate([step, step])
        return moved


class StreamContinuity:
    """Detects breaks of a stream of images: a camera that stopped for longer than `max_gap`, a bag that
    loops.

    It must be told of every received image, so that images that are not processed do not count as a gap. The
    limit is the larger of `max_gap` and `SLOW` times the previous interval, so that a slow camera does not
    break its stream with every image. Any thread may call it.
    """

    SLOW = 2.5

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stream = 0
        """Number of breaks so far."""
        self.last: int | None = None
        """Newest stamp since the last break, ns."""
        self.interval = 0.0
        """Seconds between the two newest stamps."""

    def arrived(self, stamp: int, max_gap: float) -> int:
        """Note the stamp (ns) of a received image; return the number of its stream."""
        with self._lock:
            passed = (stamp - self.last) / SECOND if self.last is not None else 0.0
            broken = passed < -max_gap or passed > max(max_gap, self.SLOW * self.interval)
            self.stream += broken
            if passed > 0:
                self.interval = passed
            self.last = stamp if broken or self.last is None else max(self.last, stamp)
            return self.stream


class RegionTracker:
    """Numbers the objects of a stream of scenes from 1; numbers are never reused.

    Deterministic: time is taken from the scenes' stamps. `epoch` counts the breaks at which all tracks are
    dropped: a break of the stream (`StreamContinuity`), another image size, another width of tokens. The
    whole state is in public fields, which `tracker_state.py` saves: `next`, the number of the next new
    object; `time` of the newest scene, None before it; `form`, its width and height and the width of its
    tokens.
    """

    def __init__(self, config: RegionTrackerConfig | None = None) -> None:
        self.config = config or RegionTrackerConfig()
        self.epoch = 0
        self.tracks: dict[int, Track] = {}
        self.next = 1
        self.time: int | None = None
        self.form: tuple[int, int, int] | None = None
        self.continuity = StreamContinuity()
        self.stream = 0

    def update(self, scene: Scene, stream: int | None = None) -> IntArray:
        """Return the object number of each of the scene's N regions. stream: of its image, from `continuity`;
        None if every received image is a scene.

        A scene slightly older than the newest (frames out of order) gets numbers without moving any track;
        new objects in it get 0.
        """
        form = (scene.width, scene.height, int(scene.region_tokens.shape[1]))
        if stream is None:
            stream = self.continuity.arrived(scene.stamp, self.config.max_gap)
        if form != self.form or stream != self.stream:
            self._break(form)
        self.stream = stream
        late = self.time is not None and scene.stamp < self.time
        tokens = unit(scene.region_tokens)
        known = list(self.tracks.values())
        pairs = [
            (known[row], region)
            for row, region in best_pairs(self._affinity(known, scene, tokens), self.config.min_affinity)
        ]
        numbers = np.zeros(len(scene.boxes), np.int64)
        for track, region in pairs:
            numbers[region] = track.number
        if not late:
            self.time = scene.stamp
            self._move(pairs, scene, tokens)
            self._welcome(numbers, scene, tokens)
        return numbers

    def _break(self, form: tuple[int, int, int]) -> None:
        self.epoch += self.form is not None
        self.form, self.time = form, None
        self.tracks.clear()

    def _affinity(self, known: Sequence[Track], scene: Scene, tokens: FloatArray) -> NDArray[Any]:
        if not known or not len(scene.boxes):
            return np.zeros((len(known), len(scene.boxes)))
        expected = _predicted(known, scene.stamp)
        cosine = np.clip(np.stack([track.token for track in known]) @ tokens.T, 0, 1)
        away = _length(_centres(expected)[:, None] - _centres(scene.boxes)[None])
        diagonal = _length(expected[:, 2:] - expected[:, :2])[:, None]
        overlap = box_iou(expected, scene.boxes)
        return np.where(
            (overlap > 0) | (away <= self.config.max_distance * diagonal), (overlap + cosine) / 2, 0
        )

    def _move(self, pairs: Sequence[tuple[Track, int]], scene: Scene, tokens: FloatArray) -> None:
        for track in self.tracks.values():
            track.region = -1
        if pairs:
            self._follow([track for track, _ in pairs], [region for _, region in pairs], scene, tokens)
        limit = self.config.max_age * SECOND
        self.tracks = {
            number: track for number, track in self.tracks.items() if scene.stamp - track.time <= limit
        }

    def _follow(
        self, seen: Sequence[Track], regions: Sequence[int], scene: Scene, tokens: FloatArray
    ) -> None:
        """Update the tracks that were seen, all at once: for each alone numpy's calls would take longer than
        the rest of the update."""
        boxes = np.asarray(scene.boxes[regions], np.float32)
        velocities = self._velocities(seen, boxes, scene.stamp)
        keep = self.config.embedding_momentum
        newest, former = tokens[regions], np.stack([track.token for track in seen])
        mixed = unit(keep * former + (1 - keep) * newest)
        for row, (track, region) in enumerate(zip(seen, regions, strict=True)):
            track.likeness = float(track.token @ newest[row])
            track.token, track.velocity, track.box = mixed[row], velocities[row], boxes[row]
            track.time, track.region, track.sightings = scene.stamp, region, track.sightings + 1

    def _velocities(self, seen: Sequence[Track], boxes: FloatArray, stamp: int) -> FloatArray:
        """Velocities (N, 2) of tracks that are seen at these boxes (N, 4) at a stamp."""
        passed = [(stamp - track.time) / SECOND for track in seen]
        # Weighted by time, so that a slow proposer does not keep an outdated velocity.
        momentum = self.config.velocity_momentum
        keep = [
            momentum ** (seconds / BEAT) if track.sightings > 1 else 0.0
            for seconds, track in zip(passed, seen, strict=True)
        ]
        former, share = np.stack([track.velocity for track in seen]), np.array(keep, np.float32)[:, None]
        seconds = np.array(passed, np.float32)[:, None]
        pace = _centres(boxes) - _centres(np.stack([track.box for track in seen]))
        pace /= np.where(seconds > 0, seconds, 1)
        # A stamp that repeats tells no velocity.
        velocities: FloatArray = np.where(seconds > 0, share * former + (1 - share) * pace, former)
        return velocities

    def _welcome(self, numbers: IntArray, scene: Scene, tokens: FloatArray) -> None:
        for region in np.flatnonzero(numbers == 0):
            box = np.asarray(scene.boxes[region], np.float32)
            numbers[region] = number = self.fresh()
            self.tracks[number] = Track(number, box, tokens[region], scene.stamp, int(region))

    def fresh(self) -> int:
        """Return an unused number."""
        self.next += 1
        return self.next - 1


def unit(tokens: FloatArray) -> FloatArray:
    """Normalise rows to length 1; rows of zeros are unchanged. NaN counts as 0."""
    tokens = np.asarray(tokens, np.float32)
    length = _length(tokens)[:, None]
    if not np.isfinite(length).all():
        tokens = np.nan_to_num(tokens)
        length = _length(tokens)[:, None]
    rows: FloatArray = np.divide(tokens, length, out=np.zeros_like(tokens), where=length > 0)
    return rows


def _predicted(tracks: Sequence[Track], time: int) -> FloatArray:
    """Boxes (N, 4) of tracks at a time, as `Track.at` predicts them."""
    seconds = np.array([max(0, time - track.time) / SECOND for track in tracks], np.float32)
    step = np.stack([track.velocity for track in tracks]) * seconds[:, None]
    boxes: FloatArray = np.stack([track.box for track in tracks]) + np.concatenate([step, step], 1)
    return boxes


def _length(vectors: FloatArray) -> FloatArray:
    """Lengths of vectors along the last axis."""
    return np.asarray(np.sqrt(np.add.reduce(vectors * vectors, -1)), np.float32)


def _centres(boxes: FloatArray) -> FloatArray:
    return np.asarray((boxes[..., :2] + boxes[..., 2:]) / 2, np.float32)
