"""Save and restore the state of a tracker as plain arrays, so that an interrupted replay continues with the
same results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.tracking.grounding_tracker import AnswerState, GroundingTracker
from groma_ros.tracking.questions import Question, Reply, StandingGoals
from groma_ros.tracking.region_tracker import RegionTracker, Track
from groma_ros.types import Detection, Grounding, IntArray, Scene, TextSpan

Arrays = dict[str, NDArray[Any]]


def tracker_arrays(tracker: GroundingTracker) -> Arrays:
    """Return the tracker's state between two frames as arrays that `numpy.load` reads without pickle."""
    regions = tracker.regions
    tracks = list(regions.tracks.values())
    return {
        "state": np.array(
            json.dumps(
                {
                    "epoch": regions.epoch,
                    "next": regions.next,
                    "time": regions.time,
                    "form": regions.form,
                    "stream": regions.stream,
                    "last": regions.continuity.last,
                    "interval": regions.continuity.interval,
                    "held": _answer_state(tracker.answer),
                }
            )
        ),
        "tracks": np.array([[t.number, t.time, t.region, t.sightings] for t in tracks], np.int64).reshape(
            -1, 4
        ),
        "likeness": np.array([t.likeness for t in tracks], np.float64),
        "boxes": np.array([t.box for t in tracks], np.float32).reshape(-1, 4),
        "velocities": np.array([t.velocity for t in tracks], np.float32).reshape(-1, 2),
        "tokens": np.array([t.token for t in tracks], np.float32),
        "asked": tracker.answer.reply.question.numbers if tracker.answer else np.zeros(0, np.int64),
    }


def restore_tracker(
    tracker: GroundingTracker, arrays: Mapping[str, NDArray[Any]], standing: StandingGoals
) -> None:
    """Restore the state of a tracker that had the same goals. Raises ValueError or KeyError for other
    arrays."""
    state = json.loads(str(arrays["state"]))
    _restore_tracks(tracker.regions, state, arrays)
    if state["held"]:
        tracker.answer = _restored_answer(state["held"], np.asarray(arrays["asked"], np.int64), standing)


def _restore_tracks(
    tracker: RegionTracker, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    tracker.epoch, tracker.next, tracker.time = state["epoch"], state["next"], state["time"]
    tracker.form = tuple(state["form"]) if state["form"] else None
    tracker.stream = tracker.continuity.stream = state["stream"]
    tracker.continuity.last, tracker.continuity.interval = state["last"], state["interval"]
    columns = (arrays[name] for name in ("tracks", "boxes", "tokens", "velocities", "likeness"))
    for (number, time, region, sightings), box, token, velocity, likeness in zip(*columns, strict=True):
        tracker.tracks[int(number)] = Track(
            int(number), box, token, int(time), int(region), velocity, float(likeness), int(sightings)
        )


def _answer_state(answer: AnswerState | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    scene = answer.reply.question.scene
    groundings = [{**asdict(item), "goal": None} for item in answer.reply.groundings]
    view = {"width": scene.width, "height": scene.height, "stamp": scene.stamp, "frame_id": scene.frame_id}
    rows = {
        "numbers": answer.numbers,
        "names": answer.ids,
        "former": answer.former,
        "others": answer.others,
    }
    return {"scene": view, "epoch": answer.reply.question.epoch, **rows, "groundings": groundings}


def _restored_answer(data: Mapping[str, Any], numbers: IntArray, standing: StandingGoals) -> AnswerState:
    """Restore the current answer. Only size and time of its scene are restored; nothing else of it is
    used."""
    none = np.zeros((0, 0), np.float32)
    scene = Scene(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), none, none, None, **data["scene"])
    groundings = []
    for goal, item in zip(standing.goals, data["groundings"], strict=True):
        boxes, others = (
            tuple(Detection(**{**box, "box": tuple(box["box"])}) for box in item[group])
            for group in ("detections", "alternatives")
        )
        spans = tuple(TextSpan(**{**span, "regions": tuple(span["regions"])}) for span in item["spans"])
        groundings.append(
            Grounding(**{**item, "goal": goal, "detections": boxes, "alternatives": others, "spans": spans})
        )
    reply = Reply(Question(scene, standing, numbers, data["epoch"]), tuple(groundings))
    rows, ids, others_rows = (tuple(map(tuple, data[key])) for key in ("numbers", "names", "others"))
    former = tuple(tuple((number, object_id) for number, object_id in row) for row in data["former"])
    return AnswerState(reply, rows, ids, former, others_rows)
