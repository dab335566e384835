"""Bags in worker processes: a dying worker loses no bag, one that always dies is reported, and a stopped
batch resumes."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from groma_ros.grounding.grounder import Grounder
from groma_ros.replay.batch import replay_all
from groma_ros.replay.plan import DETECTIONS, JOURNAL, ModelSettings, ReplayPlan, Task
from groma_ros.replay.run import TRIES
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Goal


@dataclass(frozen=True)
class Fatal(ModelSettings):
    """Kills its process instead of loading, `deaths` times in all; counts them in a folder."""

    deaths: int = 1
    folder: Path = Path()

    def load(self) -> Grounder:
        marks = len(list(self.folder.iterdir()))
        if marks < self.deaths:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load()


@pytest.fixture
def tasks(bag: Path, tmp_path: Path) -> list[Task]:
    return [
        Task(name, Path(shutil.copytree(bag, tmp_path / name)), tmp_path / "out" / name, keep=True)
        for name in ("one", "two")
    ]


def plan(tmp_path: Path, deaths: int) -> ReplayPlan:
    (tmp_path / "deaths").mkdir()
    engine = Fatal(
        shipped_model(), RuntimeOptions(backend="onnx", threads=1), deaths=deaths, folder=tmp_path / "deaths"
    )
    return ReplayPlan((Goal("the ball"),), engine, every=3)


def test_a_process_that_dies_loses_no_bag(tasks: list[Task], tmp_path: Path) -> None:
    outcomes = replay_all(tasks, plan(tmp_path, deaths=1), jobs=2)
    assert [(item.name, item.status) for item in outcomes] == [("one", "same"), ("two", "same")]
    assert len(list((tmp_path / "deaths").iterdir())) == 1
    assert all((task.out / DETECTIONS).is_file() and not (task.out / JOURNAL).exists() for task in tasks)


def test_a_bag_that_ends_every_process_is_named(tasks: list[Task], tmp_path: Path) -> None:
    outcomes = replay_all(tasks, plan(tmp_path, deaths=99), jobs=2)
    assert [item.status for item in outcomes] == ["failed", "failed"]
    assert outcomes[0].error == f"The bag {tasks[0].bag} ended {TRIES} processes, the last one with SIGKILL."
    assert len(list((tmp_path / "deaths").iterdir())) == 2 * TRIES


def test_a_model_that_cannot_be_had_is_one_sentence(tasks: list[Task], tmp_path: Path) -> None:
    lost = ReplayPlan((Goal("the ball"),), ModelSettings(tmp_path / "nowhere"))
    for jobs in (1, 2):
        with pytest.raises(ValueError, match="nowhere does not exist"):
            replay_all(tasks, lost, jobs)


def test_a_stopped_batch_does_nothing_twice(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second bag is interrupted; the rerun asks the model about nothing of the first."""
    quick = replace(
        plan(tmp_path, 0), engine=ModelSettings(shipped_model(), RuntimeOptions(backend="onnx", threads=1))
    )
    looks: list[int] = []
    perceive = Grounder.perceive

    def counted(self: Grounder, frame: object) -> object:
        looks.append(1)
        if len(looks) == 4:
            raise KeyboardInterrupt
        return perceive(self, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(Grounder, "perceive", counted)
    with pytest.raises(KeyboardInterrupt):
        replay_all(tasks, quick)
    assert (tasks[0].out / DETECTIONS).is_file() and not (tasks[1].out / DETECTIONS).exists()
    assert [item.status for item in replay_all(tasks, quick)] == ["same", "same"]
    assert len(looks) == 4 + 2
    assert not any((task.out / JOURNAL).exists() for task in tasks)
