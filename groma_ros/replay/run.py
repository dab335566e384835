"""Replay one bag and write its results."""

from __future__ import annotations

import glob
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from groma_ros.atomic_write import replacing, write_together
from groma_ros.grounding.goals import check_standing
from groma_ros.grounding.grounder import Grounder
from groma_ros.io.bag_errors import BagLoss
from groma_ros.io.bag_topics import find_camera, find_depth
from groma_ros.io.bags import Bag, RecordedCamera, RecordedImage, open_bag, recorded_images
from groma_ros.io.message_definitions import typestore
from groma_ros.journal import RECORDS, OrderedJournal
from groma_ros.replay.compare import compare, movements
from groma_ros.replay.depth import DepthReader
from groma_ros.replay.junit import Case, Suite, junit
from groma_ros.replay.pipeline import ReplayPipeline
from groma_ros.replay.plan import (
    DETECTIONS,
    JOURNAL,
    JUNIT,
    RECORDING,
    REPORT,
    RUN,
    TIMINGS,
    Expectation,
    ModelRuntime,
    ReplayPlan,
    ReplayRun,
    Task,
    check_comparable,
    describe,
    differences,
    read_expectation,
)
from groma_ros.replay.recording import write_recording
from groma_ros.replay.records import FrameRecord, read_records, without_places
from groma_ros.replay.result import Outcome, Result
from groma_ros.replay.truth import Truth, judge, read_truth, unjudged
from groma_ros.tracking.questions import StandingGoals
from groma_ros.tracking.tracker_state import restore_tracker, tracker_arrays

LOG = "node.log"
"""Log of the node in a live run."""
TIMES = "times.jsonl"
"""File of the journal: milliseconds by stage, one object a frame."""

Watch = Callable[[Iterable[int], int], Iterable[int]]
"""Progress display: called with an iterator over finished frames and their total number."""


def replay(
    task: Task, plan: ReplayPlan, grounder: Grounder | None, watch: Watch = lambda numbers, total: numbers
) -> Outcome:
    """Replay a bag and write its results to task.out, atomically at the end.

    An interrupted run resumes, unless it is live. grounder: the model; None for a live run, where the node
    loads it.

    A run in which no image could be read is a failed outcome with a report and never stored as an
    expectation. Raises ValueError for an unusable bag, expectation or truth, BagLoss for a bag with other
    messages than it announces, OSError if results cannot be written.
    """
    typestore()  # fail before the run if message definitions are missing
    with open_bag(task.bag, plan.allow_loss) as bag:
        return _replay(task, plan, grounder, watch, bag)


def _replay(task: Task, plan: ReplayPlan, grounder: Grounder | None, watch: Watch, bag: Bag) -> Outcome:
    camera = find_camera(bag, task.topics.camera)
    truth = read_truth(task.truth) if task.truth else None
    expectation = read_expectation(task.expect) if task.expect and not task.accept else None
    runtime = ModelRuntime.of(grounder) if grounder else ModelRuntime("", "", "", plan.engine.least_presence)
    depth, no_depth = None, "No 3D positions are available: a live run plays the camera alone."
    if grounder:
        depth, no_depth = find_depth(bag, camera, task.topics.depth, task.topics.info)
    run = describe(plan, camera, runtime, depth)
    if expectation:
        check_comparable(expectation, run, plan.other_model)
    made_of = {**asdict(run), "rectified": plan.rectified, "bag": _fingerprint(task.bag)}
    total = -(-camera.count // plan.every)
    fresh = plan.fresh or grounder is None
    with OrderedJournal(task.out / JOURNAL, made_of, (RECORDS, TIMES), fresh) as journal:
        if grounder is None:
            run = _live(task, plan, bag, camera, journal, watch, total)
        else:
            reader = DepthReader(bag, depth, camera.topic, plan.rectified) if depth else None
            _offline(plan, bag, camera, grounder, reader, journal, watch, total)
            if reader and reader.guess:
                bag.notes.append(reader.guess)
        result = _result(task, plan, run, bag, camera, no_depth, journal, truth, expectation)
        _write(result, plan, journal)
        if not task.keep:
            journal.remove()
    return outcome(result, plan)


def _offline(
    plan: ReplayPlan,
    bag: Bag,
    camera: RecordedCamera,
    grounder: Grounder,
    depth: DepthReader | None,
    journal: OrderedJournal,
    watch: Watch,
    total: int,
) -> None:
    for goal in plan.goals:
        check_standing(goal)
        grounder.check(goal)
    standing = StandingGoals(plan.goals, 0, grounder.min_presence, grounder.min_margin)
    pipeline = ReplayPipeline(grounder, standing, plan.tracking, depth)
    if journal.state is not None:
        restore_tracker(pipeline.tracker, journal.state, standing)
    for _ in watch(_answered(pipeline, journal, _images(bag, camera, plan.every, journal.done)), total):
        pass
    if depth is not None:
        depth.finish()
    journal.save(tracker_arrays(pipeline.tracker))


def _live(
    task: Task,
    plan: ReplayPlan,
    bag: Bag,
    camera: RecordedCamera,
    journal: OrderedJournal,
    watch: Watch,
    total: int,
) -> ReplayRun:
    """Play the bag to the node and describe the run."""
    play = plan.play
    assert play is not None
    runtime: list[ModelRuntime] = []

    def numbers() -> Iterator[int]:
        for played in play(bag, camera, plan, task.out / LOG):
            runtime[:] = [played.runtime]
            journal.append(played.record.line(), json.dumps({"total": round(played.milliseconds, 3)}))
            yield journal.done

    for _ in watch(numbers(), total):
        pass
    if not runtime:
        raise ValueError(f"The node answered none of the {total} images of {task.bag}; see {task.out / LOG}.")
    return describe(plan, camera, runtime[0])


def _images(bag: Bag, camera: RecordedCamera, every: int, done: int) -> Iterator[RecordedImage]:
    return recorded_images(bag, camera, lambda number: number % every == 0 and number >= done * every)


def _answered(
    pipeline: ReplayPipeline, journal: OrderedJournal, images: Iterator[RecordedImage]
) -> Iterator[int]:
    """Yield the number of finished frames, beginning with those of the resumed run."""
    yield from range(journal.done)
    for done in pipeline.run(images):
        journal.append(done.record.line(), json.dumps(done.times))
        if journal.due:
            journal.save(tracker_arrays(pipeline.tracker))
        yield journal.done


def _fingerprint(bag: Path) -> list[Any]:
    """Paths, sizes and modification times that identify a bag and its version."""
    # Include a write-ahead log beside a database.
    inside = bag.iterdir() if bag.is_dir() else bag.parent.glob(glob.escape(bag.name) + "*")
    files = sorted(path for path in inside if path.is_file())
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _result(
    task: Task,
    plan: ReplayPlan,
    run: ReplayRun,
    bag: Bag,
    camera: RecordedCamera,
    no_depth: str,
    journal: OrderedJournal,
    truth: Truth | None,
    expectation: Expectation | None,
) -> Result:
    times = journal.read(TIMES)
    records = read_records(journal.folder / RECORDS)
    judged = judge(truth, records) if truth else []
    result = Result(task, run, bag, camera, records, times, no_depth=no_depth, judged=judged)
    if truth:
        missing = unjudged(truth, judged, {goal["text"] for goal in run.goals})
        result = replace(result, unjudged=missing)
    if result.all_refused:
        first = next(recorded_images(bag, camera, lambda number: number % plan.every == 0), None)
        return replace(result, first_refusal=first.refusal if first else "")
    if truth and not result.judged:
        raise ValueError(
            f"The truth {task.truth} knows none of the goals on any frame of {task.bag}: stamps or texts "
            "differ."
        )
    if expectation is None:
        return result
    apart = differences(expectation.run, run)
    if plan.live:
        expectation = replace(expectation, records=[without_places(record) for record in expectation.records])
    if plan.live and plan.rate > 0:
        # A live node drops images, so compare only the frames answered in both runs.
        records, expectation = _both_asked(records, expectation)
        if not records:
            raise ValueError(
                f"The node answered on none of the images of {task.bag} that the expectation "
                f"{expectation.folder} has an answer on, so there is nothing to compare; a smaller --rate "
                "lets it answer on more."
            )
        apart = [
            *apart,
            f"live: compared on the {len(records)} images that the language model answered on in both",
        ]
    found = (
        compare(expectation.records, records, plan.tolerances),
        movements(expectation.records, records, plan.tolerances.match),
    )
    return replace(result, expectation=expectation, changes=found[0], movements=found[1], apart=apart)


def _both_asked(
    records: Sequence[FrameRecord], expectation: Expectation
) -> tuple[list[FrameRecord], Expectation]:
    asked = [{record.number for record in items if record.asked} for items in (records, expectation.records)]
    ours, theirs = (
        [item for item in items if item.number in asked[0] & asked[1]]
        for items in (records, expectation.records)
    )
    return ours, replace(expectation, records=theirs)


def _write(result: Result, plan: ReplayPlan, journal: OrderedJournal) -> None:
    from groma_ros.replay.report import page

    out, work = result.task.out, journal.folder
    records = (work / RECORDS).read_bytes()
    with replacing(work / RECORDING) as stream:
        texts = [goal["text"] for goal in result.run.goals]
        write_recording(
            stream, result.records, texts, result.run.model, with_depth=result.run.depth is not None
        )
    latency = result.latency()
    timings = {"unit": "ms", "stages": list(latency), "latency": latency, "frames": result.times}
    contents: dict[Path, bytes | Path] = {
        out / RECORDING: work / RECORDING,
        out / TIMINGS: (json.dumps(timings) + "\n").encode(),
        out / REPORT: page(result, plan).encode(),
        out / JUNIT: junit([outcome(result, plan).suite]).encode(),
        out / RUN: result.run.document(),
        out / DETECTIONS: records,
    }
    if result.task.accept and result.task.expect and not result.all_refused:
        result.task.expect.mkdir(parents=True, exist_ok=True)
        contents |= {
            result.task.expect / RUN: result.run.document(),
            result.task.expect / DETECTIONS: records,
        }
    write_together(contents)


def outcome(result: Result, plan: ReplayPlan) -> Outcome:
    """Summarise a replayed bag."""
    below = {item.goal: item.accuracy for item in result.judged if item.accuracy < plan.least_accuracy}
    frames = tuple(change.line for change in result.changes if not change.goal)
    cases = [Case("frames", frames)]
    for goal in result.run.goals:
        text = goal["text"]
        found = [change.line for change in result.changes if change.goal == text]
        wrong = (
            [f"{below[text]:.3f} of the frames are right, and {plan.least_accuracy:.3f} must be"]
            if text in below
            else []
        )
        cases.append(Case(text, tuple(found + wrong)))
    if plan.least_accuracy > 0:
        cases = _with_unjudged(cases, result, plan.least_accuracy)
    notes = tuple(f"frame {record.number} was refused: {record.refused}" for record in result.refused)
    changed = any(case.failures for case in cases)
    status = "failed" if result.all_refused else "changed" if changed else "same"
    missing = [item.sentence for item in result.unjudged]
    told = (*result.bag.losses, *result.bag.notes, *result.apart, *missing, *notes)
    suite = Suite(result.task.name, tuple(cases), result.all_refused, told)
    return Outcome(result.task.name, status, suite, result.all_refused, _summary(result))


def _with_unjudged(cases: list[Case], result: Result, least: float) -> list[Case]:
    """Add a failure for every goal of the truth that was judged on no frame. least: required accuracy."""
    reasons = {item.goal: item.reason for item in result.unjudged}
    failures = {
        text: f"it was judged on no frame ({reason}), and {least:.3f} of them must be right"
        for text, reason in reasons.items()
    }
    names = {case.name for case in cases}
    return [
        replace(case, failures=(*case.failures, failures[case.name])) if case.name in failures else case
        for case in cases
    ] + [Case(text, (failure,)) for text, failure in failures.items() if text not in names]


def _summary(result: Result) -> dict[str, Any]:
    counts = {
        "frames": len(result.records),
        "refused": len(result.refused),
        "asked": sum(record.asked for record in result.records),
    }
    accuracy = {item.goal: round(item.accuracy, 4) for item in result.judged}
    goals = []
    for goal in result.run.goals:
        rows = [item for record in result.records for item in record.goals if item.goal == goal["text"]]
        scores = [item.detections[0].score for item in rows if item.detections]
        goals.append(
            {
                "goal": goal["text"],
                "present": sum(bool(item.detections) for item in rows),
                "frames": len(rows),
                "score": round(float(np.mean(scores)), 4) if scores else None,
                "accuracy": accuracy.get(goal["text"]),
                "changes": sum(change.goal == goal["text"] for change in result.changes),
            }
        )
    compared = (
        {"expected": str(result.task.expect), "changes": len(result.changes)} if result.expectation else {}
    )
    right = [good for item in result.judged for good in item.right.values()]
    whole = {"accuracy": round(sum(right) / len(right), 4)} if right else {}
    return {
        **counts,
        **compared,
        **whole,
        "topics": {"camera": result.camera.topic, **(result.run.depth or {})},
        "without_places": result.no_depth or _lost_places(result),
        "losses": result.bag.losses,
        "notes": result.bag.notes,
        "unjudged": [item.sentence for item in result.unjudged],
        "backend": result.run.backend,
        "precision": result.run.precision,
        "latency": result.latency(),
        "goals": goals,
        "moved": [asdict(item) for item in result.movements],
    }


def _lost_places(result: Result) -> str:
    """A sentence on why boxes have no 3D box; empty if all images had depth."""
    causes = Counter(record.depth for record in result.records if record.depth)
    if not causes:
        return ""
    listed = ", ".join(f"{cause}: {count}" for cause, count in causes.most_common())
    return f"Depth is incomplete on {causes.total()} of {len(result.records)} images ({listed})."


TRIES = 3
"""Attempts to replay a bag before the death of a worker process is attributed to the bag."""


def attempt(
    task: Task, plan: ReplayPlan, grounder: Grounder | None, watch: Watch = lambda numbers, total: numbers
) -> Outcome:
    """Replay a bag and turn errors into a failed outcome, so that no bag ends a batch."""
    try:
        return replay(task, plan, grounder, watch)
    except BagLoss as error:
        return failed(task, str(error), "lost")
    except (ValueError, OSError) as error:
        return failed(task, str(error))
    except MemoryError:
        return failed(task, f"There is not enough memory to replay {task.bag}.")
    except Exception as error:
        # Log the traceback for --debug.
        logging.getLogger(__name__).debug("replay of %s", task.bag, exc_info=True)
        return failed(
            task,
            f"The bag {task.bag} could not be replayed: unexpected {type(error).__name__} ({error}); please "
            "report it.",
        )


def failed(task: Task, sentence: str, status: str = "failed") -> Outcome:
    """Outcome of a bag that could not be replayed."""
    return Outcome(task.name, status, Suite(task.name, error=sentence), sentence)
