"""Compare two replays of one bag: presence, boxes, scores, ids and 3D positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.replay.records import BoxRecord, FrameRecord, GoalRecord

KINDS = ("frame", "presence", "new box", "missing box", "moved box", "score", "id", "place", "drift")
WHOLE_RUN = -1
"""Frame number of a change that concerns the whole run."""


@dataclass(frozen=True)
class Tolerances:
    """Differences up to which two answers count as equal."""

    iou: float = 0.98
    """Minimum IoU of two boxes."""
    score: float = 0.02
    """Maximum difference of scores and of presence."""
    match: float = 0.5
    """Minimum IoU at which two boxes are considered the same box, moved."""
    ids: bool = False
    """Whether track ids must be equal."""
    goal_iou: float = 0.99
    """Minimum mean IoU over all frames of a goal."""
    goal_score: float = 0.01
    """Maximum mean difference of scores over all frames of a goal."""
    frames: float = 0.0
    """Share of a goal's frames that may differ."""
    distance: float = 0.01
    """Metres by which the 3D centre of a box may move."""

    def __post_init__(self) -> None:
        for name in ("iou", "score", "match", "goal_iou", "goal_score", "frames"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"The tolerance {name} is {getattr(self, name)}; it must be between 0 and 1."
                )
        if not self.distance >= 0:
            raise ValueError(f"The tolerance distance is {self.distance}; it must be 0 metres or more.")


@dataclass(frozen=True)
class Change:
    """One difference between two runs."""

    number: int
    """Frame number on the topic, or WHOLE_RUN."""
    goal: str
    """Text of the goal; empty if the frame itself differs."""
    kind: str
    """One of KINDS."""
    sentence: str
    """Description of the difference."""

    @property
    def line(self) -> str:
        """Frame and description."""
        return f"{'all frames' if self.number == WHOLE_RUN else f'frame {self.number}'}: {self.sentence}"


@dataclass(frozen=True)
class Movement:
    """Differences of one goal's answers over the frames of both runs, regardless of tolerances."""

    goal: str
    boxes: int = 0
    """Matched pairs of boxes."""
    new: int = 0
    """Boxes only in the new run."""
    missing: int = 0
    """Boxes only in the stored run."""
    overlap: float = 1.0
    """Mean IoU of the pairs."""
    least_overlap: float = 1.0
    """Minimum IoU of the pairs."""
    score: float = 0.0
    """Mean difference of scores of the pairs."""
    most_score: float = 0.0
    """Maximum difference of scores of the pairs."""
    presence: float = 0.0
    """Maximum difference of presence."""
    flips: int = 0
    """Frames where the goal is present in one run and absent in the other."""
    ids: int = 0
    """Pairs with different track ids."""


def compare(
    wanted: Sequence[FrameRecord], found: Sequence[FrameRecord], tolerances: Tolerances
) -> list[Change]:
    """Return all differences beyond the tolerances, in the order of frames and goals, then those of the
    whole run."""
    changes = _by_frame(wanted, found, tolerances)
    seen = sum(bool(record.goals) for record in wanted)
    for moved in movements(wanted, found, tolerances.match):
        frames = {change.number for change in changes if change.goal == moved.goal}
        if len(frames) > tolerances.frames * seen:
            continue  # reported frame by frame
        changes = [change for change in changes if change.goal != moved.goal]
        if moved.overlap < tolerances.goal_iou:
            changes.append(
                Change(
                    WHOLE_RUN,
                    moved.goal,
                    "drift",
                    f"the mean IoU with the former boxes is {moved.overlap:.4f}",
                )
            )
        if moved.score > tolerances.goal_score:
            changes.append(
                Change(WHOLE_RUN, moved.goal, "drift", f"the scores differ by {moved.score:.4f} in the mean")
            )
    return changes


def movements(
    wanted: Sequence[FrameRecord], found: Sequence[FrameRecord], match: float = 0.5
) -> list[Movement]:
    """Differences of every goal. match: minimum IoU at which two boxes are considered the same."""
    theirs = {record.number: record for record in wanted}
    pairs: dict[str, list[tuple[GoalRecord, GoalRecord]]] = {}
    for record in found:
        for before, after in zip(
            theirs[record.number].goals if record.number in theirs else (), record.goals
        ):
            pairs.setdefault(after.goal, []).append((before, after))
    return [_movement(goal, rows, match) for goal, rows in pairs.items()]


def _movement(goal: str, rows: Sequence[tuple[GoalRecord, GoalRecord]], match: float) -> Movement:
    matched, missing, new = [], 0, 0
    for before, after in rows:
        pairs, gone, come = _matched(before.detections, after.detections, match)
        matched += pairs
        missing, new = missing + len(gone), new + len(come)
    overlaps = [overlap for _, _, overlap in matched] or [1.0]
    scores = [abs(one.score - other.score) for one, other, _ in matched] or [0.0]
    return Movement(
        goal,
        len(matched),
        new,
        missing,
        float(np.mean(overlaps)),
        min(overlaps),
        float(np.mean(scores)),
        max(scores),
        presence=max(abs(before.present - after.present) for before, after in rows),
        flips=sum(bool(before.detections) != bool(after.detections) for before, after in rows),
        ids=sum(one.id != other.id for one, other, _ in matched),
    )


def _by_frame(
    wanted: Sequence[FrameRecord], found: Sequence[FrameRecord], tolerances: Tolerances
) -> list[Change]:
    ours, theirs = ({record.number: record for record in records} for records in (found, wanted))
    changes: list[Change] = []
    for number in sorted(ours.keys() | theirs.keys()):
        if number not in ours:
            changes.append(Change(number, "", "frame", "the frame is missing"))
        elif number not in theirs:
            changes.append(Change(number, "", "frame", "the frame is new"))
        else:
            changes += _frame(theirs[number], ours[number], tolerances)
    return changes


def _frame(wanted: FrameRecord, found: FrameRecord, tolerances: Tolerances) -> list[Change]:
    def identity(record: FrameRecord) -> tuple[int, str, int, int, str]:
        return record.stamp, record.frame_id, record.width, record.height, record.refused

    if identity(wanted) != identity(found):
        return [
            Change(found.number, "", "frame", f"the frame was {identity(wanted)} and is {identity(found)}")
        ]
    pairs = zip(wanted.goals, found.goals, strict=True)
    return [change for pair in pairs for change in _goal(found.number, *pair, tolerances)]


def _goal(number: int, wanted: GoalRecord, found: GoalRecord, tolerances: Tolerances) -> list[Change]:
    def change(kind: str, sentence: str) -> Change:
        return Change(number, found.goal, kind, sentence)

    changes = []
    if found.verdict != wanted.verdict or abs(found.present - wanted.present) > tolerances.score:
        was, now = (f"{item.verdict} ({item.present:.3f})" for item in (wanted, found))
        changes.append(change("presence", f"was {was} and is {now}"))
    pairs, missing, new = _matched(wanted.detections, found.detections, tolerances.match)
    changes += [change("missing box", f"{_shown(box)} is missing") for box in missing]
    changes += [change("new box", f"{_shown(box)} is new") for box in new]
    for before, after, overlap in pairs:
        if overlap < tolerances.iou:
            changes.append(
                change("moved box", f"{_shown(before)} moved to {_shown(after)}, IoU {overlap:.3f}")
            )
        if abs(after.score - before.score) > tolerances.score:
            changes.append(change("score", f"the score of {_shown(before)} is {after.score:.3f}"))
        if (apart := _apart(before, after)) > tolerances.distance:
            moved = (
                f"moved by {1000 * apart:.1f} mm in space"
                if np.isfinite(apart)
                else "has a 3D position in one run only"
            )
            changes.append(change("place", f"{_shown(before)} {moved}"))
        if tolerances.ids and after.id != before.id:
            changes.append(change("id", f"the id of {_shown(before)} was {before.id!r} and is {after.id!r}"))
    return changes


def _apart(before: BoxRecord, after: BoxRecord) -> float:
    """Distance of two 3D centres in metres; infinite if only one of them exists."""
    if before.place is None or after.place is None:
        return 0.0 if before.place is after.place else float("inf")
    return float(np.linalg.norm(np.subtract(before.place.centre, after.place.centre)))


def _matched(
    wanted: Sequence[BoxRecord], found: Sequence[BoxRecord], least: float
) -> tuple[list[tuple[BoxRecord, BoxRecord, float]], list[BoxRecord], list[BoxRecord]]:
    """Match boxes greedily by IoU: (pairs with their IoU, boxes only in `wanted`, boxes only in `found`)."""
    overlap = box_iou(_array(wanted), _array(found))
    pairs, rows, columns = [], set(range(len(wanted))), set(range(len(found)))
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = divmod(int(flat), max(1, len(found)))
        if overlap[row, column] < least:
            break
        if row in rows and column in columns:
            pairs.append((wanted[row], found[column], float(overlap[row, column])))
            rows.remove(row)
            columns.remove(column)
    return pairs, [wanted[row] for row in sorted(rows)], [found[column] for column in sorted(columns)]


def _array(boxes: Sequence[BoxRecord]) -> NDArray[Any]:
    return np.array([item.box for item in boxes], np.float32).reshape(-1, 4)


def _shown(box: BoxRecord) -> str:
    corners = " ".join(f"{value:.1f}" for value in box.box)
    return f"[{corners}] ({box.score:.3f})"
