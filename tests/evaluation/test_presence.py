"""Presence metrics against values by hand, and the commands on rendered scenes with the shipped model."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from groma_ros.evaluation.calibrate import (
    calibrate,
    default_precision,
    equal_weights,
    fit_presence,
    write_calibration,
)
from groma_ros.evaluation.observations import Observations
from groma_ros.evaluation.plots import Panel, reliability_svg
from groma_ros.evaluation.presence import cross_fitted, report, table
from groma_ros.evaluation.statistics import calibration_error, reliability
from groma_ros.grounding.calibration import Calibration
from groma_ros.runtime.bundle import Bundle
from groma_ros.simulation.dataset import Settings, load_dataset, write_dataset
from tests.simulators import need_simulators
from tests.small import write_small_bundle

TINY = Path(__file__).parents[2] / "engines" / "groma-tiny"
SVG = "{http://www.w3.org/2000/svg}"


def observed(
    odds: NDArray[Any], present: NDArray[Any], picked: list[list[tuple[float, bool]]] | None = None
) -> Observations:
    """Goals of scenes of five goals each, with these log-odds of being there."""
    count = len(odds)
    return Observations(
        np.arange(count) // 5,
        np.zeros(count, int),
        ["attribute" if there else "absent" for there in present],
        np.asarray(present, bool),
        np.zeros(count, bool),
        [{"stop": -float(value), "margin": float(value)} for value in odds],
        picked or [[(0.9, bool(there))] for there in present],
        np.asarray(present, bool),
        "onnx",
        "fp32",
    )


def drawn(scale: float, bias: float, count: int = 4000) -> Observations:
    """Goals whose truth is drawn from scale * log-odds + bias."""
    rng = np.random.default_rng(3)
    odds = rng.normal(1, 3, count)
    return observed(odds, rng.random(count) < 1 / (1 + np.exp(-(scale * odds + bias))))


def test_figures_by_hand() -> None:
    odds = np.log([9.0, 4.0, 1 / 9, 4.0, 1 / 4])
    seen = observed(odds, np.array([True, True, True, False, False]))
    said = seen.presence(Calibration())
    np.testing.assert_allclose(said, [0.9, 0.8, 0.1, 0.8, 0.2])
    found = report(seen, said, Calibration(), 0.5)
    assert found["accuracy"] == {"all": 0.6, "present": 0.6667, "absent": 0.5, "absent_hard": None}
    assert found["answers"] == {"attribute": 0.6667, "absent": 0.5, "all": 0.6}
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.81 + 0.64 + 0.04) / 5, abs=1e-4)
    # Pairs of a present and an absent goal in order: 0.9 beats both, 0.8 beats one and ties one, 0.1 beats
    # none.
    assert found["ranking"] == pytest.approx((2 + 1.5 + 0) / 6, abs=1e-4)
    assert found["absent_at_recall"]["0.9"] == {"absent": 0.0, "absent_hard": None, "threshold": 0.1}
    # Three goals stand; of their boxes, each with the score 0.9, two are right.
    assert found["scores"]["boxes"] == 3
    assert found["scores"]["calibration_error"] == pytest.approx(0.9 - 2 / 3, abs=1e-4)
    assert found["scores"]["brier"] == pytest.approx((0.01 * 2 + 0.81) / 3, abs=1e-4)
    assert "absent at recall 0.95" in table(
        {**found, "model": "m", "backend": "b", "precision": "p", "signals": []}
    )


def test_calibration_recovers_known_parameters() -> None:
    seen = drawn(0.5, -1.0)
    new, fits = calibrate(seen, Calibration())
    assert new.presence_scale == pytest.approx(0.5, abs=0.05) and new.presence_bias == pytest.approx(
        -1.0, abs=0.1
    )
    assert not fits["presence"].kept
    assert fits["presence"].after.error < 0.03 < fits["presence"].before.error
    # The report is measured on held-out scenes; on all of them it is the same within chance.
    assert calibration_error(seen.presence(new), seen.present) == pytest.approx(
        fits["presence"].after.error, abs=0.02
    )


def test_what_is_right_already_is_kept() -> None:
    new, fits = calibrate(drawn(1.0, 0.0), Calibration())
    assert fits["presence"].kept and new.presence_scale == 1.0 and new.presence_bias == 0.0


def test_sources_weigh_the_same_whatever_their_size() -> None:
    np.testing.assert_allclose(equal_weights(np.array([0, 0, 0, 1])), [2 / 3, 2 / 3, 2 / 3, 2])
    assert equal_weights(np.zeros(0, int)).shape == (0,)
    # Two worlds in which the model is too sure and too unsure; the second has a fifth of the goals.
    first, second = drawn(1.0, -1.5, 4000), drawn(1.0, 1.5, 800)
    joined = dataclasses.replace(
        observed(
            np.array([-item["stop"] for item in (*first.signals, *second.signals)]),
            np.concatenate([first.present, second.present]),
        ),
        source=np.repeat([0, 1], [4000, 800]),
    )
    new, fits = calibrate(joined, Calibration())
    # Between the lines of both, not at the line of the larger one.
    assert abs(fit_presence(joined, Calibration()).presence_bias) < 0.2
    alone = dataclasses.replace(joined, source=np.zeros(4800, int))
    assert fit_presence(alone, Calibration()).presence_bias < -0.7
    for (before, after), part in zip(fits["presence"].sources, (first, second), strict=True):
        said = part.presence(Calibration()) >= 0.5
        assert before.error == pytest.approx(calibration_error(part.presence(Calibration()), part.present))
        assert before.true == pytest.approx(said[part.present].mean())
        assert before.false == pytest.approx((~said)[~part.present].mean())
        # One line cannot change the ranking within a source, whatever part of the scenes it was fitted on.
        assert after.ranking == pytest.approx(before.ranking, abs=0.005)
    errors = [before.error for before, _ in fits["presence"].sources]
    assert fits["presence"].before.error < np.mean(errors), "the two are wrong in opposite directions"
    assert new.presence_scale != 1.0 or fits["presence"].kept


def test_scores_are_fitted_on_the_boxes_of_goals_that_stand() -> None:
    rng = np.random.default_rng(8)
    chances = rng.uniform(0.5, 1, 3000)
    right = rng.random(3000) < chances**3
    # Boxes of goals reported absent are all wrong and must not count.
    picked = [[(float(chance), bool(hit))] for chance, hit in zip(chances, right, strict=True)] + [
        [(0.99, False)]
    ] * 600
    odds = np.concatenate([np.full(3000, 5.0), np.full(600, -5.0)])
    seen = observed(odds, odds > 0, picked)
    new, fits = calibrate(seen, Calibration())
    assert not fits["scores"].kept and fits["scores"].count == 3000
    assert fits["scores"].after.error < 0.05 < fits["scores"].before.error
    assert abs(float(new.score(0.8)) - 0.8**3) < 0.06


def test_signals_are_fitted_for_a_model_without_none_training() -> None:
    seen = drawn(0.8, 0.3)
    new = fit_presence(seen, Calibration(answers_none=False, signals={"margin": 0.0}))
    assert new.signals["margin"] == pytest.approx(0.8, abs=0.06) and new.presence_bias == pytest.approx(
        0.3, abs=0.1
    )
    presence = cross_fitted(seen, ["margin"])
    assert calibration_error(presence, seen.present) < 0.03
    assert np.corrcoef(presence, seen.presence(new))[0, 1] > 0.999


def test_model_ranking_absent_goals_higher_is_rejected() -> None:
    with pytest.raises(ValueError, match="surer of goals that are absent"):
        fit_presence(drawn(-1.0, 0.0), Calibration())


def test_manifest_stores_a_calibration_per_precision(tmp_path: Path) -> None:
    bundle = Bundle.load(write_small_bundle(tmp_path / "small"))
    assert default_precision(bundle) == "fp32"
    first = Calibration(presence_scale=2.0, score_bias=1.0)
    bundle = write_calibration(bundle, "fp32", first, "on some")
    bundle = write_calibration(bundle, "q8_0", Calibration(presence_bias=0.5), "on others")
    read = Bundle.load(tmp_path / "small").calibration
    assert Calibration.from_manifest(read, "fp32") == first == Calibration.from_manifest(read, "bf16")
    assert Calibration.from_manifest(read, "q8_0") == Calibration(presence_bias=0.5)
    assert read["fitted"] == "on some" and read["precisions"]["q8_0"]["fitted"] == "on others"
    again = write_calibration(bundle, "fp32", Calibration(), "anew")
    assert Calibration.from_manifest(again.calibration, "q8_0") == Calibration(presence_bias=0.5)
    assert Calibration.from_manifest(again.calibration) == Calibration()


def test_plot_has_a_marker_for_every_bin() -> None:
    bins = reliability(np.array([0.1, 0.15, 0.5, 0.95]), np.array([False, True, True, True]), 10)
    panels = [Panel("presence <1>", bins, "stated", "happened")]
    svg = reliability_svg(panels)
    assert svg == reliability_svg(panels), "the same bytes each time"
    root = ElementTree.fromstring(svg)
    groups = {group.get("id", ""): group for group in root.iter(f"{SVG}g")}
    markers = list(groups["reliability-0"].iter(f"{SVG}use"))
    assert len(markers) == len(bins) == 3 == sum(name.startswith("count-0-") for name in groups)
    across = [float(marker.get("x", "nan")) for marker in markers]
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(
        (0.5 - 0.125) / (0.95 - 0.125), abs=1e-4
    )
    assert {"presence <1>", "stated", "happened", "count"} <= {text.text for text in root.iter(f"{SVG}text")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen scenes in the form of docs/scenes.md."""
    out = tmp_path_factory.mktemp("scenes") / "data"
    write_dataset(out, 16, Settings(41, 320, 240), progress=False)
    return out


def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> dict[str, Any]:
    from groma_ros.cli import main

    monkeypatch.setattr("sys.argv", ["groma", *arguments, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    document: dict[str, Any] = json.loads(captured.out)
    return document


def test_presence_of_the_model_that_ships(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plot = tmp_path / "reliability.svg"
    common = ("eval", "presence", "--model", str(TINY), "--data", str(folder), "--threads", "1")
    found = command(capsys, monkeypatch, *common, "--out", str(tmp_path / "run"), "--plot", str(plot))
    assert found["scenes"] == 16 and found["goals"] > 80 and found["absent"] == 16
    assert found["accuracy"]["all"] >= 0.9 and found["ranking"] >= 0.95 and found["calibration_error"] <= 0.06
    assert (
        ElementTree.parse(plot).getroot().tag == f"{SVG}svg"
        and json.loads((tmp_path / "run" / "report.json").read_text()) == found
    )
    # The records exist, so nothing runs the second time; another threshold reads the same answers
    # differently.
    eager = command(capsys, monkeypatch, *common, "--out", str(tmp_path / "run"), "--min-presence", "0")
    assert eager["accuracy"]["present"] == 1.0 and eager["accuracy"]["absent"] == 0.0
    ignored = command(capsys, monkeypatch, *common, "--signals", "confidence,margin,contrast")
    assert ignored["ranking"] > 0.6 and ignored["signals"] == ["confidence", "margin", "contrast"]


def test_calibrate_writes_the_manifest_of_the_precision_that_ran(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "tiny"
    shutil.copytree(TINY, model)
    before = (model / "manifest.json").read_bytes()
    common = ("calibrate", str(folder), "--model", str(model), "--threads", "1")
    # For a model that was never trained to answer "none", this fit is far better than presence 1 for
    # everything, so it is kept.
    found = command(capsys, monkeypatch, *common, "--signals", "confidence,margin,height", "--dry-run")
    assert (model / "manifest.json").read_bytes() == before and not found["written"]
    found = command(capsys, monkeypatch, *common, "--signals", "confidence,margin,height")
    assert found["written"] and found["presence"]["after"]["error"] < found["presence"]["before"]["error"]
    calibration = Calibration.from_manifest(Bundle.load(model).calibration, found["precision"])
    assert not calibration.answers_none and set(calibration.signals) == {"confidence", "margin", "height"}
    assert "16 scenes" in json.dumps(Bundle.load(model).calibration)
    # The written bundle runs, and records what it was fitted on.
    again = ("eval", "presence", "--model", str(model), "--data", str(folder), "--threads", "1")
    after = command(capsys, monkeypatch, *again)
    assert after["calibration_error"] < 0.08 and after["ranking"] > 0.9


def test_calibrate_on_several_sources(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folders and two worlds, one of them of another simulator."""
    need_simulators()
    model = tmp_path / "tiny"
    shutil.copytree(TINY, model)
    other = tmp_path / "others" / folder.name
    write_dataset(other, 6, Settings(43, 320, 240, world="shelf"), progress=False)
    worlds = ("--seed", "44", "--count", "4", "--world", "table,miniworld", "--out", str(tmp_path / "run"))
    common = ("calibrate", str(folder), str(other), "--model", str(model), "--threads", "1", *worlds)
    found = command(capsys, monkeypatch, *common)
    rows = found["sources"]
    assert [row["name"] for row in rows] == ["data 1", "data 2", "table", "miniworld"]
    assert [row["scenes"] for row in rows] == [16, 6, 4, 4]
    assert sum(row["goals"] for row in rows) == found["goals"]
    assert sum(row["absent"] for row in rows) == found["absent"]
    alone = command(capsys, monkeypatch, "eval", "presence", "--model", str(TINY), "--data", str(folder))
    first = rows[0]["presence"]["before"]
    assert first["true"] == alone["accuracy"]["present"] and first["ranking"] == alone["ranking"]
    assert first["error"] == alone["calibration_error"] and first["false"] == alone["accuracy"]["absent"]
    fitted = Bundle.load(model).calibration["fitted"]
    for said in ("data 1: ", "scene seeds 41000000 to 41000015", "miniworld: seed 44, count 4"):
        assert said in fitted
    assert str(tmp_path) not in fitted
    how = (
        "(kept as it was)"
        if found["presence"]["kept"]
        else f"before, {found['presence']['after']['error']} after"
    )
    assert f"error of presence {found['presence']['before']['error']} {how}, of scores" in fitted
    assert len(load_dataset(tmp_path / "run" / "miniworld-scenes-44")) == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Give --seed (with --count and --world)"),
        (
            ("--seed", "1", "--world", "table,attic"),
            "There is no world 'attic'; the worlds are mixed, table,",
        ),
        (("--seed", "1", "--world", ","), "--world names no world"),
        (("FOLDER", "--truth", "truth.json"), "--truth names the truth file of one bag, not of 0"),
    ],
)
def test_sources_that_cannot_be_used_are_a_sentence(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    sentence: str,
) -> None:
    from groma_ros.cli import main

    given = [str(folder) if word == "FOLDER" else word for word in options]
    monkeypatch.setattr("sys.argv", ["groma", "calibrate", "--model", str(TINY), "--dry-run", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and sentence in capsys.readouterr().err


def test_scenes_are_rendered_in_the_world_that_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = (
        "eval",
        "presence",
        "--model",
        str(TINY),
        "--seed",
        "5",
        "--count",
        "3",
        "--threads",
        "1",
        "--world",
    )
    table, shelf = (command(capsys, monkeypatch, *common, world) for world in ("table", "shelf"))
    assert (table["world"], shelf["world"]) == ("table", "shelf") and table["scores"]["boxes"] != shelf[
        "scores"
    ]["boxes"]


def test_too_few_goals_say_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from groma_ros.cli import main

    monkeypatch.setattr("groma_ros.commands.calibrate.FEWEST", 10_000)
    monkeypatch.setattr(
        "sys.argv", ["groma", "calibrate", str(folder), "--model", str(TINY), "--threads", "1", "--dry-run"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert (
        ended.value.code == 1
        and "a line through fewer than 10000 would say nothing" in capsys.readouterr().err
    )
