"""`groma replay`: replay bags and compare with a stored run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from groma_ros.atomic_write import replacing
from groma_ros.commands.model_arguments import add_model_arguments, runtime_options
from groma_ros.errors import printable
from groma_ros.folder_lock import folder_lock
from groma_ros.grounding.goals import read_goals
from groma_ros.io.rectification import SETTINGS
from groma_ros.replay.batch import replay_all
from groma_ros.replay.compare import Tolerances
from groma_ros.replay.junit import junit
from groma_ros.replay.plan import (
    JUNIT,
    AskedTopics,
    LivePlayer,
    ModelSettings,
    ReplayPlan,
    Task,
)
from groma_ros.replay.result import Outcome
from groma_ros.replay.tasks import make_tasks
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.tracking.grounding_tracker import TrackingConfig

CHANGED, LOST = 3, 4
"""Exit statuses for differences, and for a bag with other messages than it announces; 1 is for a bag that
could not be replayed."""
STATUS_CODES = {"failed": 1, "lost": LOST, "changed": CHANGED}
"""Exit status by the status of a bag; of several bags, the first of these that occurs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma replay`."""
    parser.add_argument(
        "bags", type=Path, nargs="+", metavar="BAG", help="rosbag2 folder, .mcap file or .db3 file"
    )
    parser.add_argument(
        "--goals",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML file with goals, texts or mappings, under the key `goals`",
    )
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        help="camera topic; required if a bag has several cameras, may be repeated",
    )
    parser.add_argument(
        "--all-cameras",
        action="store_true",
        help="replay every camera of each bag, each into its own folder of results",
    )
    parser.add_argument(
        "--depth-topic",
        action="append",
        default=[],
        metavar="TOPIC",
        help="topic of its depth images (default: the topic that matches the camera)",
    )
    parser.add_argument(
        "--camera-info-topic",
        action="append",
        default=[],
        metavar="TOPIC",
        help="topic of its camera_info (default: the topic that matches the camera)",
    )
    parser.add_argument(
        "--rectified",
        choices=SETTINGS,
        default="auto",
        help="whether the camera's images are rectified, so that P of its camera_info applies instead "
        "of K (default: by the topic name)",
    )
    parser.add_argument(
        "--allow-loss",
        action="store_true",
        help="replay the available messages of a bag that is incomplete or holds other messages than "
        "it announces",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="replay only every N-th image (default: 1)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/replay"),
        metavar="DIR",
        help="folder for the results (default: out/replay)",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="start over, even if an interrupted run could be resumed"
    )
    model = parser.add_argument_group("model")
    add_model_arguments(model)
    model.add_argument(
        "--min-presence", type=float, help="presence below which a goal is absent (default: the model's)"
    )
    model.add_argument(
        "--answer-period",
        type=float,
        default=TrackingConfig.answer_period,
        metavar="S",
        help="ask the language model every S seconds of the bag, and carry boxes in between (default: "
        "ask on every image)",
    )
    compared = parser.add_argument_group("comparison")
    compared.add_argument(
        "--expect", type=Path, metavar="DIR", help="compare with the run stored in this folder"
    )
    compared.add_argument(
        "--accept", action="store_true", help="store this run in the folder of --expect instead of comparing"
    )
    compared.add_argument(
        "--other-model", action="store_true", help="compare even if another model created the expectation"
    )
    defaults = Tolerances()
    compared.add_argument(
        "--iou",
        type=float,
        default=defaults.iou,
        help=f"minimum IoU of equal boxes (default: {defaults.iou})",
    )
    compared.add_argument(
        "--score",
        type=float,
        default=defaults.score,
        help=f"maximum difference of scores (default: {defaults.score})",
    )
    compared.add_argument(
        "--goal-iou",
        type=float,
        default=defaults.goal_iou,
        help=f"minimum mean IoU of a goal's boxes (default: {defaults.goal_iou})",
    )
    compared.add_argument(
        "--goal-score",
        type=float,
        default=defaults.goal_score,
        help=f"maximum mean difference of a goal's scores (default: {defaults.goal_score})",
    )
    compared.add_argument(
        "--frames",
        type=float,
        default=defaults.frames,
        help="share of a goal's frames that may differ (default: 0)",
    )
    compared.add_argument(
        "--distance",
        type=float,
        default=defaults.distance,
        metavar="M",
        help=f"maximum distance of equal boxes in 3D (default: {defaults.distance} m)",
    )
    compared.add_argument("--ids", action="store_true", help="track ids must also be equal")
    compared.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="true boxes in the format of `groma scenes`; accuracy is reported",
    )
    compared.add_argument(
        "--min-accuracy",
        type=float,
        default=0.0,
        help="with --truth: minimum share of right frames of each goal; a goal of the truth that cannot "
        "be judged fails too",
    )
    many = parser.add_argument_group("many bags")
    many.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="number of bags replayed in parallel, one process each (default: 1)",
    )
    many.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="address of a Ray cluster to replay the bags on, e.g. auto",
    )
    many.add_argument(
        "--ray-gpus",
        type=float,
        default=0.0,
        metavar="N",
        help="GPUs of the cluster per bag (default: 0)",
    )
    live = parser.add_argument_group("live")
    live.add_argument(
        "--live", action="store_true", help="play the bags through the real node over DDS, in simulated time"
    )
    live.add_argument(
        "--rate",
        type=float,
        default=1.0,
        metavar="R",
        help="speed of --live: 1 is that of the recording, at which a slow node drops images; 0 waits "
        "for every answer (default: 1)",
    )
    live.add_argument(
        "--domain",
        type=int,
        metavar="N",
        help="DDS domain of --live (default: ROS_DOMAIN_ID, or an unused one)",
    )
    live.add_argument(
        "--network",
        action="store_true",
        help="let other machines discover --live; by default only this machine does",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma replay` with the options of `add_arguments`; returns the exit status."""
    plan, topics = _plan(args), _topics(args)
    tasks = make_tasks(args.bags, topics, args.out, args.expect, args.accept, args.truth)
    with ExitStack() as locks:
        locks.enter_context(folder_lock(args.out))
        if args.accept and args.expect.resolve() != args.out.resolve():
            locks.enter_context(folder_lock(args.expect))
        try:
            outcomes = replay_all(tasks, plan, args.jobs, args.ray)
        except KeyboardInterrupt:
            print(
                "groma: Interrupted; the same command goes on from here, with --fresh it starts anew.",
                file=sys.stderr,
            )
            raise
        if len(tasks) > 1 or outcomes[0].error or tasks[0].out != args.out:
            with replacing(args.out / JUNIT) as stream:
                stream.write(junit([item.suite for item in outcomes]).encode())
    return _tell(args, tasks, outcomes)


def _tell(args: argparse.Namespace, tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> int:
    """Print the outcomes. Returns the exit status."""
    if args.json:
        bags = [
            {"bag": item.name, "status": item.status, "error": item.error, **item.summary}
            for item in outcomes
        ]
        print(json.dumps({"ok": all(item.status == "same" for item in outcomes), "bags": bags}, indent=1))
    else:
        for task, item in zip(tasks, outcomes, strict=True):
            print("\n".join(_lines(task, item)))
    for item in outcomes:
        if item.error:
            print(f"groma: {printable(item.error)}", file=sys.stderr)
    found = {item.status for item in outcomes}
    return next((code for status, code in STATUS_CODES.items() if status in found), 0)


def _plan(args: argparse.Namespace) -> ReplayPlan:
    for name in ("every", "jobs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}; it must be 1 or more.")
    if not args.answer_period >= 0:
        raise ValueError(f"--answer-period is {args.answer_period}; it must be 0 seconds or more.")
    if not args.ray_gpus >= 0:
        raise ValueError(f"--ray-gpus is {args.ray_gpus}; it must be 0 or more.")
    if not args.rate >= 0:
        raise ValueError(f"--rate is {args.rate}; it must be 0 or more.")
    if args.domain is not None and not 0 <= args.domain <= 232:
        raise ValueError(f"--domain is {args.domain}; it must be from 0 to 232.")
    if not 0 <= args.min_accuracy <= 1:
        raise ValueError(f"--min-accuracy is {args.min_accuracy}; it must be between 0 and 1.")
    if args.accept and not args.expect:
        raise ValueError("--accept stores the run in the folder of --expect; name one.")
    tolerances = Tolerances(
        args.iou,
        args.score,
        ids=args.ids,
        goal_iou=args.goal_iou,
        goal_score=args.goal_score,
        frames=args.frames,
        distance=args.distance,
    )
    engine = ModelSettings(
        args.model or shipped_model(), runtime_options(args), args.min_presence, args.ray_gpus
    )
    return ReplayPlan(
        read_goals(args.goals),
        engine,
        rectified=args.rectified,
        allow_loss=args.allow_loss,
        every=args.every,
        tracking=TrackingConfig(answer_period=args.answer_period),
        tolerances=tolerances,
        other_model=args.other_model,
        least_accuracy=args.min_accuracy,
        fresh=args.fresh,
        play=_live_player() if args.live else None,
        rate=args.rate,
        domain=args.domain,
        network=args.network,
    )


def _live_player() -> LivePlayer:
    try:
        from groma_ros.client.live_replay import play
    except ImportError as error:
        raise ValueError(f"--live needs ROS 2 and the messages of groma_ros: {error}.") from error
    return play


def _topics(args: argparse.Namespace) -> list[AskedTopics]:
    """Return the topics of each camera; none for every camera of a bag."""
    asked = {"--depth-topic": args.depth_topic, "--camera-info-topic": args.camera_info_topic}
    if args.all_cameras:
        given = [name for name, topics in {"--topic": args.topic, **asked}.items() if topics]
        if given:
            raise ValueError(f"--all-cameras takes every camera of a bag; leave out {given[0]}.")
        return []
    count = max(1, len(args.topic))
    for topic in args.topic:
        if args.topic.count(topic) > 1:
            raise ValueError(f"--topic {topic} is given twice.")
    for name, topics in asked.items():
        if topics and len(topics) != count:
            raise ValueError(
                f"{name} is given {len(topics)} times for {count} cameras; give it once for each --topic, in "
                "their order, or not at all."
            )
    depths, infos = (topics or [None] * count for topics in asked.values())
    return [AskedTopics(*item) for item in zip(args.topic or [None], depths, infos)]


def _lines(task: Task, item: Outcome) -> list[str]:
    """Return the printed lines about a bag."""
    name = printable(item.name)
    if not item.summary:
        return [f"{name}: {item.status}"]
    figures = item.summary
    head = f"{name}: {figures['frames']} images, {figures['refused']} refused"
    if "total" in figures["latency"]:
        head += f", {figures['latency']['total']['median_ms']:.1f} ms each"
    head += f", accuracy {figures['accuracy']:.3f}" if "accuracy" in figures else ""
    head += f", {figures['changes']} differences" if "changes" in figures else ""
    topics = figures["topics"]
    roles = {"camera": "camera", "depth": "depth", "info": "camera_info"}
    lines = [head, "  " + ", ".join(f"{roles[key]} {printable(topic)}" for key, topic in topics.items())]
    if figures["without_places"]:
        lines.append(f"  {figures['without_places']}")
    told = (*figures["losses"], *figures["notes"], *figures["unjudged"])
    lines += [f"  {printable(sentence)}" for sentence in told]
    for goal in figures["goals"]:
        score = f"  best score {goal['score']:.2f}" if goal["score"] is not None else ""
        right = f"  right {goal['accuracy']:.3f}" if goal["accuracy"] is not None else ""
        text = printable(goal["goal"])
        lines.append(f"  {text:<44} there in {goal['present']} of {goal['frames']}{score}{right}")
    lines += [
        f"  {printable(case.name)}: {printable(sentence)}"
        for case in item.suite.cases
        for sentence in case.failures[:3]
    ]
    return [*lines, f"  {printable(task.out / 'report.html')}"]
