"""Several processes, stored records and resumed runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.evaluation.workers import (
    EvaluationPlan,
    ModelChoice,
    _on_device,
    run_evaluation,
)
from groma_ros.grounding.calibration import Calibration
from groma_ros.journal import RECORDS, Journal
from groma_ros.runtime.options import RuntimeOptions
from tests.evaluation.killed import squares
from tests.evaluation.work import run_away, square

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"


def values(records: list[dict[str, Any]]) -> list[int]:
    return [record["square"] for record in records]


@pytest.fixture(scope="module")
def choice() -> ModelChoice:
    return ModelChoice(TINY, RuntimeOptions(threads=1))


def test_one_process_and_two_give_the_same_in_the_order_of_the_items(choice: ModelChoice) -> None:
    alone = run_evaluation(square, [3, 1, 2, 5], "item", choice, EvaluationPlan(), {})
    spread = run_evaluation(
        square, [3, 1, 2, 5], "item", choice, EvaluationPlan(jobs=2, devices=("cpu",)), {}
    )
    assert values(alone) == values(spread) == [9, 1, 4, 25]
    assert {record["process"] for record in alone} == {os.getpid()}
    assert os.getpid() not in {record["process"] for record in spread}
    assert all(record["wordings"] == 1 for record in spread)


def test_a_stopped_run_goes_on(choice: ModelChoice, tmp_path: Path) -> None:
    plan = EvaluationPlan(out=tmp_path / "run")
    with pytest.raises(ValueError, match="below zero"):
        run_evaluation(square, [1, 2, -1], "item", choice, plan, {"data": 1})
    path = tmp_path / "run" / RECORDS
    assert len(path.read_bytes().splitlines()) == 2
    # The last line was cut off by the interruption: its item is done again, the first one is not.
    path.write_bytes(path.read_bytes()[:-5])
    kept = json.loads(path.read_bytes().splitlines()[0])
    path.write_bytes(path.read_bytes().replace(b'"square": 1,', b'"square": 100,'))
    assert kept["item"] == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    with Journal(tmp_path / "run", settings) as journal:
        assert [entry["item"] for entry in journal.read()] == [0]
    # Without the offending item it is another run, which this folder refuses.
    with pytest.raises(ValueError, match=r"holds another run \(other data, model or options\)"):
        run_evaluation(square, [1, 2], "item", choice, plan, {"data": 1})


def test_what_is_done_is_not_done_again(choice: ModelChoice, tmp_path: Path) -> None:
    plan = EvaluationPlan(out=tmp_path)
    first = run_evaluation(square, [4, 5], "item", choice, plan, {"data": 2})
    (tmp_path / RECORDS).write_text((tmp_path / RECORDS).read_text().replace('"square": 16', '"square": 160'))
    assert values(run_evaluation(square, [4, 5], "item", choice, plan, {"data": 2})) == [160, 25]
    assert values(first) == [16, 25]


def test_folder_of_another_run_is_rejected(choice: ModelChoice, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("not a run's")
    with pytest.raises(ValueError, match="holds another run"):
        run_evaluation(square, [1], "item", choice, EvaluationPlan(out=tmp_path), {})


def test_an_error_of_a_process_is_the_error_of_the_run(choice: ModelChoice) -> None:
    with pytest.raises(ValueError, match="below zero"):
        run_evaluation(square, [1, -1], "item", choice, EvaluationPlan(jobs=2), {})


def test_a_model_that_a_process_cannot_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not exist; name a folder with a manifest.json"):
        run_evaluation(square, [1, 2], "item", ModelChoice(tmp_path / "none"), EvaluationPlan(jobs=2), {})


def test_a_process_that_dies_is_a_sentence(choice: ModelChoice) -> None:
    with pytest.raises(RuntimeError, match="A worker process ended before its work was done .exit status 9."):
        run_evaluation(run_away, [1, 2], "item", choice, EvaluationPlan(jobs=2), {})


def test_no_process_is_refused(choice: ModelChoice) -> None:
    with pytest.raises(ValueError, match="--jobs is 0"):
        run_evaluation(square, [1], "item", choice, EvaluationPlan(jobs=0), {})


def test_devices(choice: ModelChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _on_device(choice, None) is choice
    assert _on_device(choice, "cpu").options.device == "cpu"
    assert _on_device(choice, "cuda:3").options.device == "cuda" and os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    with pytest.raises(ValueError, match=r"no device 'gpu1'; name cpu, cuda"):
        _on_device(choice, "gpu1")


def test_the_resize_of_the_originals_evaluation_is_for_its_weights(small_model: Path, tmp_path: Path) -> None:
    from groma_ros.preprocessing import ImageTransform
    from groma_ros.runtime.bundle import Bundle
    from tests.published import SMALL
    from tests.small import TEMPLATE

    assert ModelChoice(small_model, resize="published").bundle().image.resize == "area"
    assert ModelChoice(small_model, resize="bicubic").bundle().image.resize == "bicubic"
    published = Bundle(
        tmp_path, "published", SMALL.to_dict(), ImageTransform(SMALL.image_size, "area"), TEMPLATE.to_dict()
    )
    published.write_manifest({})
    assert ModelChoice(tmp_path, resize="published").bundle().image.resize == "bilinear"
    assert ModelChoice(tmp_path, resize="demo").bundle().image.resize == "bicubic"
    with pytest.raises(
        ValueError, match=r"The resize 'nearest' is unknown; use one of own, published, demo, bilinear"
    ):
        ModelChoice(small_model, resize="nearest").bundle()


def test_a_calibration_given_replaces_the_manifests(choice: ModelChoice) -> None:
    import dataclasses

    wanted = Calibration(presence_bias=2.0)
    assert dataclasses.replace(choice, calibration=wanted).load()._calibration == wanted


def alive(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    state = Path(f"/proc/{process}/stat")
    return state.is_file() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.05)


def test_a_killed_run_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    count = 12
    command = [sys.executable, "-m", "tests.evaluation.killed", str(TINY), str(tmp_path), str(count)]
    records = tmp_path / RECORDS
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: records.is_file() and records.read_bytes().count(b"\n") >= 2, "a second record")
        finally:
            process.kill()
    before = [
        json.loads(line) for line in records.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
    ]
    assert 2 <= len(before) < count
    workers = {entry["record"]["process"] for entry in before}
    wait_for(lambda: not any(alive(worker) for worker in workers), "the end of the workers")
    found = squares(TINY, tmp_path, count)
    assert values(found) == [number**2 for number in range(count)]
    for entry in before:
        assert found[entry["item"]] == entry["record"], "a record was made again"
