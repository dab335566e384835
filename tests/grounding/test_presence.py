"""Logits to probabilities."""

import numpy as np
import pytest

from groma_ros.grounding.answers import RegionTokens
from groma_ros.grounding.presence import Calibration


def test_probabilities_are_a_softmax_over_what_is_allowed() -> None:
    chances = Calibration().probabilities(np.array([0.0, np.log(3), -np.inf], np.float32))
    np.testing.assert_allclose(chances, [0.25, 0.75, 0], atol=1e-7)


def test_temperature_flattens() -> None:
    chances = Calibration(temperature=2.0).probabilities(np.array([0.0, np.log(9)], np.float32))
    np.testing.assert_allclose(chances, [0.25, 0.75], atol=1e-7)


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(Calibration().probabilities(np.array([3e4, 3e4, -3e4], np.float32)), [0.5, 0.5, 0])


@pytest.mark.parametrize("stop", [0.01, 0.5, 0.93])
def test_presence_is_what_the_stop_leaves(stop: float) -> None:
    assert Calibration().presence(stop) == pytest.approx(1 - stop)


def test_presence_follows_platts_line() -> None:
    # Log-odds of presence 0.8 are log 4; twice that plus log 2 is log 32.
    assert Calibration(presence_scale=2.0, presence_bias=float(np.log(2))).presence(0.2) == pytest.approx(32 / 33)


@pytest.mark.parametrize("stop", [0.0, 1.0])
def test_presence_of_a_certain_model_is_finite(stop: float) -> None:
    assert Calibration().presence(stop) == pytest.approx(1 - stop, abs=1e-9)


def test_a_model_never_taught_none_says_nothing_about_presence() -> None:
    assert Calibration(answers_none=False).presence(0.99) == 1.0


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        Calibration(temperature=-1)
    with pytest.raises(ValueError, match="unknown key 'heat'"):
        Calibration.from_manifest({"heat": 1})
    assert Calibration.from_manifest({"temperature": 2.0, "answers_none": False}) == Calibration(2.0, answers_none=False)


def test_choices_are_the_regions_then_the_stop() -> None:
    logits = np.arange(20, dtype=np.float32)
    assert RegionTokens(first=12, count=3, stop=7).choices(logits).tolist() == [12, 13, 14, 7]
