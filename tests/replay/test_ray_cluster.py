"""Bags on a local Ray cluster: a lost worker loses no bag, an invalid bag is reported and the others
continue."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groma_ros.replay.batch import replay_all
from groma_ros.replay.plan import DETECTIONS, JOURNAL, RECORDING, ModelSettings, ReplayPlan, Task
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.options import RuntimeOptions
from groma_ros.types import Goal
from tests.replay import test_batch
from tests.replay.test_batch import Fatal

GOALS = (Goal("the ball"),)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with one worker, which finds the tests' own modules as this process does."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.cloudpickle.register_pickle_by_value(test_batch)
    context = ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


def test_as_in_one_process(cluster: str, bag: Path, tmp_path: Path) -> None:
    """A bag that is torn between two that are whole."""
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(next(bag.glob("*.mcap")).read_bytes()[:-300])
    bags = {"one": bag, "torn": torn, "two": Path(shutil.copytree(bag, tmp_path / "two"))}
    plan = ReplayPlan(
        GOALS, ModelSettings(shipped_model(), RuntimeOptions(backend="onnx", threads=1)), every=3
    )
    found = [
        replay_all(
            [Task(name, path, tmp_path / where / name, keep=True) for name, path in bags.items()],
            plan,
            ray=address,
        )
        for where, address in (("cluster", cluster), ("here", ""))
    ]
    for outcomes in found:
        assert [(item.name, item.status) for item in outcomes] == [
            ("one", "same"),
            ("torn", "failed"),
            ("two", "same"),
        ]
        assert "torn.mcap is truncated or damaged" in outcomes[1].error
    for name in ("one", "two"):
        for file in (DETECTIONS, RECORDING):
            assert (tmp_path / "cluster" / name / file).read_bytes() == (
                tmp_path / "here" / name / file
            ).read_bytes()
        assert not (tmp_path / "cluster" / name / JOURNAL).exists()


@pytest.mark.parametrize("tries", [1, 2])
def test_a_lost_worker(
    cluster: str, bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    """A worker that is killed is replaced and its bag done; a bag that killed as many as may be is named."""
    monkeypatch.setattr("groma_ros.replay.ray_cluster.TRIES", tries)
    (tmp_path / "deaths").mkdir()
    engine = Fatal(
        shipped_model(), RuntimeOptions(backend="onnx", threads=1), deaths=1, folder=tmp_path / "deaths"
    )
    (outcome,) = replay_all(
        [Task("one", bag, tmp_path / "out")], ReplayPlan(GOALS, engine, every=3), ray=cluster
    )
    if tries == 2:
        assert outcome.status == "same" and (tmp_path / "out" / DETECTIONS).is_file()
    else:
        assert outcome.status == "failed" and outcome.error.startswith(
            f"The bag {bag} ended 1 workers of the cluster: "
        )
    assert len(list((tmp_path / "deaths").iterdir())) == 1


def test_no_package_and_no_cluster(tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ValueError, match=r"--ray needs the Python package ray; install it with .*groma_ros\[ray\]"
    ):
        replay_all(
            [Task("one", bag, tmp_path)], ReplayPlan(GOALS, ModelSettings(shipped_model())), ray="auto"
        )
