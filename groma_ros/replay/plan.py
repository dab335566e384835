"""Settings of a replay, and the description of a run that comparisons depend on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from groma_ros import __version__
from groma_ros.errors import printable, quoted
from groma_ros.grounding.calibration import Calibration
from groma_ros.grounding.grounder import MIN_PRESENCE, Grounder
from groma_ros.io.bag_topics import DepthTopics
from groma_ros.io.bags import Bag, RecordedCamera
from groma_ros.json_files import load_object
from groma_ros.replay.compare import Tolerances
from groma_ros.replay.records import FrameRecord, read_records
from groma_ros.runtime.bundle import Bundle
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.types import Goal

FORMAT = 1
JOURNAL = ".unfinished"
"""Folder of the journal of an unfinished run, inside its results folder."""
RUN, DETECTIONS, RECORDING, TIMINGS, REPORT, JUNIT = (
    "run.json",
    "detections.jsonl",
    "detections.mcap",
    "timings.json",
    "report.html",
    "junit.xml",
)


@dataclass(frozen=True)
class ModelSettings:
    """The model and how to run it."""

    model: Path
    """Folder of its bundle."""
    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    min_presence: float | None = None
    gpus: float = 0.0
    """GPUs requested from a cluster for each bag."""

    @property
    def least_presence(self) -> float:
        """Presence below which a goal is reported absent."""
        return MIN_PRESENCE if self.min_presence is None else self.min_presence

    def load(self) -> Grounder:
        """Load the grounder. Raises ValueError if it is unavailable."""
        return Grounder.load(self.model, self.options, min_presence=self.least_presence)

    def with_threads(self, threads: int) -> ModelSettings:
        """Set the number of CPU threads unless one was chosen."""
        return replace(self, options=replace(self.options, threads=self.options.threads or threads))


@dataclass(frozen=True, eq=False)
class Played:
    """One image that was played to the node."""

    record: FrameRecord
    milliseconds: float
    """From sending the image to receiving its answer."""
    runtime: ModelRuntime
    """Model and backend reported by the node."""


class LivePlayer(Protocol):
    """Play a bag to a running node; implemented by `groma_ros.client.live_replay.play`."""

    def __call__(self, bag: Bag, camera: RecordedCamera, plan: ReplayPlan, log: Path) -> Iterator[Played]: ...


@dataclass(frozen=True, eq=False)
class ReplayPlan:
    """Settings common to all bags of a replay."""

    goals: tuple[Goal, ...]
    """Asked on every frame."""
    engine: ModelSettings
    rectified: str = "auto"
    """Whether the images are rectified: auto, true or false, as the node's parameter."""
    allow_loss: bool = False
    """Replay the available messages of a bag that holds fewer or more than it announces."""
    every: int = 1
    """Replay every n-th frame."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """When the language model is asked, and how boxes are carried between its answers."""
    tolerances: Tolerances = field(default_factory=Tolerances)
    other_model: bool = False
    """Also compare with an expectation created by another model."""
    least_accuracy: float = 0.0
    """If there is truth, a goal that is right in a smaller share of its frames fails."""
    fresh: bool = False
    """Discard the results of an interrupted run."""
    play: LivePlayer | None = None
    """Plays a bag through the real node over DDS; None runs the pipeline in this process."""
    rate: float = 1.0
    """Speed of a live replay: 1 as recorded, 0 slow enough that no image is dropped."""
    domain: int | None = None
    """DDS domain of a live replay; None for ROS_DOMAIN_ID or, if that is not set, an unused one."""
    network: bool = False
    """Let other machines discover a live replay."""

    @property
    def live(self) -> bool:
        """Whether the bags are played through the real node."""
        return self.play is not None


@dataclass(frozen=True)
class AskedTopics:
    """The requested topics of a camera."""

    camera: str | None = None
    """None for the only one."""
    depth: str | None = None
    """Topic of its depth images; None for the one that belongs to the camera."""
    info: str | None = None
    """Topic of its camera_info; None likewise."""


@dataclass(frozen=True)
class Task:
    """One camera of a bag to replay."""

    name: str
    """Name used in messages."""
    bag: Path
    out: Path
    """Folder for the results."""
    expect: Path | None = None
    """Folder of a stored run to compare with."""
    accept: bool = False
    """Store this run in `expect` instead of comparing."""
    truth: Path | None = None
    """File with the true boxes."""
    keep: bool = False
    """Keep the journal of the finished run until the whole batch is finished."""
    topics: AskedTopics = AskedTopics()


@dataclass(frozen=True)
class ReplayRun:
    """Description of a run, stored as run.json."""

    camera: dict[str, Any]
    """Topic, type and number of messages."""
    every: int
    goals: list[dict[str, Any]]
    min_presence: float
    model: str
    """Name of the bundle."""
    weights: str
    """sha256 of its weights."""
    backend: str
    precision: str
    device: str
    calibration: dict[str, Any]
    """Calibration values that differ from the defaults."""
    follow: dict[str, Any]
    """Tracking settings, as in `TrackingConfig`."""
    depth: dict[str, str] | None = None
    """Topics of depth and camera_info; None without depth."""
    version: str = __version__
    format: int = FORMAT

    def check(self) -> None:
        """Raise ValueError with the reason if a value read from run.json has another type than the field."""
        types: dict[str, type | tuple[type, ...]] = {
            "camera": dict,
            "every": int,
            "goals": list,
            "min_presence": (int, float),
            **dict.fromkeys(("model", "weights", "backend", "precision", "device", "version"), str),
            "calibration": dict,
            "follow": dict,
            "depth": (dict, type(None)),
        }
        for name, kind in types.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"its {name} is {quoted(value)}")
        if not isinstance(self.camera.get("topic"), str):
            raise ValueError(f"its camera has the topic {quoted(self.camera.get('topic'))}")
        for goal in self.goals:
            if not isinstance(goal, dict) or set(goal) != {"text", "kind", "min_score"}:
                raise ValueError(f"one of its goals is {quoted(goal)}")
            if not isinstance(goal["min_score"], (int, float)):
                raise ValueError(f"one of its goals has the min_score {quoted(goal['min_score'])}")

    def document(self) -> bytes:
        """Serialise to run.json."""
        return (json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class ModelRuntime:
    """Backend that ran the model, and the presence threshold."""

    backend: str
    precision: str
    device: str
    min_presence: float

    @classmethod
    def of(cls, grounder: Grounder) -> ModelRuntime:
        """Describe a model loaded in this process."""
        runtime = grounder.runtime
        assert runtime is not None, "a grounder that was loaded knows what runs it"
        return cls(runtime.backend, runtime.precision, runtime.device, grounder.min_presence)


def describe(
    plan: ReplayPlan, camera: RecordedCamera, runtime: ModelRuntime, depth: DepthTopics | None = None
) -> ReplayRun:
    """Describe a run of this plan on this camera."""
    bundle = Bundle.load(plan.engine.model)
    return ReplayRun(
        camera=asdict(camera),
        every=plan.every,
        goals=[_plain(goal) for goal in plan.goals],
        min_presence=runtime.min_presence,
        model=bundle.name,
        weights=bundle.weights,
        backend=runtime.backend,
        precision=runtime.precision,
        device=runtime.device,
        calibration=Calibration.from_manifest(bundle.calibration, runtime.precision).to_manifest(),
        follow=asdict(plan.tracking),
        depth=asdict(depth) if depth else None,
    )


@dataclass(frozen=True, eq=False)
class Expectation:
    """A stored run to compare with."""

    folder: Path
    """Folder it was read from."""
    run: ReplayRun
    records: list[FrameRecord]


def read_expectation(folder: Path) -> Expectation:
    """Read an accepted or any finished run. Raises ValueError if the folder contains none."""
    path = folder / RUN
    if not path.is_file():
        raise ValueError(f"There is no expectation in {folder}: it has no {RUN}; store one with --accept.")
    data = load_object(path)
    if data.get("format") != FORMAT:
        raise ValueError(
            f"The expectation {path} has format {quoted(data.get('format'))}, this version reads format "
            f"{FORMAT}; accept it anew."
        )
    try:
        run = ReplayRun(**data)
        run.check()
    except (TypeError, ValueError) as error:
        raise ValueError(f"The expectation {path} is damaged: {printable(error, 200)}.") from error
    return Expectation(folder, run, read_records(folder / DETECTIONS))


def check_comparable(expectation: Expectation, run: ReplayRun, other_model: bool) -> None:
    """Raise ValueError unless two runs have the same goals and frames, and the same model unless
    `other_model`.

    Backend, precision and tracking settings may differ: their effect is what a comparison shows.
    """
    wanted, where = expectation.run, f"The expectation {expectation.folder}"
    if wanted.goals != run.goals:
        raise ValueError(
            f"{where} has other goals: {_first_difference(wanted.goals, run.goals)}; accept a new one with "
            "--accept."
        )
    if wanted.every != run.every:
        raise ValueError(
            f"{where} was made of every {_nth(wanted.every)} frame and this run of every {_nth(run.every)}."
        )
    if wanted.camera["topic"] != run.camera["topic"]:
        raise ValueError(
            f"{where} was made of the topic {wanted.camera['topic']} and this run of {run.camera['topic']}."
        )
    if wanted.weights != run.weights and not other_model:
        names = [f"{one.model} (weights {one.weights[:12]})" for one in (wanted, run)]
        raise ValueError(
            f"{where} is of the model {names[0]} and this run of {names[1]}; compare them with --other-model."
        )


def differences(wanted: ReplayRun, run: ReplayRun) -> list[str]:
    """List settings that differ between two comparable runs, one sentence each."""
    names = {
        "model": "model",
        "weights": "weights",
        "backend": "backend",
        "precision": "precision",
        "device": "device",
        "min_presence": "presence that is needed",
        "calibration": "calibration",
        "follow": "tracking",
        "depth": "depth",
    }
    pairs = {name: (getattr(wanted, key), getattr(run, key)) for key, name in names.items()}
    return [
        f"{name}: {_short(before)} then, {_short(after)} now"
        for name, (before, after) in pairs.items()
        if before != after
    ]


def _plain(goal: Goal) -> dict[str, Any]:
    return {"text": goal.text, "kind": goal.kind, "min_score": goal.min_score}


def _first_difference(wanted: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> str:
    for number, (before, after) in enumerate(zip(wanted, found), 1):
        if before != after:
            return f"goal {number} was {_goal_text(before)} and is {_goal_text(after)}"
    return f"it has {len(wanted)} goals and this run {len(found)}"


def _goal_text(goal: dict[str, Any]) -> str:
    return f"{goal['text']!r} (kind {goal['kind']}, min_score {goal['min_score']:g})"


def _nth(every: int) -> str:
    return {1: "single", 2: "2nd", 3: "3rd"}.get(every, f"{every}th")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
