"""From clicks to weights: frames are corrected on the page, replayed against and trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from groma_ros.boxes import box_iou
from groma_ros.cli import main
from groma_ros.training.data_files import open_file
from tests.live.conftest import BAG, ROOT, TINY, Serve
from tests.training.test_training import CONFIG

FRAMES = 20
CONE = "the purple cone"
STAGE = {"steps": 2, "batch": 2, "rate": 1e-3, "warmup": 1}


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit status of `groma`."""
    monkeypatch.setattr("sys.argv", ["groma", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_twenty_corrected_frames_are_truth_and_training_data(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads((ROOT / "demo" / "truth.json").read_text())
    right = {frame["stamp"]: np.array(frame["boxes"]) for frame in truth["frames"]}
    goals = [goal for goal in truth["goals"] if goal["targets"]][:3]
    texts = [goal["text"] for goal in goals]
    corrected = 0
    with serve(BAG, *texts, CONE).page() as page:
        page.do("pause")
        for _ in range(FRAMES):
            before = (page.next()["frame"] or {}).get("number", 0)
            page.do("step")
            state = page.until(
                lambda state, before=before: (  # type: ignore[misc]
                    state["frame"]
                    and state["frame"]["number"] > before
                    and all(goal["status"] != "pending" for goal in state["goals"])
                    and state["frame"]["age"] == 0
                )
            )
            number, objects = state["frame"]["number"], right[int(state["frame"]["stamp"])]
            assert page.do("label", goal=CONE, boxes=[], frame=number).get("error") is None
            for goal, answer in zip(goals, state["goals"]):
                wanted = objects[goal["targets"]].tolist()
                found = [item["box"] for item in answer["detections"]]
                good = len(found) == len(wanted) and all(
                    box_iou(np.array([box], np.float32), np.array(found, np.float32)).max() > 0.5
                    for box in wanted
                )
                corrected += not good
                boxes = found if good else wanted  # confirmed or corrected
                assert page.do("label", goal=goal["text"], boxes=boxes, frame=number).get("error") is None
        counts = page.next()["labels"]
    assert counts == {"frames": FRAMES, "goals": FRAMES * 4, "absent": FRAMES}
    labels = tmp_path / "out" / "labels" / "annotations.json"

    # As truth: what the labels confirm is right, on as many frames as were labelled.
    (tmp_path / "goals.yaml").write_text(yaml.safe_dump({"goals": [*texts, CONE]}))
    replayed = ("replay", str(BAG), "--goals", str(tmp_path / "goals.yaml"), "--truth", str(labels))
    options = (
        "--model",
        str(TINY),
        "--backend",
        "onnx",
        "--every",
        "4",
        "--out",
        str(tmp_path / "replay"),
        "--json",
    )
    capsys.readouterr()
    assert run(monkeypatch, *replayed, *options) == 0
    (bag,) = json.loads(capsys.readouterr().out)["bags"]
    assert bag["accuracy"] > 1 - (corrected + 4) / (FRAMES * 4)
    assert {goal["goal"] for goal in bag["goals"] if goal["accuracy"] is not None} == {*texts, CONE}

    # As training data.
    absent = open_file(labels).sample(0).draw(np.random.default_rng(0), 9, "absent")
    assert [goal.text for goal in absent] == [CONE]
    share = {"one": 2, "all": 1, "absent": 1, "describe": 1}
    config = {
        "detection": {**STAGE, "size": 112},
        **{name: {**STAGE, "share": share} for name in ("alignment", "language")},
        "network": CONFIG.network.to_dict(),
        "workers": 1,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    trained = ("train", "--config", str(tmp_path / "tiny.yaml"), "--data", str(labels))
    folders = ("--out", str(tmp_path / "run"), "--bundle", str(tmp_path / "bundle"))
    assert run(monkeypatch, *trained, *folders) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert f"{FRAMES} pictures of annotations" in manifest["trained_on"]
