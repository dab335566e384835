"""The published layout and prompts with random weights: the original's queries, and presence from signals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groma_ros.evaluation import chat
from groma_ros.grounding.calibration import SIGNALS, Calibration
from groma_ros.runtime.bundle import Bundle
from tests.evaluation.published_forms import write_refer


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle made of a small checkpoint as the original writes it; PyTorch runs it, which spares making
    graphs."""
    from groma_ros.export.convert import _from_checkpoint
    from tests.published import SMALL, make_checkpoint

    folder = tmp_path_factory.mktemp("published")
    make_checkpoint(SMALL, folder / "checkpoint", seed=4)
    bundle, _ = _from_checkpoint(folder / "checkpoint", folder / "bundle", keep=True, strict=False)
    bundle.write_manifest(bundle.files)
    return bundle.directory


def test_referring_expressions_are_asked_bilinearly_in_all_wordings(
    published: Path, scenes: Path, command: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = write_refer(scenes, tmp_path / "refcoco")
    common = (
        "eval",
        "rec",
        "--model",
        published,
        "--images",
        scenes / "images",
        "--data",
        data,
        "--threads",
        1,
    )
    found = command(*common)
    assert found["resize"] == "bilinear"
    # Random weights are right only by chance, but each expression must be answered by one region.
    assert sum(split["expressions"] for split in found["splits"].values()) > 10
    assert all(0 <= split["accuracy"]["measured"] < 100 for split in found["splits"].values())


def test_its_presence_is_certain_until_signals_are_fitted(
    published: Path, scenes: Path, command: Callable[..., dict[str, Any]]
) -> None:
    assert Bundle.load(published).calibration == {"answers_none": False}
    common = ("--model", published, "--threads", 1)
    before = command("eval", "presence", *common, "--data", scenes)
    assert before["accuracy"]["present"] == 1.0 and before["accuracy"]["absent"] == 0.0
    found = command("calibrate", scenes, *common)
    calibration = Calibration.from_manifest(Bundle.load(published).calibration)
    # Every signal was read, the probe of its chat included; presence 1 for everything is worse than what the
    # lines say.
    assert set(calibration.signals) == set(SIGNALS) and not found["presence"]["kept"]
    assert found["presence"]["before"]["error"] == pytest.approx(found["absent"] / found["goals"], abs=1e-3)
    after = command("eval", "presence", *common, "--data", scenes)
    assert after["calibration_error"] < before["calibration_error"]


def test_chat_in_its_two_forms(
    published: Path,
    scenes: Path,
    command: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat, "MAX_TOKENS", 12)
    question = {"question_id": 1, "image": "000000.jpg", "text": "What is on the table?", "category": "conv"}
    (tmp_path / "q.jsonl").write_text(json.dumps(question) + "\n")
    common = (
        "eval",
        "chat",
        "--model",
        published,
        "--images",
        scenes / "images",
        "--data",
        tmp_path / "q.jsonl",
        "--threads",
        1,
    )
    pointing = command(*common, "--out", tmp_path / "pointing")
    plain = command(*common, "--plain", "--out", tmp_path / "plain")
    assert pointing["resize"] == plain["resize"] == "bicubic"
    answers = [json.loads((tmp_path / name / "answers.jsonl").read_text()) for name in ("pointing", "plain")]
    assert [answer["prompt"] for answer in answers] == ["What is on the table?"] * 2
