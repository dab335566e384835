"""A bag through the pipeline: identical results each time, also after an interruption, and errors for
unusable input."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from groma_ros.grounding.grounder import Grounder
from groma_ros.io.bags import RAW
from groma_ros.replay.plan import (
    DETECTIONS,
    JOURNAL,
    JUNIT,
    RECORDING,
    REPORT,
    RUN,
    TIMINGS,
    ModelSettings,
    ReplayPlan,
    Task,
)
from groma_ros.replay.records import FrameRecord, read_records
from groma_ros.replay.result import Outcome
from groma_ros.replay.run import replay
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.tracking.grounding_tracker import TrackingConfig
from groma_ros.types import Frame, Goal, Scene
from tests.io.test_bags import DEMO, image, write
from tests.replay.conftest import TENTH, views

ROOT = Path(__file__).parents[2]
RESULTS = {DETECTIONS, RECORDING, TIMINGS, REPORT, JUNIT, RUN}
SAME = (DETECTIONS, RECORDING, RUN, JUNIT)


def shipped() -> ReplayPlan:
    """Two goals for the model that ships, which needs no torch."""
    return ReplayPlan(
        (Goal("the ball"), Goal("green object")),
        ModelSettings(shipped_model(), RuntimeOptions(backend="onnx", threads=1)),
    )


def run(bag: Path, out: Path, plan: ReplayPlan, grounder: Grounder, **fields: object) -> Outcome:
    return replay(Task("slide", bag, out, **fields), plan, grounder)  # type: ignore[arg-type]


def records(out: Path) -> list[FrameRecord]:
    return read_records(out / DETECTIONS)


def test_every_frame_once_as_the_grounder_answers_it(
    bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder
) -> None:
    outcome = run(bag, tmp_path / "out", plan, grounder)
    assert (outcome.status, outcome.summary["frames"], outcome.summary["refused"]) == ("same", 6, 0)
    assert {path.name for path in (tmp_path / "out").iterdir()} == RESULTS
    found = records(tmp_path / "out")
    assert [(item.number, item.stamp, item.asked) for item in found] == [
        (n, TENTH * (n + 1), True) for n in range(6)
    ]
    for record, rgb in zip(found, views(6), strict=True):
        for item, wanted in zip(record.goals, grounder.ground(Frame(rgb), plan.goals), strict=True):
            best_first = sorted(wanted.detections, key=lambda box: -box.score)
            assert (item.goal, item.present, item.margin) == (
                wanted.goal.text,
                round(wanted.present, 6),
                round(wanted.margin, 6),
            )
            assert [box.score for box in item.detections] == pytest.approx(
                [box.score for box in best_first], abs=1e-6
            )
            np.testing.assert_allclose(
                [box.box for box in item.detections], [box.box for box in best_first], atol=5.1e-4
            )
            assert all(
                box.id for box in item.detections if min(box.box[2] - box.box[0], box.box[3] - box.box[1]) > 1
            )
    timings = json.loads((tmp_path / "out" / TIMINGS).read_text())
    assert len(timings["frames"]) == 6 and set(timings["frames"][0]) == set(timings["stages"])


def test_the_models_margin_holds(
    bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounder, "min_margin", 0.3)
    run(bag, tmp_path / "out", plan, grounder)
    assert grounder.min_margin == 0.3, "each question sets it anew"


def test_two_runs_give_the_same_bytes(
    bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder
) -> None:
    for name in ("a", "b"):
        run(bag, tmp_path / name, plan, grounder)
    for name in SAME:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_every_second_frame(bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder) -> None:
    run(bag, tmp_path / "half", replace(plan, every=2), grounder)
    assert [record.number for record in records(tmp_path / "half")] == [0, 2, 4]


def test_boxes_are_carried_between_answers(tmp_path: Path) -> None:
    """The shipped model on the demo's bag, asked every second of the recording: where it was not, boxes moved
    with their objects."""
    plan = replace(shipped(), every=4)
    grounder = plan.engine.load()
    run(DEMO, tmp_path / "often", plan, grounder)
    run(DEMO, tmp_path / "seldom", replace(plan, tracking=TrackingConfig(answer_period=1.0)), grounder)
    often, seldom = records(tmp_path / "often"), records(tmp_path / "seldom")
    assert all(record.asked for record in often)
    assert [record.number for record in seldom if record.asked] == [0, 12, 24, 36, 48]
    for wanted, found in zip(often, seldom, strict=True):
        for one, other in zip(wanted.goals, found.goals, strict=True):
            assert [box.box for box in one.detections] == [box.box for box in other.detections]
            assert [box.id for box in one.detections] == [box.id for box in other.detections] != [""]


class Stop(Exception):
    pass


def stopping(after: int) -> object:
    """A progress display that ends the run after this many frames, like an interruption."""

    def watch(numbers: Iterable[int], total: int) -> Iterator[int]:
        for count, number in enumerate(numbers, 1):
            yield number
            if count == after:
                raise Stop

    return watch


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_a_run_that_was_stopped_goes_on(
    bag: Path,
    tmp_path: Path,
    plan: ReplayPlan,
    grounder: Grounder,
    monkeypatch: pytest.MonkeyPatch,
    save_seconds: float,
) -> None:
    """Stopped after every frame in turn; with and without a state that was saved just before."""
    monkeypatch.setattr("groma_ros.journal.SAVE_SECONDS", save_seconds)
    plan = replace(plan, tracking=replace(plan.tracking, answer_period=0.25))
    run(bag, tmp_path / "whole", plan, grounder)
    perceive, looks = grounder.perceive, []

    def counted(frame: Frame) -> Scene:
        looks.append(frame.stamp)
        return perceive(frame)

    stops = range(1, 7) if save_seconds == 0.0 else (4,)
    for after in stops:
        out = tmp_path / f"stopped{after}"
        with pytest.raises(Stop):
            replay(Task("slide", bag, out), plan, grounder, stopping(after))  # type: ignore[arg-type]
        assert {path.name for path in out.iterdir()} == {JOURNAL}
        with monkeypatch.context() as context:
            context.setattr(grounder, "perceive", counted)
            run(bag, out, plan, grounder)
        for name in SAME:
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (after, name)
    assert len(looks) == (sum(6 - after for after in stops) if save_seconds == 0.0 else 6)


def test_another_plan_takes_nothing_up(
    bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder
) -> None:
    with pytest.raises(Stop):
        replay(Task("slide", bag, tmp_path / "out"), plan, grounder, stopping(3))  # type: ignore[arg-type]
    other = replace(plan, goals=plan.goals[:1])
    run(bag, tmp_path / "out", other, grounder)
    run(bag, tmp_path / "new", other, grounder)
    assert (tmp_path / "out" / DETECTIONS).read_bytes() == (tmp_path / "new" / DETECTIONS).read_bytes()


def test_a_damaged_journal_is_a_new_start(
    bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groma_ros.journal.SAVE_SECONDS", 0.0)
    run(bag, tmp_path / "whole", plan, grounder)
    for name, data in (("state.npz", b"PK\x03\x04 torn"), ("records.jsonl", b""), ("settings.json", b"{")):
        out = tmp_path / name
        with pytest.raises(Stop):
            replay(Task("slide", bag, out), plan, grounder, stopping(4))  # type: ignore[arg-type]
        (out / JOURNAL / name).write_bytes(data)
        run(bag, out, plan, grounder)
        assert (out / DETECTIONS).read_bytes() == (tmp_path / "whole" / DETECTIONS).read_bytes()


def test_killed_in_the_middle(bag: Path, tmp_path: Path) -> None:
    """A process that is killed outright, and its rerun."""
    code = (
        "import sys, os, signal; from pathlib import Path; from tests.replay import test_run as t\n"
        "from groma_ros import journal; from groma_ros.replay import run; journal.SAVE_SECONDS = 0.0\n"
        "def watch(numbers, total):\n"
        "    for number in numbers:\n"
        "        yield number\n"
        "        if number == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "plan = t.shipped(); run.replay(t.Task('slide', *map(Path, sys.argv[1:])), plan, "
        "plan.engine.load(), watch)\n"
    )
    arguments = [sys.executable, "-c", code, str(bag), str(tmp_path / "out")]
    assert subprocess.run(arguments, check=False, timeout=300, cwd=ROOT).returncode == -signal.SIGKILL
    assert {path.name for path in (tmp_path / "out").iterdir()} == {JOURNAL}
    plan = shipped()
    grounder = plan.engine.load()
    run(bag, tmp_path / "out", plan, grounder)
    run(bag, tmp_path / "whole", plan, grounder)
    for name in SAME:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_pictures_that_change_size_and_stamps_that_jump(
    tmp_path: Path, plan: ReplayPlan, grounder: Grounder
) -> None:
    """Stamps repeat, go back a little and a lot; a picture of another size comes; an image cannot be read.
    Nothing is lost."""
    shown = views(7)
    shown[3] = np.ascontiguousarray(np.kron(shown[3], np.ones((2, 2, 1), np.uint8)))
    stamps = [10 * TENTH, 11 * TENTH, 11 * TENTH, 12 * TENTH, 10 * TENTH, 900 * TENTH, TENTH]
    messages = [
        ("/eye", RAW, TENTH * (place + 1), image(stamps[place], rgb)) for place, rgb in enumerate(shown)
    ]
    messages.insert(2, ("/eye", RAW, TENTH * 2 + 1, b"\0\1\0\0junk"))
    messages.append(("/eye", RAW, TENTH * 9, image(2 * TENTH, np.zeros((1, 1, 3), np.uint8))))
    bag = write(tmp_path / "odd", messages, StoragePlugin.SQLITE3)
    outcome = run(bag, tmp_path / "out", plan, grounder)
    found = records(tmp_path / "out")
    assert [(record.number, record.refused) for record in found] == [
        (number, {2: "damaged", 8: "content"}.get(number, "")) for number in range(9)
    ]
    assert [(record.width, record.height) for record in found if record.number in (1, 4)] == [
        (64, 48),
        (128, 96),
    ]
    assert all(len(record.goals) == 2 for record in found if not record.refused)
    assert outcome.suite.notes == ("frame 2 was refused: damaged", "frame 8 was refused: content")
    run(bag, tmp_path / "again", plan, grounder)
    assert (tmp_path / "out" / DETECTIONS).read_bytes() == (tmp_path / "again" / DETECTIONS).read_bytes()


def test_a_goal_that_cannot_stand(bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder) -> None:
    with pytest.raises(ValueError, match="is of kind chat, whose answer is words; it cannot stand"):
        run(bag, tmp_path, replace(plan, goals=(Goal("why?", "chat"),)), grounder)


def test_a_bag_that_breaks_off_leaves_the_former_results(
    bag: Path, tmp_path: Path, plan: ReplayPlan, grounder: Grounder
) -> None:
    run(bag, tmp_path / "out", plan, grounder)
    before = (tmp_path / "out" / DETECTIONS).read_bytes()
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(next(bag.glob("*.mcap")).read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"torn.mcap is truncated or damaged"):
        run(torn, tmp_path / "out", plan, grounder)
    assert (tmp_path / "out" / DETECTIONS).read_bytes() == before


@pytest.mark.parametrize("limit", [100, 8_000, 20_000])
def test_a_full_disk(
    bag: Path,
    tmp_path: Path,
    plan: ReplayPlan,
    grounder: Grounder,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
) -> None:
    """The kernel refuses a write, as on a full disk: of the first file, in the middle of the journal, of the
    report. The sentence names the file, no result is half there, and with room again the run goes on to the
    same bytes."""
    monkeypatch.setattr("groma_ros.journal.SAVE_SECONDS", 0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=r"could not be written: the file passes the size limit"):
            run(bag, tmp_path / "out", plan, grounder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {JOURNAL}
    run(bag, tmp_path / "out", plan, grounder)
    run(bag, tmp_path / "whole", plan, grounder)
    for name in SAME:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
