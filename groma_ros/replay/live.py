"""The same bag through the real node: what it publishes over DDS, as the records of a replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from groma_ros.grounding.grounder import check_image
from groma_ros.io.bags import COMPRESSED, RecordedCamera, RecordedImage, read_shots
from groma_ros.replay.pipeline import blank_record
from groma_ros.replay.plan import ModelSettings, Ran, ReplayPlan
from groma_ros.replay.records import FrameRecord, goal_record

PATIENCE = 60.0
"""Seconds that an image may wait for its own answer where no image is to be dropped."""


@dataclass(frozen=True, eq=False)
class Played:
    """A record and the milliseconds from the image to its answer. ran: what the node says of itself."""

    record: FrameRecord
    milliseconds: float
    ran: Ran


def play(bag: Path, camera: RecordedCamera, plan: ReplayPlan, log: Path) -> Iterator[Played]:
    """What the node answers, in the order of the images; nothing about those it dropped. log: file for what
    the node says.

    Raises ValueError with a sentence where ROS is not there, the node refuses the goals, does not start or
    ends.
    """
    try:
        from groma_ros.client.live_replay import RAW as RAW_IMAGES
        from groma_ros.client.live_replay import Live, Sent
    except ImportError as error:
        raise ValueError(f"--live needs ROS 2 and the messages of groma_ros: {error}.") from error

    waiting: dict[int, FrameRecord] = {}

    def images() -> Iterator[Sent]:
        for shot in read_shots(bag, camera, lambda number: number % plan.every == 0):
            waiting[shot.number] = blank_record(shot)
            yield Sent(shot.number, shot.time, shot.stamp, shot.data, _answerable(shot))

    transport = "compressed" if camera.type == COMPRESSED else RAW_IMAGES
    try:
        with Live(_parameters(plan), transport, camera.topic, log) as live:
            live.meet()
            live.set_goals(plan.goals)
            ran = Ran(
                live.facts["backend"],
                live.facts["precision"],
                live.facts["device"],
                plan.engine.least_presence,
            )
            for heard in live.play(images(), plan.rate):
                goals = tuple(goal_record(item) for item in heard.groundings)
                asked = heard.answered == heard.sent.stamp
                record = replace(
                    waiting.pop(heard.sent.place), asked=asked, answered=heard.answered, goals=goals
                )
                yield Played(record, 1000 * heard.seconds, ran)
    except (RuntimeError, TimeoutError) as error:
        raise ValueError(str(error)) from error


def _answerable(shot: RecordedImage) -> bool:
    try:
        if shot.frame is not None:
            check_image(shot.frame.rgb)
    except ValueError:
        return False
    return shot.frame is not None


def _parameters(plan: ReplayPlan) -> dict[str, object]:
    """The node's parameters for what the plan says. Where no image is to be dropped, each waits for its own
    answer."""
    engine: ModelSettings = plan.engine
    rule = plan.rule if plan.rate > 0 else replace(plan.rule, answer_wait=PATIENCE)
    return {
        "model": str(engine.model.resolve()),
        "backend": engine.backend,
        "precision": engine.precision,
        "threads": engine.threads or 0,
        "min_presence": engine.least_presence,
        "max_goals": 256,
        "answer_period": float(rule.answer_period),
        "answer_wait": float(rule.answer_wait),
        "follow_doubt": rule.doubt,
        "follow_change": rule.change,
        "follow_coast": rule.coast,
    }
