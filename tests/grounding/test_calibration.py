"""Conversion of logits to probabilities."""

import json
from typing import Any

import numpy as np
import pytest

from groma_ros.grounding.calibration import Calibration
from groma_ros.grounding.decoding import RegionTokens


def test_probabilities_are_a_softmax_over_what_is_allowed() -> None:
    chances = Calibration().probabilities(np.array([0.0, np.log(3), -np.inf], np.float32))
    np.testing.assert_allclose(chances, [0.25, 0.75, 0], atol=1e-7)


def test_temperature_flattens() -> None:
    chances = Calibration(temperature=2.0).probabilities(np.array([0.0, np.log(9)], np.float32))
    np.testing.assert_allclose(chances, [0.25, 0.75], atol=1e-7)


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(
        Calibration().probabilities(np.array([3e4, 3e4, -3e4], np.float32)), [0.5, 0.5, 0]
    )


@pytest.mark.parametrize("stop", [0.01, 0.5, 0.93])
def test_presence_is_what_the_stop_leaves(stop: float) -> None:
    assert Calibration().presence(stop) == pytest.approx(1 - stop)


def test_presence_follows_platts_line() -> None:
    # Log-odds of presence 0.8 are log 4; twice that plus log 2 is log 32.
    assert Calibration(presence_scale=2.0, presence_bias=float(np.log(2))).presence(0.2) == pytest.approx(
        32 / 33
    )


@pytest.mark.parametrize("stop", [0.0, 1.0])
def test_presence_of_a_certain_model_is_finite(stop: float) -> None:
    assert Calibration().presence(stop) == pytest.approx(1 - stop, abs=1e-9)


def test_model_without_none_training_reports_full_presence() -> None:
    assert Calibration(answers_none=False).presence(0.99) == 1.0


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        Calibration(temperature=-1)
    with pytest.raises(ValueError, match="unknown key 'heat'"):
        Calibration.from_manifest({"heat": 1})
    assert Calibration.from_manifest({"temperature": 2.0, "answers_none": False}) == Calibration(
        2.0, answers_none=False
    )


def test_a_precision_has_its_own_lines_where_the_manifest_gives_them() -> None:
    manifest = {
        "presence_scale": 2.0,
        "fitted": "on scenes",
        "precisions": {"int8": {"presence_bias": 1.0, "fitted": "on others"}},
    }
    assert Calibration.from_manifest(manifest) == Calibration(presence_scale=2.0)
    assert Calibration.from_manifest(manifest, "fp32") == Calibration(presence_scale=2.0)
    assert Calibration.from_manifest(manifest, "int8") == Calibration(presence_scale=2.0, presence_bias=1.0)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(),
        Calibration(presence_scale=0.5, score_bias=-0.25),
        Calibration(1.5, answers_none=False, signals={"margin": 0.5}, null_goals=("stuff",)),
    ],
)
def test_a_calibration_survives_the_manifest(calibration: Calibration) -> None:
    manifest = json.loads(json.dumps(calibration.to_manifest()))
    assert Calibration.from_manifest(manifest) == calibration
    assert (manifest == {}) == (calibration == Calibration())


def test_the_score_follows_platts_line_and_keeps_the_order() -> None:
    line = Calibration(score_scale=2.0, score_bias=float(np.log(2)))
    assert float(line.score(0.8)) == pytest.approx(32 / 33)
    assert (np.diff(line.score(np.linspace(0, 1, 50))) > 0).all()
    np.testing.assert_array_equal(Calibration().score(np.array([0.0, 0.3, 1.0])), [0.0, 0.3, 1.0])


def test_signals_decide_for_a_model_without_none_training() -> None:
    line = Calibration(answers_none=False, presence_bias=1.0, signals={"margin": 2.0})
    assert line.presence(0.99, {"margin": -1.0, "confidence": 9.0}) == pytest.approx(1 / (1 + np.e))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"score_scale": 0.0}, "score_scale is 0.0; it must be above 0"),
        ({"presence_scale": -5}, "presence_scale is -5; it must be above 0, or goals that are there"),
        ({"signals": {"luck": 1.0}}, "unknown signal 'luck'; known are confidence"),
        ({"null_goals": "thing"}, "null_goals are 'thing'; they must be a list"),
        ({"null_goals": ()}, r"null_goals are \(\); they must be a list"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Calibration(**fields)


def test_choices_are_the_regions_then_the_stop() -> None:
    logits = np.arange(20, dtype=np.float32)
    assert RegionTokens(first=12, count=3, stop=7).choices(logits).tolist() == [12, 13, 14, 7]


@pytest.mark.parametrize("own", [[1], {"fp32": [1]}, "fp32"])
def test_values_by_precision_are_mappings(own: object) -> None:
    with pytest.raises(ValueError, match="precisions must be a mapping from precision to a mapping"):
        Calibration.from_manifest({"precisions": own}, "fp32")
